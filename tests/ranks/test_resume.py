"""A run goes on under another strategy and world size as if it had never stopped."""

from __future__ import annotations

import json
from itertools import product
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
# Name -> processes and strategy.
WORLDS: dict[str, tuple[int, dict[str, Any]]] = {
    "single1": (1, {"kind": "single"}),
    "fsdp2": (2, {"kind": "fsdp"}),
    "zero3": (3, {"kind": "zero"}),
}
OFFLOAD = "offload.json"
# All launches are made for whichever test comes first.
pytestmark = pytest.mark.timeout(1200)
# The other ways DeepSpeed may hold the state; each goes to and from one process.
STAGES: dict[str, tuple[int, dict[str, Any]]] = {
    "stage1": (2, {"kind": "zero", "stage": 1}),
    "stage2": (2, {"kind": "zero", "stage": 2}),
    "stage2offload": (2, {"kind": "zero", "stage": 2, "deepspeed_config": OFFLOAD}),
    "stage3offload": (2, {"kind": "zero", "stage": 3, "deepspeed_config": OFFLOAD}),
}
# Only gone on in.
ELSEWHERE: dict[str, tuple[int, dict[str, Any]]] = {"fsdp3": (3, {"kind": "fsdp"})}
ALL = WORLDS | STAGES | ELSEWHERE
# To another number of processes under another engine, and from one to one.
PAIRS = [
    (source, target)
    for source, target in product(WORLDS, WORLDS)
    if WORLDS[source][0] != WORLDS[target][0] or source == "single1"
]
PAIRS += [(name, "single1") for name in STAGES]
PAIRS += [("single1", name) for name in STAGES]
# To another number of processes under the same engine.
PAIRS += [("fsdp2", "fsdp3"), ("zero3", "stage3offload")]
FP16_PAIRS = [("single1", "zero3"), ("zero3", "fsdp2"), ("fsdp2", "single1")]
WITH_DROPOUT = ("single1", "fsdp2", "zero3")
# Many groups of parameters and some in none, which checkpoints know nothing of.
GROUPED_PAIRS = [
    ("single1", "zero3"),
    ("zero3", "fsdp2"),
    ("fsdp2", "stage2"),
    ("stage2", "single1"),
]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_project(tmp_path_factory.mktemp("project"))


def _launch(project: Path, label: str, world: str, runs: dict[str, list[str]]) -> Any:
    size, strategy = ALL[world]
    offload = project / OFFLOAD
    offload.write_text(json.dumps({"zero_optimization": {"offload_optimizer": {"device": "cpu"}}}))
    if "deepspeed_config" in strategy:
        strategy = {**strategy, "deepspeed_config": str(offload)}
    return run_ranks(
        size,
        cases.train_runs,
        project / f"launch-{label}-{world}",
        run_file=str(project / "run.yaml"),
        runs={
            name: [*COMMON, f"strategy={json.dumps(strategy)}", f"run_dir={project}/{name}", *words]
            for name, words in runs.items()
        },
    )[0]


@pytest.fixture(scope="module")
def unbroken(project: Path) -> dict[str, dict[str, Any]]:
    """Each strategy and world size, from the first step to the last, saving on the way."""
    found = {}
    for world in WORLDS | STAGES:
        runs = {world: [WITHOUT_DROPOUT]}
        if world in WITH_DROPOUT:
            runs[f"{world}-dropout"] = ["model.dropout=0.1"]
        if world in dict(FP16_PAIRS):
            runs[f"{world}-fp16"] = [WITHOUT_DROPOUT, "precision=fp16"]
        if world in dict(GROUPED_PAIRS):
            runs[f"{world}-grouped"] = _grouped(project)
        found |= _launch(project, "unbroken", world, runs)
    return found


@pytest.fixture(scope="module")
def resumed(project: Path, unbroken: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Each strategy and world size going on from the fourth step of each other."""
    found = {}
    for world in ALL:
        runs = {
            f"{source}-to-{world}": [WITHOUT_DROPOUT, _from(project / source)]
            for source, target in PAIRS
            if target == world
        }
        runs |= {
            f"{source}-to-{world}-fp16": [
                WITHOUT_DROPOUT,
                "precision=fp16",
                _from(project / f"{source}-fp16"),
            ]
            for source, target in FP16_PAIRS
            if target == world
        }
        runs |= {
            f"{source}-to-{world}-grouped": [
                *_grouped(project),
                _from(project / f"{source}-grouped"),
            ]
            for source, target in GROUPED_PAIRS
            if target == world
        }
        if world in WITH_DROPOUT:
            again = ["model.dropout=0.1", _from(project / f"{world}-dropout")]
            runs[f"{world}-dropout-again"] = again
        found |= _launch(project, "resumed", world, runs)
    return found


def _grouped(project: Path) -> list[str]:
    """On the weights of the first run, some of them frozen, each layer at a rate of its own."""
    return [
        WITHOUT_DROPOUT,
        f"model.name_or_path={project}/single1/model",
        "model.training_type=fine_tuning",
        "model.freeze.layers=1",
        "training.layer_decay=0.8",
        "training.head_learning_rate=3e-3",
    ]


def _from(run: Path) -> str:
    return f"checkpoint.resume={run}/checkpoints/step-00000004"


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_losses_go_on(
    unbroken: dict[str, dict[str, Any]],
    resumed: dict[str, dict[str, Any]],
    source: str,
    target: str,
) -> None:
    losses = resumed[f"{source}-to-{target}"]["loss"]
    assert losses == pytest.approx(unbroken[source]["loss"][4:], abs=1e-6)


@pytest.mark.parametrize(("source", "target"), FP16_PAIRS)
def test_losses_go_on_under_fp16(
    unbroken: dict[str, dict[str, Any]],
    resumed: dict[str, dict[str, Any]],
    source: str,
    target: str,
) -> None:
    losses = resumed[f"{source}-to-{target}-fp16"]["loss"]
    assert losses == pytest.approx(unbroken[f"{source}-fp16"]["loss"][4:], abs=1e-2)


@pytest.mark.parametrize(("source", "target"), GROUPED_PAIRS)
def test_losses_go_on_with_rates_of_each_layer(
    unbroken: dict[str, dict[str, Any]],
    resumed: dict[str, dict[str, Any]],
    source: str,
    target: str,
) -> None:
    losses = resumed[f"{source}-to-{target}-grouped"]["loss"]
    assert losses == pytest.approx(unbroken[f"{source}-grouped"]["loss"][4:], abs=1e-6)


@pytest.mark.usefixtures("unbroken")
@pytest.mark.parametrize("world", [source for source, _ in GROUPED_PAIRS])
def test_frozen_parameters_have_no_state_to_save(project: Path, world: str) -> None:
    path = project / f"{world}-grouped" / "checkpoints" / "step-00000004" / "manifest.json"
    kinds = {
        name: {kind for part in saved["ranges"] for kind in part["sha256"]}
        for name, saved in json.loads(path.read_text())["parameters"].items()
    }
    frozen = {name for name, found in kinds.items() if found == {"master"}}
    assert frozen == {name for name in kinds if name.startswith("roberta.encoder.layer.0.")}
    assert frozen
    assert all(len(found) == 3 for name, found in kinds.items() if name not in frozen)


@pytest.mark.parametrize("world", WITH_DROPOUT)
def test_the_same_strategy_and_world_go_on_bit_for_bit(
    project: Path,
    unbroken: dict[str, dict[str, Any]],
    resumed: dict[str, dict[str, Any]],
    world: str,
) -> None:
    again, before = f"{world}-dropout-again", f"{world}-dropout"
    later = [record for record in _metrics(project / before) if record["step"] > 4]
    assert _metrics(project / again) == later
    for split in ("validation", "test"):
        assert _untimed(resumed[again]["summary"][split]) == _untimed(
            unbroken[before]["summary"][split]
        )


@pytest.mark.parametrize("world", ["fsdp2", "zero3"])
def test_checkpoints_of_equal_runs_are_equal(project: Path, resumed: Any, world: str) -> None:
    """Step, history, scalars, and by their checksums all values, moments included."""
    assert resumed
    manifests = []
    for run in (f"{world}-dropout", f"{world}-dropout-again"):
        path = project / run / "checkpoints" / f"step-{STEPS:08d}" / "manifest.json"
        manifest = json.loads(path.read_text())
        manifest["history"] = [_untimed(scores) for scores in manifest["history"]]
        manifests.append({name: part for name, part in manifest.items() if name != "config"})
    assert manifests[0] == manifests[1]


def _metrics(run: Path) -> list[dict[str, Any]]:
    """All lines of metrics.jsonl but for what time they took."""
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [_untimed(json.loads(line)) for line in lines]


def _untimed(record: dict[str, Any]) -> dict[str, Any]:
    timed = ("seconds", "words_per_second", "tokens_per_second")
    return {name: value for name, value in record.items() if name not in timed}
