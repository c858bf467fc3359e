"""The global batch plan: which rank computes which windows, in which order.

Lengths and label counts are known before training, so every rank derives the same plan from
(seed, epoch) and nothing about it is communicated or saved: a step number is enough to resume.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from heapq import heapify, heapreplace

import numpy as np
import numpy.typing as npt

from bigner.config.schema import TrainingConfig

PADDING_ROW = -1
"""Stands for no window; a rank that has nothing else computes one row of padding."""

Rows = npt.NDArray[np.int64]

Deal = Callable[[Rows], list[list[Rows]]]
"""From the windows of a global batch, longest first, to those of each micro-batch and, in it, of
each rank; every micro-batch has an array for each rank, which may be empty."""


@dataclass(frozen=True, slots=True)
class TrainingStep:
    """One global batch."""

    rows: Rows
    """Indices of windows, longest first."""
    label_weights: tuple[float, ...]
    """Of each head, the summed weights of all labels in the global batch: the denominator of its
    mean loss."""
    num_tokens: int
    """Pieces in the whole global batch, without padding."""


class TrainingPlan:
    """All steps of a training run.

    Global batches are random. A batch of windows of similar length would not be: a step divides by
    its own labels, so a step of short windows would move the model as far as one of long windows,
    and each of their words would count more. With ``pool_batches`` above 1 windows of similar
    length are put together all the same, within pools of so many global batches. Within a batch
    windows are sorted, so that ranks and micro-batches can be dealt equal work.

    Args:
        lengths: pieces of each window.
        label_weights: ``[heads][windows]``, the summed weights of each window's labels.
        training: how large a global batch and a pool are.
        seed: of the order.
    """

    def __init__(
        self,
        lengths: Rows,
        label_weights: Sequence[npt.NDArray[np.float64]],
        *,
        training: TrainingConfig,
        seed: int,
    ) -> None:
        self._lengths = lengths
        self._label_weights = label_weights
        self._tokens = training.global_batch_tokens
        self._seed = seed
        if self._tokens is None:
            self._size = training.global_batch_size
            self.steps_per_epoch = -(-len(lengths) // self._size)
        else:
            total = int(lengths.sum())
            self.steps_per_epoch = -(-total // self._tokens)
            self._size = max(1, round(len(lengths) / self.steps_per_epoch))
        self._pool = training.pool_batches * self._size

    def epoch(self, epoch: int) -> list[TrainingStep]:
        """The steps of one epoch, in order; every window is in exactly one of them."""
        random = np.random.default_rng((self._seed, epoch))
        order = random.permutation(len(self._lengths))
        pools = [order[start : start + self._pool] for start in range(0, len(order), self._pool)]
        pools = [pool[np.argsort(-self._lengths[pool], kind="stable")] for pool in pools]
        cut = self._by_number if self._tokens is None else self._by_tokens
        batches = cut(pools)
        return [self._step(batches[i]) for i in random.permutation(len(batches))]

    def _by_number(self, pools: list[Rows]) -> list[Rows]:
        return [pool[i : i + self._size] for pool in pools for i in range(0, len(pool), self._size)]

    def _by_tokens(self, pools: list[Rows]) -> list[Rows]:
        """As many batches in every epoch, which share its tokens alike.

        A batch has the windows whose middle lies in its share; none is empty, for no window is
        longer than half a global batch (the config holds that).
        """
        rows = np.concatenate(pools)
        lengths = self._lengths[rows]
        middles = np.cumsum(lengths) - lengths / 2
        edges = np.arange(1, self.steps_per_epoch) * (lengths.sum() / self.steps_per_epoch)
        batches = np.split(rows, np.searchsorted(middles, edges))
        # One that begins in a pool and ends in the next has its longest somewhere within.
        return [batch[np.argsort(-self._lengths[batch], kind="stable")] for batch in batches]

    def _step(self, rows: Rows) -> TrainingStep:
        weights = tuple(float(each[rows].sum()) for each in self._label_weights)
        return TrainingStep(rows, weights, int(self._lengths[rows].sum()))

    def steps(self, start: int, stop: int) -> Iterator[tuple[int, TrainingStep]]:
        """Steps ``start`` to ``stop``, counted from 0 over all epochs, with their numbers."""
        step = start
        while step < stop:
            epoch, offset = divmod(step, self.steps_per_epoch)
            for batch in self.epoch(epoch)[offset:]:
                if step == stop:
                    return
                yield step, batch
                step += 1


def dealing(training: TrainingConfig, lengths: Rows, world_size: int) -> Deal:
    """How global batches are dealt out to micro-batches and ranks.

    Args:
        training: how much one rank computes at once.
        lengths: pieces of each window.
        world_size: number of ranks.
    """
    if training.batching == "tokens":
        return partial(
            _deal_tokens, lengths, most=training.micro_batch_tokens, world_size=world_size
        )
    accumulation = training.accumulation(world_size)
    assert accumulation is not None
    return partial(
        _deal_windows,
        accumulation=accumulation,
        micro_batch_size=training.micro_batch_size,
        world_size=world_size,
    )


def _deal_windows(
    rows: Rows, *, accumulation: int, micro_batch_size: int, world_size: int
) -> list[list[Rows]]:
    """So many windows at once on each rank, however full the global batch is.

    Neighbours in length go to different ranks, to and fro, so that no rank waits long for another.
    """
    at_once = micro_batch_size * world_size
    filled = np.full(accumulation * at_once, PADDING_ROW, dtype=np.int64)
    filled[: len(rows)] = rows
    rounds = filled.reshape(accumulation, micro_batch_size, world_size)
    rounds[:, 1::2] = rounds[:, 1::2, ::-1].copy()
    return [
        [own[own != PADDING_ROW] for own in (part[:, rank] for rank in range(world_size))]
        for part in rounds
    ]


def _deal_tokens(lengths: Rows, rows: Rows, *, most: int, world_size: int) -> list[list[Rows]]:
    """As few micro-batches as hold at most so many pieces on each rank, and equally many.

    The longest window that is left goes where there are the fewest pieces (Graham's rule, 1969).
    """
    micro_batches = max(1, -(-int(lengths[rows].sum()) // (most * world_size)))
    while True:
        bins = _balanced(lengths[rows].tolist(), micro_batches * world_size)
        if all(lengths[rows[own]].sum() <= most for own in bins if len(own) > 1):
            break
        micro_batches += 1
    return [
        [rows[own] for own in bins[start : start + world_size]]
        for start in range(0, len(bins), world_size)
    ]


def _balanced(lengths: list[int], count: int) -> list[Rows]:
    """Places in ``lengths``, which fall, dealt out to bins of nearly equal sums."""
    filled = [(0, i) for i in range(count)]
    heapify(filled)
    bins: list[list[int]] = [[] for _ in range(count)]
    for place, length in enumerate(lengths):
        total, emptiest = filled[0]
        bins[emptiest].append(place)
        heapreplace(filled, (total + length, emptiest))
    return [np.array(own, dtype=np.int64) for own in bins]


def token_spread(micro_batches: Sequence[Sequence[Rows]], lengths: Rows) -> float:
    """How unequal the ranks' work in a step is: most less fewest pieces of a rank, by the mean.

    Micro-batch by micro-batch, for ranks wait for one another in each.
    """
    pieces = np.array([[lengths[own].sum() for own in ranks] for ranks in micro_batches])
    return float((pieces.max(axis=1) - pieces.min(axis=1)).sum() / pieces.mean(axis=1).sum())


def evaluation_batches(
    lengths: Rows,
    *,
    batch_tokens: int = 0,
    batch_size: int | None = None,
    rank: int,
    world_size: int,
) -> list[Rows]:
    """The windows this rank predicts, one array a batch; the same number of batches on each rank.

    Longest first, so that a batch that does not fit into memory shows at once. Every window is on
    exactly one rank; where the last batch has too few for all ranks, some have an empty one.

    Args:
        lengths: pieces of each window.
        batch_tokens: pieces of a batch at most, padding included; a longer window goes by itself.
        batch_size: windows of a batch, instead.
        rank: this rank.
        world_size: number of ranks.
    """
    order = np.argsort(-lengths, kind="stable")
    batches, start = [], 0
    while start < len(order):
        rows = batch_size or max(1, batch_tokens // int(lengths[order[start]]))
        batches.append(order[start + rank : start + rows * world_size : world_size])
        start += rows * world_size
    return batches
