"""Scores of tag sequences, by seqeval; pure functions that know nothing of ranks or tensors."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from operator import eq
from typing import Any

import numpy as np
from seqeval.metrics import classification_report
from seqeval.scheme import IOB2
from sklearn.metrics import precision_recall_fscore_support

Tags = Sequence[Sequence[str]]


@dataclass(frozen=True, slots=True)
class SpanScores:
    """Precision, recall and F1 of entities that match in type and both boundaries."""

    precision: float
    recall: float
    f1: float
    support: int
    """Entities in the gold data."""


@dataclass(frozen=True, slots=True)
class Scores:
    """Everything one evaluation says about a head of tags; the same on every rank.

    Span scores are micro averages over all entities. The unnamed ones read stray I- tags as
    conlleval does (seqeval's default mode); ``strict`` wants IOB2 to the letter.
    """

    precision: float
    recall: float
    f1: float
    accuracy: float
    """Share of words whose tag is right."""
    loss: float
    """Mean cross-entropy of all labelled pieces, to the four decimals that do not depend on how
    the sum was split over batches and ranks."""
    per_type: dict[str, SpanScores]
    strict: SpanScores
    strict_per_type: dict[str, SpanScores]
    sentences: int
    words: int
    words_without_pieces: int
    """Words the tokenizer has no piece for; predicted O and counted like any other."""

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class ClassScores:
    """Everything one evaluation says about a head of classes; the same on every rank.

    Precision, recall and F1 are macro averages over the classes that are in gold or prediction.
    """

    precision: float
    recall: float
    f1: float
    accuracy: float
    loss: float
    """As in ``Scores``."""
    per_type: dict[str, SpanScores]
    """Of each class; the support is in words."""
    sentences: int
    words: int
    words_without_pieces: int
    """Words the tokenizer has no piece for; given the first class and counted like any other."""

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


def span_scores(
    gold: Tags, predicted: Tags, *, strict: bool
) -> tuple[SpanScores, dict[str, SpanScores]]:
    """Micro-averaged span scores and those of each type that is in gold or prediction.

    Args:
        gold: the tags of each sentence.
        predicted: as many tags for each sentence.
        strict: count only entities that IOB2 allows; otherwise as conlleval reads them.
    """
    mode = {"mode": "strict", "scheme": IOB2} if strict else {}
    with warnings.catch_warnings():
        # numpy's word on a ratio of nothing; zero_division says what we take it for.
        warnings.simplefilter("ignore")
        # One call for all numbers: in strict mode reading the entities is the slow part.
        report = _report(gold, predicted, mode)
    micro = report.pop("micro avg", None)
    for average in ("macro avg", "weighted avg"):
        report.pop(average, None)
    nothing = SpanScores(0.0, 0.0, 0.0, 0)
    return (
        _span_scores(micro) if micro else nothing,
        {name: _span_scores(values) for name, values in sorted(report.items())},
    )


def _report(gold: Tags, predicted: Tags, mode: dict[str, Any]) -> dict[str, dict[str, Any]]:
    if not any(tag != "O" for tags in (*gold, *predicted) for tag in tags):
        # seqeval cannot average over no types at all.
        return {}
    report: dict[str, dict[str, Any]] = classification_report(
        gold, predicted, output_dict=True, zero_division=0, **mode
    )
    return report


def _span_scores(values: dict[str, Any]) -> SpanScores:
    return SpanScores(
        float(values["precision"]),
        float(values["recall"]),
        float(values["f1-score"]),
        int(values["support"]),
    )


def score_tags(gold: Tags, predicted: Tags, *, loss: float, words_without_pieces: int) -> Scores:
    """All scores of a head of tags.

    Args:
        gold: the tags of each sentence, in IOB2.
        predicted: as many tags for each sentence.
        loss: mean loss over the split.
        words_without_pieces: words that could only be predicted ``O``.
    """
    lenient, per_type = span_scores(gold, predicted, strict=False)
    strict, strict_per_type = span_scores(gold, predicted, strict=True)
    words = sum(map(len, gold))
    right = sum(
        g == p for tags in zip(gold, predicted, strict=True) for g, p in zip(*tags, strict=True)
    )
    return Scores(
        precision=lenient.precision,
        recall=lenient.recall,
        f1=lenient.f1,
        accuracy=right / words,
        loss=round(loss, 4),
        per_type=per_type,
        strict=strict,
        strict_per_type=strict_per_type,
        sentences=len(gold),
        words=words,
        words_without_pieces=words_without_pieces,
    )


def score_classes(
    gold: Tags, predicted: Tags, *, loss: float, words_without_pieces: int
) -> ClassScores:
    """All scores of a head of classes, by scikit-learn.

    Args:
        gold: the classes of each sentence's words.
        predicted: as many for each sentence.
        loss: mean loss over the split.
        words_without_pieces: words that could only be given the first class.
    """
    right, guessed = list(chain.from_iterable(gold)), list(chain.from_iterable(predicted))
    names = sorted({*right, *guessed})
    by_class = precision_recall_fscore_support(right, guessed, labels=names, zero_division=0)
    per_type = {
        name: SpanScores(float(p), float(r), float(f), int(support))
        for name, p, r, f, support in zip(names, *by_class, strict=True)
    }
    precision, recall, f1 = (float(np.mean(values)) for values in by_class[:3])
    return ClassScores(
        precision=precision,
        recall=recall,
        f1=f1,
        accuracy=sum(map(eq, right, guessed)) / len(right),
        loss=round(loss, 4),
        per_type=per_type,
        sentences=len(gold),
        words=len(right),
        words_without_pieces=words_without_pieces,
    )
