"""Scores are seqeval's own numbers, in both modes, also where there is nothing to score.

Those of label ids are those of the referees to the last digit.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import seqeval.scheme
from hypothesis import example, given, settings
from hypothesis import strategies as st
from seqeval.metrics import classification_report, f1_score, precision_score, recall_score
from seqeval.scheme import IOB2

from bigner.config.schema import DataConfig
from bigner.data.corpus import read_corpus
from bigner.evaluation.metrics import (
    SpanScores,
    Tags,
    score_class_ids,
    score_classes,
    score_tag_ids,
    score_tags,
    span_scores,
    span_scores_of_ids,
)
from bigner.evaluation.spans import StrictScheme
from bigner.evaluation.word_labels import WordLabels
from tests.unit.helpers import word_labels

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


# ---------------------------------------------------------------- label ids


# `_` is what seqeval calls a tag without a type; a type may have hyphens or be a prefix.
ODD_TYPES = ["PER", "LOC", "creative-work", "_", "B", "B-PER", "PER-"]


@st.composite
def two_sides(draw: st.DrawFn, tags: list[str]) -> tuple[Tags, Tags]:
    """Of which some places are alike; a sentence may have no word, but the first has one."""
    few = st.sampled_from(draw(st.lists(st.sampled_from(tags), min_size=1, max_size=6)))
    gold = draw(st.lists(st.lists(few, max_size=9), max_size=6))
    gold = [[draw(few)], *gold]
    predicted = [[t if draw(st.booleans()) else draw(few) for t in tags] for tags in gold]
    return gold, predicted


@settings(deadline=None, max_examples=500)
@given(two_sides(["O", "O", *(f"{p}-{t}" for p in "BI" for t in ODD_TYPES)]))
@example(([["O"]], [["O"]]))
@example(([["I-PER"]], [["O"]]))
@example(([["O"], []], [["I-PER"], []]))
def test_scores_of_label_ids(case: tuple[Tags, Tags]) -> None:
    told: dict[str, Any] = {"loss": 0.123456, "words_without_pieces": 3}
    assert score_tag_ids(word_labels(*case), **told) == score_tags(*case, **told)


@settings(deadline=None, max_examples=500)
@given(two_sides(["O", *(f"{p}-{t}" for p in "BIESLU" for t in ODD_TYPES)]))
def test_label_ids_of_any_scheme_as_conlleval_reads_them(case: tuple[Tags, Tags]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert span_scores_of_ids(word_labels(*case)) == span_scores(*case, strict=False)


LETTERS = {"IOB1": "IB", "IOB2": "IB", "IOE1": "IE", "IOE2": "IE", "IOBES": "IBES", "BILOU": "BILU"}


@pytest.mark.parametrize("scheme", get_args(StrictScheme))
@given(data=st.data())
@settings(deadline=None)
def test_label_ids_of_any_scheme_to_the_letter(scheme: StrictScheme, data: st.DataObject) -> None:
    tags = ["O", *(f"{p}-{t}" for p in LETTERS[scheme] for t in ODD_TYPES)]
    gold, predicted = data.draw(two_sides(tags))
    micro, per_type = span_scores_of_ids(word_labels(gold, predicted), scheme=scheme)
    mode: dict[str, Any] = {"mode": "strict", "scheme": getattr(seqeval.scheme, scheme)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        report = classification_report(gold, predicted, output_dict=True, zero_division=0, **mode)
    expected = {
        name: SpanScores(of["precision"], of["recall"], of["f1-score"], int(of["support"]))
        for name, of in report.items()
    }
    del expected["macro avg"], expected["weighted avg"]
    assert {"micro avg": micro, **per_type} == expected


@settings(deadline=None, max_examples=300)
@given(two_sides(["NOUN", "VERB", "ADJ", "O", "X"]))
def test_classes_of_label_ids(case: tuple[Tags, Tags]) -> None:
    told: dict[str, Any] = {"loss": 0.123456, "words_without_pieces": 3}
    assert score_class_ids(word_labels(*case), **told) == score_classes(*case, **told)


CORPORA: dict[str, dict[str, Any]] = {
    "wnut17/wnut17train.conll": {},
    "nerkor-hu/data/train": {"columns": {"words": "FORM", "tags": "CONLL:NER"}},
    "uner-slovak-snk/sk_snk-ud-train.iob2": {"columns": {"words": 1, "tags": 2}},
}


@pytest.mark.data
@pytest.mark.parametrize("corpus", CORPORA)
def test_a_corpus_against_itself_with_errors(corpus: str, shared_data: Path) -> None:
    """The model has another order of labels, lacks some, and has some that gold does not."""
    data = DataConfig.model_validate({"train": str(shared_data / corpus), **CORPORA[corpus]})
    found = read_corpus(data, ["train"])
    (head,) = found.heads.values()
    gold = [sentence.tags[0] for sentence in found.sentences["train"]]
    known = ("I-NEW", *reversed(head.labels.tags[3:]), "O", "B-NEW")
    random = np.random.default_rng(0)
    ids = np.array([known.index(t if t in known else "O") for tags in gold for t in tags])
    wrong = random.random(len(ids)) < 0.02
    ids[wrong] = random.integers(len(known), size=int(wrong.sum()))
    words = WordLabels(
        gold=np.array([head.labels.id_of(t) for tags in gold for t in tags], dtype=np.int16),
        predicted=ids.astype(np.int8),
        gold_labels=head.labels.tags,
        predicted_labels=known,
        sentence_lengths=np.array([len(tags) for tags in gold]),
    )
    assert list(words.gold_tags()) == [list(tags) for tags in gold]
    predicted = list(words.predicted_tags())
    told: dict[str, Any] = {"loss": 0.5, "words_without_pieces": 0}
    scores = score_tag_ids(words, **told)
    assert scores == score_tags(list(words.gold_tags()), predicted, **told)
    assert 0.3 < scores.f1 < 0.9
    assert scores.f1 != scores.strict.f1
    assert scores.per_type["NEW"].support == 0
    assert score_class_ids(words, **told) == score_classes(gold, predicted, **told)
