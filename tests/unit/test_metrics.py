"""Scores are seqeval's own numbers, in both modes, also where there is nothing to score."""

from __future__ import annotations

import json
import warnings
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from seqeval.metrics import f1_score, precision_score, recall_score
from seqeval.scheme import IOB2

from bigner.evaluation.metrics import SpanScores, Tags, score_tags, span_scores

TAGS = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC", "B-creative-work", "I-creative-work"]
NOTHING = SpanScores(0.0, 0.0, 0.0, 0)


@st.composite
def gold_and_predicted(draw: st.DrawFn) -> tuple[Tags, Tags]:
    # Few types in many examples: whole splits without any entity are the interesting ones.
    tags = st.sampled_from(draw(st.sampled_from([TAGS, TAGS[:3], TAGS[:1], ["O", "I-PER"]])))
    lengths = draw(st.lists(st.integers(1, 12), min_size=1, max_size=6))
    gold, predicted = (
        [draw(st.lists(tags, min_size=n, max_size=n)) for n in lengths] for _ in range(2)
    )
    if draw(st.booleans()):
        predicted = [g if draw(st.booleans()) else p for g, p in zip(gold, predicted, strict=True)]
    return gold, predicted


def by_seqeval(gold: Tags, predicted: Tags, *, strict: bool) -> tuple[float, float, float]:
    mode: dict[str, Any] = {"mode": "strict", "scheme": IOB2} if strict else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return tuple(
            float(metric(gold, predicted, zero_division=0, **mode))
            for metric in (precision_score, recall_score, f1_score)
        )


@settings(deadline=None, max_examples=300)
@given(gold_and_predicted(), st.booleans())
@example(([["O"]], [["O"]]), True)
@example(([["I-PER"]], [["O"]]), True)
@example(([["O"]], [["I-PER"]]), True)
@example(([["B-PER"]], [["I-PER"]]), True)
@example(([["I-PER", "O"]], [["O", "I-PER"]]), True)
@example(([["O", "O"]], [["B-PER", "O"]]), False)
@example(([["B-PER", "O"]], [["O", "O"]]), False)
def test_equals_seqeval(case: tuple[Tags, Tags], strict: bool) -> None:
    gold, predicted = case
    micro, per_type = span_scores(gold, predicted, strict=strict)
    expected = by_seqeval(gold, predicted, strict=strict)
    assert (micro.precision, micro.recall, micro.f1) == pytest.approx(expected, abs=1e-12)
    assert micro.support == sum(scores.support for scores in per_type.values())
    # One type at a time, the others taken out.
    for name, scores in per_type.items():
        alone = [
            [[t if t[2:] == name else "O" for t in tags] for tags in side]
            for side in (gold, predicted)
        ]
        expected = by_seqeval(*alone, strict=strict)
        assert (scores.precision, scores.recall, scores.f1) == pytest.approx(expected, abs=1e-12)


def test_by_hand() -> None:
    gold = [["B-PER", "I-PER", "O", "B-LOC"], ["O", "B-PER"]]
    predicted = [["B-PER", "I-PER", "O", "O"], ["B-PER", "B-PER"]]
    micro, per_type = span_scores(gold, predicted, strict=False)
    assert micro == SpanScores(pytest.approx(2 / 3), pytest.approx(2 / 3), pytest.approx(2 / 3), 3)
    assert per_type == {
        "LOC": SpanScores(0.0, 0.0, 0.0, 1),
        "PER": SpanScores(pytest.approx(2 / 3), 1.0, pytest.approx(0.8), 2),
    }


@pytest.mark.parametrize("strict", [False, True])
def test_nothing_anywhere(strict: bool) -> None:
    assert span_scores([["O", "O"]], [["O", "O"]], strict=strict) == (NOTHING, {})


@pytest.mark.parametrize("strict", [False, True])
def test_no_entity_in_gold(strict: bool) -> None:
    assert span_scores([["O", "O"]], [["B-PER", "O"]], strict=strict) == (
        NOTHING,
        {"PER": NOTHING},
    )


def test_only_stray_tags() -> None:
    assert span_scores([["O", "B-PER"]], [["I-PER", "O"]], strict=True)[0].f1 == 0.0
    assert span_scores([["O"]], [["I-PER"]], strict=True) == (NOTHING, {})
    assert span_scores([["O"]], [["I-PER"]], strict=False) == (NOTHING, {"PER": NOTHING})


def test_strict_does_not_count_stray_inside_tags() -> None:
    gold = [["B-PER", "I-PER", "O"], ["B-LOC", "O", "O"]]
    predicted = [["I-PER", "I-PER", "O"], ["B-LOC", "O", "O"]]
    scores = score_tags(gold, predicted, loss=0.5, words_without_pieces=0)
    assert scores.f1 == 1.0
    assert scores.strict.f1 == pytest.approx(2 / 3)
    assert scores.strict_per_type["PER"].recall == 0.0


def test_scores_of_a_split() -> None:
    gold = [["B-PER", "I-PER", "O"], ["O"]]
    predicted = [["B-PER", "O", "O"], ["O"]]
    scores = score_tags(gold, predicted, loss=0.123456, words_without_pieces=2)
    assert scores.accuracy == 0.75
    assert scores.loss == 0.1235
    assert (scores.sentences, scores.words, scores.words_without_pieces) == (2, 4, 2)
    plain = scores.as_dict()
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    assert plain["per_type"]["PER"]["support"] == 1


def test_as_many_predictions_as_words() -> None:
    with pytest.raises(ValueError, match="inconsistent"):
        score_tags([["O", "B-PER"]], [["O"]], loss=0.0, words_without_pieces=0)
