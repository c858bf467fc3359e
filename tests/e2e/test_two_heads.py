"""Named entities and parts of speech at once, on Hungarian news with XLM-R's tokenizer."""

from __future__ import annotations

import json
import shutil
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import yaml
from seqeval.metrics import f1_score, precision_score, recall_score
from sklearn.metrics import accuracy_score
from sklearn.metrics import f1_score as class_f1_score
from transformers import AutoModelForTokenClassification

from tests.e2e.running import TORCHRUN, deepspeed_launcher
from tests.e2e.test_launchers import MODEL
from tests.ranks.launch import run_command

pytestmark = pytest.mark.data

SPEED = ("seconds", "words_per_second")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, shared_data: Path) -> Path:
    """A trained run of two heads; trained under fsdp on two ranks."""
    folder = tmp_path_factory.mktemp("nerkor")
    shutil.copytree(shared_data / "xlmr-tokenizer", folder / "model")
    (folder / "model" / "config.json").write_text(json.dumps(MODEL))
    corpus = shared_data / "nerkor-hu" / "data"
    run = {
        "run_dir": "run",
        "model": {"name_or_path": "./model", "training_type": "from_scratch"},
        "data": {
            "train": str(corpus / "devel"),
            "validation": str(corpus / "test" / "news" / "*_1*"),
            "test": str(corpus / "test"),
            "columns": {"words": "FORM"},
            "heads": {
                "ner": {"column": "CONLL:NER"},
                "upos": {"column": "UPOS", "kind": "classes", "weight": 0.5},
            },
            "cache_dir": str(folder / "cache"),
        },
        "training": {
            "max_steps": 60,
            "global_batch_size": 16,
            "micro_batch_size": 8,
            "learning_rate": 1e-2,
        },
        "loss": {"class_weights": "effective_number"},
        "strategy": {"kind": "fsdp"},
        "evaluation": {"batch_size": 64, "decoding": "iob2", "head": "upos"},
    }
    (folder / "run.yaml").write_text(yaml.safe_dump(run))
    done = run_command([*TORCHRUN, "-m", "bigner", "train", "run.yaml"], folder)
    assert done.returncode == 0, done.stderr
    return folder


def _summary(project: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((project / "run" / "summary.json").read_text())
    return found


def _columns(file: Path) -> tuple[list[list[str]], list[list[str]]]:
    """Gold and predicted labels of each sentence."""
    blocks = file.read_text(encoding="utf-8").rstrip("\n").split("\n\n")
    rows = [[line.split("\t") for line in block.split("\n")] for block in blocks]
    gold, predicted = ([[row[i] for row in block] for block in rows] for i in (1, 2))
    return gold, predicted


def test_scores_of_each_head_are_seqevals_and_scikit_learns(project: Path) -> None:
    single = [*TORCHRUN[:3], "--standalone", "--nproc-per-node", "1", "-m", "bigner", "evaluate"]
    arguments = ["run.yaml", "strategy={kind: single}", "--predictions", "out.tsv", "--json"]
    done = run_command([*single, *arguments], project)
    assert done.returncode == 0, done.stderr
    one = {k: v for k, v in json.loads(done.stdout).items() if k not in SPEED}
    trained = _summary(project)["test"]
    assert one == {k: v for k, v in trained.items() if k not in SPEED}

    ner, upos = one["heads"]["ner"], one["heads"]["upos"]
    gold, predicted = _columns(project / "out-ner.tsv")
    assert sum(map(len, gold)) == ner["words"] == 21735
    assert ner["f1"] == f1_score(gold, predicted, zero_division=0)
    assert ner["precision"] == precision_score(gold, predicted, zero_division=0)
    assert ner["recall"] == recall_score(gold, predicted, zero_division=0)
    right, guessed = (
        list(chain.from_iterable(each)) for each in _columns(project / "out-upos.tsv")
    )
    assert upos["accuracy"] == accuracy_score(right, guessed)
    assert upos["f1"] == pytest.approx(
        class_f1_score(right, guessed, average="macro", zero_division=0)
    )
    # Neither head is one that says the same of every word.
    assert upos["accuracy"] > 0.3
    assert len(set(guessed)) > 3


def test_the_same_scores_under_zero_and_two_ranks(project: Path) -> None:
    arguments = ["bigner", "evaluate", "run.yaml", "strategy={kind: zero}", "--json"]
    done = run_command([*deepspeed_launcher(), *arguments], project)
    assert done.returncode == 0, done.stderr
    printed = done.stdout[done.stdout.index("{\n") : done.stdout.rindex("}") + 1]
    scores = {k: v for k, v in json.loads(printed).items() if k not in SPEED}
    assert scores == {k: v for k, v in _summary(project)["test"].items() if k not in SPEED}


def test_the_exported_folder_knows_both_heads(project: Path) -> None:
    folder = project / "run" / "model"
    model = AutoModelForTokenClassification.from_pretrained(folder)
    assert model.config.bigner_heads["upos"]["kind"] == "classes"
    names = list(model.config.id2label.values())
    assert names[0] == "ner:O"
    assert sum(name.startswith("upos:") for name in names) == 16
    assert tuple(_summary(project)["labels"]) == tuple(names)
