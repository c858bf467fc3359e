"""Entities counted by sentence are those that seqeval reads."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from seqeval.metrics import f1_score
from seqeval.metrics.sequence_labeling import get_entities

from bigner.evaluation.counts import Counts, count
from bigner.evaluation.metrics import score_tags

# `_` is what seqeval calls a tag without a type, a type may have a hyphen or be a prefix.
TYPES = ["PER", "LOC", "creative-work", "_", "B", "B-PER"]
TAGS = st.sampled_from(["O", "O", *(f"{prefix}-{name}" for prefix in "BI" for name in TYPES)])
SENTENCE = st.lists(st.tuples(TAGS, TAGS), min_size=1, max_size=9)
CORPUS = st.lists(SENTENCE, min_size=1, max_size=6)
Tags = list[list[str]]


def joined(sentences: Tags) -> list[str]:
    """As the lines of a file."""
    return [tag for sentence in sentences for tag in ("", *sentence)][1:]


def counted(gold: Tags, predicted: Tags) -> Counts:
    return count(joined(gold), joined(predicted))


@given(CORPUS)
def test_counts_are_seqevals(corpus: list[list[tuple[str, str]]]) -> None:
    gold = [[tag for tag, _ in sentence] for sentence in corpus]
    predicted = [[tag for _, tag in sentence] for sentence in corpus]
    found = counted(gold, predicted)
    for i, tags in enumerate(zip(gold, predicted, strict=True)):
        there, here = (set(get_entities(side)) for side in tags)
        assert (found.gold[i], found.predicted[i]) == (len(there), len(here))
        assert found.correct[i] == len(there & here)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        f1 = f1_score(gold, predicted) if any(map(get_entities, gold + predicted)) else 0.0
    assert found.f1 == pytest.approx(f1, abs=1e-12)


@given(CORPUS)
def test_scores_are_those_of_a_run(corpus: list[list[tuple[str, str]]]) -> None:
    gold = [[tag for tag, _ in sentence] for sentence in corpus]
    predicted = [[tag for _, tag in sentence] for sentence in corpus]
    found = counted(gold, predicted)
    scores = score_tags(gold, predicted, loss=0.0, words_without_pieces=0)
    for name in ("precision", "recall", "f1", "accuracy"):
        assert getattr(found, name) == pytest.approx(getattr(scores, name), abs=1e-12)
    of_type = {name: spans.f1 for name, spans in scores.per_type.items()}
    assert found.f1_of_type == pytest.approx(of_type, abs=1e-12)


def test_by_hand() -> None:
    gold = [["B-PER", "I-PER", "O", "B-LOC"], ["O", "O"], ["I-LOC", "B-LOC", "I-PER"]]
    predicted = [["B-PER", "I-PER", "O", "B-PER"], ["O", "I-LOC"], ["B-LOC", "I-LOC", "I-PER"]]
    found = counted(gold, predicted)
    assert found.gold.tolist() == [2, 0, 3]
    assert found.predicted.tolist() == [2, 1, 2]
    assert found.correct.tolist() == [1, 0, 1]
    assert found.precision == found.recall == found.f1 == 2 / 5
    # Of PER two right of two, and three said; of LOC none.
    assert found.f1_of_type == {"LOC": 0.0, "PER": 2 * 2 / (2 + 3)}
    assert found.accuracy == 5 / 9


def test_an_entity_ends_with_its_sentence() -> None:
    assert counted([["B-PER"], ["I-PER"]], [["B-PER"], ["I-PER"]]).correct.tolist() == [1, 1]


def test_nothing_anywhere() -> None:
    found = counted([["O"], ["O"]], [["O"], ["O"]])
    assert (found.precision, found.recall, found.f1, found.accuracy) == (0.0, 0.0, 0.0, 1.0)
    assert found.f1_of_type == {}
    assert np.array_equal(found.gold, [0, 0])
