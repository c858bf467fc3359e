"""Sequences of a micro-batch laid end to end, with attention kept inside each of them.

A padded batch computes its padding: every linear layer, norm and dropout goes over it. Here the
pieces of all windows follow one another in a single row, position ids begin anew in each window,
and attention alone is told where one window ends. Logits are those of the padded batch to rounding.

On a GPU that has a kernel for sequences of any length, attention is one call of it. Elsewhere the
windows are put into buckets of similar length, and padded within a bucket for as long as attention
takes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import nn
from transformers import AttentionInterface, PreTrainedModel
from transformers.masking_utils import AttentionMaskInterface

from bigner.data.arrays import Ints, ranges
from bigner.dropout import dropped

PACKED_FAMILIES = frozenset(
    {"bert", "camembert", "electra", "modernbert", "roberta", "xlm-roberta", "xlm-roberta-xl"}
)
"""Model types whose packed logits were compared with the padded ones (``test_packing.py``).

Others may take the arguments and not heed them, so they are padded."""

# Windows share a bucket down to this share of its longest one: fewer buckets mean fewer calls,
# narrower ones less padding.
_BUCKET_SHARE = 0.75

_IMPLEMENTATION = "bigner_packed"
_ON_GPUS = "bigner_packed_on_gpus"


@dataclass(frozen=True, slots=True)
class Packing:
    """That a model's windows are packed, and how."""

    first_position: int
    """Position id of a window's first piece; RoBERTa's kind counts from behind the padding id."""


def pack_attention(model: PreTrainedModel, wanted: bool) -> Packing | None:
    """Let a model attend within packed windows, if that is wanted and its family is known to."""
    if not wanted or not can_pack(model):
        return None
    model.set_attn_implementation(_IMPLEMENTATION)
    table = getattr(getattr(model.base_model, "embeddings", None), "position_embeddings", None)
    unused = getattr(table, "padding_idx", None)
    return Packing(first_position=0 if unused is None else unused + 1)


def attend_as_on_gpus(model: PreTrainedModel) -> None:
    """Let a model of fake tensors attend with the GPUs' kernel, wherever those claim to be."""
    model.set_attn_implementation(_ON_GPUS)


def can_pack(model: PreTrainedModel) -> bool:
    """Whether a model's packed logits are known to be its padded ones."""
    return model.config.model_type in PACKED_FAMILIES


def padding_note(model: PreTrainedModel, wanted: bool) -> str | None:
    """What to tell where windows are padded although they should be packed."""
    if not wanted or can_pack(model):
        return None
    return (
        f"windows are padded: {model.config.model_type!r} is none of the families that are known "
        f"to compute packed ones ({', '.join(sorted(PACKED_FAMILIES))})"
    )


def to_device(values: npt.NDArray[Any] | torch.Tensor, device: torch.device) -> torch.Tensor:
    """Host values on a device, without waiting for what that has still to compute."""
    tensor = torch.as_tensor(values)
    if device.type != "cuda":
        return tensor.to(device)
    # A thread begins on the first GPU, whatever its rank's is.
    with torch.cuda.device(device):
        return tensor.pin_memory().to(device, non_blocking=True)


@dataclass(frozen=True, slots=True)
class Bucket:
    """Windows that follow one another and are padded to the longest of them within attention."""

    start: int
    """Place of its first piece."""
    stop: int
    rows: int
    longest: int
    padded: torch.Tensor | None
    """``[rows * longest]``, for each place of the padded rows the piece, counted from ``start``,
    that stands there; None if all are equally long and nothing is padded."""
    real: torch.Tensor | None
    """``[stop - start]``, for each piece its place in the padded rows."""
    attended: torch.Tensor | None
    """``[rows, 1, 1 or longest, longest]``, which keys each query sees; None for all."""


class PackedWindows:
    """Where the windows of a packed batch begin and end.

    No dataclass: FSDP2 takes those among the arguments of each layer apart and makes them anew, and
    what is worked out once for all layers would be lost.

    Args:
        lengths: pieces of each window, longest first.
        device: of the batch.
    """

    def __init__(self, lengths: Ints, device: torch.device) -> None:
        self.lengths = lengths
        self.device = device
        self.longest = int(lengths[0])
        """Pieces of the longest window."""
        self._boundaries: torch.Tensor | None = None
        self._buckets: dict[int | None, list[Bucket]] = {}

    def position_ids(self, first_position: int) -> torch.Tensor:
        """``[1, pieces]``, begun anew in each window; on the host."""
        first = np.full(len(self.lengths), first_position)
        return torch.from_numpy(ranges(first, self.lengths)).unsqueeze(0)

    def boundaries(self) -> torch.Tensor:
        """``[windows + 1]``, int32: where each window begins, and the end of the last."""
        if self._boundaries is None:
            edges = np.concatenate([[0], np.cumsum(self.lengths)]).astype(np.int32)
            self._boundaries = to_device(edges, self.device)
        return self._boundaries

    def buckets(self, reach: int | None) -> list[Bucket]:
        """The windows by length; worked out once for all layers.

        Args:
            reach: how far a piece sees on each side; None for the whole window.
        """
        if reach not in self._buckets:
            self._buckets[reach] = [
                self._bucket(first, last, reach) for first, last in self._cut_by_length()
            ]
        return self._buckets[reach]

    def _cut_by_length(self) -> Iterator[tuple[int, int]]:
        first = 0
        while first < len(self.lengths):
            # Lengths fall, so those that are long enough come first.
            inside = self.lengths[first:] >= _BUCKET_SHARE * self.lengths[first]
            last = first + int(np.count_nonzero(inside))
            yield first, last
            first = last

    def _bucket(self, first: int, last: int, reach: int | None) -> Bucket:
        lengths = self.lengths[first:last]
        start, longest = int(self.lengths[:first].sum()), int(lengths[0])
        columns = np.arange(longest)
        is_real = columns < lengths[:, None]
        padded = real = attended = None
        if not is_real.all():
            places = (np.cumsum(lengths) - lengths)[:, None] + columns
            padded = to_device(np.where(is_real, places, 0).ravel(), self.device)
            real = to_device(np.flatnonzero(is_real), self.device)
            attended = is_real[:, None, None, :]
        if reach is not None and longest > reach + 1:
            near = np.abs(columns[:, None] - columns) <= reach
            # Padding may lie beyond the reach of its window, and must see something: attention
            # over nothing is 0 / 0, and its gradient would reach what is real.
            attended = (
                near[None, None]
                if attended is None
                else attended & (near | ~is_real[:, None, :, None])
            )
        return Bucket(
            start,
            start + int(lengths.sum()),
            len(lengths),
            longest,
            padded,
            real,
            None if attended is None else to_device(attended, self.device),
        )


@dataclass(frozen=True, slots=True)
class _How:
    """What attention is computed with."""

    windows: PackedWindows
    dropout: float
    scaling: float | None
    reach: int | None
    """How far a piece sees on each side; None for the whole window."""


def packed_attention(
    module: nn.Module,  # noqa: ARG001
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,  # noqa: ARG001
    **settings: Any,
) -> tuple[torch.Tensor, None]:
    """Attention within each window, in the form that transformers calls.

    Args:
        query, key, value: ``[1, attention heads, pieces, head size]``.
        settings: ``windows`` as the batch has them, ``dropout`` of the attention weights,
            ``scaling`` of query times key, and ``sliding_window``, one more than a piece sees on
            each side, where it does not see the whole window.

    Returns:
        ``[1, pieces, attention heads, head size]``, and no weights.
    """
    attend = _by_kernel if _has_kernel(query) else _by_buckets
    return _attention(attend, query, key, value, settings)


def _attention_on_gpus(
    module: nn.Module,  # noqa: ARG001
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,  # noqa: ARG001
    **settings: Any,
) -> tuple[torch.Tensor, None]:
    return _attention(_by_kernel, query, key, value, settings)


def _attention(
    attend: Callable[[torch.Tensor, torch.Tensor, torch.Tensor, _How], torch.Tensor],
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    settings: Mapping[str, Any],
) -> tuple[torch.Tensor, None]:
    sliding_window = settings.get("sliding_window")
    how = _How(
        settings["windows"],
        settings.get("dropout", 0.0),
        settings.get("scaling"),
        None if sliding_window is None else sliding_window - 1,
    )
    # Each ``[pieces, attention heads, head size]``. The backward of an index would be a copy.
    query, key, value = (states.squeeze(0).transpose(0, 1) for states in (query, key, value))
    return attend(query, key, value, how).unsqueeze(0), None


def _has_kernel(query: torch.Tensor) -> bool:
    found: bool = has_flash_attention(query.device, query.dtype, query.shape[-1])
    return found


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def has_flash_attention(device: torch.device, dtype: torch.dtype, head_size: int) -> bool:
    """Whether torch has flash attention over sequences of any length for these numbers."""
    return (
        device.type == "cuda"
        and dtype in (torch.float16, torch.bfloat16)
        and head_size % 8 == 0
        and head_size <= 256
        and torch.cuda.get_device_capability(device) >= (8, 0)
    )


def _by_kernel(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, how: _How
) -> torch.Tensor:
    # What torch.nn.attention.varlen calls, which has no dropout.
    boundaries, longest = how.windows.boundaries(), how.windows.longest
    reach = -1 if how.reach is None else how.reach
    out: torch.Tensor = torch.ops.aten._flash_attention_forward(
        query,
        key,
        value,
        boundaries,
        boundaries,
        longest,
        longest,
        how.dropout,
        False,
        False,
        scale=how.scaling,
        window_size_left=reach,
        window_size_right=reach,
    )[0]
    return out


# What a compiler would specialise on, the lengths of each batch, is of no use to the next one.
@torch.compiler.disable  # type: ignore[untyped-decorator]
def _by_buckets(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, how: _How
) -> torch.Tensor:
    # On a processor torch has no other kernel with dropout than one that writes the weights too.
    attend = _written_out if how.dropout and query.device.type == "cpu" else _by_torch
    outputs = []
    for bucket in how.windows.buckets(how.reach):
        rows = attend(
            _padded(query, bucket),
            _padded(key, bucket),
            _padded(value, bucket),
            bucket.attended,
            how,
        )
        out = rows.transpose(1, 2).flatten(0, 1)
        outputs.append(out if bucket.real is None else out.index_select(0, bucket.real))
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs)


def _by_torch(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attended: torch.Tensor | None,
    how: _How,
) -> torch.Tensor:
    return F.scaled_dot_product_attention(
        query, key, value, attn_mask=attended, dropout_p=how.dropout, scale=how.scaling
    )


def _written_out(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attended: torch.Tensor | None,
    how: _How,
) -> torch.Tensor:
    """As ``_by_torch``; scores and weights are fp32, as they are there."""
    scaling = query.shape[-1] ** -0.5 if how.scaling is None else how.scaling
    scores = torch.matmul(query.float() * scaling, key.float().transpose(-1, -2))
    if attended is not None:
        scores = scores.masked_fill(~attended, -torch.inf)
    weights = dropped(scores.softmax(-1), how.dropout)
    return torch.matmul(weights.to(value.dtype), value)


def _padded(states: torch.Tensor, bucket: Bucket) -> torch.Tensor:
    """``[rows, attention heads, longest, head size]``."""
    inside = states[bucket.start : bucket.stop]
    if bucket.padded is not None:
        inside = inside.index_select(0, bucket.padded)
    return inside.reshape(bucket.rows, bucket.longest, *states.shape[1:]).transpose(1, 2)


def _no_mask(**_: Any) -> None:
    """Who attends to whom is known from the windows."""


AttentionInterface.register(_IMPLEMENTATION, packed_attention)
AttentionInterface.register(_ON_GPUS, _attention_on_gpus)
for _name in (_IMPLEMENTATION, _ON_GPUS):
    AttentionMaskInterface.register(_name, _no_mask)
