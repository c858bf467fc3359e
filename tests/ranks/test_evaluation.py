"""Scores do not depend on strategy, world size or batch size, and are seqeval's own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from seqeval.metrics import classification_report, f1_score, precision_score, recall_score
from seqeval.scheme import IOB2

from bigner.distributed import World
from bigner.predictions import read_predictions
from tests.ranks import cases
from tests.ranks.launch import run_ranks
from tests.ranks.project import train_everywhere, write_project

BATCH_SIZES = (1, 7, 32)
DECODINGS = ("argmax", "iob2")
WORLDS = [("single", 1), ("fsdp", 2), ("zero", 2), ("fsdp", 3)]
SPEED = ("seconds", "words_per_second")
# Nearly all letters are longer than 24 pieces, and many of their sentences too.
WINDOWS = ["data.max_length=24", "data.stride=4", "data.unit=document"]
TRAINING = [
    *WINDOWS,
    "training.max_steps=200",
    "training.global_batch_size=32",
    "training.micro_batch_size=32",
    "training.learning_rate=5e-3",
    "model.dropout=0.0",
    "evaluation.every=50",
]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_project(tmp_path_factory.mktemp("project"))


@pytest.fixture(scope="module")
def trained(project: Path) -> dict[str, Any]:
    """The summary of a short run that leaves an imperfect model: right, wrong and stray tags."""
    runs = {"trained": TRAINING}
    ranks = run_ranks(
        1, cases.train_runs, project / "train", run_file=str(project / "run.yaml"), runs=runs
    )
    summary: dict[str, Any] = ranks[0]["trained"]["summary"]
    return summary


@pytest.fixture(scope="module")
def results(project: Path, trained: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The scores of the exported model, by strategy, batch size or decoding, world size and rank;
    by decoding also without predictions."""
    found = {}
    for kind, size in WORLDS:
        base = [*WINDOWS, f"strategy={{kind: {kind}}}"]
        runs = {f"{kind}-{n}": [*base, f"evaluation.batch_size={n}"] for n in BATCH_SIZES}
        alone = {
            f"{kind}-{name}-alone": [*base, f"evaluation.decoding={name}"] for name in DECODINGS
        }
        ranks = run_ranks(
            size,
            cases.evaluate_runs,
            project / f"evaluate-{kind}-{size}",
            run_file=str(project / "run.yaml"),
            model=trained["model"],
            runs={**runs, **alone, f"{kind}-iob2": [*base, "evaluation.decoding=iob2"]},
            scored_alone=list(alone),
        )
        for rank, results in enumerate(ranks):
            for name, result in results.items():
                found[f"{name}-world{size}-rank{rank}"] = _without_speed(result)
    return found


@pytest.fixture(scope="module")
def scores(results: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Those of the best tag of each word, with predictions."""
    kept = {f"{kind}-{n}" for kind, _ in WORLDS for n in BATCH_SIZES}
    return {name: one for name, one in results.items() if name.partition("-world")[0] in kept}


def _without_speed(scores: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in scores.items() if name not in SPEED}


def test_every_number_is_the_same_everywhere(scores: dict[str, dict[str, Any]]) -> None:
    assert len(scores) == len(BATCH_SIZES) * sum(size for _, size in WORLDS)
    reference = scores["single-32-world1-rank0"]
    assert {name: result for name, result in scores.items() if result != reference} == {}


@pytest.mark.parametrize("decoding", DECODINGS)
def test_confidences_change_no_score(decoding: str, results: dict[str, dict[str, Any]]) -> None:
    reference = results[f"single-{decoding}-alone-world1-rank0"]
    with_them = "32" if decoding == "argmax" else decoding
    for kind, size in WORLDS:
        for rank in range(size):
            for name in (f"{decoding}-alone", with_them):
                assert results[f"{kind}-{name}-world{size}-rank{rank}"] == reference


@pytest.mark.parametrize("name", ["32", "iob2"])
def test_confidences_are_the_same_everywhere(
    name: str, project: Path, results: dict[str, dict[str, Any]]
) -> None:
    assert results
    first, *others = (
        read_predictions(project / "run" / f"{kind}-{name}-{size}.tsv") for kind, size in WORLDS
    )
    reference = np.array(first.confidences)
    assert np.nanmin(reference) < 0.9 < np.nanmax(reference)
    for other in others:
        assert other.predicted == first.predicted
        found = np.array(other.confidences)
        assert (np.isnan(found) == np.isnan(reference)).all()
        # Of fp32's rounding nothing is left but the last of four decimals, and that seldom.
        assert np.nanmax(np.abs(found - reference)) < 1.5e-4
        assert np.mean(np.abs(found - reference) > 0.5e-4) < 0.01


def test_the_model_is_neither_blank_nor_perfect(scores: dict[str, dict[str, Any]]) -> None:
    """Equal scores of a model that predicts nothing would prove nothing."""
    result = scores["single-32-world1-rank0"]
    assert 0.1 < result["f1"] < 0.99
    assert result["strict"]["f1"] != result["f1"]


def test_scores_are_seqevals_on_the_one_process_predictions(
    project: Path, scores: dict[str, dict[str, Any]]
) -> None:
    text = (project / "run" / "single-32-1.tsv").read_text(encoding="utf-8")
    sentences = [block.splitlines() for block in text.strip().split("\n\n")]
    gold = [[line.split("\t")[1] for line in lines] for lines in sentences]
    predicted = [[line.split("\t")[2] for line in lines] for lines in sentences]
    result = scores["single-32-world1-rank0"]
    assert result["f1"] == f1_score(gold, predicted)
    assert result["precision"] == precision_score(gold, predicted)
    assert result["recall"] == recall_score(gold, predicted)
    strict = {"mode": "strict", "scheme": IOB2, "zero_division": 0}
    assert result["strict"]["f1"] == f1_score(gold, predicted, **strict)
    report = classification_report(gold, predicted, output_dict=True, zero_division=0)
    for name, values in result["per_type"].items():
        assert values["f1"] == report[name]["f1-score"]
        assert values["support"] == report[name]["support"]
    assert result["words"] == sum(map(len, gold))


def test_seqeval_itself_gives_the_same_numbers(
    project: Path, trained: dict[str, Any], scores: dict[str, dict[str, Any]]
) -> None:
    by_seqeval = cases.evaluate_runs(
        World(),
        run_file=str(project / "run.yaml"),
        model=trained["model"],
        runs={"by-seqeval": [*WINDOWS, "evaluation.scorer=seqeval"]},
    )
    assert _without_speed(by_seqeval["by-seqeval"]) == scores["single-32-world1-rank0"]


def test_the_exported_model_scores_as_it_did_in_training(
    trained: dict[str, Any], scores: dict[str, dict[str, Any]]
) -> None:
    assert _without_speed(trained["test"]) == scores["single-32-world1-rank0"]
    assert trained["best_step"] <= trained["steps"]


# A high rate on a trained model: the first evaluation is the best.
WORSENING = [
    *TRAINING,
    "seed=1",
    "training.max_steps=12",
    "training.global_batch_size=36",
    "training.learning_rate=1e-2",
    "model.training_type=fine_tuning",
    "evaluation.every=4",
]
# Under a threshold of 0 ZeRO-3 gathers parameters at need, and above these models' sizes it keeps
# them gathered.
WORSENED = {
    "single": (1, "strategy={kind: single}"),
    "fsdp-2": (2, "strategy={kind: fsdp}"),
    "fsdp-3": (3, "strategy={kind: fsdp}"),
    "zero1": (2, "strategy={kind: zero, stage: 1}"),
    "zero2": (2, "strategy={kind: zero, stage: 2}"),
    "zero3": (2, "strategy={kind: zero, deepspeed_config: FOLDER/gathered-at-need.json}"),
    "zero3-persistent": (2, "strategy={kind: zero}"),
}


@pytest.fixture(scope="module")
def worsened(project: Path, trained: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Summaries of runs whose last weights are not their best, one launch for each world size."""
    tuning = {"zero_optimization": {"stage3_param_persistence_threshold": 0}}
    (project / "gathered-at-need.json").write_text(json.dumps(tuning))
    found = {}
    for size in (1, 2, 3):
        runs = {
            name: [
                *WORSENING,
                f"model.name_or_path={trained['model']}",
                strategy.replace("FOLDER", str(project)),
                f"training.micro_batch_size={36 // size}",
                f"run_dir={project}/worsened-{name}",
            ]
            for name, (ranks, strategy) in WORSENED.items()
            if ranks == size
        }
        results = train_everywhere(project, f"worsened-{size}", size, runs)
        found |= {name: result["summary"] for name, result in results.items()}
    return found


@pytest.mark.parametrize("name", list(WORSENED))
def test_the_test_scores_of_a_run_are_those_of_the_model_it_exports(
    name: str, project: Path, worsened: dict[str, dict[str, Any]]
) -> None:
    """The best weights are read back into the shards when the last evaluation is not the best."""
    summary = worsened[name]
    assert summary["best_step"] < summary["steps"]
    again = cases.evaluate_runs(
        World(),
        run_file=str(project / "run.yaml"),
        model=summary["model"],
        runs={f"worsened-{name}": WINDOWS},
    )
    assert _without_speed(again[f"worsened-{name}"]) == _without_speed(summary["test"])
    assert summary["test"]["f1"] > 0.1


def test_gather_agrees_on_the_longest_and_pads(tmp_path: Path) -> None:
    ranks = run_ranks(3, cases.gather_unequal, tmp_path)
    pad = -100
    expected = [
        [[0, 0, pad, pad], [pad] * 4, [pad] * 4],
        [[pad] * 4, [pad] * 4, [pad] * 4],
        [[2, 2, 2, 2], [2, 2, 2, 2], [2, 2, 2, 2]],
    ]
    assert [rank["whole"] for rank in ranks] == [expected] * 3
    stretches = [[rows[:2] for rows in expected], [rows[2:] for rows in expected]]
    assert [rank["stretches"] for rank in ranks] == [stretches] * 3
    in_bytes = [np.where(np.array(part) == pad, 255, part).tolist() for part in stretches]
    assert [rank["bytes"] for rank in ranks] == [in_bytes] * 3
    assert [rank["nothing"] for rank in ranks] == [[]] * 3
