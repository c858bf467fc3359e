"""Entities read from label ids are those that seqeval reads from tags, in both of its modes."""

from __future__ import annotations

import warnings
from typing import get_args

import numpy as np
import pytest
import seqeval.scheme
from hypothesis import example, given, settings
from hypothesis import strategies as st
from seqeval.metrics.sequence_labeling import get_entities

from bigner.evaluation.spans import SpanReader, Spans, StrictScheme

SCHEMES = get_args(StrictScheme)
# `_` is what seqeval calls a tag without a type; a type may have hyphens or be a prefix.
TYPES = ["", "PER", "LOC", "creative-work", "_", "B", "B-PER", "-PER", "PER-"]
# Prefixes that conlleval knows, others that seqeval does, and what nobody takes for one.
ANY_TAG = st.sampled_from(
    ["O", "B", "I", "BPER", "O-PER", ".", "Ä", *(f"{p}-{t}" for p in "BIESLUX." for t in TYPES)]
)
# So few that entities go on, touch and match.
FEW_TAGS = st.sampled_from(["O", *(f"{p}-{t}" for p in "BIESLU" for t in ["X", "_"])])
Tags = list[list[str]]


def sentences_of(tag: st.SearchStrategy[str]) -> st.SearchStrategy[Tags]:
    return st.lists(st.lists(tag, max_size=9), min_size=1, max_size=5)


def read(sentences: Tags, scheme: StrictScheme | None = None) -> tuple[Spans, tuple[str, ...]]:
    """As ``WordLabels.with_gaps`` lays sentences out: one after the other, a gap behind each."""
    tags = sorted({tag for sentence in sentences for tag in sentence})
    reader = SpanReader(tags, scheme)
    ids = [i for s in sentences for i in (*map(tags.index, s), reader.outside)]
    return reader.read(np.array(ids, dtype=np.uint8)), reader.types


def named(spans: Spans, types: tuple[str, ...]) -> list[tuple[str, int, int]]:
    columns = (column.tolist() for column in (spans.types, spans.first, spans.last))
    return [(types[number], first, last) for number, first, last in zip(*columns, strict=True)]


@settings(deadline=None, max_examples=500)
@given(st.one_of(sentences_of(ANY_TAG), sentences_of(FEW_TAGS)))
# An L begins an entity at the very first word alone: no type is not the type of O.
@example([["L-_", "E-_"]])
@example([[], ["L-_", "E-_"]])
@example([["B-_"], ["L-_", "E-_", "L-_", "E-_"]])
def test_default_mode(sentences: Tags) -> None:
    with warnings.catch_warnings():
        # "seems not to be NE tag".
        warnings.simplefilter("ignore")
        expected = get_entities(sentences)
    assert named(*read(sentences)) == expected


@st.composite
def of_a_scheme(draw: st.DrawFn) -> tuple[StrictScheme, Tags]:
    scheme = draw(st.sampled_from(SCHEMES))
    letters = {"IOB1": "IB", "IOB2": "IB", "IOE1": "IE", "IOE2": "IE", "IOBES": "IBES"}
    types = draw(st.sampled_from([["X"], ["X", "_"], TYPES]))
    tags = ["O", *(f"{p}-{t}" for p in letters.get(scheme, "BILU") for t in types)]
    return scheme, draw(sentences_of(st.sampled_from(tags)))


@settings(deadline=None, max_examples=1000)
@given(of_a_scheme())
@example(("IOB1", [["O", "B-X", "I-X", "I-X"]]))
@example(("IOB1", [["I-X", "B-X", "I-X", "I-X"]]))
def test_strict_mode(case: tuple[StrictScheme, Tags]) -> None:
    scheme, sentences = case
    starts = np.cumsum([0, *(len(tags) + 1 for tags in sentences)]).tolist()
    entities = seqeval.scheme.Entities(sentences, getattr(seqeval.scheme, scheme))
    expected = [
        (entity.tag, starts[entity.sent_id] + entity.start, starts[entity.sent_id] + entity.end - 1)
        for of_sentence in entities.entities
        for entity in of_sentence
    ]
    assert named(*read(sentences, scheme)) == expected


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("letter", "IBESLUX")
def test_tags_that_a_scheme_lacks(scheme: StrictScheme, letter: str) -> None:
    sentences = [["O", f"{letter}-PER"]]
    try:
        seqeval.scheme.Entities(sentences, getattr(seqeval.scheme, scheme))
    except (KeyError, ValueError):
        with pytest.raises(ValueError, match=f"'{letter}-PER' is no tag of the scheme {scheme}"):
            read(sentences, scheme)
    else:
        read(sentences, scheme)


def test_a_tag_that_nothing_is_given_breaks_no_scheme() -> None:
    reader = SpanReader(["O", "B-X", "S-X"], "IOB2")
    spans = reader.read(np.array([1, 0]))
    assert named(spans, reader.types) == [("X", 0, 0)]


def test_what_matches_has_the_type_and_both_boundaries() -> None:
    tags = ["O", "B-X", "I-X", "B-Y"]
    reader = SpanReader(tags)
    gold, predicted, nothing = (
        reader.read(np.array([tags.index(tag) for tag in sentence.split()]))
        for sentence in ("B-X I-X O B-Y B-X", "B-X I-X O B-X I-X", "O O O O O")
    )
    assert named(predicted.among(gold), reader.types) == [("X", 0, 1)]
    assert named(gold.among(nothing), reader.types) == []
    assert named(nothing.among(gold), reader.types) == []


def test_more_labels_than_a_byte_has() -> None:
    tags = ["O", *(f"{prefix}-{i}" for i in range(200) for prefix in "BI")]
    reader = SpanReader(tags)
    ids = np.array([tags.index(tag) for tag in ["B-199", "I-199", "I-198", "O", "B-0"]])
    assert named(reader.read(ids), reader.types) == [("199", 0, 1), ("198", 2, 2), ("0", 4, 4)]
