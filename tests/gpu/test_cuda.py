"""The strategies on a real GPU, over nccl."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.ranks import cases
from tests.ranks.launch import run_ranks
from tests.ranks.project import write_project

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]
COMMON = [
    "model.dropout=0.0",
    "training.max_steps=10",
    "training.global_batch_size=8",
    "training.micro_batch_size=4",
    "training.log_every=1",
    "training.learning_rate=1e-3",
]


def test_one_gpu_trains_as_a_cpu_does_and_goes_on_under_another_engine(tmp_path: Path) -> None:
    project = write_project(tmp_path)
    run_file = str(project / "run.yaml")

    def run(name: str, kind: str, precision: str, *more: str) -> list[str]:
        where = f"run_dir={project}/{name}"
        return [*COMMON, f"strategy={{kind: {kind}}}", f"precision={precision}", where, *more]

    on_cpu = {"fp32": run("cpu", "single", "fp32")}
    checkpoint = f"checkpoint.resume={project}/single-fp16/checkpoints/step-00000005"
    on_gpu = {
        "single-fp16": run("single-fp16", "single", "fp16", "checkpoint.every_steps=5"),
        "single-fp32": run("single-fp32", "single", "fp32"),
        "fsdp-fp16": run("fsdp-fp16", "fsdp", "fp16"),
        "fsdp-bf16": run("fsdp-bf16", "fsdp", "bf16"),
        "fsdp-resumed": run("fsdp-resumed", "fsdp", "fp16", checkpoint),
        "zero-fp16": run("zero-fp16", "zero", "fp16"),
        "zero-resumed": run("zero-resumed", "zero", "fp16", checkpoint),
    }
    (reference,) = run_ranks(
        1, cases.train_runs, project / "launch-cpu", run_file=run_file, runs=on_cpu
    )
    (found,) = run_ranks(
        1,
        cases.train_runs,
        project / "launch-cuda",
        device="cuda",
        run_file=run_file,
        runs=on_gpu,
    )
    losses = reference["fp32"]["loss"]
    for name, result in found.items():
        if name.endswith("resumed"):
            assert result["loss"] == pytest.approx(losses[5:], abs=1e-2), name
        else:
            tolerance = {"fp32": 1e-4, "fp16": 1e-2, "bf16": 3e-2}[name.split("-")[1]]
            assert result["loss"] == pytest.approx(losses, abs=tolerance), name
    score = reference["fp32"]["summary"]["test"]["f1"]
    assert found["single-fp32"]["summary"]["test"]["f1"] == pytest.approx(score, abs=0.02)


def test_a_compiled_layer_computes_the_same(tmp_path: Path) -> None:
    project = write_project(tmp_path)
    runs = {
        name: [
            *COMMON,
            "precision=fp16",
            "strategy={kind: fsdp}",
            f"training.compile={compiled}",
            f"run_dir={project}/{name}",
        ]
        for name, compiled in (("plain", "false"), ("compiled", "true"))
    }
    (found,) = run_ranks(
        1,
        cases.train_runs,
        project / "launch",
        device="cuda",
        run_file=str(project / "run.yaml"),
        runs=runs,
    )
    assert found["compiled"]["loss"] == pytest.approx(found["plain"]["loss"], abs=1e-2)
