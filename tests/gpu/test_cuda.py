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
    "precision=fp16",
    "model.dropout=0.0",
    "training.max_steps=10",
    "training.global_batch_size=8",
    "training.micro_batch_size=4",
    "training.log_every=1",
    "training.learning_rate=1e-3",
]


@pytest.mark.parametrize("kind", ["fsdp", "zero"])
def test_one_gpu_trains_as_a_cpu_does(kind: str, tmp_path: Path) -> None:
    project = write_project(tmp_path)
    losses = {}
    for device, strategy in (("cpu", "single"), ("cuda", kind)):
        run = [*COMMON, f"strategy={{kind: {strategy}}}", f"run_dir={project}/{device}"]
        (result,) = run_ranks(
            1,
            cases.train_runs,
            project / f"launch-{device}",
            device=device,
            run_file=str(project / "run.yaml"),
            runs={device: run},
        )
        losses[device] = result[device]["loss"]
    assert losses["cuda"] == pytest.approx(losses["cpu"], abs=1e-2)
