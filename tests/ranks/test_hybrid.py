"""Weights sharded within half of the ranks, 2 x 2: results are those of one process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.ranks import cases
from tests.ranks.launch import run_ranks
from tests.ranks.project import train_everywhere, write_project

STEPS = 8
HALF_WAY = STEPS // 2
COMMON = [
    f"training.max_steps={STEPS}",
    "training.global_batch_size=8",
    "training.log_every=1",
    "training.learning_rate=1e-3",
    "model.dropout=0.0",
    f"evaluation.every={HALF_WAY}",
    f"checkpoint.every_steps={HALF_WAY}",
]
TOLERANCE = 1e-5
COPIES = "strategy={kind: fsdp, dp_replicate: 2}"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_project(tmp_path_factory.mktemp("project"))


@pytest.fixture(scope="module")
def runs(project: Path) -> dict[str, dict[str, Any]]:
    """Whole runs, and runs that go on under another layout from half way."""

    def zero_with(name: str, **tuning: Any) -> str:
        path = project / f"{name}.json"
        path.write_text(json.dumps({"zero_optimization": tuning}))
        return f"strategy={{kind: zero, deepspeed_config: {path}}}"

    zero = zero_with("within-nodes", zero_hpz_partition_size=2)
    on_host = {"device": "cpu"}
    offloaded = zero_with("offload", offload_optimizer=on_host, offload_param=on_host)

    def run(name: str, micro_batch: int, *overrides: str) -> list[str]:
        sizes = [f"training.micro_batch_size={micro_batch}"]
        return [*COMMON, f"run_dir={project}/{name}", *sizes, *overrides]

    def resume(name: str) -> str:
        return f"checkpoint.resume={project}/{name}/checkpoints/step-0000000{HALF_WAY}"

    one = train_everywhere(project, "single", 1, {"single": run("single", 8)})
    spread = {
        "fsdp": run("fsdp", 1, COPIES),
        "fsdp-kept": run("fsdp-kept", 2, COPIES, "strategy.reshard_after_forward=false"),
        "fsdp-copies": run("fsdp-copies", 2, "strategy={kind: fsdp, dp_replicate: 4}"),
        "single-to-fsdp": run("single-to-fsdp", 2, COPIES, resume("single")),
        "zero": run("zero", 1, zero),
        "zero-offload": run("zero-offload", 1, offloaded),
        "single-to-zero": run("single-to-zero", 2, zero, resume("single")),
    }
    four = train_everywhere(project, "four", 4, spread)
    again = {
        "fsdp-to-single": run("fsdp-to-single", 8, resume("fsdp")),
        "zero-offload-to-single": run("zero-offload-to-single", 8, resume("zero-offload")),
        "zero-to-single": run("zero-to-single", 8, resume("zero")),
    }
    return {**one, **four, **train_everywhere(project, "again", 1, again)}


NAMES = [
    *("fsdp", "fsdp-kept", "fsdp-copies", "single-to-fsdp", "fsdp-to-single"),
    *("zero", "zero-offload", "single-to-zero", "zero-to-single", "zero-offload-to-single"),
]


@pytest.mark.parametrize("number", ["loss", "grad_norm"])
@pytest.mark.parametrize("name", NAMES)
def test_losses_and_norms_equal_one_process(
    runs: dict[str, dict[str, Any]], name: str, number: str
) -> None:
    steps = HALF_WAY if "-to-" in name else STEPS
    assert len(runs[name][number]) == steps
    reference = runs["single"][number][-steps:]
    assert runs[name][number] == pytest.approx(reference, abs=TOLERANCE)


@pytest.mark.parametrize("name", NAMES)
def test_scores_equal_one_process(runs: dict[str, dict[str, Any]], name: str) -> None:
    scores, reference = runs[name]["summary"]["test"], runs["single"]["summary"]["test"]
    assert scores["per_type"] == reference["per_type"]


def test_zero_keeps_weights_within_half_of_the_ranks(project: Path, tmp_path: Path) -> None:
    tuning = tmp_path / "hpz.json"
    small = {"zero_hpz_partition_size": 2, "stage3_param_persistence_threshold": 0}
    tuning.write_text(json.dumps({"zero_optimization": small}))
    strategy = f"strategy={{kind: zero, deepspeed_config: {tuning}}}"
    ranks = run_ranks(
        4,
        cases.weights_kept_within_nodes,
        tmp_path,
        run_file=str(project / "run.yaml"),
        overrides=[strategy, "training.global_batch_size=4", "training.micro_batch_size=1"],
    )
    for kept in ranks:
        layers = {name: share for name, share in kept.items() if name.endswith("dense.weight")}
        assert layers
        assert list(layers.values()) == pytest.approx([0.5] * len(layers))
