"""After ``publish`` a strategy computes with what stands in its shards, whatever it held before."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from tests.ranks import cases
from tests.ranks.launch import run_ranks
from tests.ranks.project import write_project

PRECISIONS = ("fp32", "bf16", "fp16")
# The stated rounding of logits of order one; stale values are wrong by tenths.
TOLERANCE = {"fp32": 1e-5, "bf16": 3e-2, "fp16": 5e-3}
MOMENTS = (
    "predict after a step",
    "predict after predict",
    "predict again",
    "predict, shards listed before",
    "train after predict",
    "train after a step",
)
ALL_PERSISTENT, NONE_PERSISTENT = 10**9, 0
ON_HOST = {"device": "cpu"}
ZERO_3 = {
    "zero3-persistent": {"stage3_param_persistence_threshold": ALL_PERSISTENT},
    "zero3": {"stage3_param_persistence_threshold": NONE_PERSISTENT},
    "zero3-offload": {
        "stage3_param_persistence_threshold": NONE_PERSISTENT,
        "offload_optimizer": ON_HOST,
        "offload_param": ON_HOST,
    },
}
ON_TWO = {
    "fsdp": {"kind": "fsdp"},
    "fsdp-kept": {"kind": "fsdp", "reshard_after_forward": False},
    "zero1": {"kind": "zero", "stage": 1},
    "zero2": {"kind": "zero", "stage": 2},
    **{name: {"kind": "zero"} for name in ZERO_3},
}
ON_FOUR = {
    "fsdp-copies": {"kind": "fsdp", "dp_replicate": 2},
    "zero3-within-nodes": {"kind": "zero"},
}
TUNING: dict[str, dict[str, Any]] = {
    **ZERO_3,
    "zero3-within-nodes": {
        "stage3_param_persistence_threshold": NONE_PERSISTENT,
        "zero_hpz_partition_size": 2,
    },
}


@pytest.fixture(scope="module")
def logits(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, list[float]]]:
    """Of every strategy and precision; every rank computes the same rows."""
    project = write_project(tmp_path_factory.mktemp("project"))
    found = {}
    for size, strategies in ((1, {"single": {"kind": "single"}}), (2, ON_TWO), (4, ON_FOUR)):
        first, *others = run_ranks(
            size,
            cases.logits_after_publish,
            project / f"launch-{size}",
            run_file=str(project / "run.yaml"),
            runs={
                f"{name}-{precision}": _overrides(project, name, strategy, precision)
                for name, strategy in strategies.items()
                for precision in PRECISIONS
            },
        )
        for other in others:
            assert other == first
        found |= first
    return found


def _overrides(project: Path, name: str, strategy: dict[str, Any], precision: str) -> list[str]:
    if name in TUNING:
        tuning = project / f"{name}.json"
        tuning.write_text(json.dumps({"zero_optimization": TUNING[name]}))
        strategy = {**strategy, "deepspeed_config": str(tuning)}
    return [
        f"strategy={json.dumps(strategy)}",
        f"precision={precision}",
        "model.dropout=0.0",
        "training.global_batch_size=4",
        "training.micro_batch_size=1",
    ]


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", [*ON_TWO, *ON_FOUR])
def test_logits_are_those_of_one_process_with_the_values_written(
    logits: dict[str, dict[str, list[float]]], name: str, precision: str
) -> None:
    found, reference = logits[f"{name}-{precision}"], logits[f"single-{precision}"]
    assert tuple(found) == MOMENTS
    for moment in MOMENTS:
        expected = pytest.approx(reference[moment], abs=TOLERANCE[precision])
        assert found[moment] == expected, moment


@pytest.mark.parametrize("precision", PRECISIONS)
def test_other_values_give_other_logits(
    logits: dict[str, dict[str, list[float]]], precision: str
) -> None:
    """Logits that agree because nothing was written would prove nothing."""
    reference = logits[f"single-{precision}"]
    assert reference["predict again"] == reference["predict after predict"]
    others = [moment for moment in MOMENTS if moment != "predict again"]
    for one, other in itertools.pairwise(others):
        far = [abs(a - b) for a, b in zip(reference[one], reference[other], strict=True)]
        assert sum(far) / len(far) > 10 * TOLERANCE[precision], (one, other)
