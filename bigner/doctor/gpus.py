"""torch's build and the GPUs it sees."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch

from bigner.doctor.findings import Finding, gib, ok

_DRIVER = Path("/proc/driver/nvidia/gpus")


def look() -> Iterator[Finding]:
    """The build, then each GPU."""
    visible = torch.cuda.device_count() if torch.cuda.is_available() else 0
    attached = len(list(_DRIVER.iterdir())) if _DRIVER.is_dir() else 0
    yield build(torch.__version__, torch.version.cuda, visible, attached)
    for number in range(visible):
        properties = torch.cuda.get_device_properties(number)
        capability = (properties.major, properties.minor)
        yield gpu(number, properties.name, properties.total_memory, capability)


def build(version: str, cuda: str | None, visible: int, attached: int) -> Finding:
    """What torch was built for, and whether it sees what is there.

    Args:
        version: of torch.
        cuda: of the CUDA it was built with; None for a build for processors.
        visible: GPUs that torch sees.
        attached: GPUs that the driver has.
    """
    found = f"for CUDA {cuda}" if cuda else "for processors"
    if visible:
        return ok("torch build", f"{found}, sees {visible} GPU{'s' * (visible > 1)}")
    if not attached and cuda is None:
        return Finding(
            "torch build",
            "warning",
            f"{found}, and this machine has no GPU that its driver knows",
            "large encoders take many times as long as on a GPU",
            "a machine with GPUs; `bigner plan` tells which would do",
        )
    costs = "runs compute on processors, many times slower"
    if cuda is None:
        return Finding(
            "torch build",
            "warning",
            f"{found}, on a machine with {attached} GPU{'s' * (attached > 1)}",
            costs,
            f"pip install 'torch=={version.partition('+')[0]}' from the index of CUDA builds",
        )
    return Finding(
        "torch build",
        "warning",
        f"{found}, and sees none of {attached} GPUs" if attached else f"{found}, and sees no GPU",
        costs,
        f"a driver for CUDA {cuda} (nvidia-smi shows which it is for), CUDA_VISIBLE_DEVICES unset; "
        f"docker run --gpus all",
    )


def gpu(number: int, name: str, memory: int, capability: tuple[int, int]) -> Finding:
    """One GPU."""
    subject = f"GPU {number}"
    found = f"{name}, {gib(memory)}, compute capability {capability[0]}.{capability[1]}"
    if capability >= (8, 0):
        return ok(subject, found)
    lacks = "bf16 units and no flash attention for packed windows"
    if capability < (7, 0):
        lacks = f"fp16 units, no {lacks}"
    return Finding(
        subject,
        "warning",
        found,
        f"no {lacks}: runs are slower",
        "a GPU of compute capability 8.0 or more (A100, L4, H100)",
    )
