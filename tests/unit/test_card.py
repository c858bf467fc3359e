"""The model card: its Markdown says what it was given, and its head what the Hub reads."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from pydantic import ValidationError

from bigner.card import markdown
from bigner.card.facts import Facts, Summary, run_name
from bigner.card.front_matter import front_matter
from bigner.card.render import render
from bigner.config.checks import hub_names
from bigner.config.schema import RunConfig
from bigner.errors import printable

TEXTS = st.text(st.characters(codec="utf-8"), max_size=20)


def scores(f1: float) -> dict[str, Any]:
    numbers = {"precision": f1 / 2, "recall": f1 / 3, "f1": f1, "support": 7}
    return {
        **numbers,
        "accuracy": 0.9,
        "loss": 0.1,
        "per_type": {"PER": numbers},
        "strict": {**numbers, "f1": f1 / 4},
        "strict_per_type": {"PER": numbers},
        "sentences": 3,
        "words": 1234,
        "words_without_pieces": 1,
    }


def facts(config: dict[str, Any] | None = None, **summary: Any) -> Facts:
    values = {
        "run_dir": "runs/first",
        "model": {"name_or_path": "FacebookAI/xlm-roberta-large"},
        "data": {"train": "train.conll", "validation": "dev.conll", "test": "test.conll"},
    }
    known = {
        "steps": 4,
        "labels": ["O", "B-PER", "I-PER"],
        "strategy": "zero",
        "precision": "fp16",
        "world_size": 8,
        **summary,
    }
    checked = RunConfig.model_validate({**values, **(config or {})})
    return Facts("first", checked, Summary.model_validate(known))


def head_of(card: str) -> dict[str, Any]:
    # As the Hub finds its end: the first such line.
    opening, head, _ = re.split(r"^---\n", card, maxsplit=2, flags=re.MULTILINE)
    assert opening == ""
    found: dict[str, Any] = yaml.safe_load(head)
    return found


# ---------------------------------------------------------------- Markdown


def shown(text: str) -> list[str]:
    """The cells of a table, as a reader of Markdown sees them."""
    found = []
    for token in MarkdownIt("commonmark").enable("table").parse(text):
        if token.type == "inline":
            children = token.children or []
            assert {child.type for child in children} <= {"text", "text_special"}, token.content
            found.append("".join(child.content for child in children))
    return found


@given(TEXTS, TEXTS)
def test_cells_say_what_they_were_given(first: str, second: str) -> None:
    cells = [" ".join(text.split()) for text in (first, second)]
    cells = [printable(cell) for cell in cells]
    assert shown(markdown.table(["a|b", "c"], [[first, second]])) == ["a|b", "c", *cells]


@pytest.mark.parametrize(
    "text",
    ["[/N][Nom]", "a|b", "`x`", "<script>", "&lt;", "**PER**", "$x$", "\\", ":smile:", "x_y_z"],
)
def test_nothing_is_markup(text: str) -> None:
    assert shown(markdown.table(["type"], [[text]])) == ["type", text]


def test_numbers_stand_to_the_right() -> None:
    table = markdown.table(["type", "F1", "support"], [["PER", 0.5, 1200], ["LOC", "-", 3]])
    assert table.splitlines()[1:3] == ["| --- | ---: | ---: |", "| PER | 0.5000 | 1,200 |"]


@given(TEXTS)
def test_a_block_of_code_ends_where_it_ends(code: str) -> None:
    code = f"x = 1\n{printable(code)}\n```\n`````\ny"
    block, *rest = MarkdownIt("commonmark").parse(markdown.fenced(code, "python"))
    assert (block.type, block.content, rest) == ("fence", f"{code}\n", [])


# ---------------------------------------------------------------- the head


def test_the_hub_reads_the_scores() -> None:
    known = facts(
        validation=scores(0.5),
        test=scores(1 / 3),
        hub={"model": "FacebookAI/xlm-roberta-large"},
    )
    card = ModelCard(render(known, "owner/name"))
    assert card.data.base_model == "FacebookAI/xlm-roberta-large"
    assert card.data.pipeline_tag == "token-classification"
    assert card.data.license is card.data.language is None
    assert card.data.model_name == "first"
    found = {(r.dataset_split, r.metric_name): r.metric_value for r in card.data.eval_results}
    assert found["test", "F1 (seqeval, default mode)"] == 1 / 3
    assert found["test", "Recall (seqeval, default mode)"] == 1 / 9
    assert found["validation", "F1 (seqeval, strict IOB2)"] == 0.125
    assert found["validation", "Accuracy of words"] == 0.9
    assert len(found) == 14


def test_several_heads_are_told_apart() -> None:
    classes = {**scores(0.25), "strict": None, "strict_per_type": {}}
    heads = {"ner": {"column": 1}, "upos": {"column": 2, "kind": "classes"}}
    data = {"train": "a", "test": "b", "columns": {"words": 0}, "heads": heads}
    known = facts(
        {"data": data},
        labels=["ner:O", "ner:B-PER", "ner:I-PER", "upos:NOUN"],
        test={**scores(0.5), "heads": {"ner": scores(0.5), "upos": classes}},
    )
    text = render(known, "m")
    results = ModelCard(text).data.eval_results
    found = {(r.task_name, r.metric_name): r.metric_value for r in results}
    assert found["Named-entity recognition: ner", "F1 (seqeval, default mode)"] == 0.5
    assert found["Classes of words: upos", "F1 (macro)"] == 0.25
    assert "ner: 3 labels: O, B-PER, I-PER." in text
    assert "upos: 1 labels: NOUN." in text
    assert "| upos\\: macro average | 0.1250 | 0.0833 | 0.2500 |" in text


def test_a_data_set_of_the_hub() -> None:
    data = {"format": "hub", "dataset": "ns/wikiann", "subset": "fo", "train": "t", "test": "te"}
    known = facts({"data": data}, test=scores(0.5), hub={"dataset": "ns/wikiann"})
    head = front_matter(known)
    assert head["datasets"] == ["ns/wikiann"]
    (result,) = head["model-index"][0]["results"]
    expected = {"name": "ns/wikiann", "type": "ns/wikiann", "config": "fo", "split": "te"}
    assert result["dataset"] == expected


def test_what_is_not_known_is_left_out() -> None:
    head = head_of(render(facts(), "m"))
    assert head.keys() == {"library_name", "pipeline_tag", "tags"}
    assert "These weights were not scored." in render(facts(), "m")


def test_numbers_of_a_diverged_run_are_left_out() -> None:
    test = {**scores(0.5), "loss": None, "f1": None}
    text = render(facts(test=test), "m")
    names = [m["name"] for m in head_of(text)["model-index"][0]["results"][0]["metrics"]]
    assert "F1 (seqeval, default mode)" not in names
    assert "Recall (seqeval, default mode)" in names
    assert "| seqeval, default mode | 0.2500 | 0.1667 | - | 0.9000 | - |" in text


@settings(max_examples=30)
@given(TEXTS.filter(bool), TEXTS.filter(bool))
def test_no_name_breaks_out_of_the_head(name: str, label: str) -> None:
    known = replace(facts(test=scores(0.5), labels=["O", label]), name=name)
    index = head_of(render(known, "m"))["model-index"]
    assert index[0]["name"] == printable(name)


@pytest.mark.parametrize("name", ["---", "a\n---\nlicense: mit\n---\n", "{{ 7 * 7 }}", "{% if %}"])
def test_a_hostile_name(name: str) -> None:
    known = replace(facts(test=scores(0.5)), name=name)
    text = render(known, name)
    head = head_of(text)
    assert head["model-index"][0]["name"] == printable(name)
    assert "license" not in head
    assert "49" not in text


# ---------------------------------------------------------------- what is known


def test_names_of_the_hub_are_no_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models" / "large").mkdir(parents=True)

    def model(name: str, **fields: str) -> str | None:
        return hub_names(facts({"model": {"name_or_path": name, **fields}}).config)["model"]

    assert model("FacebookAI/xlm-roberta-large") == "FacebookAI/xlm-roberta-large"
    assert model("models/large") is None
    assert model("./large") is None
    assert model("a/b/c") is None
    # Of whose weights it has none.
    assert model("FacebookAI/xlm-roberta-large", training_type="from_scratch") is None


def test_names_of_runs() -> None:
    assert run_name(Path("runs/wnut17")) == "wnut17"
    assert run_name(Path("runs/wnut17/seed-3")) == "wnut17-seed-3"
    assert run_name(Path("seed-3").absolute()) == f"{Path.cwd().name}-seed-3"


def test_a_summary_of_another_kind_is_refused() -> None:
    with pytest.raises(ValidationError):
        facts(test={"f1": "high"})


def test_decoding_that_the_code_does_not_do_is_told() -> None:
    assert "evaluation.decoding" not in render(facts(), "m").partition("## Limits")[2]
    decoded = facts({"evaluation": {"decoding": "iob2"}})
    assert "evaluation.decoding: iob2" in render(decoded, "m").partition("## Limits")[2]


def test_long_texts_are_for_what_windows_them() -> None:
    data = {"train": "train.conll", "max_length": 64, "stride": 8}
    text = render(facts({"data": data}), "owner/name")
    assert "into windows of 64 sub-words that share 8 words" in text
    classes = {"heads": {"upos": {"column": 1, "kind": "classes"}}, "columns": {"words": 0}}
    assert "`bigner predict" not in render(facts({"data": data | classes}), "owner/name")
