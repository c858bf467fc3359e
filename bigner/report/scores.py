"""Precision, recall and F1 of each type, with intervals from a bootstrap over the sentences.

As many sentences as there are are drawn with replacement, ``RESAMPLES`` times, the same ones for
all runs and types; an interval is the 2.5th to the 97.5th percentile of what is scored on these. A
resample that has nothing to divide by (no entity of the type in gold, for recall) is left out of
that interval.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bigner.evaluation.bootstrap import Difference, Floats, paired_difference, resampled_totals
from bigner.evaluation.counts import TaggedWords, f1
from bigner.evaluation.spans import Ints

RESAMPLES = 10_000
ALL = "all"
"""The name of what is said of all types together."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A score and the 95 % interval around it."""

    value: float
    """0 where there is nothing to divide by, as seqeval has it."""
    low: float | None
    high: float | None
    """The interval; None where no resample has anything to divide by."""


@dataclass(frozen=True, slots=True)
class EntityScores:
    """What a run scored on the entities of a type."""

    support: int
    """Entities in gold."""
    predicted: int
    correct: int
    precision: Estimate
    recall: Estimate
    f1: Estimate


@dataclass(frozen=True, slots=True)
class TypeScores:
    """What each run scored on one type, or on all together."""

    name: str
    runs: list[EntityScores]
    difference: Difference | None
    """F1 of the second run less that of the first, if there is a second."""


def score_types(runs: Sequence[TaggedWords], resamples: int = RESAMPLES) -> list[TypeScores]:
    """Scores of all types together, and then of each type that is in gold or a prediction, sorted.

    Args:
        runs: the tags of each run, of the same words.
        resamples: of the bootstrap.
    """
    names = sorted({name for run in runs for name in run.matches().by_type()})
    # [sentences, runs, all and each type, (gold, predicted, correct)]
    counts = np.stack([_counts(run, names) for run in runs], axis=1)
    drawn = resampled_totals(counts.reshape(len(counts), -1), resamples)
    totals = drawn.reshape(resamples, *counts.shape[1:])
    return [
        _scores_of(name, counts[:, :, i].sum(axis=0), totals[:, :, i])
        for i, name in enumerate((ALL, *names))
    ]


def _counts(run: TaggedWords, names: Sequence[str]) -> Ints:
    """``[sentences, 1 + types, 3]``: entities of gold, predicted and correct ones; of all first."""
    matches, sentence = run.matches(), run.sentence
    # A type that is in no entity has no place, and needs none.
    places = {name: i for i, name in enumerate(names)}
    place = np.array([places.get(name, 0) for name in matches.types], dtype=np.int64)
    counted = matches.counted(
        lambda spans: sentence[spans.first] * len(names) + place[spans.types],
        run.sentences * len(names),
    )
    of_types = np.stack(counted, axis=-1).reshape(run.sentences, len(names), 3)
    return np.concatenate([of_types.sum(axis=1, keepdims=True), of_types], axis=1)


def _scores_of(name: str, found: Ints, resampled: Floats) -> TypeScores:
    """Scores of one type.

    Args:
        name: of the type.
        found: ``[runs, 3]``, entities of gold, predicted and correct ones.
        resampled: ``[resamples, runs, 3]``, the same in each resample.
    """
    runs = [_entity_scores(found[i], resampled[:, i]) for i in range(len(found))]
    difference = None
    if len(runs) == 2:
        f1s = f1(*np.moveaxis(resampled, -1, 0))
        difference = paired_difference(runs[1].f1.value, runs[0].f1.value, f1s[:, 1:], f1s[:, :1])
    return TypeScores(name, runs, difference)


def _entity_scores(found: Ints, resampled: Floats) -> EntityScores:
    gold, predicted, correct = found.tolist()
    golds, predictions, corrects = resampled.T
    return EntityScores(
        gold,
        predicted,
        correct,
        precision=_estimate(correct, predicted, corrects, predictions),
        recall=_estimate(correct, gold, corrects, golds),
        f1=_estimate(2 * correct, gold + predicted, 2 * corrects, golds + predictions),
    )


def _estimate(part: int, whole: int, parts: Floats, wholes: Floats) -> Estimate:
    value = part / whole if whole else 0.0
    there = wholes > 0
    if not there.any():
        return Estimate(value, None, None)
    low, high = np.quantile(parts[there] / wholes[there], [0.025, 0.975])
    return Estimate(value, float(low), float(high))
