"""Gathering what ranks hold in unequal amounts."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from bigner.distributed import World
from bigner.errors import GatherError

PAD = -100


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
