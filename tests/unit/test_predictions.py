"""Predictions on disk come back as they were, and whatever else such a file holds is told of."""

from __future__ import annotations

import tracemalloc
from itertools import repeat
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bigner.errors import DataError, RunError
from bigner.predictions import read_predictions, write_predictions

# All that Unicode has but half surrogate pairs, which data files may not have.
WORD = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=5)
TAG = st.sampled_from(["O", "B-PER", "I-PER", "B-creative-work"])
CONFIDENCE = st.sampled_from(["0.0000", "0.5034", "1.0000", ""])
CORPUS = st.lists(
    st.lists(st.tuples(WORD, TAG, TAG, CONFIDENCE), min_size=1, max_size=4), min_size=1
)


@given(corpus=CORPUS, columns=st.sampled_from([2, 3]))
def test_round_trip(
    corpus: list[list[tuple[str, str, str, str]]], columns: int, tmp_path_factory: object
) -> None:
    """With confidences, and without them as earlier versions wrote it."""
    path = tmp_path_factory.mktemp("run") / "predictions" / "test.tsv"  # type: ignore[attr-defined]
    words, *told = ([[word[i] for word in sentence] for sentence in corpus] for i in range(4))
    write_predictions(path, words, {"tags": told[:columns]})
    lines = read_predictions(path)
    rows = [word for sentence in corpus for word in [("", "", "", ""), *sentence]][1:]
    assert lines.gold == [row[1] for row in rows]
    assert lines.predicted == [row[2] for row in rows]
    breaks = str.maketrans("\t\n\r", "   ")
    asked = [f"{word.translate(breaks)}\t{gold}" if word else "" for word, gold, *_ in rows]
    assert lines.asked == asked
    expected = [float(row[3] or "nan") for row in rows]
    if columns == 2:
        assert lines.confidences is None
    else:
        assert np.array_equal(lines.confidences, expected, equal_nan=True)
    assert lines.difference(read_predictions(path)) == ""


def test_the_file_is_plain(tmp_path: Path) -> None:
    path = tmp_path / "test.tsv"
    write_predictions(
        path,
        [["Anna", "a\tb\n"], ["\u200b"]],
        {
            "tags": (
                [["B-PER", "O"], ["O"]],
                [["B-PER", "B-PER"], ["O"]],
                [["0.9987", "0.5000"], [""]],
            )
        },
    )
    assert path.read_text() == (
        "Anna\tB-PER\tB-PER\t0.9987\na b \tO\tB-PER\t0.5000\n\n\u200b\tO\tO\t\n"
    )
    assert list(tmp_path.iterdir()) == [path]


def test_several_heads_are_written_as_they_come(tmp_path: Path) -> None:
    words = [["Anna", "sleeps"], ["."]]
    tags, classes = [["B-PER", "O"], ["O"]], [["NOUN", "VERB"], ["X"]]
    heads = {"ner": (iter(tags), iter(tags)), "pos": (iter(classes), iter(classes))}
    write_predictions(tmp_path / "test.tsv", words, heads)
    ner, pos = ((tmp_path / f"test-{head}.tsv").read_text() for head in heads)
    assert ner == "Anna\tB-PER\tB-PER\nsleeps\tO\tO\n\n.\tO\tO\n"
    assert pos == "Anna\tNOUN\tNOUN\nsleeps\tVERB\tVERB\n\n.\tX\tX\n"


def test_no_more_than_a_sentence_is_held(tmp_path: Path) -> None:
    words, tags = ["word"] * 20, ["B-creative-work"] * 20
    sentences = 5000
    tracemalloc.start()
    heads = {"tags": (repeat(tags, sentences), repeat(tags, sentences))}
    write_predictions(tmp_path / "test.tsv", repeat(words, sentences), heads)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (tmp_path / "test.tsv").stat().st_size > 3 * 10**6
    assert peak < 3 * 10**5


def test_no_place_to_write(tmp_path: Path) -> None:
    (tmp_path / "predictions").write_text("a file")
    with pytest.raises(RunError, match=r"predictions/test\.tsv cannot be written"):
        write_predictions(
            tmp_path / "predictions" / "test.tsv", [["a"]], {"tags": ([["O"]], [["O"]])}
        )


FIRST = "Anna\tB-PER\tO\nsleeps\tO\tO\n\n.\tO\tO\n"


@pytest.mark.parametrize(
    ("other", "told"),
    [
        (FIRST.replace("B-PER\tO", "B-PER\tB-PER"), ""),
        (
            FIRST.replace("sleeps", "reads"),
            "b:2 has 'reads' tagged O, where a:2 has 'sleeps' tagged O",
        ),
        (FIRST.replace("B-PER", "B-LOC"), "b:1 has 'Anna' tagged B-LOC, where a:1 has 'Anna'"),
        (FIRST.replace("\n\n", "\n"), "b:3 has '.' tagged O, where a:3 has the end of a sentence"),
        (FIRST + "\n.\tO\tO\n", "b:5 has the end of a sentence, where a ends before line 5"),
        ("Anna\tB-PER\tO\n", "b ends before line 2, where a:2 has 'sleeps' tagged O"),
    ],
)
def test_the_first_difference_is_named(
    other: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a").write_text(FIRST)
    Path("b").write_text(other)
    found = read_predictions(Path("b")).difference(read_predictions(Path("a")))
    assert found.startswith(told)
    assert bool(found) == bool(told)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"Anna\tB-PER\tO\nsleeps O O\n", r"test\.tsv:2: not word, gold tag, predicted tag"),
        (b"Anna\tO\n", r"test\.tsv:1: not word, gold tag"),
        (b"a\tO\tO\n\nb\tO\tE-PER\n", r"test\.tsv:3: 'E-PER' is no tag of IOB2"),
        (b"a\tB-\tO\n", r"test\.tsv:1: 'B-' is no tag"),
        (b"a\tO\t\n", r"test\.tsv:1: '' is no tag"),
        (b"a\tO\tO\t0.5\n\nb\tO\tO\n", r"test\.tsv:3: not word, .*, predicted tag, confidence: 'b"),
        (b"a\tO\tO\n\nb\tO\tO\t0.5\n", r"test\.tsv:3: not word, gold tag, predicted tag: 'b"),
        (b"a\tO\tO\t\nb\tO\tO\t1.2\n", r"test\.tsv:2: '1\.2' is no probability"),
        (b"a\tO\tO\tnan\n", r"test\.tsv:1: 'nan' is no probability"),
        (b"\xff\tO\tO\n", r"test\.tsv is not UTF-8"),
    ],
)
def test_what_is_no_file_of_predictions(content: bytes, told: str, tmp_path: Path) -> None:
    (tmp_path / "test.tsv").write_bytes(content)
    with pytest.raises(DataError, match=told):
        read_predictions(tmp_path / "test.tsv")


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read_predictions(tmp_path / "test.tsv")
