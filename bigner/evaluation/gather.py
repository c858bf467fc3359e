"""Gathering what ranks hold in unequal amounts."""

from __future__ import annotations

import torch

from bigner.distributed import World

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
