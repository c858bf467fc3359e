"""Is one group of runs better than another? The paired bootstrap over sentences.

P. Koehn (2004), Statistical Significance Tests for Machine Translation Evaluation, resamples the
sentences of the test set with replacement and scores both systems on each resample: how much the
difference varies is how much it owes to these sentences. The interval is the 2.5th to the 97.5th
percentile of the resampled differences.

The p value is that of T. Berg-Kirkpatrick, D. Burkett and D. Klein (2012), An Empirical
Investigation of Statistical Significance in NLP. The resampled differences d* centre on the
difference d that was found, not on zero, so they are moved by it: p is how often ``d* - d`` is as
far from zero as d. Theirs asks for one direction (``d* > 2d``), this one for both:
``|d* - d| >= |d|``. It is counted with the sample itself as one of the resamples, so that it is
never 0. In words: were the two equally good on sentences like these, a difference of this size, for
or against, would come about with probability p.

A group's F1 is the mean over its runs, in each resample too. The runs are taken as they are: what
another choice of seeds would do is the business of their standard deviation, not of p.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bigner.evaluation.counts import Counts, f1
from bigner.evaluation.spans import Ints
from bigner.log import progress

Floats = npt.NDArray[np.float64]

# Sentences drawn at once: some 30 MB for the numbers drawn, and twice that for counting them.
_AT_ONCE = 1 << 22
# Sums of the same numbers in another order are the same difference.
_ROUNDING = 1e-12


@dataclass(frozen=True, slots=True)
class Difference:
    """How much better one group of runs is than another, in F1."""

    f1: float
    low: float
    """The lower end of the interval of 95 %."""
    high: float
    """The upper end of it."""
    p_value: float


def resampled_f1(
    runs: Sequence[Counts], resamples: int, *, seed: int = 0, at_once: int = _AT_ONCE
) -> Floats:
    """``[resamples, runs]``: the micro F1 of each run, all on the same resamples.

    Args:
        runs: counts of the same sentences.
        resamples: how often as many sentences as there are are drawn with replacement.
        seed: the same resamples for the same seed.
        at_once: about how many sentences are drawn at once; memory, no other result.
    """
    assert all((run.gold == runs[0].gold).all() for run in runs), "not the same sentences"
    columns = [runs[0].gold, *(run.predicted for run in runs), *(run.correct for run in runs)]
    totals = resampled_totals(np.stack(columns, axis=1), resamples, seed=seed, at_once=at_once)
    gold, predicted, correct = np.split(totals, [1, 1 + len(runs)], axis=1)
    return f1(gold, predicted, correct)


def resampled_totals(
    counts: Ints,
    resamples: int,
    *,
    seed: int = 0,
    at_once: int = _AT_ONCE,
) -> Floats:
    """``[resamples, columns]``: what the sentences of each resample have together.

    Args:
        counts: ``[sentences, columns]``.
        resamples: how often as many sentences as there are are drawn with replacement.
        seed: the same resamples for the same seed.
        at_once: about how many sentences are drawn at once; memory, no other result.
    """
    sentences, columns = counts.shape
    of_sentences = counts.astype(np.float64)
    random = np.random.default_rng(seed)
    totals = np.empty((resamples, columns))
    rows = max(1, at_once // sentences)
    for first in progress(range(0, resamples, rows), "resampling"):
        size = min(rows, resamples - first)
        totals[first : first + size] = _drawings(random, size, sentences) @ of_sentences
    return totals


def _drawings(random: np.random.Generator, size: int, sentences: int) -> Floats:
    """``[size, sentences]``: how often each resample has each sentence."""
    drawn = random.integers(sentences, size=(size, sentences))
    drawn += np.arange(size)[:, None] * sentences
    times = np.bincount(drawn.ravel(), minlength=size * sentences)
    return times.reshape(size, sentences).astype(np.float64)


def paired_difference(
    f1_here: float, f1_there: float, resampled_here: Floats, resampled_there: Floats
) -> Difference:
    """How much better one group is than another.

    Args:
        f1_here: mean F1 of the group's runs.
        f1_there: mean F1 of the other's.
        resampled_here: ``[resamples, runs]``, F1 of the group's runs.
        resampled_there: F1 of the other's on the same resamples.
    """
    found = f1_here - f1_there
    resampled = resampled_here.mean(axis=1) - resampled_there.mean(axis=1)
    as_far = np.count_nonzero(np.abs(resampled - found) >= abs(found) - _ROUNDING)
    low, high = np.quantile(resampled, [0.025, 0.975])
    p_value = (1 + as_far) / (1 + len(resampled))
    return Difference(found, float(low), float(high), p_value)
