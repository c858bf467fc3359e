"""Two hosts: a launcher for each, that meet over TCP as launchers on two machines do."""

from __future__ import annotations

import json
import signal
import socket
import sys
from pathlib import Path

from tests.e2e.running import Running, lines
from tests.e2e.test_lost_ranks import OWN_STORE

STEPS = 16
TRAIN = [
    *("bigner", "train", "run.yaml", f"training.max_steps={STEPS}", "training.log_every=1"),
    *("checkpoint.every_steps=4", "evaluation.every=16"),
    *("training.global_batch_size=8", "training.micro_batch_size=2"),
]
FSDP = "strategy={kind: fsdp, dp_replicate: 2}"


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port


def _torchrun(port: int) -> list[str]:
    """What is started on each host, as in scripts/slurm_torchrun.sbatch."""
    return [
        *(sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "2"),
        *("--rdzv-backend", "c10d", "--rdzv-endpoint", f"127.0.0.1:{port}", "--rdzv-id", "two"),
        *("--local-addr", "127.0.0.1", "--max-restarts", "3", "-m", *TRAIN, FSDP),
    ]


def test_the_processes_of_one_host_are_lost_and_the_run_goes_on(project: Path) -> None:
    command = _torchrun(_free_port())
    with (
        Running(command, project, **OWN_STORE) as one,
        Running(command, project, **OWN_STORE) as other,
    ):
        one.wait_for_step(6)
        lost = other.ranks()
        assert len(lost) == 2
        for pid in lost:
            other.send(signal.SIGKILL, pid)
        assert (one.end(), other.end()) == (0, 0), one.output + other.output
        assert "going on from step 4" in one.output + other.output
    steps = [line["step"] for line in lines(project / "run") if "split" not in line]
    assert steps == list(range(1, STEPS + 1))
    summary = json.loads((project / "run" / "summary.json").read_text())
    assert summary["steps"] == STEPS


def test_deepspeed_without_ssh(project: Path, tmp_path: Path) -> None:
    """A launcher on each host, as in scripts/slurm_deepspeed.sbatch."""
    hosts = tmp_path / "hostfile"
    hosts.write_text("one slots=1\nother slots=1\n")
    port = str(_free_port())

    def launcher(node: int) -> list[str]:
        return [
            *(sys.executable, "-m", "deepspeed.launcher.runner", "--hostfile", str(hosts)),
            *("--no_ssh", "--node_rank", str(node), "--master_addr", "127.0.0.1"),
            *("--master_port", port, "--module", *TRAIN, "strategy={kind: zero}"),
        ]

    with Running(launcher(0), project) as one, Running(launcher(1), project) as other:
        assert (one.end(), other.end()) == (0, 0), one.output + other.output
    assert json.loads((project / "run" / "summary.json").read_text())["steps"] == STEPS
