"""The moving average of the weights: the same under every strategy, and across a resume."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from bigner.checkpoint.manifest import read_manifest
from bigner.commands.export import export
from bigner.distributed import World
from tests.ranks import cases
from tests.ranks.project import train_everywhere, write_project

STEPS = 8
HALF_WAY = STEPS // 2
DECAY = 0.6
COMMON = [
    f"training.max_steps={STEPS}",
    "training.global_batch_size=8",
    "training.log_every=1",
    "training.learning_rate=1e-3",
    "model.dropout=0.0",
    # In the middle, too, where training goes on with the weights and not with their average.
    "evaluation.every=3",
    "evaluation.metric=loss",
    "checkpoint.every_steps=1",
    f"checkpoint.keep_last={STEPS}",
]
AVERAGED = f"training.average_decay={DECAY}"
PLAIN = "plain-single"
STRATEGIES: dict[str, tuple[int, dict[str, Any]]] = {
    "single": (1, {"kind": "single"}),
    "fsdp": (2, {"kind": "fsdp"}),
    "zero": (2, {"kind": "zero"}),
    "zero1": (2, {"kind": "zero", "stage": 1}),
}
CROSSED = {"single": "zero", "fsdp": "single", "zero": "fsdp", "zero1": "single"}
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_project(tmp_path_factory.mktemp("project"))


def _launch(project: Path, label: str, runs: dict[str, list[str]]) -> dict[str, dict[str, Any]]:
    """Runs named ``...STRATEGY``, one launch for each world size."""
    found = cases.train_runs(
        World(),
        run_file=str(project / "run.yaml"),
        runs={name: words for name, words in runs.items() if _size(name) == 1},
    )
    sharded = {name: words for name, words in runs.items() if _size(name) == 2}
    return found | train_everywhere(project, label, 2, sharded)


def _strategy(run: str) -> str:
    return run.rpartition("-")[2]


def _size(run: str) -> int:
    return STRATEGIES[_strategy(run)][0]


def _run(project: Path, name: str, *words: str, accumulation: int = 1) -> list[str]:
    size, fields = STRATEGIES[_strategy(name)]
    micro_batch = 8 // size // accumulation
    strategy = [f"strategy={json.dumps(fields)}", f"training.micro_batch_size={micro_batch}"]
    return [*COMMON, f"run_dir={project}/{name}", *strategy, *words]


@pytest.fixture(scope="module")
def whole(project: Path) -> dict[str, dict[str, Any]]:
    """Runs that are not interrupted, with accumulation 1 and 2."""
    runs = {
        f"{prefix}-{strategy}": _run(
            project, f"{prefix}-{strategy}", AVERAGED, accumulation=accumulation
        )
        for strategy in STRATEGIES
        for prefix, accumulation in (("whole", 1), ("accumulated", 2))
    }
    return _launch(project, "whole", {**runs, PLAIN: _run(project, PLAIN)})


@pytest.fixture(scope="module")
def resumed(project: Path, whole: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Runs that go on from half way, under the same strategy and under another."""
    assert whole
    sources = {f"{name}-to-{name}": f"whole-{name}" for name in STRATEGIES}
    sources |= {f"{source}-to-{name}": f"whole-{source}" for source, name in CROSSED.items()}
    sources["plain-to-single"] = PLAIN
    runs = {}
    for name, source in sources.items():
        checkpoint = f"{project}/{source}/checkpoints/step-{HALF_WAY:08}"
        runs[name] = _run(project, name, AVERAGED, f"checkpoint.resume={checkpoint}")
    return _launch(project, "resumed", runs)


def _exported(project: Path, run: str) -> dict[str, torch.Tensor]:
    return load_file(project / run / "model" / "model.safetensors")


def _masters(project: Path, run: str, step: int) -> dict[str, torch.Tensor]:
    """The values, not the averages, in a checkpoint of one process."""
    folder = project / run / "checkpoints" / f"step-{step:08}"
    shapes = {name: saved.shape for name, saved in read_manifest(folder).parameters.items()}
    file = load_file(folder / "shards-00000.safetensors")
    return {name: file[f"{name}/master"].view(shape) for name, shape in shapes.items()}


def test_the_average_is_that_of_the_weights_after_each_step(
    project: Path, whole: dict[str, dict[str, Any]]
) -> None:
    # The last evaluation has the least loss, so the exported model is the last average.
    assert whole["whole-single"]["summary"]["best_step"] == STEPS
    assert whole[PLAIN]["summary"]["best_step"] == STEPS
    # No checkpoint has the values before the first step, so begin with the first average.
    folder = project / "whole-single" / "checkpoints" / "step-00000001"
    file = load_file(folder / "shards-00000.safetensors")
    exported, plain = _exported(project, "whole-single"), _exported(project, PLAIN)
    first = {name: file[f"{name}/average"].view(values.shape) for name, values in exported.items()}
    _assert_close(exported, _average(project, first, range(2, STEPS + 1), first_step=2))
    assert max(float((exported[name] - plain[name]).abs().max()) for name in plain) > 1e-4


def _average(
    project: Path, average: dict[str, torch.Tensor], steps: range, *, first_step: int
) -> dict[str, torch.Tensor]:
    """By the formula, from the values of the run without an average."""
    for t, step in enumerate(steps, start=first_step):
        decay = min(DECAY, (1 + t) / (10 + t))
        values = _masters(project, PLAIN, step)
        average = {name: decay * average[name] + (1 - decay) * values[name] for name in values}
    return average


@pytest.mark.parametrize("number", ["loss", "grad_norm"])
def test_training_is_not_changed_by_it(whole: dict[str, dict[str, Any]], number: str) -> None:
    assert whole["whole-single"][number] == whole[PLAIN][number]


RUNS = [f"{kind}-{strategy}" for strategy in STRATEGIES for kind in ("whole", "accumulated")]


@pytest.mark.parametrize("name", RUNS)
def test_every_strategy_averages_alike(
    project: Path, whole: dict[str, dict[str, Any]], name: str
) -> None:
    summary, reference = whole[name]["summary"], whole["whole-single"]["summary"]
    assert summary["test"]["loss"] == pytest.approx(reference["test"]["loss"], abs=1e-4)
    _assert_close(_exported(project, name), _exported(project, "whole-single"))


@pytest.mark.parametrize("name", STRATEGIES)
def test_resuming_is_exact(project: Path, resumed: dict[str, dict[str, Any]], name: str) -> None:
    assert resumed[f"{name}-to-{name}"]["summary"]["steps"] == STEPS
    found, expected = _exported(project, f"{name}-to-{name}"), _exported(project, f"whole-{name}")
    assert [key for key in expected if not torch.equal(found[key], expected[key])] == []


@pytest.mark.parametrize(("source", "target"), CROSSED.items())
def test_it_goes_on_under_another_strategy(
    project: Path, resumed: dict[str, dict[str, Any]], source: str, target: str
) -> None:
    assert resumed[f"{source}-to-{target}"]["summary"]["steps"] == STEPS
    _assert_close(_exported(project, f"{source}-to-{target}"), _exported(project, "whole-single"))


def _assert_close(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, atol=TOLERANCE, rtol=0)


def test_it_may_begin_on_resuming(project: Path, resumed: dict[str, dict[str, Any]]) -> None:
    """From a checkpoint without one the average begins with the weights there."""
    assert resumed["plain-to-single"]["summary"]["steps"] == STEPS
    begun = _masters(project, PLAIN, HALF_WAY)
    expected = _average(project, begun, range(HALF_WAY + 1, STEPS + 1), first_step=1)
    _assert_close(_exported(project, "plain-to-single"), expected)


@pytest.mark.usefixtures("whole")
def test_a_checkpoint_exports_its_average(project: Path, tmp_path: Path) -> None:
    export(project / "whole-zero" / "checkpoints" / f"step-{STEPS:08}", tmp_path / "exported")
    found = load_file(tmp_path / "exported" / "model.safetensors")
    _assert_close(found, _exported(project, "whole-zero"))
