"""Whether a device computes a number format, asked before a model is built, and whether a model
does.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from transformers import PreTrainedModel

from bigner.config.schema import Precision
from bigner.errors import LaunchError, ModelError, one_line
from bigner.strategies.base import DTYPES


def check_precision(precision: Precision, device: torch.device) -> None:
    """Compute one layer's worth in the format, forward and backward.

    Raises:
        LaunchError: the device or this torch cannot; the run is not moved to another format.
    """
    if precision == "fp32":
        return
    if device.type == "cuda":
        _check_cuda(precision, device)
    dtype = DTYPES[precision]
    try:
        values = torch.ones(8, 8, dtype=dtype, device=device, requires_grad=True)
        weight = torch.ones(8, 8, dtype=dtype, device=device)
        out = F.layer_norm(F.gelu(values @ weight), (8,)).softmax(-1)
        torch.autograd.backward(out.sum())
    except RuntimeError as error:
        raise LaunchError(
            f"precision {precision} cannot be computed on {device.type} here ({error}); set "
            f"precision to another format"
        ) from None


def _check_cuda(precision: Precision, device: torch.device) -> None:
    major, minor = torch.cuda.get_device_capability(device)
    # bf16 units came with compute capability 8.0, fp16 ones with 7.0 (fp16 arithmetic with 5.3).
    needed = {"bf16": (8, 0), "fp16": (5, 3)}[precision]
    if (major, minor) < needed:
        name = torch.cuda.get_device_name(device)
        other = "fp16" if precision == "bf16" else "fp32"
        raise LaunchError(
            f"precision {precision} needs a GPU of compute capability {needed[0]}.{needed[1]} or "
            f"more, and {name} has {major}.{minor}; set precision to {other}"
        )


@contextmanager
def computed_in(precision: Precision, model: PreTrainedModel) -> Iterator[None]:
    """Say in a line that a model mixes number formats, which some do that are not of fp32.

    Raises:
        ModelError: it does.
    """
    try:
        yield
    except RuntimeError as error:
        if precision == "fp32" or "dtype" not in str(error):
            raise
        raise ModelError(
            one_line(
                f"{model.config.model_type!r} cannot be computed in {precision}; set precision to "
                f"fp32",
                str(error),
            )
        ) from None


def fp16_is_native(device: torch.device) -> bool:
    """Whether fp16 is computed by hardware made for it, and not slowly through fp32."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (7, 0)
    return bool(torch.ops.mkldnn._is_mkldnn_fp16_supported())


def slow_precision_warning(precision: Precision, device: torch.device) -> str | None:
    """What to tell a user whose hardware computes the asked precision right but slowly."""
    if precision == "fp16" and not fp16_is_native(device):
        return (
            "this processor has no fp16 units: fp16 is computed exactly, but many times slower "
            "than bf16 or fp32"
        )
    return None
