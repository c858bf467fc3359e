"""Entities counted sentence by sentence, as a bootstrap over sentences needs them.

They are read as seqeval's default mode does, which takes stray I- tags as conlleval does: an I- tag
begins an entity where none of its type goes on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bigner.evaluation.spans import Bools, Ints, Matches, SpanReader


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


# Arrays have no one answer to whether they are equal.
@dataclass(frozen=True, slots=True, eq=False)
class TaggedWords:
    """Gold and predicted tags of sentences that follow one another, as numbers."""

    gold: Ints
    """``[lines]``: the number of each tag; a line between two sentences has that of ""."""
    predicted: Ints
    """``[lines]``, numbers of the same tags."""
    tags: tuple[str, ...]
    """The tag of each number."""

    @classmethod
    def of(cls, gold: Sequence[str], predicted: Sequence[str]) -> TaggedWords:
        """Number the tags.

        Args:
            gold: IOB2 tags of one sentence after the other, an empty string between two.
            predicted: as many, with empty strings at the same places.
        """
        numbers: dict[str, int] = {}
        gold_ids, predicted_ids = (
            np.array([numbers.setdefault(tag, len(numbers)) for tag in tags], dtype=np.int64)
            for tags in (gold, predicted)
        )
        return cls(gold_ids, predicted_ids, tuple(numbers))

    @property
    def gaps(self) -> Bools:
        """``[lines]``: whether it stands between two sentences."""
        found: Bools = self.gold == (self.tags.index("") if "" in self.tags else -1)
        return found

    @property
    def sentence(self) -> Ints:
        """``[lines]``: the number of the sentence; of a line between two that of the later."""
        return np.cumsum(self.gaps, dtype=np.int64)

    @property
    def sentences(self) -> int:
        """How many there are."""
        return int(np.count_nonzero(self.gaps)) + 1 if len(self.gold) else 0

    def matches(self) -> Matches:
        """The entities of both, by the lines of their words."""
        reader = SpanReader([tag or "O" for tag in self.tags])
        return Matches.of(self.gold, self.predicted, reader)


def count(gold: Sequence[str], predicted: Sequence[str]) -> Counts:
    """Count the entities of sentences that follow one another.

    Args:
        gold: IOB2 tags of one sentence after the other, an empty string between two.
        predicted: as many, with empty strings at the same places.
    """
    words = TaggedWords.of(gold, predicted)
    sentence, is_word = words.sentence, ~words.gaps
    matches = words.matches()
    of_gold, of_predicted, correct = matches.counted(
        lambda spans: sentence[spans.first], words.sentences
    )
    right = (words.gold == words.predicted)[is_word]
    return Counts(
        gold=of_gold,
        predicted=of_predicted,
        correct=correct,
        f1_of_type={name: float(f1(*of_type)) for name, of_type in matches.by_type().items()},
        accuracy=float(np.mean(right)) if len(right) else 0.0,
    )
