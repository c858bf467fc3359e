"""Sentences that a run has wrong, with what gold and each run say of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from bigner.evaluation.counts import TaggedWords
from bigner.evaluation.spans import Ints, Spans
from bigner.report.confidence import LineConfidences
from bigner.report.matching import Span, SpanError, errors_of

Change = Literal["fixed", "broken", "changed"]
CHANGES: dict[Change, str] = {
    "fixed": "wrong in A, right in B",
    "broken": "right in A, wrong in B",
    "changed": "wrong in both, not in the same way",
}
"""What may have become of a sentence from the first run to the second."""


@dataclass(frozen=True, slots=True)
class WrongSentence:
    """A sentence that at least one of the runs has wrong."""

    line: int
    """Of its first word in the file of predictions, from 1."""
    words: list[str]
    gold: list[Span]
    predicted: list[list[Span]]
    """Of each run."""
    errors: list[list[SpanError]]
    """Of each run."""
    sure: list[list[float | None]]
    """Of each run, how sure it was of each of its errors; None where it left no confidences."""

    @property
    def change(self) -> Change | None:
        """From the first run to the second; None where both say the same, or one is alone."""
        if len(self.predicted) == 1 or self.predicted[0] == self.predicted[1]:
            return None
        before, now = map(bool, self.errors)
        if before and now:
            return "changed"
        return "fixed" if before else "broken"


def wrong_sentences(
    asked: Sequence[str],
    runs: Sequence[TaggedWords],
    confidences: Sequence[LineConfidences | None],
) -> list[WrongSentence]:
    """The sentences that a run has wrong, in the order of the file.

    Args:
        asked: the lines of the file: word and gold tag, a tab between; blank between sentences.
        runs: the tags of each run, of the same lines.
        confidences: of each run, of the same lines.
    """
    of_wrong = [
        None if known is None else known.of_wrong_tags(run)
        for known, run in zip(confidences, runs, strict=True)
    ]
    gaps = np.flatnonzero(runs[0].gaps)
    starts, ends = np.append(0, gaps + 1), np.append(gaps, len(asked))
    gold: dict[int, list[Span]] = {}
    predicted: list[dict[int, list[Span]]] = []
    for run in runs:
        matches = run.matches()
        gold = gold or _by_sentence(matches.gold, matches.types, run.sentence, starts)
        predicted.append(_by_sentence(matches.predicted, matches.types, run.sentence, starts))
    found = []
    for sentence in sorted({*gold, *(key for run in predicted for key in run)}):
        there, here = gold.get(sentence, []), [run.get(sentence, []) for run in predicted]
        if any(spans != there for spans in here):
            start, end = int(starts[sentence]), int(ends[sentence])
            words = [line.rpartition("\t")[0] for line in asked[start:end]]
            errors = [errors_of(there, spans) for spans in here]
            sure = [_sure(*both, start) for both in zip(errors, of_wrong, strict=True)]
            found.append(WrongSentence(start + 1, words, there, here, errors, sure))
    return found


def _sure(
    errors: Sequence[SpanError], confidences: LineConfidences | None, start: int
) -> list[float | None]:
    """How sure a run was of each error, see ``confidence``; None where that is not known.

    Args:
        errors: of a sentence.
        confidences: of the wrong tags of the run.
        start: line of the first word of the sentence, from 0.
    """
    if confidences is None:
        return [None] * len(errors)
    places = np.array([error.place for error in errors], dtype=np.int64).reshape(-1, 2)
    means = confidences.means_around(*(start + places).T).tolist()
    return [None if math.isnan(mean) else mean for mean in means]


def _by_sentence(
    spans: Spans, types: Sequence[str], sentence_of: Ints, starts: Ints
) -> dict[int, list[Span]]:
    """Entities by the number of their sentence, with places that count from its first word."""
    sentences = sentence_of[spans.first]
    offsets = starts[sentences]
    columns = (sentences, spans.first - offsets, spans.last - offsets, spans.types)
    found: dict[int, list[Span]] = {}
    for sentence, first, last, number in zip(*(c.tolist() for c in columns), strict=True):
        found.setdefault(sentence, []).append(Span(first, last, types[number]))
    return found
