"""Runs of several seeds by one command, and what `compare` says of what they left behind."""

from __future__ import annotations

import json
import re
import statistics
from pathlib import Path
from typing import Any

import pytest

from bigner.evaluation.counts import count
from bigner.predictions import read_predictions
from tests.e2e.conftest import main
from tests.e2e.running import TORCHRUN, lines, outcome, resuming_command
from tests.ranks.launch import run_command

# The tenth step is enough to tell seeds apart, and too few to get all right.
TRAIN = [
    *("train", "run.yaml", "training.max_steps=10", "training.learning_rate=0.01"),
    *("training.log_every=1", "evaluation.every=5", "data.test=test.conll"),
]
TEST = "Anna B-PER\nsleeps O\n\nOslo B-LOC\nsleeps O\nin O\nAnna B-PER\n\nin O\nOslo B-LOC\n. O\n"


@pytest.fixture(autouse=True)
def _test_data(project: Path) -> None:
    (project / "test.conll").write_text(TEST)


def summary(run_dir: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run_dir / "summary.json").read_text())
    return found


def test_two_configs_of_two_seeds(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rates = {"high": "0.01", "low": "0.001"}
    for name, rate in rates.items():
        seeds = ["--seeds", "3,5", f"run_dir={name}", f"training.learning_rate={rate}"]
        assert main([*TRAIN, *seeds]) == 0
        printed = capsys.readouterr()
        assert f"seed 5 (2 of 2), in {name}/seed-5" in printed.err
        f1 = [summary(project / name / f"seed-{seed}")["test"]["f1"] for seed in (3, 5)]
        assert f"{statistics.fmean(f1):.4f} ± {statistics.stdev(f1):.4f}" in printed.out

    assert main(["compare", "high", "low", "--json"]) == 0
    compared = json.loads(capsys.readouterr().out)
    assert compared["warnings"] == []
    for found, (name, rate) in zip(compared["groups"], rates.items(), strict=True):
        assert found["fields"] == {"training.learning_rate": float(rate)}
        summaries = [summary(project / name / f"seed-{seed}") for seed in (3, 5)]
        of_test = [run["test"] for run in summaries]
        for key in ("f1", "precision", "recall", "accuracy"):
            assert found[key] == pytest.approx(statistics.fmean(run[key] for run in of_test))
        f1 = [run["f1"] for run in of_test]
        assert found["f1_deviation"] == pytest.approx(statistics.stdev(f1))
        assert [run["seed"] for run in found["runs"]] == [3, 5]
        assert [run["f1"] for run in found["runs"]] == pytest.approx(f1)
        speeds = [run["tokens_per_second"] for run in summaries]
        assert found["tokens_per_second"] == pytest.approx(statistics.fmean(speeds))
        assert found["peak_memory_bytes"] == max(run["peak_memory_bytes"] for run in summaries)
        assert found["steps"] == 10
        for type_name, of_type in found["f1_of_type"].items():
            had = [r["per_type"][type_name]["f1"] for r in of_test if type_name in r["per_type"]]
            assert of_type == pytest.approx(statistics.fmean(had))
    high, low = compared["groups"]
    assert high["difference"] is None
    assert low["difference"]["f1"] == pytest.approx(low["f1"] - high["f1"])
    assert low["difference"]["low"] <= low["difference"]["f1"] <= low["difference"]["high"]


def test_what_a_run_keeps(project: Path) -> None:
    assert main(TRAIN) == 0
    found = summary(project / "run")
    for split in ("validation", "test"):
        said = read_predictions(project / "run" / "predictions" / f"{split}.tsv")
        counts = count(said.gold, said.predicted)
        for name in ("f1", "precision", "recall", "accuracy"):
            assert getattr(counts, name) == pytest.approx(found[split][name], abs=1e-12)
    words = [line.partition("\t")[0] for line in said.asked]
    assert words == [line.partition(" ")[0] for line in TEST.splitlines()]
    logged = [line["tokens_per_second"] for line in lines(project / "run") if "split" not in line]
    assert found["tokens_per_second"] == statistics.median(logged)
    # torch alone takes as much.
    assert found["peak_memory_bytes"] > 50_000_000

    # What `evaluate` says of the exported model is the same, word for word.
    assert main(["evaluate", "run.yaml", "data.test=test.conll", "--predictions", "again.tsv"]) == 0
    kept = project / "run" / "predictions" / "test.tsv"
    assert (project / "again.tsv").read_bytes() == kept.read_bytes()


def test_predictions_are_the_best_weights_after_a_resume(project: Path) -> None:
    # The best evaluation is the first; the run is resumed after it.
    worse = [*TRAIN, "training.schedule=constant", "evaluation.metric=loss"]
    worse += ["checkpoint.every_steps=7", "training.learning_rate=0.5"]
    assert main([*worse, "run_dir=whole"]) == 0
    assert summary(project / "whole")["best_step"] == 5
    assert main([*worse, "training.stop_after=7"]) == 0
    # As if another attempt had had its best later.
    stale = project / "run" / "predictions" / "validation.tsv"
    stale.write_text("stale\tO\tO\n")
    assert main(worse) == 0
    assert outcome(project / "run") == outcome(project / "whole")


def test_a_stopped_seed_goes_on_with_the_others(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*TRAIN, "--seeds", "1"]) == 0
    before = outcome(project / "run" / "seed-1")
    # Seed 1 is finished and does not stop.
    assert main([*TRAIN, "--seeds", "1,2,3", "training.stop_after=4"]) == 0
    told = capsys.readouterr().err
    assert "run/seed-1 is done already" in told
    assert "stopped by training.stop_after after step 4, saved in run/seed-2/checkpoints" in told
    again = resuming_command(told)
    assert again[again.index("--seeds") + 1] == "1,2,3"
    assert main(again) == 0
    printed = capsys.readouterr()
    assert "going on from step 4" in printed.err
    assert outcome(project / "run" / "seed-1") == before
    assert main([*TRAIN, "seed=2", "run_dir=alone"]) == 0
    assert outcome(project / "run" / "seed-2") == outcome(project / "alone")
    f1 = [summary(project / "run" / f"seed-{seed}")["test"]["f1"] for seed in (1, 2, 3)]
    assert f"{statistics.fmean(f1):.4f} ± {statistics.stdev(f1):.4f}" in printed.out


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--seeds", ""], "--seeds must be different seeds such as 1,2,3; got ''"),
        (["--seeds", "1,1"], "1 is in it twice"),
        (["--seeds", "1", "seed=2"], "the override 'seed=2' both give the seed"),
        (["--seeds", "1", "checkpoint.resume=models"], "checkpoint.resume names one checkpoint"),
    ],
)
def test_wrong_seeds(
    arguments: list[str], told: str, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*TRAIN, *arguments]) == 2
    error = capsys.readouterr().err
    assert error.count("bigner: error:") == 1
    assert told in error
    assert not (project / "run").exists()


def test_nothing_to_compare_without_scores(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    only_train = ["data.validation=null", "data.test=null"]
    assert main([*TRAIN, *only_train, "--seeds", "1,2"]) == 0
    assert capsys.readouterr().out == ""
    assert main(["compare", "run"]) == 2
    assert "no run has scores on validation" in capsys.readouterr().err


def test_seeds_over_two_ranks(project: Path) -> None:
    sharded = [*TRAIN, "training.micro_batch_size=1", "strategy={kind: fsdp}", "--seeds", "1,2"]
    done = run_command([*TORCHRUN, "-m", "bigner", *sharded], project)
    assert done.returncode == 0, done.stderr
    f1 = []
    for seed in (1, 2):
        found = summary(project / "run" / f"seed-{seed}")
        f1.append(found["test"]["f1"])
        said = read_predictions(project / "run" / f"seed-{seed}" / "predictions" / "test.tsv")
        assert count(said.gold, said.predicted).f1 == pytest.approx(f1[-1], abs=1e-12)
        assert found["peak_memory_bytes"] > 50_000_000
    table = f"{statistics.fmean(f1):.4f} ± {statistics.stdev(f1):.4f}"
    assert len(re.findall(re.escape(table), done.stdout)) == 1
