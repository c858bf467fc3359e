"""The GPU benchmark, at a toy shape on a CPU."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from tests.ranks.launch import environment
from tests.scripts import FOLDER, script


def _run(*arguments: str, name: str = "bench_gpu.py") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(FOLDER / name), *arguments]
    return subprocess.run(
        command, env=environment(), capture_output=True, text=True, timeout=300, check=False
    )


def test_a_toy_shape_is_measured(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    done = _run(
        *("--device", "cpu", "--cases", "tiny-bf16-full-single", "--threads", "1"),
        *("--steps", "2", "--json", str(figures)),
    )
    assert done.returncode == 0, done.stderr
    ours, peers = json.loads(figures.read_text())["rows"]
    # Two steps of four windows of 64 pieces.
    assert (ours["outcome"]["samples"], ours["outcome"]["tokens"]) == (8, 512)
    assert 0 < ours["evaluation_mfu"] < 1
    assert 0 < ours["mfu"] < 1
    if find_spec("accelerate") is None:
        assert peers["reason"] == "accelerate is not installed"
    else:
        same = ("samples", "tokens")
        assert [peers["outcome"][name] for name in same] == [ours["outcome"][name] for name in same]
        assert peers["outcome"]["loss"] == pytest.approx(ours["outcome"]["loss"], rel=0.1)
    assert done.stdout.count("| tiny | bf16 | full | single |") == 2


def test_a_step_is_profiled(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    done = _run(
        *("--device", "cpu", "--cases", "tiny-bf16-full-single", "--windows", "2"),
        *("--steps", "2", "--set", "training.gradient_checkpointing=true"),
        *("--json", str(figures)),
        name="profile_step.py",
    )
    assert done.returncode == 0, done.stderr
    plain, recomputed = json.loads(figures.read_text())
    assert (plain["settings"], recomputed["settings"]) == (
        "",
        "training.gradient_checkpointing=true",
    )
    assert recomputed["kernels_per_step"] > plain["kernels_per_step"]
    assert plain["tokens_per_second"] * plain["seconds"] == pytest.approx(128)
    assert done.stdout.count("| tiny-bf16-full-single | 2 |") == 2


def test_time_of_kernels_that_run_at_once_is_counted_once() -> None:
    profile = script("profile_step")
    assert profile.union([(0, 4), (1, 2), (3, 6), (8, 9)]) == 7
    assert profile.kind_of("void pytorch_flash::flash_fwd_kernel<cutlass::half_t>") == "attention"
    assert profile.kind_of("nvjet_sm90_hsh_128x256_64x4_2x1_v_bz_coopA_bias_TNN") == "matrices"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so() -> None:
    done = _run()
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "no GPU here" in line


def test_a_failure_is_a_reason_in_the_table() -> None:
    reason_of = script("bench_gpu").reason_of
    assert reason_of("torch.OutOfMemoryError: CUDA out of memory. Tried to") == "out of memory"
    said = "[rank1]: Traceback\n[rank1]: ValueError: a | b\n  raise ChildFailedError("
    assert reason_of(said) == "ValueError: a / b"
    assert reason_of("it did not end within 3 s") == "it did not end within 3 s"


def test_flops_are_those_of_the_formula(tmp_path: Path) -> None:
    gpu = script("bench_gpu")
    case = gpu.Case.parse("tiny-bf16-full-single")
    gpu.write_run(tmp_path, case, steps=1, ranks=1)
    run = {
        "model": {
            "name_or_path": str(tmp_path / "tiny-full-1" / "model"),
            "training_type": "from_scratch",
        }
    }
    hidden, inner, layers, labels, full = 32, 64, 2, 3, 64
    attention, norms = 4 * (hidden * hidden + hidden), 4 * hidden
    layer = attention + norms + 2 * hidden * inner + inner + hidden
    parameters = layers * layer + hidden * labels + labels
    assert gpu.flops_per_token(run, gpu.lengths_of(case)) == (
        6 * parameters + 12 * layers * hidden * full
    )
