"""Column, JSON lines and span files: whole sentences, or a DataError with file and line."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from bigner.config.schema import Columns, DataConfig
from bigner.data.corpus import read_corpus
from bigner.data.formats import columns as columns_module
from bigner.data.formats import read_sentences
from bigner.errors import DataError
from tests.fuzz.hostile import (
    FUZZED,
    MIB,
    mutated,
    nested,
    odd_scalars,
    odd_texts,
    out_of,
    peak_of,
    require_plain,
)

VALID_COLUMNS = [
    b"-DOCSTART- -X- O O\n\nAnna NNP B-PER\nLi NNP I-PER\nleft VBD O\n\nOslo NNP B-LOC\n",
    "# global.columns = ID FORM NER\n# newdoc id = 1\n# text = Žilina #\n1\tŽilina\tB-LOC\n"
    "2\t#\tO\n\n# text = a b\n1\ta b\tB-creative-work\n\n".encode(),
    b"#fun O\r\n# O\r\n\r\n\xef\xbb\xbf I-X\r\n",
]
COLUMN_TOKENS = (
    *("\n", "\n", "\n\n", "\t", "\t", " ", "\r\n", "\r", "\x0b", "\xa0"),
    *("-DOCSTART-", "#", "# ", "# newdoc", "# a = b", "# global.columns = ", "FORM", "NER"),
    *("O", "B-PER", "I-PER", "E-X", "B-", "-", "_", "Anna", "1", "x" * 3000, "東"),
)
VALID_JSONL = [
    b'{"words": ["Anna", "left"], "tags": ["B-PER", "O"], "document": 1}\n'
    b'{"words": ["\\u017d", "\\ud83d\\ude00"], "tags": ["O", "I-X"], "document": 1}\r\n\n',
]
VALID_SPANS = [
    '{"text": "Anna\'s O\'Neil\\n\\nis  in New York", "entities": [{"start": 0, "end": 4, '
    '"label": "PER"}, {"start": 21, "end": 29, "label": "LOC"}], "id": 7}\n'
    '{"text": "東京 1,000.5 e\u0301", "entities": []}\n'.encode(),
]
JSON_TOKENS = (
    *("{", "}", "[", "]", ",", ":", '"', "\\", "\n", "\n", " "),
    *('"words"', '"tags"', '"document"', '"text"', '"entities"', '"start"', '"end"', '"label"'),
    *(
        '{"words": [',
        '], "tags": [',
        "]}\n",
        '{"text": "ab c", "entities": [',
        '{"start": 0, "end":',
    ),
    *('"O"', '"B-PER"', '"a"', '""', '"\\ud800"', '"\\u0000"', "0", "1", "-1", "2.0", "1e999"),
    *("NaN", "true", "null", "9" * 5000, '"x": {}', '"' + "y" * 3000 + '"'),
)
SNIPPETS = [token.encode() for token in (*COLUMN_TOKENS, *JSON_TOKENS)] + [
    b"\xff",
    b"\x00",
    b"\xef\xbb\xbf",
    b"\xed\xa0\x80",
]

columns = st.sampled_from(
    [
        {},
        {"columns": Columns(words=1, tags=2)},
        {"columns": Columns(words="FORM", tags="NER")},
        {"columns": Columns(words=0, tags=10**20)},
        {"separator": "tab"},
        {"separator": "whitespace"},
    ]
)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("formats") / "data.txt"


def read_or_refuse(file: Path, content: bytes, **settings: Any) -> int | None:
    """Number of sentences, all of them whole; None if the file was refused."""
    file.write_bytes(content)
    data = DataConfig(train=str(file), **settings)
    sentences, document = 0, 0
    last_line = content.count(b"\n") + 1
    try:
        for sentence in read_sentences(data, "train"):
            assert sentence.words
            assert len(sentence.words) == len(sentence.tags[0]) == len(sentence.lines)
            assert all(sentence.words)
            assert all(sentence.tags[0]) or data.format == "jsonl"
            "".join(sentence.words + sentence.tags[0]).encode()
            assert 1 <= sentence.lines[0] <= sentence.lines[-1] <= last_line
            assert document <= sentence.document <= document + 1
            document = sentence.document
            sentences += 1
    except DataError as error:
        message = str(error)
        require_plain(error, str(file), "data.train: no sentence in ")
        assert "\n" not in message
        assert str(file) in message
        return None
    return sentences


def read_whole(file: Path, content: bytes, **settings: Any) -> None:
    """As `read_or_refuse`, and on to the tags and labels of the corpus."""
    if read_or_refuse(file, content, **settings):
        try:
            read_corpus(DataConfig(train=str(file), **settings))
        except DataError as error:
            require_plain(error, str(file), "no entity in train")


# --- columns ----------------------------------------------------------------------------------


@FUZZED
@given(content=st.binary(max_size=300) | out_of(COLUMN_TOKENS), settings=columns)
def test_any_bytes_as_columns(file: Path, content: bytes, settings: dict[str, Any]) -> None:
    read_whole(file, content, **settings)


@FUZZED
@given(content=mutated(VALID_COLUMNS, SNIPPETS), settings=columns)
def test_mutated_columns(file: Path, content: bytes, settings: dict[str, Any]) -> None:
    read_whole(file, content, **settings)


def outcome(file: Path, **settings: Any) -> list[str]:
    """The sentences of a file, or what is wrong with it."""
    try:
        return list(map(repr, read_sentences(DataConfig(train=str(file), **settings), "train")))
    except DataError as error:
        return [str(error)]


CELLS = ("a", "O", "B-X", "Anna", "#fun", "#", "# x", " a", "a ", "", "\xa0", "-DOCSTART-")
LINES = ("", " ", "\t", "# newdoc", "# a = b", "# c", "-DOCSTART- O", "# global.columns = A B")


@st.composite
def column_files(draw: st.DrawFn) -> str:
    """Files most of whose lines are rows, and most of whose blocks nevertheless are not plain."""
    separators = draw(st.sampled_from(["\t", " ", "\t ", ["\t", "\t", "  "], [" ", "  "]]))
    cells = st.sampled_from([*CELLS[:4] * 4, *CELLS])
    rows = st.builds(
        lambda first, between, second: first + between + second,
        cells,
        st.sampled_from(separators),
        cells,
    )
    lines = st.one_of(rows, rows, rows, st.sampled_from([*LINES[:1] * 6, *LINES]))
    return "\n".join(draw(st.lists(lines, max_size=14)))


@FUZZED
@given(content=column_files(), separator=st.sampled_from(["auto", "tab", "whitespace"]))
def test_blocks_read_at_once_are_as_read_line_by_line(
    file: Path, content: str, separator: str
) -> None:
    file.write_text(content or "\n", encoding="utf-8")
    at_once = outcome(file, separator=separator)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(columns_module._Table, "plain_rows", lambda *_: None)
        assert outcome(file, separator=separator) == at_once


# --- JSON lines -------------------------------------------------------------------------------

texts = st.sampled_from(["a", "Anna", "O", "B-PER", "I-PER"])
any_values = nested(odd_scalars, odd_texts)


def lines_of(records: Sequence[object], ascii_only: bool) -> bytes:
    lines = [json.dumps(record, ensure_ascii=ascii_only) for record in records]
    return "\n".join(lines).encode("utf-8", "surrogatepass")


@FUZZED
@given(content=st.binary(max_size=300) | out_of(JSON_TOKENS))
@pytest.mark.parametrize("kind", ["jsonl", "spans"])
def test_any_bytes_as_json(file: Path, kind: str, content: bytes) -> None:
    read_whole(file, content, format=kind)


@FUZZED
@given(content=mutated(VALID_JSONL, SNIPPETS))
def test_mutated_jsonl(file: Path, content: bytes) -> None:
    read_whole(file, content, format="jsonl")


@FUZZED
@given(
    records=st.lists(
        any_values
        | st.fixed_dictionaries(
            {
                "words": st.lists(texts | odd_scalars, max_size=3) | any_values,
                "tags": st.lists(texts | odd_scalars, max_size=3) | any_values,
            },
            optional={"document": any_values},
        )
        | st.lists(st.tuples(odd_texts, texts), min_size=1, max_size=4).map(
            lambda pairs: {"words": [w for w, _ in pairs], "tags": [t for _, t in pairs]}
        ),
        min_size=1,
        max_size=3,
    ),
    ascii_only=st.booleans(),
)
@example([{"words": ["a"], "tags": ["B-\ud800"]}], True)
@example([{"words": ["a", [["x"] * 9999]], "tags": ["O"]}], True)
def test_any_records(file: Path, records: list[object], ascii_only: bool) -> None:
    read_whole(file, lines_of(records, ascii_only), format="jsonl")


# --- spans ------------------------------------------------------------------------------------


@FUZZED
@given(content=mutated(VALID_SPANS, SNIPPETS))
def test_mutated_spans(file: Path, content: bytes) -> None:
    read_whole(file, content, format="spans")


offsets = st.integers(-1, 12)


@FUZZED
@given(
    text=st.text(st.sampled_from("ab1.,'\u2019 \n\u0301\u200b東ไ😀_\x1b"), max_size=12)
    | any_values,
    entities=st.lists(
        st.fixed_dictionaries(
            {
                "start": offsets | odd_scalars,
                "end": offsets | odd_scalars,
                "label": texts | odd_scalars,
            }
        )
        | st.builds(
            lambda start, length, label: {"start": start, "end": start + length, "label": label},
            st.integers(0, 6),
            st.integers(1, 4),
            texts | odd_texts,
        )
        | any_values,
        max_size=3,
    )
    | any_values,
    ascii_only=st.booleans(),
)
@example("ab", [{"start": 0, "end": 1, "label": "\ud800"}], True)
@example("abcd", [{"start": 0, "end": 3, "label": "\x1b\n"}] * 2, True)
@example("abcd", [{"start": 0, "end": 3, "label": "X" * 9999}] * 2, True)
def test_any_spans(file: Path, text: object, entities: object, ascii_only: bool) -> None:
    content = lines_of([{"text": text, "entities": entities}], ascii_only)
    read_whole(file, content, format="spans")


# --- names of files ---------------------------------------------------------------------------


@FUZZED
@given(
    source=st.text(st.sampled_from("*?[]!-ab./\\{}~\0\n\x1b\xa0😀"), min_size=1, max_size=12)
    | st.text(min_size=1, max_size=12)
)
@example(source="x" * 300)
@example(source="*" * 5000)
@example(source="?/" * 1500 + "*")
@example(source="a\0/*")
@example(source="\x1b[31m")
def test_any_name_of_a_source(file: Path, source: str) -> None:
    # Nothing outside the folder is looked for.
    assume(".." not in source and not source.startswith("/") and source.count("**") < 3)
    folder = file.parent / "folder"
    (folder / "a" / "b").mkdir(parents=True, exist_ok=True)
    (folder / "a" / "b.conll").write_text("w O\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        try:
            assert len(list(read_sentences(DataConfig(train=source), "train"))) == 1
        except DataError as error:
            require_plain(error, "data.train: ")


# --- depth and length -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "start", "end"),
    [
        ("jsonl", '{"words": ["a", ', '], "tags": ["O"]}'),
        ("jsonl", '{"words": ["a"], "tags": ["O"], "document": ', "}"),
        ("spans", '{"text": ', ', "entities": []}'),
        ("spans", '{"text": "ab", "entities": [{"start": 0, "x": ', "}]}"),
    ],
)
def test_nesting_at_the_recursion_limit(file: Path, kind: str, start: str, end: str) -> None:
    for depth in [*range(850, 1000), 100_000]:
        for opened, closed in ("[]", ('{"a":', "}")):
            line = f"{start}{opened * depth}1{closed * depth}{end}\n"
            read_or_refuse(file, line.encode() * 2, format=kind)


def _record(**fields: object) -> str:
    return json.dumps(fields)


LONG = 10 * MIB
MANY = MIB // 4
LONG_LINES = {
    "columns": [
        "x" * LONG + " O\n",
        "a O\n" + "#" * LONG,
        "a O\n\n# " + "b" * LONG,
        "# " + " " * LONG + "\na O\n",
        "\t" * LONG,
        "ab " * MANY,
        "ab O\n\n# " + "ab " * MANY,
        "# global.columns = " + "ab " * MANY + "\na O\n",
        "# global.columns = {0}\n{0}".format(" ".join(map(str, range(MANY // 8)))),
        "# global.columns" + " " * LONG + "\na O\n",
        "\n" * MANY,
        "ab\tB-X\n" * (MANY // 8),
        "😀 O\n" + "ab O\n" * (MANY // 8),
        "-DOCSTART-" + " " * LONG,
    ],
    "jsonl": [
        _record(words=["a" * LONG], tags=["O"]),
        _record(words=["a", ["b" * LONG]], tags=["O"]),
        _record(words="a" * LONG, tags=[]),
        _record(words=["a"], tags=["B-" + "X" * LONG]),
        '{"words": ' + "9" * LONG + "}",
        '{"words": ' + " " * LONG,
        " " * LONG,
        _record(words=["ab"] * (MANY // 8), tags=["O"] * (MANY // 8)),
        _record(words=[[]] * (MANY // 4), tags=[]),
        _record(**{f"key{i}": 1 for i in range(MANY // 16)}),
        _record(**{"k" * LONG: 1}),
        "[" * LONG,
    ],
    "spans": [
        _record(text="a" * LONG, entities=[]),
        _record(text="a\u0301" * (MANY // 8), entities=[]),
        _record(text="a'" * (MANY // 2), entities=[]),
        _record(text="1," * (MANY // 2), entities=[]),
        _record(text="a," * (MANY // 4), entities=[]),
        _record(text="a," * (MANY // 4), entities=[{"start": 0, "end": MANY // 2, "label": "X"}]),
        _record(text="a\n" * (MANY // 8), entities=[]),
        _record(text="abcd", entities=[{"start": 0, "end": 3, "label": "X" * LONG}] * 2),
        _record(text="abcd", entities=[{"start": 0, "end": 3, "lable": ["X"] * MANY}]),
        _record(text="a", entities=[{f"key{i}": 1 for i in range(MANY // 16)}]),
        _record(
            text="a" * MANY,
            entities=[{"start": i, "end": i + 1, "label": "X"} for i in range(MANY // 64)],
        ),
        _record(text="\n" * LONG, entities=[]),
    ],
}


@pytest.mark.parametrize(
    ("kind", "number"),
    [(kind, number) for kind, lines in LONG_LINES.items() for number in range(len(lines))],
)
def test_long_lines_take_memory_by_their_length(file: Path, kind: str, number: int) -> None:
    content = LONG_LINES[kind][number].encode()
    names = (
        {"columns": Columns(words="FORM", tags="NER")} if "global" in content[:20].decode() else {}
    )
    peak = peak_of(lambda: read_or_refuse(file, content, format=kind, **names))
    assert peak < 64 * len(content) + MIB
