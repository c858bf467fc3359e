"""Entities counted sentence by sentence, as a bootstrap over sentences needs them.

What an entity is, is seqeval's default mode, which reads stray I- tags as conlleval does: an I- tag
begins an entity where none of its type goes on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

_OUTSIDE = -1


# Arrays have no one answer to whether they are equal.
@dataclass(frozen=True, slots=True, eq=False)
class Counts:
    """Entities of each sentence and of each type."""

    gold: Ints
    """``[sentences]``: entities in gold."""
    predicted: Ints
    """``[sentences]``: entities predicted."""
    correct: Ints
    """``[sentences]``: those predicted with the type and both boundaries of gold."""
    f1_of_type: dict[str, float]
    """Of each type in gold or prediction, sorted."""
    accuracy: float
    """Share of words whose tag is right."""

    @property
    def precision(self) -> float:
        """Micro average; 0 where nothing is predicted."""
        return float(self.correct.sum() / max(1, self.predicted.sum()))

    @property
    def recall(self) -> float:
        """Micro average; 0 where gold has nothing."""
        return float(self.correct.sum() / max(1, self.gold.sum()))

    @property
    def f1(self) -> float:
        """Micro average; 0 where there is nothing at all."""
        return float(f1(self.gold.sum(), self.predicted.sum(), self.correct.sum()))


def f1(
    gold: npt.ArrayLike, predicted: npt.ArrayLike, correct: npt.ArrayLike
) -> npt.NDArray[np.float64]:
    """F1 of numbers of entities, elementwise; 0 where there are none."""
    both = np.add(gold, predicted, dtype=np.float64)
    return 2.0 * np.asarray(correct) / np.where(both == 0, 1.0, both)


def count(gold: Sequence[str], predicted: Sequence[str]) -> Counts:
    """Count the entities of sentences that follow one another.

    Args:
        gold: IOB2 tags of one sentence after the other, an empty string between two.
        predicted: as many, with empty strings at the same places.
    """
    ids = _TagIds()
    gold_ids, predicted_ids = ids.of(gold), ids.of(predicted)
    begins, types = ids.begins(), ids.types()
    gap = gold_ids == ids.gap
    sentence = np.cumsum(gap)
    sentences = int(sentence[-1]) + 1 if len(sentence) else 0
    gold_spans = _Spans(begins[gold_ids], types[gold_ids])
    predicted_spans = _Spans(begins[predicted_ids], types[predicted_ids])
    correct = predicted_spans.among(gold_spans)

    def by_sentence(starts: Ints) -> Ints:
        return np.bincount(sentence[starts], minlength=sentences)

    def by_type(spans: Ints) -> Ints:
        return np.bincount(spans, minlength=len(ids.type_names))

    f1_of_type = f1(
        by_type(gold_spans.types),
        by_type(predicted_spans.types),
        by_type(predicted_spans.types[correct]),
    )
    words = int(np.count_nonzero(~gap))
    return Counts(
        gold=by_sentence(gold_spans.starts),
        predicted=by_sentence(predicted_spans.starts),
        correct=by_sentence(predicted_spans.starts[correct]),
        f1_of_type=dict(sorted(zip(ids.type_names, f1_of_type.tolist(), strict=True))),
        accuracy=float(np.mean(gold_ids[~gap] == predicted_ids[~gap])) if words else 0.0,
    )


class _TagIds:
    """Numbers for tags and for types, given as they are met."""

    def __init__(self) -> None:
        self.gap = 0
        self._ids = {"": self.gap}
        self._types: dict[str, int] = {}

    def of(self, tags: Sequence[str]) -> Ints:
        ids = self._ids
        return np.array([ids.setdefault(tag, len(ids)) for tag in tags], dtype=np.int64)

    def begins(self) -> Bools:
        """Of each id whether it is of a tag B-TYPE."""
        return np.array([tag.startswith("B-") for tag in self._ids])

    def types(self) -> Ints:
        """Of each id the number of its type, or ``_OUTSIDE``."""
        names = (tag.partition("-")[2] for tag in self._ids)
        return np.array(
            [self._types.setdefault(n, len(self._types)) if n else _OUTSIDE for n in names]
        )

    @property
    def type_names(self) -> list[str]:
        return list(self._types)


class _Spans:
    """The entities of a sequence, in order.

    Args:
        begins: ``[tags]``, whether a tag says that an entity begins.
        types: ``[tags]``, the type of each, or ``_OUTSIDE``.
    """

    def __init__(self, begins: Bools, types: Ints) -> None:
        inside = types != _OUTSIDE
        goes_on = np.zeros(len(types), dtype=bool)
        goes_on[1:] = inside[1:] & ~begins[1:] & (types[1:] == types[:-1])
        last = inside.copy()
        last[:-1] &= ~goes_on[1:]
        self.starts = np.flatnonzero(inside & ~goes_on)
        self.types = types[self.starts]
        self._length = len(types)
        self._ends = np.flatnonzero(last)

    def among(self, others: _Spans) -> Bools:
        """Of each whether the others have one of its type with both its boundaries."""
        end_at = np.full(self._length, -1)
        type_at = np.full(self._length, _OUTSIDE)
        end_at[others.starts], type_at[others.starts] = others._ends, others.types
        same: Bools = (end_at[self.starts] == self._ends) & (type_at[self.starts] == self.types)
        return same
