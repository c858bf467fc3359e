"""Readers: real oddities are read as they are, damage is one error with file and line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bigner.config.schema import DataConfig
from bigner.data.formats import Sentence, read_sentences, source_files
from bigner.data.formats.spans import tokenise
from bigner.errors import DataError

# ---------------------------------------------------------------- helpers


def write(folder: Path, content: str | bytes, name: str = "data.conll") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def read(path: Path | str, **settings: object) -> list[Sentence]:
    return list(read_sentences(DataConfig(train=str(path), **settings), "train"))


def words_of(path: Path | str, **settings: object) -> list[list[str]]:
    return [sentence.words for sentence in read(path, **settings)]


def error_of(path: Path | str, **settings: object) -> str:
    with pytest.raises(DataError) as caught:
        read(path, **settings)
    message = str(caught.value)
    assert "\n" not in message
    return message


def jsonl(*records: object) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


# ---------------------------------------------------------------- files


def test_a_folder_is_every_visible_file_below_it_sorted(tmp_path: Path) -> None:
    for name in ("b.conll", "a/z.txt", "a/README", ".hidden", ".git/config"):
        write(tmp_path, "w\tO\n", name)
    names = [
        path.relative_to(tmp_path).as_posix()
        for path in source_files(DataConfig(train=str(tmp_path)), "train")
    ]
    assert names == ["a/README", "a/z.txt", "b.conll"]


def test_a_glob_takes_files_and_folders_once(tmp_path: Path) -> None:
    for name in ("news/1.conll", "news/2.conll", "law/1.conll", "other/1.conll"):
        write(tmp_path, "w\tO\n", name)
    for pattern in ("[nl]*", "[nl]*/*.conll", "[nl]*/**"):
        found = source_files(DataConfig(train=f"{tmp_path}/{pattern}"), "train")
        assert [path.relative_to(tmp_path).as_posix() for path in found] == [
            "law/1.conll",
            "news/1.conll",
            "news/2.conll",
        ], pattern


def test_a_name_with_glob_characters_is_a_file_if_there_is_one(tmp_path: Path) -> None:
    path = write(tmp_path, "w\tO\n", "part[1].conll")
    assert source_files(DataConfig(train=str(path)), "train") == [path]


def test_what_cannot_be_a_source(tmp_path: Path) -> None:
    empty = write(tmp_path, "", "empty.conll")
    (tmp_path / "folder").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "link.conll").symlink_to(tmp_path / "gone")
    assert error_of(empty) == f"{empty}: the file is empty"
    assert "data.train: the folder" in error_of(tmp_path / "folder")
    assert "broken link" in error_of(tmp_path / "broken")
    assert "data.train: nothing at" in error_of(tmp_path / "none.conll")
    assert "data.train: nothing at" in error_of(f"{tmp_path}/*.jsonl")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission(tmp_path: Path) -> None:
    path = write(tmp_path, "w\tO\n")
    path.chmod(0)
    assert error_of(path) == f"{path}: no permission to read it"


# ---------------------------------------------------------------- column files: real corpora

MULTICOL = "uner-multicol/{}-ud-{}.form-upos-xpos-ner.conll"
BY_NAME = {"words": "FORM", "tags": "CONLL:NER"}
CORPORA = [
    # source, columns, sentences, tokens, documents
    ("wnut17/wnut17train.conll", None, 3394, 62730, 1),
    ("wnut17/emerging.dev.conll", None, 1009, 15733, 1),
    ("wnut17/emerging.test.annotated", None, 1287, 23394, 1),
    ("uner-slovak-snk/sk_snk-ud-train.iob2", {"words": 1, "tags": 2}, 8483, 80628, 283),
    ("uner-slovak-snk/sk_snk-ud-dev.iob2", {"words": 1, "tags": 2}, 1060, 12733, 36),
    ("uner-slovak-snk/sk_snk-ud-test.iob2", {"words": 1, "tags": 2}, 1061, 12736, 36),
    ("nerkor-hu/data/train/news", BY_NAME, 7751, 170689, 66),
    ("nerkor-hu/data/devel/news/*.conllup", BY_NAME, 886, 20731, 8),
    ("nerkor-hu/data/test", {"words": 0, "tags": -2}, 1048, 21735, 8),
    (MULTICOL.format("en_ewt", "dev"), None, 1998, 25093, 318),
    (MULTICOL.format("en_ewt", "test"), None, 2074, 25058, 316),
    (MULTICOL.format("sk_snk", "dev"), None, 1041, 12396, 36),
    (MULTICOL.format("sk_snk", "test"), None, 1053, 12612, 36),
]


@pytest.mark.data
@pytest.mark.parametrize(("source", "columns", "sentences", "tokens", "documents"), CORPORA)
def test_real_corpora_have_their_published_counts(
    shared_data: Path,
    source: str,
    columns: dict[str, object] | None,
    sentences: int,
    tokens: int,
    documents: int,
) -> None:
    found = read(shared_data / source, columns=columns)
    assert len(found) == sentences
    assert sum(len(sentence.words) for sentence in found) == tokens
    numbers = [sentence.document for sentence in found]
    assert numbers == sorted(numbers)
    assert set(numbers) == set(range(documents))


@pytest.mark.data
@pytest.mark.parametrize(
    ("source", "word"),
    [
        ("wnut17/emerging.dev.conll", "watched\u200bwas"),
        ("wnut17/emerging.dev.conll", "Dubbz\ufeff"),
        ("wnut17/emerging.dev.conll", "#"),
        (MULTICOL.format("en_ewt", "test"), "#"),
        ("nerkor-hu/data/train/news", "#Syria"),
    ],
)
def test_odd_words_of_real_corpora_survive(shared_data: Path, source: str, word: str) -> None:
    columns = BY_NAME if "nerkor" in source else None
    found = read(shared_data / source, columns=columns)
    places = [
        (sentence.file, line)
        for sentence in found
        for text, line in zip(sentence.words, sentence.lines, strict=True)
        if text == word
    ]
    assert places
    for file, number in places:
        line = Path(file).read_bytes().decode().split("\n")[number - 1]
        assert line.startswith((word + "\t", word + " "))


# ---------------------------------------------------------------- column files: what a line is


def test_separators_line_ends_and_bom(tmp_path: Path) -> None:
    path = write(
        tmp_path, b"\xef\xbb\xbfEU\tB-ORG\r\nrejects\tO\r\n\t\r\nGerman\tB-MISC\r\n \r\n\r\ncall\tO"
    )
    found = read(path)
    assert [sentence.words for sentence in found] == [["EU", "rejects"], ["German"], ["call"]]
    assert [sentence.tags[0] for sentence in found] == [["B-ORG", "O"], ["B-MISC"], ["O"]]
    assert [sentence.lines for sentence in found] == [[1, 2], [4], [7]]
    assert {sentence.file for sentence in found} == {str(path)}


def test_words_keep_every_character_but_ascii_separators(tmp_path: Path) -> None:
    odd = ["\u200b", "\ufeff", "\xa0", "a\u2028b", "\x85", "\u3000", "x\x0by", "\x1c"]
    for separator in ("\t", " ", "  "):
        path = write(tmp_path, "".join(f"{word}{separator}O\n" for word in ["first", *odd]))
        assert words_of(path) == [["first", *odd]]


def test_words_with_spaces_between_tabs(tmp_path: Path) -> None:
    path = write(tmp_path, "New York \t B-LOC \nis\tO\n")
    (sentence,) = read(path)
    assert sentence.words == ["New York", "is"]
    assert sentence.tags == [["B-LOC", "O"]]


@pytest.mark.parametrize(
    ("columns", "words", "tags"),
    [
        (None, ["a"], ["O"]),
        ({"words": 1, "tags": 3}, ["b"], ["O"]),
        ({"words": -3, "tags": -1}, ["b"], ["O"]),
        ({"words": "LEMMA", "tags": "NER"}, ["b"], ["O"]),
        ({"words": "FORM", "tags": -1}, ["a"], ["O"]),
    ],
)
def test_columns_by_number_and_by_name(
    tmp_path: Path, columns: dict[str, object] | None, words: list[str], tags: list[str]
) -> None:
    path = write(tmp_path, "# global.columns = FORM LEMMA XPOS NER\na\tb\tc\tO\n")
    (sentence,) = read(path, columns=columns)
    assert (sentence.words, sentence.tags) == (words, [tags])


def test_documents(tmp_path: Path) -> None:
    write(
        tmp_path,
        "-DOCSTART- -X- O\n\na X O\n\nb X O\n-DOCSTART- -X- O\nc X O\n"
        "-DOCSTART-\n\n-DOCSTART- -X- O\n\nd X O\n\n# newdoc id = 7\ne X O\n",
        "1",
    )
    write(tmp_path, "f\tO\n\n# newpar\ng\tO\n", "2")
    write(tmp_path, "1\t-DOCSTART-\tO\n2\th\tO\n", "3/ids")
    found = read(tmp_path / "[12]")
    assert [(sentence.words[0], sentence.document) for sentence in found] == [
        ("a", 0),
        ("b", 0),
        ("c", 1),
        ("d", 2),
        ("e", 3),
        ("f", 4),
        ("g", 4),
    ]
    (only,) = read(tmp_path / "3", columns={"words": 1, "tags": 2})
    assert (only.words, only.document) == (["h"], 0)


# The rule for lines that start with '#': what becomes of one in a file of two columns.
ROWS = [
    ("tab", "#\tO", "#"),
    ("tab", "#fun\tO", "#fun"),
    ("tab", "# text = x\tO", "# text = x"),
    ("blank", "# O", "#"),
    ("blank", "#fun O", "#fun"),
    ("blank", "#fun=good O", "#fun=good"),
    ("blank", "#\tO", "#"),
]
COMMENTS = [
    ("tab", "# sent_id = 4"),
    ("tab", "# text = a\tb c\td"),
    ("tab", "# newdoc"),
    ("tab", "# newpar id = 5"),
    ("tab", "# checked by hand"),
    ("blank", "# sent_id = 4"),
    ("blank", "# text = Vitamin O is"),
    ("blank", "# newdoc id = x"),
    ("blank", "# newpar"),
]
NEITHER = [
    ("tab", "# O"),
    ("tab", "#fun O"),
    ("tab", "#fun"),
    ("tab", "#"),
    ("tab", "#\t\tO"),
    ("tab", "# a vitamin named O"),
    ("blank", "# checked by hand"),
    ("blank", "#fun NN O"),
    ("blank", "#"),
]
FILLERS = {"tab": ("a\tO", "b\tO"), "blank": ("a O", "b O")}


@pytest.mark.parametrize("gap", ["\n", "\n\n"])
@pytest.mark.parametrize(("kind", "line", "word"), ROWS)
def test_hash_lines_that_are_rows(
    tmp_path: Path, kind: str, line: str, word: str, gap: str
) -> None:
    first, last = FILLERS[kind]
    found = words_of(write(tmp_path, f"{first}{gap}{line}\n{last}\n"))
    assert found == ([["a", word, "b"]] if gap == "\n" else [["a"], [word, "b"]])


@pytest.mark.parametrize(("kind", "line"), COMMENTS)
def test_hash_lines_that_are_comments(tmp_path: Path, kind: str, line: str) -> None:
    first, last = FILLERS[kind]
    path = write(tmp_path, f"{first}\n\n{line}\n{last}\n")
    assert words_of(path) == [["a"], ["b"]]
    damaged = write(tmp_path, f"{first}\n{line}\n{last}\n")
    assert f"{damaged}:2: starts with '#'" in error_of(damaged)
    assert "is a blank line missing?" in error_of(damaged)


@pytest.mark.parametrize("gap", ["\n", "\n\n"])
@pytest.mark.parametrize(("kind", "line"), NEITHER)
def test_hash_lines_that_are_neither(tmp_path: Path, kind: str, line: str, gap: str) -> None:
    first, last = FILLERS[kind]
    path = write(tmp_path, f"{first}{gap}{line}\n{last}\n")
    assert f"{path}:{len(gap) + 1}: starts with '#' and is neither a row of 2" in error_of(path)


def test_a_hash_line_that_is_both_is_an_error(tmp_path: Path) -> None:
    path = write(tmp_path, "a X Y O\n\n# text = O\nb X Y O\n")
    assert f"{path}:3: can be a comment or the row of a word '#'" in error_of(path)


def test_free_comments_before_the_first_row(tmp_path: Path) -> None:
    path = write(tmp_path, "# Copyright by somebody\n#fun O\nfor O\n")
    assert words_of(path) == [["#fun", "for"]]


def test_a_file_in_which_every_row_starts_with_a_hash(tmp_path: Path) -> None:
    path = write(tmp_path, "# sent_id = O\n#a\tO\n#b\tB-X\n\n# \tO\n")
    assert words_of(path) == [["#a", "#b"], ["#"]]


def test_a_file_of_comments_alone_has_no_sentence(tmp_path: Path) -> None:
    path = write(tmp_path, "# newdoc\n# text = nothing\n\n# a note\n-DOCSTART-\n")
    assert error_of(path) == f"data.train: no sentence in {str(path)!r}"


def test_headers_of_joined_files(tmp_path: Path) -> None:
    header = "# global.columns = FORM NER\n"
    joined = write(tmp_path, f"{header}a\tO\n\n{header}b\tO\n")
    assert words_of(joined) == [["a"], ["b"]]
    other = write(tmp_path, f"{header}a\tO\n\n# global.columns = NER FORM\nO\tb\n")
    assert f"{other}:4: a second header with other columns" in error_of(other)


# line, what the message says, content, settings
DAMAGED_COLUMNS: list[tuple[int, str, str | bytes, dict[str, object]]] = [
    (2, "1 column, and 2 expected as in the first row", "a\tO\nb\n", {}),
    (2, "is there a space where a TAB should be?", "New York\tO\nNew York O\n", {}),
    (2, "is there a space where a TAB should be?", "a\tO\nb O\n", {"separator": "tab"}),
    (2, "a cell with a space in it needs TABs", "a O\nNew York O\n", {}),
    (3, "3 columns, and 2 expected", "a\tO\n\nb\tX\tO\n", {}),
    (2, "1 column, and 2 expected", "a\tO\n\xa0\nb\tO\n", {}),
    (4, "2 columns, and 3 expected", "a\tN\tO\nb\tN\tO\n\nc\tN O\n", {}),
    (2, "the word in column 0 (from 0) is empty", "a\tO\n\tO\n", {}),
    (2, "the word in column 0 (from 0) is empty", "a\tO\n \tO\n", {}),
    (1, "the tag in column 1 (from 0) is empty", "a\t\n", {}),
    (1, "the tag in column 2 (from 0) is empty", "a\tO\t\n", {}),
    (1, "are the same column of 1", "a\nb\n", {}),
    (1, "are the same column of 1", "a O\nb O\n", {"separator": "tab"}),
    (1, "are the same column of 2", "a\tO\n", {"columns": {"words": 1, "tags": -1}}),
    (
        1,
        "data.columns.tags is 2, and the file has 2",
        "a\tO\n",
        {"columns": {"words": 0, "tags": 2}},
    ),
    (2, "0 to 1, or -2 to -1", "\na\tO\n", {"columns": {"words": -3, "tags": 1}}),
    (1, "has no header", "a\tO\n", {"columns": {"words": "FORM", "tags": 1}}),
    (
        2,
        "did you mean 'FORM'?",
        "# global.columns = FORM NER\na\tO\n",
        {"columns": {"words": "FROM", "tags": "NER"}},
    ),
    (2, "the header of the file names 3", "# global.columns = ID FORM NER\na\tO\n", {}),
    (3, "byte 0xe9 is not UTF-8", b"a\tO\n\ncaf\xe9\tO\n", {}),
    (2, "byte 0xff is not UTF-8", b"\xef\xbb\xbfa\tO\n\xff\tO\n", {}),
    (1, "byte 0xff is not UTF-8", "a\tO\n".encode("utf-16"), {}),
    (1, "a carriage return without a line feed", b"a\tO\rb\tO\r", {}),
]


@pytest.mark.parametrize(("line", "reason", "content", "settings"), DAMAGED_COLUMNS)
def test_damaged_column_files(
    tmp_path: Path, line: int, reason: str, content: str | bytes, settings: dict[str, object]
) -> None:
    path = write(tmp_path, content)
    message = error_of(path, **settings)
    assert message.startswith(f"{path}:{line}: ")
    assert reason in message


# Whatever is no separator may stand in a word, and anywhere in it.
_WORD_CHARS = st.characters(exclude_categories=["Cs"], exclude_characters=" \t\r\n")
_WORDS = st.text(_WORD_CHARS, min_size=1, max_size=8).filter(
    lambda word: not word.startswith("-DOCSTART-") and not word.startswith("\ufeff")
)
_ROWS = st.lists(
    st.lists(st.tuples(_WORDS, st.sampled_from(["O", "B-X", "I-creative-work"])), min_size=1),
    min_size=1,
    max_size=5,
)


@given(sentences=_ROWS, line_end=st.sampled_from(["\n", "\r\n"]), separator=st.sampled_from("\t "))
@example(sentences=[[("#", "O")], [("#fun", "O"), ("\x85", "B-X")]], line_end="\n", separator=" ")
def test_columns_round_trip(
    tmp_path_factory: pytest.TempPathFactory,
    sentences: list[list[tuple[str, str]]],
    line_end: str,
    separator: str,
) -> None:
    blocks = ["".join(f"{w}{separator}{t}{line_end}" for w, t in rows) for rows in sentences]
    path = write(tmp_path_factory.mktemp("columns"), line_end.join(blocks))
    found = read(path)
    assert [list(zip(one.words, one.tags[0], strict=True)) for one in found] == sentences


# ---------------------------------------------------------------- JSON lines


def test_jsonl_and_its_documents(tmp_path: Path) -> None:
    records = [
        {"words": ["Anna", "left"], "tags": ["B-PER", "O"], "id": 1},
        {"words": ["\u2028", " ", "\n"], "tags": ["O", "O", "O"]},
        {"words": ["a"], "tags": ["O"], "document": "x"},
        {"words": ["b"], "tags": ["O"], "document": "x"},
        {"words": ["c"], "tags": ["O"], "document": "y"},
        {"words": ["d"], "tags": ["O"], "document": "x"},
    ]
    write(tmp_path, jsonl(*records).replace("\n", "\r\n\r\n"), "1.jsonl")
    write(tmp_path, jsonl({"words": ["e"], "tags": ["O"], "document": "x"}), "2.jsonl")
    found = read(tmp_path, format="jsonl")
    assert [sentence.document for sentence in found] == [0, 1, 2, 2, 3, 4, 5]
    assert [sentence.lines[0] for sentence in found] == [1, 3, 5, 7, 9, 11, 1]
    assert found[0].words == ["Anna", "left"]
    assert found[0].lines == [1, 1]
    assert found[1].words == ["\u2028", " ", "\n"]


def test_jsonl_fields_by_name(tmp_path: Path) -> None:
    path = write(tmp_path, jsonl({"tokens": ["a"], "ner": ["O"]}))
    columns = {"words": "tokens", "tags": "ner"}
    assert words_of(path, format="jsonl", columns=columns) == [["a"]]


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ('{"words": ["a"], "tags": ["O"]', "not JSON: "),
        ('[["a"], ["O"]]', "a JSON list where an object is needed"),
        ({"word": ["a"], "tags": ["O"]}, "no field 'words'; did you mean 'word'?"),
        ({"words": ["a"], "labels": ["O"]}, "no field 'tags'; there are 'words', 'labels'"),
        ({}, "no field 'words'; there are none; set data.columns.words"),
        ({"words": ["a", "b"], "tags": ["O"]}, "2 words and 1 tags"),
        ({"words": [], "tags": []}, "no words"),
        ({"words": ["a", ""], "tags": ["O", "O"]}, "word 1 (from 0) is empty"),
        ({"words": ["a", 7], "tags": ["O", "O"]}, "number 1 (from 0) is 7 of type int"),
        ({"words": ["a"], "tags": [None]}, "number 0 (from 0) is None of type null"),
        ({"words": "a", "tags": "O"}, "the words must be a list of strings, and are of type str"),
        ({"words": ["a"], "tags": None}, "the tags must be a list of strings"),
        ({"words": ["\ud83d"], "tags": ["O"]}, "half a surrogate pair"),
    ],
)
def test_damaged_jsonl(tmp_path: Path, record: object, reason: str) -> None:
    line = record if isinstance(record, str) else json.dumps(record)
    path = write(tmp_path, '{"words": ["a"], "tags": ["O"]}\n\n' + line + "\n")
    message = error_of(path, format="jsonl")
    assert message.startswith(f"{path}:3: ")
    assert reason in message


# ---------------------------------------------------------------- spans


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "Anna's O'Neil isn't l\u2019Oréal, dogs'.",
            "Anna 's O'Neil isn't l\u2019Oréal , dogs ' .",
        ),
        ("1,000.5 kg at 10:30, v2.0.", "1,000.5 kg at 10 : 30 , v2.0 ."),
        ("creative-work snake_case (x)", "creative - work snake_case ( x )"),
        (
            "cafe\u0301 हिन्दी \u0645\u06cc\u200c\u062e\u0648\u0631",
            "cafe\u0301 हिन्दी \u0645\u06cc\u200c\u062e\u0648\u0631",
        ),
        ("watched\u200bwas \ufeffDubbz", "watched\u200bwas \ufeffDubbz"),
        ("I ❤\ufe0f it!!", "I ❤\ufe0f it ! !"),
        ("東京タワー ไทย ที่", "東 京 タ ワ ー ไ ท ย ที่"),
        ("a\xa0b\u2028c\x85d", "a b c d"),
        ("'s ' ''", "' s ' ' '"),
    ],
)
def test_tokenise(text: str, words: str) -> None:
    assert [text[start:end] for start, end in tokenise(text)] == words.split(" ")


@given(st.text())
def test_tokenise_loses_nothing_but_white_space(text: str) -> None:
    words = tokenise(text)
    behind = 0
    for start, end in words:
        assert behind <= start < end
        assert not text[behind:start].strip()
        assert not any(char.isspace() for char in text[start:end])
        behind = end
    assert not text[behind:].strip()


def spans(text: str, *entities: tuple[int, int, str]) -> dict[str, object]:
    listed = [{"start": s, "end": e, "label": label, "id": 9} for s, e, label in entities]
    return {"text": text, "entities": listed, "meta": {"by": "tool"}}


def test_spans(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        jsonl(
            spans("Oslo is Anna Li's home.", (8, 15, "PER"), (0, 5, "LOC")),
            spans("NewYork\n\nis  big \r\n", (0, 3, "A"), (3, 7, "B")),
            spans("New\nYork\nis Nice", (0, 8, "LOC"), (9, 16, "LOC")),
        ),
    )
    found = read(path, format="spans")
    assert [list(zip(one.words, one.tags[0], strict=True)) for one in found] == [
        [
            ("Oslo", "B-LOC"),
            ("is", "O"),
            ("Anna", "B-PER"),
            ("Li", "I-PER"),
            ("'s", "O"),
            ("home", "O"),
            (".", "O"),
        ],
        [("New", "B-A"), ("York", "B-B")],
        [("is", "O"), ("big", "O")],
        [("New", "B-LOC"), ("York", "I-LOC")],
        [("is", "B-LOC"), ("Nice", "I-LOC")],
    ]
    assert [one.document for one in found] == [0, 1, 1, 2, 2]
    assert [one.lines[0] for one in found] == [1, 2, 2, 3, 3]


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"txt": "a", "entities": []}, "no field 'text'; did you mean 'txt'?"),
        ({"text": "a", "spans": []}, "no field 'entities'"),
        ({"text": 3, "entities": []}, "'text' must be a string"),
        ({"text": " \n", "entities": []}, "the text has no words"),
        ({"text": "a\ud83d", "entities": []}, "half a surrogate pair"),
        ({"text": "a", "entities": {}}, "'entities' must be a list"),
        ({"text": "a", "entities": [[0, 1, "X"]]}, "an entity must be an object"),
        ({"text": "a", "entities": [{"start": 0, "end": 1, "lable": "X"}]}, "mean 'lable'?"),
        ({"text": "a", "entities": [{"begin": 0, "end": 1, "label": "X"}]}, "no field 'start'"),
        (spans("ab", (0, 3, "X")), "<= 2, the length of the text"),
        (spans("ab", (-1, 1, "X")), "must be 0 <= start < end"),
        (spans("ab", (1, 1, "X")), "must be 0 <= start < end"),
        (spans("ab", (2, 1, "X")), "must be 0 <= start < end"),
        (spans("a  b", (1, 3, "X")), "covers white space alone"),
        (spans("ab", (0, 1, "")), "label must be a string that is not empty"),
        (spans("ab", (True, 2, "X")), "start and end must be whole numbers"),  # type: ignore[arg-type]
        (spans("ab", (0, 1.0, "X")), "start and end must be whole numbers"),  # type: ignore[arg-type]
        (spans("abcd", (1, 3, "X"), (0, 2, "Y")), "Y 0-2 'ab' and X 1-3 'bc' overlap"),
        (spans("abcd", (0, 2, "X"), (0, 2, "X")), "overlap"),
    ],
)
def test_damaged_spans(tmp_path: Path, record: object, reason: str) -> None:
    path = write(tmp_path, jsonl(spans("fine"), record))
    message = error_of(path, format="spans")
    assert message.startswith(f"{path}:2: ")
    assert reason in message


@st.composite
def annotated_texts(draw: st.DrawFn) -> dict[str, object]:
    text = draw(st.text(st.sampled_from("ab1.,' \n\t\u0301\u200b東ไ😀-"), min_size=1, max_size=40))
    edges = draw(st.lists(st.integers(0, len(text)), unique=True, max_size=12))
    edges.sort()
    pairs = zip(edges[::2], edges[1::2], strict=False)
    entities = [
        (start, end, draw(st.sampled_from(["X", "Y-z"])))
        for start, end in pairs
        if text[start:end].strip()
    ]
    return spans(text + "end", *draw(st.permutations(entities)))


@given(annotated_texts())
def test_spans_give_back_exactly_the_entities(
    tmp_path_factory: pytest.TempPathFactory, record: dict[str, object]
) -> None:
    text = str(record["text"])
    path = write(tmp_path_factory.mktemp("spans"), jsonl(record))
    found = read(path, format="spans")
    assert "".join(word for one in found for word in one.words) == "".join(text.split())
    entities: list[tuple[str, str]] = []
    for sentence in found:
        before = "O"
        for word, tag in zip(sentence.words, sentence.tags[0], strict=True):
            if tag.startswith("B-"):
                entities.append((tag[2:], word))
            elif tag != "O":
                assert before[2:] == tag[2:]
                entities[-1] = (tag[2:], entities[-1][1] + word)
            before = tag
    wanted = sorted(record["entities"], key=lambda one: one["start"])  # type: ignore[call-overload]
    assert entities == [
        (one["label"], "".join(text[one["start"] : one["end"]].split())) for one in wanted
    ]


# ---------------------------------------------------------------- datasets


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders as `save_to_disk` leaves them: with names for the tags, and in other shapes."""
    # Here, so that other tests of this file start without it.
    from datasets import (  # noqa: PLC0415
        ClassLabel,
        Dataset,
        DatasetDict,
        Features,
        List,
        Value,
    )

    root = tmp_path_factory.mktemp("saved")
    rows = {"tokens": [["Anna", "left"], ["Oslo"]], "ner_tags": [[1, 0], [3]]}
    tags = List(ClassLabel(names=["O", "B-PER", "I-PER", "B-LOC"]))
    named = Features({"tokens": List(Value("string")), "ner_tags": tags})
    dataset = Dataset.from_dict(rows, features=named, split="train")
    DatasetDict({"train": dataset, "dev": dataset.select([1])}).save_to_disk(root / "named")
    dataset.save_to_disk(root / "one-split")
    strings = {"tokens": rows["tokens"], "ner_tags": [["B-PER", "O"], ["B-LOC"]]}
    documents = Dataset.from_dict({**strings, "document": ["d", "d"]})
    DatasetDict({"train": documents}).save_to_disk(root / "strings")
    DatasetDict({"train": Dataset.from_dict(rows)}).save_to_disk(root / "numbers")
    unlabelled = Dataset.from_dict({"tokens": [["a"]], "ner_tags": [[-1]]}, features=named)
    DatasetDict({"train": unlabelled}).save_to_disk(root / "unlabelled")
    return root


def hub(dataset: Path | str, train: str = "train", **settings: object) -> DataConfig:
    return DataConfig(format="hub", dataset=str(dataset), train=train, **settings)


def hub_error(data: DataConfig) -> str:
    with pytest.raises(DataError) as caught:
        list(read_sentences(data, "train"))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(("name", "documents"), [("named", [0, 1]), ("strings", [0, 0])])
def test_saved_datasets(saved: Path, name: str, documents: list[int]) -> None:
    data = hub(saved / name)
    found = list(read_sentences(data, "train"))
    assert [one.words for one in found] == [["Anna", "left"], ["Oslo"]]
    assert [one.tags[0] for one in found] == [["B-PER", "O"], ["B-LOC"]]
    assert [one.lines for one in found] == [[1, 1], [2]]
    assert {one.file for one in found} == {f"{saved / name}[train]"}
    assert [one.document for one in found] == documents
    assert source_files(data, "train") == []


def test_a_saved_dataset_of_one_split_is_that_split(saved: Path) -> None:
    assert len(list(read_sentences(hub(saved / "one-split"), "train"))) == 2
    assert "'train', and 'dev' is asked for" in hub_error(hub(saved / "one-split", "dev"))


def test_datasets_that_do_not_fit(saved: Path, tmp_path: Path) -> None:
    assert "has no split 'dec'; did you mean 'dev'?" in hub_error(hub(saved / "named", "dec"))
    wrong = hub(saved / "named", columns={"words": "tokens", "tags": "tags"})
    assert "has no field 'tags'; did you mean 'ner_tags'?" in hub_error(wrong)
    assert (
        f"{saved / 'numbers'}[train]:1: the tags are numbers without names (1, ...)"
        in hub_error(hub(saved / "numbers"))
    )
    assert "tag -1 is none of the numbers 0 to 3" in hub_error(hub(saved / "unlabelled"))
    assert "cannot be loaded: Directory" in hub_error(hub(tmp_path))


def test_a_hub_out_of_reach_is_one_clear_error(tmp_path: Path) -> None:
    # In a process of its own, because `datasets` reads the variable when it is imported.
    code = (
        "from bigner.config.schema import DataConfig\n"
        "from bigner.data.formats import read_sentences\n"
        "from bigner.errors import DataError\n"
        "data = DataConfig(format='hub', dataset='no/such', subset='en', train='train')\n"
        "try:\n    next(read_sentences(data, 'train'))\n"
        "except DataError as error:\n    print(error)\n"
    )
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.count("\n") == 1
    assert "data.train: dataset 'no/such', subset 'en', split 'train' cannot be" in done.stdout


# ---------------------------------------------------------------- start


def test_reading_needs_no_heavy_import() -> None:
    code = (
        "import sys, bigner.data.corpus\n"
        "print({'torch', 'transformers', 'numpy', 'datasets'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
