"""Gathering what ranks hold in unequal amounts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from bigner.distributed import World
from bigner.errors import GatherError

PAD = -100

# Words or rows of each rank.
_AT_ONCE = 1 << 18


def pad_across_processes(values: torch.Tensor, world: World, pad: int = PAD) -> torch.Tensor:
    """Pad every dimension to its longest on any rank; a rank with nothing is all padding.

    Args:
        values: any shape; the number of dimensions must agree across ranks.
    """
    if world.size == 1:
        return values
    shape = torch.tensor(values.shape, dtype=torch.int64)
    longest = world.max(shape).tolist()
    padded = values.new_full(longest, pad)
    padded[tuple(slice(length) for length in values.shape)] = values
    return padded


def gather_padded(values: torch.Tensor, world: World, pad: int = PAD) -> torch.Tensor:
    """The values of all ranks, padded alike: ``[world size, *longest shape]``, on the CPU.

    The ranks agree on the longest first, then pad with ``pad``, then all-gather; whoever reads
    the result tells padding from values by an index that travels along.
    """
    return torch.stack(world.all_gather(pad_across_processes(values, world, pad))).cpu()


def gather_stretches(
    values: torch.Tensor, world: World, pad: int = PAD, *, at_once: int = _AT_ONCE
) -> Iterator[torch.Tensor]:
    """What ``gather_padded`` gives, in stretches: beside what it keeps of them, a rank needs room
    for one.

    Args:
        values: as for ``pad_across_processes``; a rank may have fewer, or none.
        world: all ranks.
        pad: what is put where a rank has no value.
        at_once: how long a stretch of the first dimension is.

    Yields:
        ``[world size, *longest shape]``, the second dimension at most ``at_once``.
    """
    longest = int(world.max(torch.tensor(len(values))))
    for start in range(0, longest, at_once):
        yield gather_padded(values[start : start + at_once], world, pad)


def check_each_once(index: npt.NDArray[np.int64], num_windows: int, what: str) -> None:
    """Refuse predictions that do not cover each window exactly once.

    Args:
        index: the window of each gathered prediction, padding left out; in any order.
        num_windows: how many there are to predict.
        what: what is predicted, for the message.

    Raises:
        GatherError: a window is missing, came twice, or does not exist.
    """
    counts = np.bincount(index, minlength=num_windows)
    # Beyond the last window every index is one too many.
    wrong = np.flatnonzero(counts != (np.arange(len(counts)) < num_windows))
    if len(wrong):
        times = ", ".join(f"window {i} {counts[i]} times" for i in wrong[:5])
        raise GatherError(f"{what}: {len(wrong)} windows were not predicted exactly once ({times})")


class WordPlaces:
    """Where the words that one rank gave belong in the split.

    Args:
        first: ``[rows]``, place of the first word of each of its rows.
        sizes: ``[rows]``, words of each.
    """

    def __init__(self, first: npt.NDArray[np.int64], sizes: npt.NDArray[np.int64]) -> None:
        self._ends = np.cumsum(sizes)
        # From a word's number among those of the rank to its place.
        self._shift = first - self._ends + sizes

    def between(self, start: int, stop: int) -> npt.NDArray[np.int64]:
        """The places of the rank's words from number ``start`` up to ``stop``, or to its last."""
        last = int(self._ends[-1]) if len(self._ends) else 0
        words = np.arange(start, min(stop, last))
        places: npt.NDArray[np.int64] = (
            words + self._shift[np.searchsorted(self._ends, words, side="right")]
        )
        return places


def put_in_order(
    stretches: Iterable[npt.NDArray[Any]], places: Sequence[WordPlaces], whole: npt.NDArray[Any]
) -> None:
    """Put what ranks gave of their words to the places of these in the split.

    Args:
        stretches: ``[ranks, words, heads]`` each, one after the other, with padding behind the
            words of a rank that has fewer.
        places: of each rank.
        whole: ``[heads, words]`` of the split, which is written to.
    """
    start = 0
    for stretch in stretches:
        for rank, of_rank in enumerate(places):
            words = of_rank.between(start, start + stretch.shape[1])
            whole[:, words] = stretch[rank, : len(words)].T
        start += stretch.shape[1]
