"""A run goes on under another strategy and world size as if it had never stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.ranks import cases
from tests.ranks.launch import run_ranks
from tests.ranks.project import write_project

STEPS = 8
COMMON = [
    f"training.max_steps={STEPS}",
    "training.global_batch_size=12",
    "training.micro_batch_size=2",
    "training.log_every=1",
    "training.learning_rate=1e-3",
    "evaluation.every=3",
    "checkpoint.every_steps=4",
    "checkpoint.keep_last=5",
]
WITHOUT_DROPOUT = "model.dropout=0.0"
WORLDS = [("single", 1), ("fsdp", 2), ("fsdp", 3), ("zero", 2), ("zero", 3)]


def _name(kind: str, size: int) -> str:
    return f"{kind}{size}"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_project(tmp_path_factory.mktemp("project"))


def _launch(project: Path, label: str, kind: str, size: int, runs: dict[str, list[str]]) -> Any:
    return run_ranks(
        size,
        cases.train_runs,
        project / f"launch-{label}-{kind}{size}",
        run_file=str(project / "run.yaml"),
        runs={
            name: [*COMMON, f"strategy={{kind: {kind}}}", f"run_dir={project}/{name}", *overrides]
            for name, overrides in runs.items()
        },
    )[0]


@pytest.fixture(scope="module")
def unbroken(project: Path) -> dict[str, dict[str, Any]]:
    """Each strategy and world size, from the first step to the last, saving on the way."""
    found = {}
    for kind, size in WORLDS:
        name = _name(kind, size)
        runs = {name: [WITHOUT_DROPOUT], f"{name}-dropout": ["model.dropout=0.1"]}
        found |= _launch(project, "unbroken", kind, size, runs)
    return found


@pytest.fixture(scope="module")
def resumed(project: Path, unbroken: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Each strategy and world size going on from the fourth step of each other."""
    found = {}
    for kind, size in WORLDS:
        name = _name(kind, size)
        runs = {
            f"{source}-to-{name}": [
                WITHOUT_DROPOUT,
                f"checkpoint.resume={project}/{source}/checkpoints/step-00000004",
            ]
            for source in (_name(*world) for world in WORLDS)
        }
        runs[f"{name}-dropout-again"] = [
            "model.dropout=0.1",
            f"checkpoint.resume={project}/{name}-dropout/checkpoints/step-00000004",
        ]
        found |= _launch(project, "resumed", kind, size, runs)
    return found


@pytest.mark.parametrize("target", [_name(*world) for world in WORLDS])
@pytest.mark.parametrize("source", [_name(*world) for world in WORLDS])
def test_losses_go_on(
    unbroken: dict[str, dict[str, Any]],
    resumed: dict[str, dict[str, Any]],
    source: str,
    target: str,
) -> None:
    losses = resumed[f"{source}-to-{target}"]["loss"]
    assert losses == pytest.approx(unbroken[source]["loss"][4:], abs=1e-6)


@pytest.mark.parametrize("name", [_name(*world) for world in WORLDS])
def test_the_same_strategy_and_world_go_on_bit_for_bit(
    unbroken: dict[str, dict[str, Any]], resumed: dict[str, dict[str, Any]], name: str
) -> None:
    again, before = resumed[f"{name}-dropout-again"], unbroken[f"{name}-dropout"]
    assert again["loss"] == before["loss"][4:]
    assert again["grad_norm"] == before["grad_norm"][4:]
    for split in ("validation", "test"):
        assert _scores(again["summary"][split]) == _scores(before["summary"][split])


def _scores(scores: dict[str, Any]) -> dict[str, Any]:
    speed = ("seconds", "words_per_second")
    return {name: value for name, value in scores.items() if name not in speed}
