"""The doctor: each check on facts of several machines, and the whole on this one."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from packaging.requirements import Requirement

from bigner.commands.doctor import not_imported
from bigner.doctor import (
    attention,
    collectives,
    deepspeed_ops,
    disk,
    gpus,
    limits,
    number_formats,
    packages,
    processors,
    variables,
)
from bigner.doctor.findings import GIB, Finding, gib, ok
from bigner.doctor.report import Report
from bigner.errors import LaunchError
from bigner.strategies.precision import fp16_is_native
from tests.ranks.launch import environment

CPU = torch.device("cpu")
UNLIMITED = resource.RLIM_INFINITY
TORCH = Requirement("torch>=2.11,<2.14")

# What is asked, its level, and what is told of it.
CHECKS: list[tuple[Callable[[], Finding], str, str]] = [
    (lambda: packages.python("3.12.1", ">=3.11"), "ok", "3.12.1"),
    (lambda: packages.python("3.13.0rc1", ">=3.11"), "ok", "3.13.0rc1"),
    (lambda: packages.python("3.10.2", ">=3.11"), "missing", "asks for >=3.11"),
    (lambda: packages.package(TORCH, "2.13.0+cpu"), "ok", "2.13.0+cpu"),
    (lambda: packages.package(TORCH, "2.14.0"), "warning", "pip install 'torch<2.14,>=2.11'"),
    (lambda: packages.package(TORCH, None), "missing", "no run"),
    (lambda: packages.package(Requirement("deepspeed>=0.19"), None), "missing", "no strategy zero"),
    (lambda: not_imported(OSError("libcudart.so.12: cannot open\nmore")), "missing", "libcudart"),
    (lambda: gpus.build("2.13.0+cu130", "13.0", 8, 8), "ok", "for CUDA 13.0, sees 8 GPUs"),
    (lambda: gpus.build("2.13.0+cpu", None, 0, 0), "warning", "has no GPU"),
    (lambda: gpus.build("2.13.0+cpu", None, 0, 2), "warning", "'torch==2.13.0' from the index"),
    (lambda: gpus.build("2.13.0+cu130", "13.0", 0, 1), "warning", "a driver for CUDA 13.0"),
    (lambda: gpus.gpu(0, "NVIDIA H100", 80 * GIB, (9, 0)), "ok", "H100, 80.0 GiB, compute cap"),
    (lambda: gpus.gpu(1, "Tesla V100", 32 * GIB, (7, 0)), "warning", "no bf16 units"),
    (lambda: gpus.gpu(1, "Tesla P100", 16 * GIB, (6, 0)), "warning", "no fp16 units, no bf16"),
    (lambda: collectives.gloo(True, ""), "ok", "summed up"),
    (lambda: collectives.gloo(True, "unable to resolve host"), "missing", "GLOO_SOCKET_IFNAME"),
    (lambda: collectives.gloo(False, ""), "missing", "no fsdp and no zero"),
    (lambda: collectives.nccl("2.29.1", 8), "ok", "2.29.1"),
    (lambda: collectives.nccl(None, 0), "ok", "no GPU that would need it"),
    (lambda: collectives.nccl(None, 8), "missing", "a CUDA build of torch"),
    (lambda: deepspeed_ops.collectives(Path("/x/shm.so"), []), "ok", "compiled in /x"),
    (lambda: deepspeed_ops.collectives(None, []), "ok", "at the first start"),
    # DeepSpeed asks ninja whether there is anything to do.
    (lambda: deepspeed_ops.collectives(Path("/x/shm.so"), ["c++"]), "missing", "no c++ to"),
    (lambda: deepspeed_ops.cuda_toolchain(Path("/cuda"), has_gpus=True), "ok", "nvcc in /cuda"),
    (lambda: deepspeed_ops.cuda_toolchain(None, has_gpus=False), "ok", "no GPU to compile for"),
    (lambda: deepspeed_ops.cuda_toolchain(None, has_gpus=True), "missing", "bigner uses none"),
    (lambda: number_formats.number_format("bf16", "", 7.61, None), "ok", "7.6 x as fast"),
    (lambda: number_formats.number_format("bf16", "", 0.5, None), "warning", "0.5 x as fast"),
    (lambda: number_formats.number_format("fp16", "", 2.0, "no units"), "warning", "no units"),
    (lambda: number_formats.number_format("bf16", "needs 8.0", None, None), "missing", "needs 8.0"),
    (lambda: attention.flash_attention(["fp16", "bf16"], "cuda"), "ok", "in fp16 and bf16"),
    (lambda: attention.flash_attention([], "cpu"), "missing", "none on processors"),
    (lambda: attention.flash_attention([], "cuda"), "missing", "none on this GPU"),
    (lambda: processors.cores(64, None), "ok", "64"),
    (lambda: processors.cores(64, 64.0), "ok", "64"),
    (lambda: processors.cores(64, 2.5), "warning", "OMP_NUM_THREADS=2"),
    (lambda: processors.cores(64, 0.5), "warning", "OMP_NUM_THREADS=1"),
    (lambda: processors.memory(64 * GIB, 32 * GIB, None), "ok", "32.0 GiB of 64.0 GiB"),
    (lambda: processors.memory(64 * GIB, 32 * GIB, 4 * GIB), "warning", "held to 4.0 GiB"),
    (lambda: processors.memory(8 * GIB, 2 * GIB, None), "warning", "bigner plan"),
    (lambda: limits.shared_memory(16 * GIB), "ok", "16.0 GiB"),
    (lambda: limits.shared_memory(64 * 2**20), "warning", "64 MiB"),
    (lambda: limits.shared_memory(None), "missing", "--shm-size"),
    (lambda: limits.open_files(UNLIMITED), "ok", "unlimited"),
    (lambda: limits.open_files(1024), "ok", "1,024"),
    (lambda: limits.open_files(256), "warning", "ulimit -n"),
    (lambda: limits.locked_memory(UNLIMITED, True), "ok", "unlimited"),
    (lambda: limits.locked_memory(8 * 2**20, False), "ok", "8 MiB"),
    (lambda: limits.locked_memory(8 * 2**20, True), "warning", "ulimit -l unlimited"),
    (lambda: disk.enough("disk", Path("runs"), 30 * GIB, 25 * GIB, "run_dir"), "ok", "at runs"),
    (lambda: disk.enough("disk", Path("runs"), 3 * GIB, 25 * GIB, "run_dir"), "warning", "25.0"),
    (lambda: variables.threads(None), "ok", "shares the cores"),
    (lambda: variables.threads("4,2"), "ok", "4,2"),
    (lambda: variables.threads("all"), "warning", "'all' is no number"),
    (lambda: variables.threads("0"), "warning", "'0' is no number"),
    (lambda: variables.threads(""), "warning", "'' is no number"),
    (lambda: variables.accelerator(None), "ok", "GPUs where there are any"),
    (lambda: variables.accelerator("cuda"), "ok", "cuda"),
    (lambda: variables.accelerator("cpu"), "warning", "compute on processors"),
    (lambda: variables.visible_gpus(None), "ok", "all GPUs"),
    (lambda: variables.visible_gpus("0,1"), "ok", "0,1"),
    (lambda: variables.visible_gpus(""), "warning", "hides every GPU"),
    (lambda: variables.visible_gpus("-1"), "warning", "hides every GPU"),
    (lambda: variables.token({}), "ok", "not set"),
]  # fmt: skip


@pytest.mark.parametrize(("check", "level", "phrase"), CHECKS)
def test_a_check(check: Callable[[], Finding], level: str, phrase: str) -> None:
    finding = check()
    assert finding.level == level
    assert phrase in f"{finding.found}; {finding.costs}; {finding.remedy}"
    # What is not ok says what it costs and how to mend it, and nothing else does.
    assert bool(finding.costs) == bool(finding.remedy) == (level != "ok")


def test_what_no_run_can_do_without() -> None:
    assert packages.package(TORCH, None).needed
    assert packages.python("3.8.0", ">=3.11").needed
    assert not packages.package(Requirement("deepspeed"), None).needed
    assert not limits.shared_memory(None).needed


# ---------------------------------------------------------------- what is read


def test_requirements_of_this_machine_alone() -> None:
    asked = ["zlib>=1", "a>=2; extra == 'dev'", "b; sys_platform == 'win32'", "c>1", "not one!"]
    assert [str(one) for one in packages.required(asked)] == ["c>1", "zlib>=1"]


def test_memory_of_linux() -> None:
    text = "MemTotal:       16303912 kB\nMemFree: 1 kB\nMemAvailable:    8151956 kB\nHugePages: 0\n"
    assert processors.memory_sizes(text) == (16303912 * 1024, 8151956 * 1024)
    assert processors.memory_sizes("") == (0, 0)


@pytest.mark.parametrize(
    ("text", "cores"),
    [("max 100000\n", None), ("250000 100000\n", 2.5), ("", None), ("1 0", None), ("x y", None)],
)
def test_cores_of_a_control_group(text: str, cores: float | None) -> None:
    assert processors.cores_of_group(text) == cores


@pytest.mark.parametrize(("text", "size"), [("max\n", None), ("1024\n", 1024), ("", None)])
def test_memory_of_a_control_group(text: str, size: int | None) -> None:
    assert processors.memory_of_group(text) == size


def test_free_disk_of_a_folder_to_come(tmp_path: Path) -> None:
    there = disk.free_at("disk", tmp_path / "not" / "yet", 1, "elsewhere")
    assert there.level == "ok"
    free = shutil.disk_usage(tmp_path).free
    assert disk.free_at("disk", tmp_path, 2 * free, "elsewhere").level == "warning"
    assert disk.free_at("disk", Path("/proc/bigner"), 1, "elsewhere").level == "warning"


def test_compiled_collectives_are_found(tmp_path: Path) -> None:
    assert deepspeed_ops.compiled_at(tmp_path / "nowhere") is None
    folder = tmp_path / "py311_cpu" / "deepspeed_shm_comm"
    folder.mkdir(parents=True)
    # As the compiler leaves it before it has linked.
    (folder / "shm.o").touch()
    assert deepspeed_ops.compiled_at(tmp_path) is None
    (folder / "deepspeed_shm_comm.so").touch()
    assert deepspeed_ops.compiled_at(tmp_path) == folder / "deepspeed_shm_comm.so"
    assert deepspeed_ops.compiled_at(tmp_path / "py311_cpu") == folder / "deepspeed_shm_comm.so"


def test_what_compiling_lacks() -> None:
    assert deepspeed_ops.lacking([], True) == []
    assert deepspeed_ops.lacking(["ninja"], False) == ["ninja", "Python.h"]


@pytest.mark.parametrize(
    ("environ", "levels"),
    [
        ({}, {"HF_HUB_OFFLINE": "ok"}),
        ({"HF_HUB_OFFLINE": "0"}, {"HF_HUB_OFFLINE": "ok"}),
        ({"HF_HUB_OFFLINE": "true"}, {"HF_HUB_OFFLINE": "warning"}),
        (
            {"TRANSFORMERS_OFFLINE": "1"},
            {"HF_HUB_OFFLINE": "ok", "TRANSFORMERS_OFFLINE": "warning"},
        ),
    ],
)
def test_offline(environ: dict[str, str], levels: dict[str, str]) -> None:
    assert {one.subject: one.level for one in variables.offline(environ)} == levels


def test_variables_of_nccl() -> None:
    environ = {"NCCL_P2P_DISABLE": "1", "NCCL_DEBUG": "INFO", "NCCL_IB_DISABLE": "0", "PATH": "x"}
    found = {one.subject: one.level for one in variables.of_nccl(environ)}
    assert found == {"NCCL_DEBUG": "ok", "NCCL_IB_DISABLE": "ok", "NCCL_P2P_DISABLE": "warning"}


def test_what_a_launch_left_in_the_shell() -> None:
    assert list(variables.left_by_a_launch({})) == []
    (left,) = variables.left_by_a_launch({"RANK": "1", "WORLD_SIZE": "8"})
    assert (left.level, left.found) == ("warning", "RANK=1 WORLD_SIZE=8")
    # torchrun's own processes.
    launched = {"RANK": "1", "TORCHELASTIC_RUN_ID": "none"}
    assert list(variables.left_by_a_launch(launched)) == []


def test_a_token_is_never_shown() -> None:
    told = variables.token({"HF_TOKEN": "hf_secret"})
    assert told.found == "set"
    assert "hf_secret" not in str(told)


# ---------------------------------------------------------------- what is computed


def test_gloo_sums_up_here() -> None:
    assert collectives.gloo_failure() == ""


def test_formats_are_computed_here() -> None:
    found = {finding.subject: finding for finding in number_formats.look(CPU)}
    assert list(found) == ["fp32", "bf16", "fp16"]
    assert found["fp32"].found.endswith("FLOP/s on one core")
    assert (found["fp16"].level == "warning") >= (not fp16_is_native(CPU))
    for name in ("bf16", "fp16"):
        assert " x as fast as fp32" in found[name].found


def test_a_rate_is_two_operations_for_each_product() -> None:
    assert number_formats.rate(CPU, 2 * 384**3 / 50e9) == "50.0 GFLOP/s"
    assert number_formats.rate(torch.device("cuda"), 2 * 4096**3 / 600e12) == "600.0 TFLOP/s"


# ---------------------------------------------------------------- the report


def test_sizes() -> None:
    assert [gib(size) for size in (64 * 2**20, GIB, 1536 * GIB)] == [
        "64 MiB",
        "1.0 GiB",
        "1,536.0 GiB",
    ]


def test_the_report_refuses_what_cannot_run() -> None:
    fine = Report([ok("python", "3.12"), limits.shared_memory(None)])
    fine.require_possible()
    assert fine.as_json()["possible"]
    assert fine.totals == "1 ok, 0 warning, 1 missing"
    lacking = Report([packages.package(TORCH, None)])
    assert not lacking.as_json()["possible"]
    with pytest.raises(LaunchError, match="no run is possible here without torch; "):
        lacking.require_possible()


def test_values_of_the_environment_are_no_commands_to_a_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Report([ok("NCCL_DEBUG", "a\x1b[2Jb\nc [red]d")]).show()
    told = capsys.readouterr().out
    assert told == "ok       NCCL_DEBUG: a\\x1b[2Jb\\nc [red]d\n1 ok, 0 warning, 0 missing\n"


def doctor(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bigner", "doctor", *arguments],
        env={**environment(), **variables},
        capture_output=True,
        text=True,
        check=False,
    )


def test_this_machine() -> None:
    done = doctor("--json", NCCL_DEBUG="INFO", HF_TOKEN="hf_secret")
    assert done.returncode == 0, done.stderr
    assert "hf_secret" not in done.stdout + done.stderr
    report = json.loads(done.stdout)
    found = {one["subject"]: one for one in report["findings"]}
    assert len(found) == len(report["findings"])
    assert report["possible"] is True
    assert sum(report["totals"].values()) == len(found)
    # The installed package may leave out which build it is of.
    assert torch.__version__.startswith(found["torch"]["found"])
    assert found["NCCL_DEBUG"]["found"] == "INFO"
    assert found["DS_ACCELERATOR"]["level"] == "warning"
    assert found["cores"]["found"].startswith(str(len(os.sched_getaffinity(0))))
    assert {"python", "gloo", "bf16", "flash attention", "/dev/shm", "memory"} <= found.keys()


def test_a_machine_whose_torch_does_not_load(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('libtorch.so: no such file')")
    done = doctor(PYTHONPATH=str(tmp_path))
    assert done.returncode == 2
    assert "missing  a torch that loads: libtorch.so: no such file; costs: no run" in done.stdout
    assert "ok       torch: " in done.stdout
    assert "/dev/shm: " in done.stdout
    assert "error: no run is possible here without a torch that loads; " in done.stderr
    assert done.stderr.count("\n") == 1
