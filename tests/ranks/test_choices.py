"""Losses, context, several heads: alike under every strategy, world size and accumulation."""

from __future__ import annotations

import math
from collections import Counter
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from seqeval.metrics import f1_score
from seqeval.scheme import IOB2, Entities
from sklearn.metrics import f1_score as macro_f1_score
from transformers import AutoModelForTokenClassification

from bigner.config.load import load_config
from bigner.config.schema import LossConfig, RunConfig
from bigner.data.batches import TrainingPlan
from bigner.data.heads import Head
from bigner.data.prepare import prepare
from bigner.modeling import load_tokenizer
from tests.ranks import cases
from tests.ranks.launch import run_ranks
from tests.ranks.project import train_everywhere, write_project
from tests.unit.helpers import whole_model

STEPS = 12
COMMON = [
    f"training.max_steps={STEPS}",
    "training.global_batch_size=8",
    "training.log_every=1",
    "training.learning_rate=3e-3",
    "model.dropout=0.0",
    "evaluation.every=6",
]
WORLDS = {"single": 1, "fsdp": 2, "zero": 2}
# Micro-batches in a step; one engine each, for how they add up is the other tests' business.
ACCUMULATION = {"single": 1, "fsdp": 2, "zero": 1}
CHOICES = {
    "inverse": ["loss.class_weights=inverse_frequency"],
    "effective": ["loss.class_weights=effective_number", "loss.label_smoothing=0.1"],
    "focal": ["loss.class_weights={O: 0.2, SURNAME: 2.0}", "loss.focal_gamma=2.0"],
    "context": ["data.context=6", "evaluation.decoding=iob2", "evaluation.train_sample=20"],
    "heads": [
        "data.columns={words: 0}",
        "data.heads={ner: {column: 1}, shape: {column: 2, kind: classes, weight: 0.5}}",
        "loss.class_weights=inverse_frequency",
        "evaluation.decoding=iob2",
        "evaluation.head=shape",
    ],
    "turned": [
        "data.columns={words: 0}",
        "data.heads={shape: {column: 2, kind: classes, weight: 0.5}, ner: {column: 1}}",
    ],
    "document": ["data.unit=document", "data.max_length=32"],
    "patience": ["evaluation.every=2", "evaluation.patience=2", "evaluation.min_gain=0.9"],
}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_project(tmp_path_factory.mktemp("project"))
    for file in (folder / "data").glob("*.conll"):
        lines = file.read_text(encoding="utf-8").splitlines()
        file.write_text("\n".join(map(_with_shape, lines)) + "\n", encoding="utf-8")
    return folder


def _with_shape(line: str) -> str:
    """A row with a third column: what its word looks like, as uneven as parts of speech."""
    word, tab, _ = line.partition("\t")
    if not tab:
        return line
    shapes = {"number": str.isdigit, "name": str.istitle, "word": str.isalpha}
    return f"{line}\t{next((name for name, fits in shapes.items() if fits(word)), 'other')}"


@pytest.fixture(scope="module")
def results(project: Path) -> dict[str, dict[str, Any]]:
    """Curves and summaries by choice and strategy; a launch for each strategy."""
    found: dict[str, dict[str, Any]] = {}
    for kind, size in WORLDS.items():
        runs = {
            f"{choice}-{kind}": [
                *COMMON,
                f"training.micro_batch_size={8 // size // ACCUMULATION[kind]}",
                f"strategy={{kind: {kind}}}",
                f"run_dir={project}/{choice}-{kind}",
                *overrides,
            ]
            for choice, overrides in CHOICES.items()
        }
        found |= train_everywhere(project, kind, size, runs)
    return found


@pytest.mark.parametrize("kind", ["fsdp", "zero"])
@pytest.mark.parametrize("choice", CHOICES)
def test_every_choice_is_alike_everywhere(
    results: dict[str, dict[str, Any]], choice: str, kind: str
) -> None:
    reference, result = results[f"{choice}-single"], results[f"{choice}-{kind}"]
    for number in ("loss", "grad_norm"):
        assert len(result[number]) == (6 if choice == "patience" else STEPS)
        assert result[number] == pytest.approx(reference[number], abs=1e-5)
    assert _scores(result) == _scores(reference)


def _scores(result: dict[str, Any]) -> dict[str, Any]:
    speed = ("seconds", "words_per_second")
    test = result["summary"]["test"]
    return {name: value for name, value in test.items() if name not in speed}


@pytest.mark.parametrize("choice", ["inverse", "effective", "focal", "heads", "turned"])
def test_the_first_loss_is_that_of_the_definition(
    project: Path, results: dict[str, dict[str, Any]], choice: str
) -> None:
    """A loop over the labelled pieces of the global batch, in float64.

    The ranks have other numbers of labels each, and the same holds of micro-batches.
    """
    expected = _first_loss(load_config(project / "run.yaml", [*COMMON, *CHOICES[choice]]))
    names = [name for name in results if name.startswith(f"{choice}-")]
    assert len(names) == len(WORLDS)
    for name in names:
        assert results[name]["loss"][0] == pytest.approx(expected, abs=1e-5)


def _first_loss(config: RunConfig) -> float:
    prepared = prepare(config.data, load_tokenizer(config.model), config.data.splits())
    model = whole_model(config.model, prepared.heads.names_of_logits, config.seed).double().eval()
    train, total = prepared.splits["train"], 0.0
    ones = [np.ones(train.windows.num_rows)] * len(prepared.heads)
    plan = TrainingPlan(train.column("length"), ones, training=config.training, seed=config.seed)
    windows = [train.windows[int(row)] for row in plan.epoch(0)[0].rows]
    for i, head in enumerate(prepared.heads):
        labels = train.windows.data.column(f"labels_{i}").to_pylist()
        seen = Counter(one for row in labels for one in row if one >= 0)
        weights = _weights(config, head, seen)
        costs, weight = 0.0, 0.0
        for window in windows:
            with torch.no_grad():
                logits = model(input_ids=torch.tensor([window["input_ids"]])).logits[0]
            p = logits[:, head.logits].softmax(-1)
            for place, label in enumerate(window[f"labels_{i}"]):
                if label >= 0:
                    costs += _cost(p[place].tolist(), label, weights, config.loss)
                    weight += weights[label]
        total += config.data.resolved_heads()[head.name].weight * costs / weight
    return total


def _weights(config: RunConfig, head: Head, seen: Counter[int]) -> list[float]:
    counts = [max(seen[label], 1) for label in range(len(head.labels))]
    match config.loss.class_weights:
        case "inverse_frequency":
            return [sum(counts) / len(counts) / count for count in counts]
        case "effective_number":
            beta = config.loss.beta()
            inverse = [(1 - beta) / (1 - beta**count) for count in counts]
            return [each * len(counts) / sum(inverse) for each in inverse]
        case "none":
            return [1.0] * len(counts)
        case by_hand:
            assert isinstance(by_hand, dict)
            return [by_hand.get(tag, by_hand.get(tag[2:], 1.0)) for tag in head.labels.tags]


def _cost(p: list[float], label: int, weights: list[float], loss: LossConfig) -> float:
    smoothing, gamma = loss.label_smoothing, loss.focal_gamma
    targets = [smoothing / len(p) + (1 - smoothing) * (c == label) for c in range(len(p))]
    return weights[label] * sum(
        q * (1 - each) ** gamma * -math.log(each) for q, each in zip(targets, p, strict=True)
    )


def test_choices_are_choices(results: dict[str, dict[str, Any]]) -> None:
    """Runs that agree because a setting does nothing would prove nothing."""
    firsts = {choice: results[f"{choice}-single"]["loss"][0] for choice in CHOICES}
    assert len(set(firsts.values())) == len(firsts)


def test_patience_ends_a_run_and_says_so(results: dict[str, dict[str, Any]]) -> None:
    summary = results["patience-zero"]["summary"]
    # Evaluations after steps 2, 4 and 6, of which the later two gain nothing worth it.
    assert (summary["steps"], summary["stopped_early"]) == (6, True)
    assert results["focal-zero"]["summary"]["stopped_early"] is False


def test_a_sample_of_the_training_data_is_scored(project: Path) -> None:
    lines = (project / "context-fsdp" / "metrics.jsonl").read_text().splitlines()
    scored = [line for line in lines if '"train_sample"' in line]
    assert len(scored) == 2
    assert all('"sentences": 20' in line for line in scored)


def test_each_head_has_scores_of_its_own(results: dict[str, dict[str, Any]]) -> None:
    test = results["heads-zero"]["summary"]["test"]
    ner, shape = test["heads"]["ner"], test["heads"]["shape"]
    assert {"GIVEN_NAME", "SURNAME"} <= set(ner["per_type"])
    assert {"number", "name", "word", "other"} >= set(shape["per_type"])
    # The one that was chosen stands in front.
    assert {name: test[name] for name in shape} == shape != ner
    assert "strict" in ner
    assert "strict" not in shape


def test_an_export_of_two_heads_is_a_folder_of_transformers(project: Path) -> None:
    folder = project / "heads-fsdp" / "model"
    model = AutoModelForTokenClassification.from_pretrained(folder)
    names = list(model.config.id2label.values())
    assert names[0] == "ner:O"
    assert names[-4:] == ["shape:word", "shape:other", "shape:name", "shape:number"]
    assert load_file(folder / "model.safetensors")["classifier.weight"].shape[0] == len(names)


def test_an_exported_model_of_two_heads_scores_as_it_did(
    project: Path, results: dict[str, dict[str, Any]]
) -> None:
    reference = _scores(results["heads-single"])
    for kind, size in WORLDS.items():
        ranks = run_ranks(
            size,
            cases.evaluate_runs,
            project / f"evaluate-{kind}",
            run_file=str(project / "run.yaml"),
            model=results["heads-single"]["summary"]["model"],
            runs={kind: [f"strategy={{kind: {kind}}}", *CHOICES["heads"]]},
        )
        for rank in ranks:
            scores = {k: v for k, v in rank[kind].items() if k in reference}
            assert scores == reference
    gold, predicted = _predictions(project / "heads-single" / "single-1-ner.tsv")
    ner, shape = reference["heads"]["ner"], reference["heads"]["shape"]
    assert ner["f1"] == f1_score(gold, predicted, zero_division=0)
    # Constrained decoding leaves nothing that IOB2 does not allow: strict finds as many.
    strict = Entities(predicted, scheme=IOB2).entities
    assert sum(map(len, strict)) == sum(tag[0] == "B" for tags in predicted for tag in tags)
    gold, predicted = _predictions(project / "heads-single" / "single-1-shape.tsv")
    assert shape["f1"] == pytest.approx(
        macro_f1_score(
            list(chain.from_iterable(gold)),
            list(chain.from_iterable(predicted)),
            average="macro",
            zero_division=0,
        )
    )


def _predictions(file: Path) -> tuple[list[list[str]], list[list[str]]]:
    """Gold and predicted tags, sentence by sentence."""
    blocks = file.read_text(encoding="utf-8").strip().split("\n\n")
    rows = [[line.split("\t") for line in block.splitlines()] for block in blocks]
    return ([[row[i] for row in block] for block in rows] for i in (1, 2))  # type: ignore[return-value]
