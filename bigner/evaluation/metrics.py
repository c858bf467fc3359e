"""Scores of labelled words: pure functions that know nothing of ranks or tensors.

``score_tag_ids`` and ``score_class_ids`` count label ids, all words at once. ``score_tags`` and
``score_classes`` take strings and ask seqeval and scikit-learn, whose numbers these are: the
referees, imported when they are asked, for that takes a second. The numbers are the same to the
last digit.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from operator import eq
from typing import Any

import numpy as np

from bigner.evaluation.counts import f1 as f1_of
from bigner.evaluation.spans import Matches, SpanReader, StrictScheme
from bigner.evaluation.word_labels import WordLabels

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


# What is said of all entities, and of those of each type.
_ModeScores = tuple[SpanScores, dict[str, SpanScores]]


def _scores(
    lenient: _ModeScores, strict: _ModeScores, *, right: int, loss: float, **counts: int
) -> Scores:
    micro, per_type = lenient
    return Scores(
        precision=micro.precision,
        recall=micro.recall,
        f1=micro.f1,
        accuracy=right / counts["words"],
        loss=round(loss, 4),
        per_type=per_type,
        strict=strict[0],
        strict_per_type=strict[1],
        **counts,
    )


def _class_scores(
    per_type: dict[str, SpanScores], *, right: int, loss: float, **counts: int
) -> ClassScores:
    precision, recall, f1 = (
        float(np.mean([getattr(scores, name) for scores in per_type.values()]))
        for name in ("precision", "recall", "f1")
    )
    return ClassScores(
        precision=precision,
        recall=recall,
        f1=f1,
        accuracy=right / counts["words"],
        loss=round(loss, 4),
        per_type=per_type,
        **counts,
    )


# ---------------------------------------------------------------- label ids


def score_tag_ids(words: WordLabels, *, loss: float, words_without_pieces: int) -> Scores:
    """All scores of a head of tags.

    Args:
        words: gold and predicted tags, in IOB2.
        loss: mean loss over the split.
        words_without_pieces: words that could only be predicted ``O``.
    """
    words = words.in_one_set()
    return _scores(
        span_scores_of_ids(words),
        span_scores_of_ids(words, scheme="IOB2"),
        right=int(np.count_nonzero(words.gold == words.predicted)),
        loss=loss,
        sentences=len(words.sentence_lengths),
        words=len(words.gold),
        words_without_pieces=words_without_pieces,
    )


def span_scores_of_ids(words: WordLabels, *, scheme: StrictScheme | None = None) -> _ModeScores:
    """Micro-averaged span scores and those of each type that is in gold or prediction.

    Args:
        words: gold and predicted tags, in IOB2 or, as seqeval takes them, in any other scheme.
        scheme: count only entities that this scheme allows; otherwise as conlleval reads them.

    Raises:
        ValueError: a tag is none of the scheme's.
    """
    words = words.in_one_set()
    reader = SpanReader(words.gold_labels, scheme)
    gold, predicted = (
        words.with_gaps(ids, reader.outside) for ids in (words.gold, words.predicted)
    )
    of_type = Matches.of(gold, predicted, reader).by_type()
    micro = np.sum([(0, 0, 0), *of_type.values()], axis=0).tolist()
    return (
        _divided_as_by_seqeval(*micro),
        {name: _divided_as_by_seqeval(*numbers) for name, numbers in of_type.items()},
    )


def _divided_as_by_seqeval(gold: int, predicted: int, correct: int) -> SpanScores:
    precision = correct / predicted if predicted else 0.0
    recall = correct / gold if gold else 0.0
    # 2 * correct / (gold + predicted) is the same but for the last digit.
    f1 = 2 * precision * recall / (precision + recall) if correct else 0.0
    return SpanScores(precision, recall, f1, gold)


def score_class_ids(words: WordLabels, *, loss: float, words_without_pieces: int) -> ClassScores:
    """All scores of a head of classes.

    Args:
        words: gold and predicted classes.
        loss: mean loss over the split.
        words_without_pieces: words that could only be given the first class.
    """
    words = words.in_one_set()
    right = words.gold[words.gold == words.predicted]
    counts = np.stack(
        [
            np.bincount(ids, minlength=len(words.gold_labels))
            for ids in (words.gold, words.predicted, right)
        ],
        axis=1,
    ).tolist()
    per_type = {
        name: _divided_as_by_sklearn(*numbers)
        for name, numbers in sorted(zip(words.gold_labels, counts, strict=True))
        if any(numbers)
    }
    return _class_scores(
        per_type,
        right=len(right),
        loss=loss,
        sentences=len(words.sentence_lengths),
        words=len(words.gold),
        words_without_pieces=words_without_pieces,
    )


def _divided_as_by_sklearn(gold: int, predicted: int, correct: int) -> SpanScores:
    precision = correct / predicted if predicted else 0.0
    recall = correct / gold if gold else 0.0
    return SpanScores(precision, recall, float(f1_of(gold, predicted, correct)), gold)


# ---------------------------------------------------------------- the referees


def score_tags(gold: Tags, predicted: Tags, *, loss: float, words_without_pieces: int) -> Scores:
    """All scores of a head of tags, by seqeval.

    Args:
        gold: the tags of each sentence, in IOB2.
        predicted: as many tags for each sentence.
        loss: mean loss over the split.
        words_without_pieces: words that could only be predicted ``O``.
    """
    return _scores(
        span_scores(gold, predicted, strict=False),
        span_scores(gold, predicted, strict=True),
        right=sum(map(eq, chain.from_iterable(gold), chain.from_iterable(predicted))),
        loss=loss,
        sentences=len(gold),
        words=sum(map(len, gold)),
        words_without_pieces=words_without_pieces,
    )


def span_scores(gold: Tags, predicted: Tags, *, strict: bool) -> _ModeScores:
    """As ``span_scores_of_ids``, by seqeval.

    Args:
        gold: the tags of each sentence.
        predicted: as many tags for each sentence.
        strict: count only entities that IOB2 allows; otherwise as conlleval reads them.
    """
    with warnings.catch_warnings():
        # numpy's word on a ratio of nothing; zero_division says what we take it for.
        warnings.simplefilter("ignore")
        # One call for all numbers: in strict mode reading the entities is the slow part.
        report = _report(gold, predicted, strict=strict)
    micro = report.pop("micro avg", None)
    for average in ("macro avg", "weighted avg"):
        report.pop(average, None)
    nothing = SpanScores(0.0, 0.0, 0.0, 0)
    return (
        _of_report(micro) if micro else nothing,
        {name: _of_report(values) for name, values in sorted(report.items())},
    )


def _report(gold: Tags, predicted: Tags, *, strict: bool) -> dict[str, dict[str, Any]]:
    from seqeval.metrics import classification_report  # noqa: PLC0415
    from seqeval.scheme import IOB2  # noqa: PLC0415

    if not any(tag != "O" for tags in (*gold, *predicted) for tag in tags):
        # seqeval cannot average over no types at all.
        return {}
    mode = {"mode": "strict", "scheme": IOB2} if strict else {}
    report: dict[str, dict[str, Any]] = classification_report(
        gold, predicted, output_dict=True, zero_division=0, **mode
    )
    return report


def _of_report(values: dict[str, Any]) -> SpanScores:
    return SpanScores(
        float(values["precision"]),
        float(values["recall"]),
        float(values["f1-score"]),
        int(values["support"]),
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
    from sklearn.metrics import precision_recall_fscore_support  # noqa: PLC0415

    right, guessed = list(chain.from_iterable(gold)), list(chain.from_iterable(predicted))
    names = sorted({*right, *guessed})
    by_class = precision_recall_fscore_support(right, guessed, labels=names, zero_division=0)
    per_type = {
        name: SpanScores(float(p), float(r), float(f), int(support))
        for name, p, r, f, support in zip(names, *by_class, strict=True)
    }
    return _class_scores(
        per_type,
        right=sum(map(eq, right, guessed)),
        loss=loss,
        sentences=len(gold),
        words=len(right),
        words_without_pieces=words_without_pieces,
    )
