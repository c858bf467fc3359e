"""A search: trials are runs that may be pruned or interrupted; the best becomes a run file."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from bigner.config.load import load_config
from tests.e2e.conftest import main
from tests.e2e.running import TORCHRUN, Running
from tests.ranks.launch import run_command

SPACE = """\
training.learning_rate: {low: 1.0e-3, high: 1.0e-1, log: true}
training.max_steps: {low: 4, high: 12, step: 4}
evaluation.decoding: [argmax, iob2]
"""
SEARCH = ["search", "run.yaml", "space.yaml", "--trials", "5", "run_dir=found"]


@pytest.fixture(autouse=True)
def _space(project: Path) -> None:
    (project / "space.yaml").write_text(SPACE)
    run = (project / "run.yaml").read_text()
    # The run file itself lies in the space: it is the first trial.
    run = run.replace("max_steps: 1", "max_steps: 4\n  learning_rate: 0.01")
    run += "evaluation:\n  every: 2\n"
    run = run.replace("validation: dev.conll", "validation: dev.conll\n  test: dev.conll")
    (project / "run.yaml").write_text(run)


def _trials(project: Path, folder: str = "found") -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((project / folder / "trials.json").read_text())[
        "trials"
    ]
    return found


def test_a_search(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SEARCH, "--no-prune"]) == 0
    printed = capsys.readouterr()
    trials = _trials(project)
    assert sorted(trial["number"] for trial in trials) == list(range(5))
    assert {trial["outcome"] for trial in trials} == {"done"}
    scores = [trial["f1"] for trial in trials]
    assert scores == sorted(scores, reverse=True)
    # The first is the run file as it stands, so the best is no worse.
    first = next(trial for trial in trials if trial["number"] == 0)
    assert first["values"] == {
        "training.learning_rate": 0.01,
        "training.max_steps": 4,
        "evaluation.decoding": "argmax",
    }
    for trial in trials:
        folder = project / "found" / f"trial-{trial['number']:03}"
        summary = json.loads((folder / "summary.json").read_text())
        assert summary["validation"]["f1"] == trial["f1"]
        assert summary["steps"] == trial["values"]["training.max_steps"]
        # Whoever looks at test in a search has no test set any more.
        assert summary["test"] is None
        assert (folder / "model").exists() == (trial is trials[0])
    assert f"{scores[0]:.4f}" in printed.out
    assert "the best run file is found/best.yaml" in printed.out

    best = load_config("found/best.yaml")
    for field, value in trials[0]["values"].items():
        section, name = field.split(".")
        assert getattr(getattr(best, section), name) == value
    assert best.data.test == "dev.conll"
    assert main(["train", "found/best.yaml"]) == 0
    again = json.loads((project / "found" / "best" / "summary.json").read_text())
    assert again["validation"]["f1"] == trials[0]["f1"]
    assert again["test"] is not None


def test_it_goes_on_with_more_trials(project: Path) -> None:
    few = [*SEARCH, "--trials", "3"]
    assert main(few) == 0
    before = {trial["number"]: trial for trial in _trials(project)}
    assert main([*SEARCH, "run_dir=at-once"]) == 0
    assert main(SEARCH) == 0
    after = {trial["number"]: trial for trial in _trials(project)}
    assert len(after) == 5
    assert {number: after[number] for number in before} == before
    # It proposes what it would have proposed without the stop.
    at_once = {trial["number"]: trial for trial in _trials(project, "at-once")}
    assert {n: t["values"] for n, t in after.items()} == {
        n: t["values"] for n, t in at_once.items()
    }


def test_trials_that_fall_behind_are_pruned(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "space.yaml").write_text("training.learning_rate: [0.01, 1.0e-6]\n")
    more = [*SEARCH, "--trials", "9", "training.max_steps=12", "evaluation.metric=loss"]
    assert main(more) == 0
    assert "is pruned: it is behind the median" in capsys.readouterr().err
    trials = _trials(project)
    pruned = [trial for trial in trials if trial["outcome"] == "pruned"]
    assert pruned
    assert {trial["values"]["training.learning_rate"] for trial in pruned} == {1e-6}
    assert all(trial["evaluations"] < 6 for trial in pruned)
    # Loss: the least is the best.
    done = [trial["loss"] for trial in trials if trial["outcome"] == "done"]
    assert done == sorted(done)
    assert trials[0]["values"]["training.learning_rate"] == 0.01


def test_a_trial_that_diverges_is_told_and_left(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    space = {
        "training.learning_rate": [0.01, 1.0],
        "training.max_grad_norm": [1.0, None],
    }
    (project / "space.yaml").write_text(yaml.safe_dump(space))
    wild = ["training.max_steps=40", "training.adam_epsilon=1e-45", "training.warmup_ratio=0"]
    wild += ["training.adam_beta2=0", "training.adam_beta1=0", "evaluation.every=20"]
    assert main([*SEARCH, *wild, "--trials", "8", "--no-prune"]) == 0
    trials = _trials(project)
    failed = [trial for trial in trials if trial["outcome"] == "failed"]
    assert failed
    assert "failed: step" in capsys.readouterr().err
    assert trials[0]["outcome"] == "done"
    assert trials[-1]["outcome"] == "failed"


def test_under_torchrun_as_in_one_process(project: Path) -> None:
    exact = ["model.dropout=0.0", "training.micro_batch_size=1", "--trials", "3"]
    assert main([*SEARCH, *exact]) == 0
    done = run_command(
        [*TORCHRUN, "-m", "bigner", *SEARCH, *exact, "strategy={kind: fsdp}", "run_dir=sharded"],
        project,
    )
    assert done.returncode == 0, done.stderr
    one, two = _trials(project), _trials(project, "sharded")
    assert [trial["values"] for trial in one] == [trial["values"] for trial in two]
    assert [trial["f1"] for trial in one] == [trial["f1"] for trial in two]


def test_killed_and_gone_on_with(project: Path) -> None:
    """The trial that was running is resumed from its checkpoint, with its values."""
    steps = ["training.max_steps=60", "checkpoint.every_steps=5", "evaluation.every=5"]
    (project / "space.yaml").write_text("training.learning_rate: {low: 0.001, high: 0.1}\n")
    words = [*SEARCH, *steps, "--trials", "3", "--no-prune"]
    assert main([*words, "run_dir=at-once"]) == 0
    checkpoints = project / "found" / "trial-001" / "checkpoints"
    with Running([sys.executable, "-m", "bigner", *words], project, "found") as run:
        run.wait_until(lambda: any(checkpoints.glob("step-*")))
        run.send(signal.SIGKILL)
    assert main(words) == 0
    one, two = _trials(project, "at-once"), _trials(project)
    assert [trial["values"] for trial in one] == [trial["values"] for trial in two]
    assert {trial["outcome"] for trial in two} == {"done"}


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ("", "space.yaml:1: a space file gives values to fields"),
        ("[1, 2]", "space.yaml:1: a space file gives values to fields"),
        (
            "training.learning_rat: [1, 2]",
            "space.yaml:1: training.learning_rat: is not a field here; did you mean learning_rate?",
        ),
        (
            "training.learning_rate: [1e-3]",
            "space.yaml:1: training.learning_rate: needs two values",
        ),
        ("a: 1", "space.yaml:1: a: must be a list of values, or {low: 1, high: 5}"),
        ("training.epochs: {low: 1, hihg: 3}", "must be a list of values, or {low"),
        ("training.epochs: {low: 3, high: 1}", "low 3 must be less than high 1"),
        ("training.epochs: {low: a, high: 1}", "low, high and step must be numbers"),
        ("training.learning_rate: {low: 0, high: 1, log: true}", "log: true needs a low above 0"),
        ("training.learning_rate: {low: 0.1, high: 1, log: 3}", "log must be true or false"),
        ("training.epochs: {low: 1, high: 3, step: 5}", "step 5 must lead from low 1 to high 3"),
        (
            "\ntraining.warmup_ratio: {low: 0.0, high: 2.0}",
            "(to search 2.0)",
        ),
        ("run_dir: [a, b]", "run_dir: cannot be searched: the search gives each trial a folder"),
        ("data.test: [a, b]", "data.test: cannot be searched: a search looks at no test data"),
        ("a: [1, 2", "space.yaml:1"),
        ("strategy: [{kind: single}, {kind: fsdp}]", "strategy: cannot be searched: processes are"),
        (
            "evaluation: [{metric: f1}, {metric: loss}]",
            "evaluation: cannot be searched: trials",
        ),
        ("training.epochs: {low: 1, high: .inf}", "must be finite numbers"),
        ("3: [1, 2]", "space.yaml:1: 3: is not a field"),
    ],
)
def test_wrong_spaces(
    space: str, message: str, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "space.yaml").write_text(space)
    assert main(SEARCH) == 2
    assert message in capsys.readouterr().err
    assert not (project / "found").exists()


def test_values_that_do_not_go_together(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each value is possible, but not all of them together: such a trial fails, and is left."""
    (project / "space.yaml").write_text(
        "training.global_batch_size: {low: 2, high: 12}\ntraining.weight_decay: [0, 0.01]\n"
    )
    words = [*SEARCH, "training.max_steps=2", "--trials", "8", "--no-prune"]
    (project / "run.yaml").write_text(
        (project / "run.yaml")
        .read_text()
        .replace("  max_steps", "  weight_decay: 0.0\n  max_steps")
    )
    assert main(words) == 0
    trials = _trials(project)
    failed = [trial["values"] for trial in trials if trial["outcome"] == "failed"]
    assert failed
    assert {values["training.global_batch_size"] % 2 for values in failed} == {1}
    assert "is not a multiple of training.micro_batch_size" in capsys.readouterr().err
    # The run file itself is in the space: 0.0 is 0.
    first = next(trial for trial in trials if trial["number"] == 0)
    assert first["values"] == {"training.global_batch_size": 2, "training.weight_decay": 0}


def test_a_damaged_study(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (project / "found").mkdir()
    (project / "found" / "search.db").write_text("nothing of the kind " * 100)
    assert main(SEARCH) == 1
    assert "search.db cannot be used: " in capsys.readouterr().err


def test_wrong_searches(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["search", "run.yaml", "nowhere.yaml"]) == 2
    assert "nowhere.yaml" in capsys.readouterr().err
    assert main([*SEARCH, "data.validation=null"]) == 2
    assert "give data.validation" in capsys.readouterr().err
    assert main([*SEARCH, "training.max_steps=4"]) == 2
    assert "an override sets it, too" in capsys.readouterr().err
    assert main(["train", "run.yaml"]) == 0
    assert main([*SEARCH, "run_dir=run"]) == 2
    assert "run_dir run holds a run; choose another one" in capsys.readouterr().err
    assert main([*SEARCH, "--trials", "2"]) == 0
    (project / "space.yaml").write_text(SPACE.replace("high: 12", "high: 8"))
    assert main(SEARCH) == 2
    assert (
        "found: holds a search of another space; choose another run_dir" in capsys.readouterr().err
    )
    (project / "space.yaml").write_text(SPACE)
    assert main([*SEARCH, "seed=3"]) == 2
    assert "found: seed: was 42 in this search and is 3" in capsys.readouterr().err
