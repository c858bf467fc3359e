"""Several heads: columns, labels, the model's config, and a sample of a split."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from transformers import XLMRobertaConfig

from bigner.config.load import load_config
from bigner.config.schema import DataConfig, ModelConfig
from bigner.data.corpus import read_corpus
from bigner.data.formats import read_sentences
from bigner.data.heads import Heads, paired
from bigner.data.labels import LabelSet
from bigner.data.prepare import prepare
from bigner.data.subset import sample_of
from bigner.errors import ConfigError, DataError, ModelError
from bigner.modeling import build_model, describe_heads, heads_of
from tests.unit.helpers import tiny_tokenizer, tiny_xlmr

TWO = {"ner": {"column": 2}, "pos": {"column": 1, "kind": "classes"}}
FILE = """\
# global.columns = FORM POS NER
Anna\tNOUN\tI-PER
Nova\tNOUN\tI-PER
sleeps\tVERB\tO

Oslo\tNOUN\tI-LOC
.\tPUNCT\tO
"""


def settings(folder: Path, **fields: Any) -> DataConfig:
    (folder / "train.conll").write_text(FILE)
    values = {
        "train": str(folder / "train.conll"),
        "columns": {"words": 0},
        "heads": TWO,
        "cache_dir": folder / "cache",
    }
    return DataConfig.model_validate({**values, **fields})


# ---------------------------------------------------------------- reading


def test_columns_of_each_head(tmp_path: Path) -> None:
    first, second = read_sentences(settings(tmp_path), "train")
    assert first.tags == [["I-PER", "I-PER", "O"], ["NOUN", "NOUN", "VERB"]]
    assert second.tags == [["I-LOC", "O"], ["NOUN", "PUNCT"]]


def test_columns_by_name(tmp_path: Path) -> None:
    heads = {"ner": {"column": "NER"}, "pos": {"column": "POS", "kind": "classes"}}
    named = settings(tmp_path, heads=heads, columns={"words": "FORM"})
    assert list(read_sentences(named, "train")) == list(read_sentences(settings(tmp_path), "train"))


def test_jsonl_and_a_saved_dataset_hold_the_same(tmp_path: Path) -> None:
    rows = [
        {"words": one.words, "ner": one.tags[0], "pos": one.tags[1]}
        for one in read_sentences(settings(tmp_path), "train")
    ]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    names = ["NOUN", "PUNCT", "VERB"]
    pos = datasets.Sequence(datasets.ClassLabel(names=names))
    text = datasets.Sequence(datasets.Value("string"))
    saved = datasets.Dataset.from_list(
        [{**row, "pos": [names.index(tag) for tag in row["pos"]]} for row in rows],
        features=datasets.Features({"words": text, "ner": text, "pos": pos}),
    )
    datasets.DatasetDict({"train": saved}).save_to_disk(tmp_path / "saved")
    heads = {"ner": {"column": "ner"}, "pos": {"column": "pos", "kind": "classes"}}
    by_name: dict[str, Any] = {"heads": heads, "columns": {"words": "words"}}
    jsonl = settings(tmp_path, format="jsonl", train=str(tmp_path / "a.jsonl"), **by_name)
    hub = settings(
        tmp_path, format="hub", dataset=str(tmp_path / "saved"), **(by_name | {"train": "train"})
    )
    for data in (jsonl, hub):
        found = list(read_sentences(data, "train"))
        assert [(s.words, s.tags[0], s.tags[1]) for s in found] == [
            (row["words"], row["ner"], row["pos"]) for row in rows
        ]


@pytest.mark.parametrize(
    ("heads", "phrases"),
    [
        ({"ner": {"column": 3}}, ["data.heads.ner.column is 3", "0 to 2"]),
        ({"ner": {"column": "NRE"}}, ["data.heads.ner.column is 'NRE'", "did you mean 'NER'?"]),
        ({"a": {"column": 2}, "b": {"column": -1}}, ["a.column 2 and data.heads.b.column -1 are"]),
        ({"pos": {"column": 1}}, [".conll:2: 'NOUN' is not a tag", "data.heads.pos.scheme"]),
        (
            {"pos": {"column": 1, "kind": "classes", "labels": ["NOUN", "VERB"]}},
            ["classes that data.heads.pos.labels does not list: PUNCT (1 in train)"],
        ),
    ],
)
def test_wrong_heads(tmp_path: Path, heads: dict[str, Any], phrases: list[str]) -> None:
    with pytest.raises(DataError) as caught:
        read_corpus(settings(tmp_path, heads=heads))
    assert [phrase for phrase in phrases if phrase not in str(caught.value)] == []


def test_an_empty_cell_names_its_head(tmp_path: Path) -> None:
    data = settings(tmp_path)
    (tmp_path / "train.conll").write_text("a\tX\tO\nb\t\tO\n")
    with pytest.raises(DataError, match=r":2: the tag in column 1 .* data.heads.pos.column"):
        read_corpus(data)


# ---------------------------------------------------------------- the run file

RUN = """\
run_dir: run
model: {name_or_path: a/b}
data:
  train: t
  columns: {words: 0}
  heads:
    ner: {column: 1}
    pos: {column: 2, kind: classes, weight: 0.5}
"""


@pytest.mark.parametrize(
    ("override", "field", "phrase"),
    [
        ("data.heads.ner.weigth=2", "data.heads.ner.weigth", "did you mean weight?"),
        ("data.heads.ner.weight=0", "data.heads.ner.weight", "greater than 0; got 0"),
        ("data.heads.x={kind: tags}", "data.heads.x.column", "is needed and not given (Column of"),
        ("data.heads.2x={column: 3}", "data.heads.2x", "must begin with a letter"),
        ("data.heads={}", "data.heads", "must not be empty"),
        ("data.heads.pos.scheme=iob2", "data.heads.pos", "classes have no tag scheme"),
        ("data.heads.ner.labels=[B-PER]", "data.heads.ner", "leave out O and the prefixes"),
        ("data.labels=[PER]", "data", "data.labels and data.heads are both given"),
        ("data.scheme=bioes", "data", "data.scheme and data.heads are both given"),
        ("data.columns={words: 0, tags: 1}", "data", "data.columns.tags and data.heads are both"),
        ("data.heads.pos.column=1", "data", "data.heads.ner.column and data.heads.pos.column are"),
        ("data.heads.pos.column=0", "data", "data.columns.words and data.heads.pos.column are"),
        ("evaluation.head=nre", "", "'nre' is none of the heads of the data: ner, pos"),
        ("data.format=spans", "data", "take data.heads out"),
    ],
)
def test_wrong_run_files(tmp_path: Path, override: str, field: str, phrase: str) -> None:
    (tmp_path / "run.yaml").write_text(RUN)
    with pytest.raises(ConfigError) as caught:
        load_config(tmp_path / "run.yaml", [override])
    (problem,) = caught.value.problems
    assert problem.field == field
    assert phrase in problem.message
    assert "run.yaml" in problem.where or override[:20] in problem.where


def test_a_strict_f1_of_classes_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(RUN)
    overrides = ["evaluation.metric=strict_f1", "evaluation.head=pos"]
    with pytest.raises(ConfigError, match="strict_f1 is of entities"):
        load_config(tmp_path / "run.yaml", overrides)
    assert load_config(tmp_path / "run.yaml", overrides[:1]).chosen_head() == "ner"


# ---------------------------------------------------------------- what is prepared


def test_a_prepared_corpus_of_two_heads(tmp_path: Path) -> None:
    data = settings(tmp_path, max_length=16, stride=0)
    prepared = prepare(data, tiny_tokenizer(), ["train"])
    ner, pos = prepared.heads
    assert ner.labels.tags == ("O", "B-LOC", "I-LOC", "B-PER", "I-PER")
    # The commonest first, which is what a word without pieces is given.
    assert pos.labels.tags == ("NOUN", "PUNCT", "VERB")
    assert (ner.logits, pos.logits) == (slice(0, 5), slice(5, 8))
    assert prepared.schemes == {"ner": "io", "pos": None}
    assert prepared.type_counts["pos"]["train"] == {"NOUN": 3, "PUNCT": 1, "VERB": 1}
    train = prepared.splits["train"]
    assert [row["tags_0"] for row in train.sentences] == [[3, 4, 0], [1, 0]]
    assert [row["tags_1"] for row in train.sentences] == [[0, 0, 2], [0, 1]]
    assert train.label_counts(0, 5).tolist() == [2, 1, 0, 1, 1]
    assert train.label_counts(1, 3).tolist() == [3, 1, 1]
    weights = np.array([1.0, 10.0, 100.0], dtype=np.float32)
    assert train.label_weights(1, weights).tolist() == [102.0, 11.0]


def test_weights_of_many_windows(tmp_path: Path) -> None:
    """More windows than are written at a time, some without a label."""
    data = settings(tmp_path)
    blocks = ["a\tX\tO", "a\tX\tO\nb\tY\tB-P", "\u200b\tX\tO"]
    (tmp_path / "train.conll").write_text("\n\n".join(blocks[i % 3] for i in range(3500)) + "\n")
    prepared = prepare(data, tiny_tokenizer(), ["train"])
    split = prepared.splits["train"]
    assert len(split.windows.data.column("labels_0").chunks) > 1
    weights = np.array([1.0, 2.0, 4.0], dtype=np.float32)
    expected = [[1.0, 3.0, 0.0][i % 3] for i in range(3500)]
    assert split.label_weights(0, weights).tolist() == expected
    assert split.label_weights(0, np.ones(3, dtype=np.float32)).tolist() == [
        [1.0, 2.0, 0.0][i % 3] for i in range(3500)
    ]


def test_the_order_of_heads_is_content_and_their_weight_is_not(tmp_path: Path) -> None:
    folder = prepare(settings(tmp_path), tiny_tokenizer(), ["train"]).folder
    turned = settings(tmp_path, heads=dict(reversed(TWO.items())))
    other = prepare(turned, tiny_tokenizer(), ["train"])
    assert other.folder != folder
    assert [head.name for head in other.heads] == ["pos", "ner"]
    heavier = settings(tmp_path, heads={**TWO, "ner": {"column": 2, "weight": 9.0}})
    assert prepare(heavier, tiny_tokenizer(), ["train"]).folder == folder


def test_context_without_documents_is_told(tmp_path: Path) -> None:
    assert prepare(settings(tmp_path, context=4), tiny_tokenizer(), ["train"]).warnings == ()
    (tmp_path / "one.jsonl").write_text('{"words": ["a"], "tags": ["B-X"]}\n' * 2)
    data = DataConfig(
        format="jsonl", train=str(tmp_path / "one.jsonl"), context=4, cache_dir=tmp_path / "cache"
    )
    (warning,) = prepare(data, tiny_tokenizer(), ["train"]).warnings
    assert warning.startswith("train: every document has one sentence, so data.context finds")


def test_one_class_is_nothing_to_learn(tmp_path: Path) -> None:
    data = settings(tmp_path)
    (tmp_path / "train.conll").write_text("a\tX\tB-P\nb\tX\tO\n")
    with pytest.raises(DataError, match=r"every word of train has the class 'X'.*heads.pos.column"):
        read_corpus(data)


# ---------------------------------------------------------------- a sample


@pytest.mark.parametrize("unit", ["sentence", "document"])
def test_a_sample_of_a_split(tmp_path: Path, unit: str) -> None:
    data = settings(tmp_path, max_length=20, stride=0, unit=unit)
    blocks = [f"w{i}\tX\tB-P\nv{i}\tY\tO\n\u200b\tX\tO" for i in range(40)]
    (tmp_path / "train.conll").write_text("\n\n".join(blocks) + "\n")
    prepared = prepare(data, tiny_tokenizer(), ["train"])
    whole = prepared.splits["train"]
    sample = sample_of(whole, 2, 10)
    assert sample.windows.num_rows == 10
    sizes = sample.column("num_words")
    assert sample.column("first_word").tolist() == (np.cumsum(sizes) - sizes).tolist()
    # Each window still has the labels of its words.
    for i in (0, 1):
        tags = [tag for row in sample.sentences for tag in row[f"tags_{i}"]]
        assert len(tags) == sizes.sum()
        for window in sample.windows:
            own = tags[window["first_word"] :][: window["num_words"]]
            for tag, place in zip(own, window["word_places"], strict=True):
                assert place < 0 or window[f"labels_{i}"][place] == tag
    # Sentences are whole, but for those that a window owns a part of.
    lengths = [len(row["tags_0"]) for row in sample.sentences]
    assert max(lengths) == 3
    assert lengths.count(3) >= 10
    assert unit == "document" or lengths == [3] * 10
    places = [place for window in sample.windows for place in window["word_places"]]
    assert sample.words_without_pieces == places.count(-1) > 0
    again = sample_of(whole, 2, 10)
    assert list(again.windows) == list(sample.windows)
    assert sample_of(whole, 2, 10**6).windows.num_rows == whole.windows.num_rows


# ---------------------------------------------------------------- the model's config

HEADS = Heads([("a", "tags", LabelSet.of_types(["X"])), ("b", "classes", LabelSet(("N", "V")))])


def test_heads_are_in_the_order_of_their_logits_whatever_transformers_sorts(tmp_path: Path) -> None:
    heads = Heads([("b", "tags", LabelSet.of_types(["X"])), ("a", "classes", LabelSet(("N", "V")))])
    config = XLMRobertaConfig(id2label=dict(enumerate(heads.names_of_logits)))
    config.bigner_heads = heads.described()
    config.save_pretrained(tmp_path)
    assert list(json.loads((tmp_path / "config.json").read_text())["bigner_heads"]) == ["a", "b"]
    assert list(heads_of(tmp_path)) == list(heads)


def test_the_config_leads_back_to_the_heads() -> None:
    names = HEADS.names_of_logits
    assert names == ("a:O", "a:B-X", "a:I-X", "b:N", "b:V")
    back = Heads.from_config(json.loads(json.dumps(HEADS.described())), names)
    assert list(back) == list(HEADS)
    classes = Heads([("b", "classes", LabelSet(("N", "V")))])
    assert list(Heads.from_config(classes.described(), ("N", "V"))) == list(classes)
    one = Heads.single(LabelSet.of_types(["X"]))
    assert one.described() is None
    assert list(Heads.from_config(None, one.names_of_logits)) == list(one)


@pytest.mark.parametrize(
    "described",
    [
        [],
        "x",
        {},
        {"a": {"kind": "tags", "labels": ["O", "B-X", "I-X"]}},
        {"a": {"kind": "tags"}, "b": {"kind": "classes", "labels": ["N", "V"]}},
        {"a": {"kind": "spans", "labels": ["O"]}},
        {"a": {"kind": "tags", "labels": 5}},
        {"a": {"kind": "classes", "labels": [1, 2]}},
        {"a": 3},
    ],
)
def test_a_config_that_describes_other_labels(tmp_path: Path, described: object) -> None:
    config = {"id2label": dict(enumerate(HEADS.names_of_logits)), "bigner_heads": described}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="does not describe its labels"):
        heads_of(tmp_path)


def test_a_model_that_begins_with_one_of_several_heads_forgets_them(tmp_path: Path) -> None:
    tiny_xlmr(50).save_pretrained(tmp_path)
    model = build_model(ModelConfig(name_or_path=str(tmp_path)), HEADS.names_of_logits)
    describe_heads(model, HEADS)
    model.config.save_pretrained(tmp_path)
    assert list(heads_of(tmp_path)) == list(HEADS)
    one = Heads.single(LabelSet.of_types(["X"]))
    later = build_model(ModelConfig(name_or_path=str(tmp_path)), one.names_of_logits)
    describe_heads(later, one)
    later.config.save_pretrained(tmp_path)
    assert list(heads_of(tmp_path)) == list(one)


def test_heads_are_paired_by_name_and_one_with_one() -> None:
    a, b = HEADS
    assert paired(HEADS, Heads([(h.name, h.kind, h.labels) for h in (b, a)]))[0][1].name == "a"
    renamed = Heads([("z", "tags", a.labels)])
    assert paired(Heads([("a", "tags", a.labels)]), renamed) == [(a, renamed[0])]
    with pytest.raises(ModelError, match="no head 'a'; it has z"):
        paired(HEADS, renamed)
    with pytest.raises(ModelError, match="head 'b': the data has classes and the model tells tags"):
        paired(Heads([("b", "classes", b.labels)]), renamed)


def test_a_head_that_is_not_there() -> None:
    with pytest.raises(ModelError, match=r"no head 'c'; it has a, b"):
        HEADS.named("c")
