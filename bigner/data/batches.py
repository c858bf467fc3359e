"""The global batch plan: which rank computes which windows, in which order.

Lengths and label counts are known before training, so every rank derives the same plan from
(seed, epoch) and nothing about it is communicated or saved: a step number is enough to resume.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

PADDING_ROW = -1
"""Stands for no window; a rank that has nothing else computes one row of padding."""

# Windows of similar length are put together within pools of this many global batches: large
# enough that little padding is computed, small enough that batches stay random.
POOL_BATCHES = 32

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class TrainingStep:
    """One global batch."""

    rows: Rows
    """Indices of windows, longest first, filled up to the global batch size with -1."""
    label_weights: tuple[float, ...]
    """Of each head, the summed weights of all labels in the global batch: the denominator of its
    mean loss."""
    num_tokens: int
    """Pieces in the whole global batch, without padding."""

    def micro_batches(self, micro_batch_size: int, rank: int, world_size: int) -> list[Rows]:
        """The windows this rank computes, one array a micro-batch; the same number on each rank.

        Neighbours in length go to different ranks, so that no rank waits long for another.
        """
        at_once = micro_batch_size * world_size
        return [
            self.rows[start + rank : start + at_once : world_size]
            for start in range(0, len(self.rows), at_once)
        ]


class TrainingPlan:
    """All steps of a training run.

    Args:
        lengths: pieces of each window.
        label_weights: ``[heads][windows]``, the summed weights of each window's labels.
    """

    def __init__(
        self,
        lengths: Rows,
        label_weights: Sequence[npt.NDArray[np.float64]],
        *,
        global_batch_size: int,
        seed: int,
    ) -> None:
        self._lengths = lengths
        self._label_weights = label_weights
        self._size = global_batch_size
        self._seed = seed
        self.steps_per_epoch = -(-len(lengths) // global_batch_size)

    def epoch(self, epoch: int) -> list[TrainingStep]:
        """The steps of one epoch, in order; every window is in exactly one of them."""
        random = np.random.default_rng((self._seed, epoch))
        order = random.permutation(len(self._lengths))
        batches: list[Rows] = []
        for start in range(0, len(order), POOL_BATCHES * self._size):
            pool = order[start : start + POOL_BATCHES * self._size]
            pool = pool[np.argsort(-self._lengths[pool], kind="stable")]
            batches += [pool[i : i + self._size] for i in range(0, len(pool), self._size)]
        return [self._step(batches[i]) for i in random.permutation(len(batches))]

    def _step(self, rows: Rows) -> TrainingStep:
        filled = np.full(self._size, PADDING_ROW, dtype=np.int64)
        filled[: len(rows)] = rows
        weights = tuple(float(each[rows].sum()) for each in self._label_weights)
        return TrainingStep(filled, weights, int(self._lengths[rows].sum()))

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


def evaluation_batches(lengths: Rows, *, batch_size: int, rank: int, world_size: int) -> list[Rows]:
    """The windows this rank predicts, one array a batch; the same number of batches on each rank.

    Longest first, so that a batch that does not fit into memory shows at once. Every window is
    on exactly one rank; the last batches are filled up with -1.
    """
    at_once = batch_size * world_size
    order = np.argsort(-lengths, kind="stable")
    filled = np.full(-(-len(order) // at_once) * at_once, PADDING_ROW, dtype=np.int64)
    filled[: len(order)] = order
    return [
        filled[start + rank : start + at_once : world_size]
        for start in range(0, len(filled), at_once)
    ]
