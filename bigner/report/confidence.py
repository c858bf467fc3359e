"""How sure a run was of what it said of entities, and whether it was right as often.

The confidence of a predicted entity is the mean, over its words, of the probabilities that the
model gave to the tags it said of them. The confidence of an error is the mean over those tags that
are wrong, of the words of its entities; where all of these are right, of the word before and the
word behind, for one of them makes the entity begin or end where it should not. Words without a
probability are left out.

Calibration puts the predicted entities into ``BINS`` bins of equal width by their confidence. The
expected calibration error (Naeini, Cooper and Hauskrecht 2015) is the mean over all entities of how
far, in the bin of each, the share of correct ones lies from the mean confidence.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bigner.evaluation.counts import TaggedWords
from bigner.evaluation.spans import Ints

BINS = 10
SURE = 0.9
"""Of a confidence from which on a mistake is called confident."""
# Of sums whose terms have four decimals.
_DIGITS = 6

Floats = npt.NDArray[np.float64]


class LineConfidences:
    """The confidences of a file's lines.

    Args:
        confidences: ``[lines]``, nan where there is none.
    """

    def __init__(self, confidences: npt.ArrayLike) -> None:
        self._values = np.asarray(confidences, dtype=np.float64)
        there = ~np.isnan(self._values)
        self._sums = np.concatenate([[0.0], np.cumsum(np.where(there, self._values, 0.0))])
        self._counts = np.concatenate([[0], np.cumsum(there)])

    def of_wrong_tags(self, words: TaggedWords) -> LineConfidences:
        """Those of tags that are not gold's; nan elsewhere.

        Args:
            words: of the same lines.
        """
        return LineConfidences(np.where(words.gold == words.predicted, np.nan, self._values))

    def means(self, first: Ints, last: Ints) -> Floats:
        """``[stretches]``, of lines in a row; nan where none of them has one.

        Args:
            first: ``[stretches]``, the first line of each, from 0.
            last: ``[stretches]``, the last line of each.
        """
        sums = self._sums[last + 1] - self._sums[first]
        counts = self._counts[last + 1] - self._counts[first]
        means: Floats = np.round(sums / np.where(counts == 0, np.nan, counts), _DIGITS)
        return means

    def means_around(self, first: Ints, last: Ints) -> Floats:
        """``[stretches]``, as ``means``; where that is nan of one line more on both sides."""
        means = self.means(first, last)
        wider = self.means((first - 1).clip(min=0), (last + 1).clip(max=len(self._values) - 1))
        return np.where(np.isnan(means), wider, means)


@dataclass(frozen=True, slots=True)
class Bin:
    """The predicted entities of a stretch of confidences, of which there are some."""

    entities: int
    confidence: float
    """Their mean."""
    correct: float
    """The share of those with the type and both boundaries of a gold entity."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """Whether a run was right about entities as often as it was sure."""

    bins: list[Bin]
    """Those with an entity, by confidence."""

    @property
    def entities(self) -> int:
        """How many have a confidence."""
        return sum(each.entities for each in self.bins)

    @property
    def confidence(self) -> float:
        """Mean over all of them."""
        return sum(each.entities * each.confidence for each in self.bins) / self.entities

    @property
    def correct(self) -> float:
        """The share of correct ones."""
        return sum(each.entities * each.correct for each in self.bins) / self.entities

    @property
    def expected_error(self) -> float:
        """The expected calibration error."""
        distances = (each.entities * abs(each.correct - each.confidence) for each in self.bins)
        return sum(distances) / self.entities


def calibration(words: TaggedWords, confidences: LineConfidences) -> Calibration | None:
    """The calibration of a run; None where no predicted entity has a confidence.

    Args:
        words: its tags.
        confidences: of the same lines.
    """
    matches = words.matches()
    means = confidences.means(matches.predicted.first, matches.predicted.last)
    # No two entities end with the same word.
    correct = np.isin(matches.predicted.last, matches.correct.last)
    there = ~np.isnan(means)
    means, correct = means[there], correct[there]
    numbers = np.minimum((means * BINS).astype(np.int64), BINS - 1)
    found = [
        Bin(int(chosen.sum()), float(means[chosen].mean()), float(correct[chosen].mean()))
        for chosen in (numbers == number for number in range(BINS))
        if chosen.any()
    ]
    return Calibration(found) if found else None
