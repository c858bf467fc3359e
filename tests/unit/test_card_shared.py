"""Cards on their way to the Hub without their run: folders of this machine stay here."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from bigner.card.render import render
from bigner.card.shared import for_others
from tests.unit.test_card import facts, head_of, scores

CARD = """\
---
language: no
base_model: {base_model}
# Kept as it is.
model-index:
- name: tagger
  results: [{{value: 0.5}}]
---

# Tagger

"""


def head(card: str) -> str:
    return for_others(card, Path("model"), "owner/name").split("---\n")[1]


@pytest.mark.parametrize(
    ("base_model", "kept"),
    [
        ("/home/anna/models/large", None),
        ("./large", None),
        ("~/large", None),
        ("models/of/anna", None),
        ("here", None),
        ("[/home/anna/large]", None),
        ("[/home/anna/large, owner/large]", ["owner/large"]),
        ("\n- /home/anna/large\n- owner/large", ["owner/large"]),
        ("FacebookAI/xlm-roberta-large", "FacebookAI/xlm-roberta-large"),
        ("bert-base-cased", "bert-base-cased"),
        ("https://huggingface.co/owner/large", "https://huggingface.co/owner/large"),
        ("3", 3),
    ],
)
def test_a_base_model_that_is_a_folder_is_left_out(
    base_model: str, kept: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    card = CARD.format(base_model=base_model)
    found = head(card)
    assert yaml.safe_load(found).get("base_model") == kept
    # All else keeps its every character, such as the Norwegian that is no boolean.
    assert found.startswith("language: no\n")
    assert "- name: tagger\n  results: [{value: 0.5}]\n" in found
    if kept and kept == yaml.safe_load(card.split("---\n")[1])["base_model"]:
        assert for_others(card, Path("model"), "owner/name") == card


def test_data_sets_too() -> None:
    assert head("---\ndatasets:\n- /data/letters\ntags: [a]\n---\n") == "tags: [a]\n"


@pytest.mark.parametrize(
    "card",
    [
        *("", "# no head", "---\n---\n", "---\nbase_model: [\n---\n", "---\n- base_model\n---\n"),
        *("---\nbase_model: /a/b", "---\nbase_model: {a: /b/c}\n---\n", "---\ntags:\n---\nx"),
    ],
)
def test_what_is_no_head_stays(card: str) -> None:
    assert for_others(card, Path("model"), "owner/name") == card


def test_code_of_ours_loads_the_model_from_where_it_will_be() -> None:
    known = facts(test=scores(0.5))
    for where in ("exported", "out/exported", "/home/anna/exported", 'a"b', "owner/earlier"):
        # The folder may have moved since.
        card = for_others(render(known, where), Path("moved"), "owner/name")
        assert card == render(known, "owner/name")
    assert head_of(card)["model-index"] == head_of(render(known, "x"))["model-index"]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('pipeline("ner", model="/home/anna/model")', 'pipeline("ner", model="owner/name")'),
        ("from_pretrained('./model')", 'from_pretrained("owner/name")'),
        ('from_pretrained("owner/other")', 'from_pretrained("owner/other")'),
        ("model=model", "model=model"),
        (r'model="\x"', r'model="\x"'),
    ],
)
def test_code_of_others_keeps_what_is_no_folder(before: str, after: str) -> None:
    card = f"```python\n{before}\n```\n"
    assert for_others(card, Path("model"), "owner/name") == card.replace(before, after)


def test_the_models_own_folder_is_named_nowhere(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    card = f"It is in `{folder}`, with {folder}/config.json, beside {folder}-b and /x{folder}.\n"
    found = for_others(card, folder, "owner/name")
    assert found == (
        f"It is in `owner/name`, with owner/name/config.json, beside {folder}-b and /x{folder}.\n"
    )
    assert len(re.findall("owner/name", found)) == 2
