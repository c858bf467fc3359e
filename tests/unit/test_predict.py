"""Tagging texts: words and their places, windows, aggregation, what is read and written."""

from __future__ import annotations

import io
import json
import shutil
import sys
from collections.abc import Sequence
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from seqeval.metrics.sequence_labeling import get_entities
from transformers import DistilBertConfig, PretrainedConfig

from bigner import Tagger
from bigner.commands.predict import dealt
from bigner.config.schema import DataConfig, EvaluationConfig
from bigner.data.heads import Heads
from bigner.data.labels import LabelSet
from bigner.data.prepare import prepare
from bigner.data.window_size import WindowSize
from bigner.distributed import World
from bigner.errors import DataError, LaunchError, ModelError, UserError
from bigner.evaluation.evaluator import ShardedEvaluator
from bigner.modeling import describe_heads, describe_windows, windows_of
from bigner.prediction.chunks import chunks_of
from bigner.prediction.entities import Entity, PieceSpans
from bigner.prediction.growing_file import GrowingFile
from bigner.prediction.layouts import LAYOUTS
from bigner.prediction.sources import InputText, Source, source_of
from bigner.prediction.tagger import Tagged
from bigner.prediction.words import SplitText
from bigner.strategies import open_whole
from tests.unit.helpers import (
    SENTENCES,
    run_config,
    tiny_tokenizer,
    tiny_xlmr,
    whole_model,
    write_columns,
)

TAGS = ("O", "B-LOC", "I-LOC", "B-ORG", "I-ORG", "B-PER", "I-PER")
WORDS = [[word for word, _ in sentence] for sentence in SENTENCES]
# Everything that may move offsets: what is normalised, combined, without width, or two bytes long.
ODD = "\ufeffAnna\r\nNova\u0301kova\u0301 \u200b(Z\u030cilina),\u00a0"
ODD += "👩\u200d👧 Kos\u030cice\u200b½\r\n"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained model, whose predictions vary from word to word."""
    folder = tmp_path_factory.mktemp("predict") / "model"
    return save_model(folder, Heads.from_config(None, TAGS))


def save_model(
    folder: Path,
    heads: Heads,
    config: PretrainedConfig | None = None,
    windows: WindowSize | None = None,
) -> Path:
    tokenizer = tiny_tokenizer()
    (config or tiny_xlmr(len(tokenizer))).save_pretrained(folder)
    described = run_config(folder, folder).model
    network = whole_model(described, heads.names_of_logits, seed=1)
    describe_heads(network, heads)
    if windows is not None:
        describe_windows(network, windows)
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


# ---------------------------------------------------------------- words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Anna sleeps", ["Anna", "sleeps"]),
        ("(Anna, Bob)...", ["(", "Anna", ",", "Bob", ")", "..."]),
        ("Jean-Pierre's 3.5 l'eau a_b", ["Jean-Pierre's", "3.5", "l'eau", "a_b"]),
        ("«Žilina»!? -5%", ["«", "Žilina", "»", "!", "?", "-", "5", "%"]),
        ("@anna #fun (@bob) @ C#", ["@anna", "#fun", "(", "@bob", ")", "@", "C", "#"]),
        ("Nova\u0301k, Z\u030c.", ["Nova\u0301k", ",", "Z\u030c", "."]),
        ("हिन्दी। ไทย", ["हिन्दी", "।", "ไทย"]),
        ("我住在北京。OK", ["我", "住", "在", "北", "京", "。", "OK"]),
        ("が か\u3099", ["が", "か\u3099"]),
        ("Anna👩\u200d👧 👍🏽👍 🇸🇰🇨🇿", ["Anna", "👩\u200d👧", "👍🏽", "👍", "🇸🇰", "🇨🇿"]),
        ("1\ufe0f\u20e3 ❤\ufe0f", ["1\ufe0f\u20e3", "❤\ufe0f"]),
        ("\u200eAnna\u200f\u200bBob\ufeff\u00adCy", ["Anna", "Bob", "Cy"]),
        ("नमस्\u200cते", ["नमस्\u200cते"]),
        ("a\u00a0b\u2028c\u3000d\x1ce\x85f", ["a", "b", "c", "d", "e", "f"]),
        ("a\r\nb\rc\n\n\td", ["a", "b", "c", "d"]),
        ("\u0301", ["\u0301"]),
        ("", []),
        (" \r\n\u200b\u200e ", []),
    ],
)
def test_words(text: str, words: list[str]) -> None:
    assert SplitText.of(text, "punctuation").strings() == words


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_words_are_in_order_and_leave_nothing_out(text: str) -> None:
    for rule in ("punctuation", "whitespace"):
        spans = SplitText.of(text, rule).words
        edges = [place for span in spans for place in span]
        assert edges == sorted(edges)
        assert all(start < end for start, end in spans)
        inside = "".join(text[start:end] for start, end in spans)
        assert not any(char.isspace() for char in inside)
        assert [c for c in inside if c.isalnum()] == [c for c in text if c.isalnum()]


def test_words_that_are_given() -> None:
    split = SplitText.joined(["Anna", "a b", "."])
    assert split.text == "Anna a b ."
    assert split.strings() == ["Anna", "a b", "."]
    assert SplitText.joined([]).text == ""


# ---------------------------------------------------------------- the tagger


@pytest.mark.parametrize("decoding", ["argmax", "iob2"])
@pytest.mark.parametrize("max_length", [8, 12, 64])
def test_tags_are_those_of_evaluation(
    max_length: int, decoding: Any, model: Path, tmp_path: Path
) -> None:
    """Windows, words without pieces and words longer than a window included, and how sure the model
    is of each."""
    file = str(write_columns(tmp_path / "test.conll", SENTENCES))
    data = DataConfig.model_validate(
        {
            "train": file,
            "test": file,
            "max_length": max_length,
            "stride": 3,
            "labels": ("LOC", "ORG", "PER"),
            "cache_dir": tmp_path / "cache",
        }
    )
    tagger = Tagger.load(model, max_length=max_length, stride=3, batch_tokens=40, decoding=decoding)
    prepared = prepare(data, tiny_tokenizer(), ["test"])
    evaluator = ShardedEvaluator(
        prepared,
        prepared.splits["test"],
        Heads.from_config(None, TAGS),
        World(),
        evaluation=EvaluationConfig(batch_size=3, decoding=decoding),
        packing=None,
    )
    described = run_config(tmp_path, model).model
    strategy = open_whole(whole_model(described, TAGS, seed=1), "fp32", World())
    values = dict(whole_model(described, TAGS, seed=1).named_parameters())
    for shard in strategy.shards():
        shard.master.copy_(values[shard.name].detach().flatten())
    predictions = evaluator.predict(strategy, confidences=True)
    _, predicted, confidences = map(list, evaluator.columns_of_heads(predictions)["tags"])
    found = tagger.tag([SplitText.joined(words) for words in WORDS])
    assert [one.tags for one in found] == predicted
    assert len({tag for tags in predicted for tag in tags}) > 3
    for words, one, sure in zip(WORDS, found, confidences, strict=True):
        spans = SplitText.joined(words).words
        places = get_entities(one.tags)
        expected = [(kind, spans[first][0], spans[last][1]) for kind, first, last in places]
        assert [(e.type, e.start, e.end) for e in one.entities] == expected
        means = [fmean(map(float, sure[first : last + 1])) for _, first, last in places]
        assert [e.score for e in one.entities] == pytest.approx(means, abs=1e-4)


@pytest.mark.parametrize("aggregation", ["word", "simple", "first", "average", "max"])
def test_offsets_are_into_the_text_as_it_was_given(aggregation: Any, model: Path) -> None:
    tagger = Tagger.load(model, aggregation=aggregation)
    texts = [ODD, "", "\u200b", *(" ".join(words) for words in WORDS), ODD * 40]
    found = tagger(texts)
    assert found[1:3] == [[], []]
    assert sum(map(len, found)) > 20
    for text, entities in zip(texts, found, strict=True):
        at = 0
        for entity in entities:
            assert at <= entity.start < entity.end <= len(text)
            assert entity.text == text[entity.start : entity.end]
            assert 1 / len(TAGS) < entity.score <= 1
            # Of a character that is several pieces each may be in another.
            at = entity.start if aggregation == "simple" else entity.end
    # What is beside a text makes no difference but rounding.
    for text, entities in zip(texts, found, strict=True):
        assert_same(tagger(text), entities)


def test_windows_of_a_family_that_is_not_packed(tmp_path: Path) -> None:
    shape = {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64, "initializer_range": 0.2}
    config = DistilBertConfig(
        vocab_size=len(tiny_tokenizer()), max_position_embeddings=66, pad_token_id=1, **shape
    )
    folder = save_model(tmp_path / "model", Heads.from_config(None, TAGS), config)
    tagger = Tagger.load(folder, aggregation="average", max_length=20, stride=3)
    assert tagger.padding_note is not None
    texts = [ODD, *(" ".join(words) for words in WORDS)]
    together = tagger(texts)
    assert sum(map(len, together)) > 20
    for text, entities in zip(texts, together, strict=True):
        assert_same(tagger(text), entities)


@pytest.mark.parametrize(
    "asked", [{}, {"max_length": 24}, {"stride": 1}, {"max_length": 10, "stride": 0}], ids=str
)
def test_windows_are_those_of_training_unless_others_are_asked_for(
    asked: dict[str, Any], model: Path, tmp_path: Path
) -> None:
    trained = WindowSize(max_length=12, stride=3)
    folder = save_model(tmp_path / "model", Heads.from_config(None, TAGS), windows=trained)
    assert windows_of(folder) == trained
    assert windows_of(model) is None
    # Of the same weights, which know nothing of it.
    expected = Tagger.load(model, **{**trained.described(), **asked})
    texts = [" ".join(words) for words in WORDS]
    assert Tagger.load(folder, **asked)(texts) == expected(texts)
    # Or the windows would have no say.
    assert expected(texts) != Tagger.load(model)(texts)


@pytest.mark.parametrize(
    "described",
    [
        [],
        "256",
        {"max_length": 256},
        {"max_length": 4, "stride": 0},
        {"max_length": 9, "stride": 5},
    ],
    ids=str,
)
def test_windows_that_no_training_had(described: object, model: Path, tmp_path: Path) -> None:
    shutil.copytree(model, tmp_path / "model")
    config = tmp_path / "model" / "config.json"
    values = json.loads(config.read_text()) | {"bigner_windows": described}
    config.write_text(json.dumps(values))
    with pytest.raises(ModelError, match=r"config\.json: bigner_windows"):
        Tagger.load(tmp_path / "model")


def test_nothing_is_cut_off(model: Path) -> None:
    text = ODD * 100
    entities = Tagger.load(model, max_length=16, stride=2)(text)
    assert entities[-1].end > len(text) - len(ODD)


def assert_same(found: Sequence[Entity], expected: Sequence[Entity]) -> None:
    places = [(one.type, one.start, one.end, one.text) for one in expected]
    assert [(one.type, one.start, one.end, one.text) for one in found] == places
    scores = [one.score for one in expected]
    assert [one.score for one in found] == pytest.approx(scores, abs=1e-5)


def test_a_word_without_pieces_ends_an_entity_only_where_it_is_a_word(model: Path) -> None:
    """As in evaluation under ``word``, and for a pipeline it is not there."""
    split = SplitText.joined(["Anna", "\u200b", "Peter"])
    tags = Tagger.load(model).tag([split])[0].tags
    assert tags[1] == "O"
    first = Tagger.load(model, aggregation="first").tag([split])[0]
    assert first.tags == tags
    joined = get_entities([tags[0], tags[2]])
    places = [0, 2]
    assert [(e.type, e.start, e.end) for e in first.entities] == [
        (kind, split.words[places[begin]][0], split.words[places[end]][1])
        for kind, begin, end in joined
    ]


def test_pieces_are_found_through_normalisation() -> None:
    spans = PieceSpans(tiny_tokenizer())
    assert spans.of("Nova\u0301kova\u0301") == [(0, 10)]
    for word in ("Anna", "Z\u030cilina", "a\u200bb\u200b", "½a", "xN\u0301"):
        found = spans.of(word)
        assert found[0][0] == 0
        assert found[-1][1] == len(word)
        for (start, end), (following, _) in pairwise(found):
            assert start <= following <= end


def test_heads(tmp_path: Path) -> None:
    heads = Heads(
        [
            ("pos", "classes", LabelSet(("NOUN", "VERB"))),
            ("ner", "tags", LabelSet.of_types(["PER"])),
            ("geo", "tags", LabelSet.of_types(["LOC"])),
        ]
    )
    folder = save_model(tmp_path / "model", heads)
    text = " ".join(WORDS[4])
    assert Tagger.load(folder).head.name == "ner"
    assert {entity.type for entity in Tagger.load(folder)(text)} == {"PER"}
    assert {entity.type for entity in Tagger.load(folder, head="geo")(text)} == {"LOC"}
    with pytest.raises(UserError, match=r"'pos' tells classes .* ner \(tags\)"):
        Tagger.load(folder, head="pos")
    with pytest.raises(UserError, match="no head 'x'; the heads are pos"):
        Tagger.load(folder, head="x")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"max_length": 65}, "max_length 65 is more than the 64 pieces"),
        ({"max_length": 7}, "max_length must be 8 or more"),
        ({"stride": -1}, "stride must be 0 or more"),
        ({"aggregation": "mean"}, "aggregation must be word, simple"),
        ({"decoding": "viterbi"}, "decoding must be argmax, iob2"),
        ({"decoding": "iob2", "aggregation": "max"}, "and aggregation max is none of that"),
        ({"words": "spaces"}, "words must be punctuation, whitespace"),
        ({"precision": "int8"}, "precision must be"),
    ],
)
def test_options_that_are_refused(options: dict[str, Any], told: str, model: Path) -> None:
    with pytest.raises(UserError, match=told):
        Tagger.load(model, **options)


def test_texts_that_are_refused(model: Path) -> None:
    with pytest.raises(DataError, match=r"text 1 .*udc80.* at 3 is half a surrogate"):
        Tagger.load(model)(["Anna", "Bob\udc80"])
    with pytest.raises(UserError, match="no model folder"):
        Tagger.load(model / "nothing")


def test_chunks() -> None:
    assert list(chunks_of([], len)) == []
    assert [len(c) for c in chunks_of(["a"] * 2500, len)] == [1000, 1000, 500]
    assert [len(c) for c in chunks_of(["a"] * 2500, len, times=2)] == [2000, 500]
    long = "a" * 200_000
    assert [len(c) for c in chunks_of([long, "b", long, "c", "d"], len)] == [3, 2]


def test_every_text_is_dealt_once() -> None:
    lengths = [3, 9, 1, 9, 5, 0, 7]
    parts = [dealt(lengths, World(rank=rank, size=3)) for rank in range(3)]
    assert sorted(place for part in parts for place in part) == list(range(7))
    assert dealt([], World(rank=2, size=3)) == []


# ---------------------------------------------------------------- what is read


def test_text_files_are_read_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "b.txt").write_bytes(ODD.encode())
    (tmp_path / "a.TXT").write_bytes(b"")
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "c.jsonl").write_text('{"text": "x"}\n')
    (tmp_path / ".hidden").write_bytes(b"\xff")
    texts = list(source_of(tmp_path).texts())
    assert [(Path(one.source).name, one.text) for one in texts] == [
        ("a.TXT", ""),
        ("b.txt", ODD),
        ("c.jsonl", "x"),
    ]


def test_lines_of_text_files(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("\nAnna\r\n\r\n\u2028x\n\n".encode())
    texts = [(one.line, one.text) for one in source_of(path, lines=True).texts()]
    assert texts == [(1, ""), (2, "Anna"), (3, ""), (4, "\u2028x"), (5, "")]
    path.write_bytes(b"a\nb")
    assert [one.text for one in source_of(path, lines=True).texts()] == ["a", "b"]
    path.write_bytes(b"")
    assert list(source_of(path, lines=True).texts()) == []


def test_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(ODD.encode())))
    source = source_of(Path("-")).with_standard_input()
    assert [(one.source, one.text) for one in source.texts()] == [("-", ODD)]
    with pytest.raises(UserError, match="standard input is plain text"):
        source_of(Path("-"), "jsonl")


def test_column_files(tmp_path: Path) -> None:
    path = tmp_path / "a.conll"
    path.write_text("# id = 1\nAnna B-PER\n# O\n\n-DOCSTART- O\n\nIn O\nOslo B-LOC\n")
    texts = [(one.line, one.words, one.text) for one in source_of(path).texts()]
    assert texts == [(2, ("Anna", "#"), "Anna #"), (7, ("In", "Oslo"), "In Oslo")]
    path.write_text("1\tAnna\n2\tsleeps here\n")
    (one,) = source_of(path, column="-1").texts()
    assert one.split("punctuation").strings() == ["Anna", "sleeps here"]
    path.write_text("# global.columns = ID FORM\n1\tAnna\n")
    assert [one.words for one in source_of(path, column="FORM").texts()] == [("Anna",)]
    path.write_text("Anna\nsleeps\n\n#fun\n")
    assert [one.words for one in source_of(path).texts()] == [("Anna", "sleeps"), ("#fun",)]
    assert [one.text for one in source_of(path, "text").texts()] == ["Anna\nsleeps\n\n#fun\n"]


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.jsonl", b'{"text": "x"}\n{"text"', "a.jsonl:2: not JSON: .* one whole JSON object"),
        ("a.jsonl", b'["x"]', "a.jsonl:1: a JSON list where an object is needed"),
        ("a.jsonl", b'\n{"txt": "x"}', "a.jsonl:2: no field 'text'; did you mean 'txt'"),
        ("a.jsonl", b'{"text": null}', "a.jsonl:1: the field 'text' must be a string, .* null"),
        ("a.jsonl", b'{"text": "\\ud800"}', "a.jsonl:1: .*half a surrogate pair"),
        ("a.jsonl", b'{"text": "x", "entities": []}', "a.jsonl:1: .*'entities' already, .*name"),
        ("a.txt", b"Anna\n\xff", "a.txt:2: byte 0xff is not UTF-8; convert"),
        ("a.conll", b"Anna O\nBob\n", "a.conll:2: 1 column, and 2 expected"),
        ("a.docx", b"x", "a.docx: the suffix '.docx' says nothing .* set --input-format"),
    ],
)
def test_input_that_is_refused(name: str, content: bytes, told: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=told):
        source_of(tmp_path).surveyed()


def test_places_that_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for path, told in {
        "nothing.txt": "no file or folder at",
        "x" * 300: "no file or folder at",
        "empty": "holds no file",
    }.items():
        with pytest.raises(DataError, match=told):
            source_of(tmp_path / path)
    (tmp_path / "a.tsv").write_text("a\tb\n")
    for column in ("2", "WORD"):
        with pytest.raises(DataError, match=f"a.tsv:1: the column of words is .*{column}"):
            source_of(tmp_path / "a.tsv", column=column).surveyed()
    with pytest.raises(UserError, match="--input-format must be text, jsonl, columns"):
        source_of(tmp_path / "a.tsv", "csv")


def test_a_survey_tells_inputs_apart(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("a\nb")
    by_line, whole = Source(path, lines=True).surveyed(), Source(path).surveyed()
    assert (by_line.texts, whole.texts) == (2, 1)
    assert by_line.digest != whole.digest
    assert Source(path).surveyed() == whole
    path.write_text("a\nc")
    assert Source(path).surveyed() != whole


# ---------------------------------------------------------------- what is written

HOSTILE = "<script>alert(\"1\")</script> & 'Anna'"


def tagged(text: str, *entities: tuple[str, int, int]) -> tuple[SplitText, Tagged]:
    split = SplitText.of(text, "punctuation")
    found = [Entity(kind, start, end, text[start:end], 0.9876543) for kind, start, end in entities]
    return split, Tagged(["O"] * len(split.words), found)


def test_json_lines_keep_what_came() -> None:
    record = '{"id": 1e400, "n": 0.10,  "text" : "A\u2028\\u0041", "x": {"a": 1, "a": 2} }'
    text = json.loads(record)["text"]
    line = LAYOUTS["jsonl"].text(
        InputText("a.jsonl", text, 3, record=record), *tagged(text, ("PER", 2, 3))
    )
    assert line.startswith(record[:-2].replace("\u2028", "\\u2028") + ', "entities": [')
    assert line.splitlines() == [line[:-1]]
    assert json.loads(line) == json.loads(record) | {
        "entities": [{"type": "PER", "start": 2, "end": 3, "text": "A", "score": 0.987654}]
    }
    line = LAYOUTS["jsonl"].text(InputText("é.txt", ODD, 2), *tagged(ODD))
    assert json.loads(line) == {"source": "é.txt", "line": 2, "text": ODD, "entities": []}
    assert line.isascii() is False


def test_columns_are_lines_whatever_is_in_a_word() -> None:
    split = SplitText.joined(["a\tb", "c"])
    given = InputText("a", split.text)
    assert LAYOUTS["columns"].text(given, split, Tagged(["B-X", "O"], [])) == "a b\tB-X\nc\tO\n\n"
    assert LAYOUTS["columns"].text(given, *tagged("")) == ""


class Page(HTMLParser):
    """What a browser would make of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.open: list[str] = []
        self.marks: list[str] = []
        self.titles: list[str | None] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.open.append(tag)
        if tag == "mark":
            self.titles.append(dict(attrs)["title"])
            self.marks.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] == ["mark"]:
            self.marks[-1] += data
        if "p" in self.open and self.open[-1] != "small":
            self.text += data


def test_a_page_shows_texts_as_text() -> None:
    layout = LAYOUTS["html"]
    given = InputText("<b>.txt", HOSTILE, 2)
    kind = '"><script>'
    section = layout.text(given, *tagged(HOSTILE, (kind, 8, 15), ("PER", 31, 35)))
    page = Page()
    page.feed(section)
    assert page.tags == {"section", "h2", "p", "mark", "small"}
    assert page.text == HOSTILE
    assert page.marks == [HOSTILE[8:15], HOSTILE[31:35]]
    assert page.titles == [f"{kind} 0.988", "PER 0.988"]
    page = Page()
    page.feed(layout.text(given, *tagged("Anna", ("PER", 0, 3), ("LOC", 2, 3), ("ORG", 2, 4))))
    assert (page.text, page.marks) == ("Anna", ["Ann", "", "a"])
    whole = layout.begin + section + layout.end
    assert "<script" not in whole
    assert "http" not in whole


def growing(path: Path, **belongs_to: str) -> GrowingFile:
    return GrowingFile(path, {"input": "1", "model": "2", **belongs_to})


def test_an_output_goes_on_behind_what_was_noted(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    with growing(path) as output:
        output.find()
        assert not any(tmp_path.iterdir())
        output.append(["a\n", "é\n"], 2)
    with path.open("ab") as stream:
        stream.write(b'{"half a li')
    with growing(path) as output:
        output.find()
        assert output.texts == 2
        output.append(["c\n"], 1)
        output.finish("end\n")
    assert path.read_text(encoding="utf-8") == "a\né\nc\nend\n"
    assert list(tmp_path.iterdir()) == [path]


def test_an_output_that_is_not_ours_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    path.write_text("mine")
    with pytest.raises(UserError, match="is there already, and no unfinished output"):
        growing(path).find()
    path.unlink()
    with growing(path) as output:
        output.append(["a\n"], 1)
        with growing(path) as other, pytest.raises(LaunchError, match="another process is writ"):
            other.append(["b\n"], 1)
    with pytest.raises(UserError, match=r"another prediction \(not the same: model\)"):
        growing(path, model="3").find()
    path.write_text("")
    with pytest.raises(UserError, match="is shorter than"):
        growing(path).find()
    # Whoever deleted the file wants it anew.
    path.unlink()
    output = growing(path, model="3")
    output.find()
    assert output.texts == 0
