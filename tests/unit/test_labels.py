"""Schemes convert as conlleval reads them, and label sets are what a model's config says."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from seqeval.metrics.sequence_labeling import get_entities

from bigner.data.labels import (
    LabelSet,
    Scheme,
    TagError,
    recognise_scheme,
    split_tag,
    to_iob2,
)
from bigner.errors import ModelError

TYPES = ["PER", "LOC", "creative-work"]

# (length, type) runs; None is outside.
_RUNS = st.lists(
    st.tuples(st.integers(1, 4), st.sampled_from([None, *TYPES])), min_size=1, max_size=8
)


def spell(runs: list[tuple[int, str | None]], scheme: str) -> list[str]:
    """Runs as tags of a scheme, written out independently of the code under test."""
    tags: list[str] = []
    before: str | None = None
    for length, entity_type in runs:
        if entity_type is None:
            tags += ["O"] * length
        else:
            inner = ["I"] * length
            if scheme == "iob2" or (scheme == "iob1" and before == entity_type):
                inner[0] = "B"
            elif scheme in ("bioes", "bilou"):
                end, single = ("E", "S") if scheme == "bioes" else ("L", "U")
                inner = ["B", *["I"] * (length - 2), end] if length > 1 else [single]
            tags += [f"{prefix}-{entity_type}" for prefix in inner]
        before = entity_type
    return tags


# ---------------------------------------------------------------- tags


@pytest.mark.parametrize(
    ("tag", "scheme", "parts"),
    [
        ("O", "io", ("O", "")),
        ("B-creative-work", "iob2", ("B", "creative-work")),
        ("I--", "io", ("I", "-")),
        ("L-PER", "bioes", ("E", "PER")),
        ("U-PER", "bioes", ("S", "PER")),
    ],
)
def test_split_tag(tag: str, scheme: Scheme, parts: tuple[str, str]) -> None:
    assert split_tag(tag, scheme) == parts


@pytest.mark.parametrize(
    ("tag", "scheme", "allowed"),
    [
        ("S-PER", "iob2", "O, B-TYPE, I-TYPE"),
        ("B-PER", "io", "O, I-TYPE"),
        ("X-PER", "bioes", "O, B-TYPE, I-TYPE, E-TYPE, S-TYPE, L-TYPE, U-TYPE"),
        *(
            (tag, "iob2", "O, B-TYPE, I-TYPE")
            for tag in ("_", "PER", "B-", "B", "-PER", "b-PER", "o", "", "B_PER", "BI-PER", "O-PER")
        ),
    ],
)
def test_tags_that_a_scheme_does_not_have(tag: str, scheme: Scheme, allowed: str) -> None:
    with pytest.raises(TagError) as caught:
        split_tag(tag, scheme)
    assert str(caught.value) == f"{tag!r} is not a tag of the scheme {scheme} ({allowed})"
    with pytest.raises(TagError):
        to_iob2(["O", tag], scheme)


# ---------------------------------------------------------------- schemes


@pytest.mark.parametrize(
    ("sequences", "scheme"),
    [
        ([["B-X", "I-X", "O"], ["O", "B-X"]], "iob2"),
        ([["B-X", "O", "B-Y"]], "iob2"),
        ([["I-X", "B-Y"]], "iob2"),
        ([["I-X", "O", "B-X"]], "iob2"),
        ([["B-X", "B-X"], ["I-X"]], "iob2"),
        ([["B-X"], ["I-X", "B-X"]], "iob2"),
        ([["B-X", "I-X"], ["B-X", "I-X"]], "iob2"),
        ([["I-X", "I-X", "B-X", "I-X"], ["O", "I-Y"]], "iob1"),
        ([["I-X", "I-X", "O"], ["I-Y", "I-X"]], "io"),
        ([["B-X", "I-X"], ["S-Y"]], "bioes"),
        ([["B-X", "E-X"]], "bioes"),
        ([["B-X", "L-X"]], "bioes"),
        ([["O", "U-X"]], "bioes"),
        ([["O", "O"], []], "iob2"),
        ([], "iob2"),
    ],
)
def test_recognise_scheme(sequences: list[list[str]], scheme: Scheme) -> None:
    assert recognise_scheme(sequences) == scheme
    assert recognise_scheme(iter(sequences)) == scheme


def test_recognise_scheme_refuses_what_is_no_tag() -> None:
    with pytest.raises(TagError, match="'_' is not a tag"):
        recognise_scheme([["O", "_"]])


@given(_RUNS, st.sampled_from(["iob2", "iob1", "bioes", "bilou"]))
def test_schemes_that_tell_neighbours_apart_convert_without_loss(
    runs: list[tuple[int, str | None]], written: str
) -> None:
    scheme: Scheme = "bioes" if written == "bilou" else written  # type: ignore[assignment]
    assert to_iob2(spell(runs, written), scheme) == (spell(runs, "iob2"), [])


@given(_RUNS)
def test_io_joins_neighbours_of_one_type(runs: list[tuple[int, str | None]]) -> None:
    joined: list[tuple[int, str | None]] = []
    for length, entity_type in runs:
        if joined and joined[-1][1] == entity_type:
            joined[-1] = (joined[-1][0] + length, entity_type)
        else:
            joined.append((length, entity_type))
    assert to_iob2(spell(runs, "io"), "io") == (spell(joined, "iob2"), [])


@given(st.lists(_RUNS, min_size=1), st.sampled_from(["iob2", "iob1", "bioes", "bilou", "io"]))
def test_the_recognised_scheme_reads_the_same_entities(
    corpus: list[list[tuple[int, str | None]]], written: str
) -> None:
    sequences = [spell(runs, written) for runs in corpus]
    recognised = recognise_scheme(sequences)
    scheme: Scheme = "bioes" if written == "bilou" else written  # type: ignore[assignment]
    for tags in sequences:
        assert to_iob2(tags, recognised) == to_iob2(tags, scheme)


@pytest.mark.parametrize(
    ("scheme", "tags", "repaired", "broken"),
    [
        ("iob2", "I-X I-X O I-Y", "B-X I-X O B-Y", [0, 3]),
        ("iob2", "B-X I-Y I-X B-X", "B-X B-Y B-X B-X", [1, 2]),
        ("iob1", "B-X I-X B-X O B-X", "B-X I-X B-X O B-X", [0, 4]),
        ("iob1", "I-X B-Y I-Y", "B-X B-Y I-Y", [1]),
        ("bioes", "I-X E-X O E-X", "B-X I-X O B-X", [0, 3]),
        ("bioes", "B-X O B-X B-X E-X", "B-X O B-X B-X I-X", [0, 2]),
        ("bioes", "B-X I-X", "B-X I-X", [1]),
        ("bioes", "S-X I-X E-X E-X", "B-X B-X I-X B-X", [1, 3]),
        ("bioes", "B-X E-Y S-Y", "B-X B-Y B-Y", [0, 1]),
        ("bioes", "I-X", "B-X", [0]),
        ("bioes", "B-X L-X U-X U-X", "B-X I-X B-X B-X", []),
    ],
)
def test_repair(scheme: Scheme, tags: str, repaired: str, broken: list[int]) -> None:
    assert to_iob2(tags.split(), scheme) == (repaired.split(), broken)


@pytest.mark.parametrize("scheme", ["iob2", "iob1", "bioes"])
@given(data=st.data())
def test_broken_tags_are_read_as_conlleval_does(scheme: Scheme, data: st.DataObject) -> None:
    prefixes = "BIES" if scheme == "bioes" else "BI"
    tag = st.one_of(
        st.just("O"),
        st.builds("{}-{}".format, st.sampled_from(prefixes), st.sampled_from(TYPES[:2])),
    )
    raw = data.draw(st.lists(tag, max_size=12))
    repaired, broken = to_iob2(raw, scheme)
    # seqeval's lenient mode is conlleval's reading.
    assert get_entities(repaired) == get_entities(raw)
    assert to_iob2(repaired, "iob2") == (repaired, [])
    assert broken == sorted(set(broken))
    if not broken and scheme == "iob2":
        assert repaired == raw


# ---------------------------------------------------------------- label sets


def test_a_label_set_of_types() -> None:
    labels = LabelSet.of_types(["PER", "creative-work"])
    assert labels.tags == ("O", "B-PER", "I-PER", "B-creative-work", "I-creative-work")
    assert len(labels) == 5
    assert labels.types == ("PER", "creative-work")
    assert labels.label2id == {tag: labels.id_of(tag) for tag in labels.tags}
    assert labels == LabelSet.from_id2label(dict(enumerate(labels.tags)))
    with pytest.raises(ModelError, match=r"no label 'B-LOC'; it has O, B-PER"):
        labels.id_of("B-LOC")


def test_the_label_set_of_a_foreign_model() -> None:
    # As in FacebookAI/xlm-roberta-large-finetuned-conll03-english, which is trained on IOB1.
    tags = ("B-LOC", "B-MISC", "B-ORG", "I-LOC", "I-MISC", "I-ORG", "I-PER", "O")
    as_in_json = {str(number): tag for number, tag in reversed(list(enumerate(tags)))}
    labels = LabelSet.from_id2label(as_in_json)
    assert labels.tags == tags
    assert labels.types == ("LOC", "MISC", "ORG", "PER")
    assert labels.id_of("O") == 7


@pytest.mark.parametrize(
    ("id2label", "reason"),
    [
        ({0: "LABEL_0", 1: "LABEL_1"}, "'LABEL_0' is neither O nor B-TYPE nor I-TYPE"),
        ({0: "O", 1: "PER"}, "'PER' is neither"),
        ({0: "O", 1: "S-PER"}, "'S-PER' is neither"),
        ({0: "O", 2: "B-PER"}, "ids are not 0 to 1"),
        ({0: "B-PER", 1: "I-PER"}, "need one O"),
        ({0: "O", 1: "B-PER", 2: "B-PER"}, "no label twice"),
        ({}, "need one O"),
    ],
)
def test_models_that_are_no_iob2_taggers(id2label: dict[int, str], reason: str) -> None:
    with pytest.raises(ModelError, match=reason):
        LabelSet.from_id2label(id2label)
