"""Ranks that die or hang: the others end and say which, and the run goes on from its checkpoint."""

from __future__ import annotations

import re
import signal
from pathlib import Path

from tests.e2e.running import TORCHRUN, Running, lines
from tests.ranks.launch import run_command

STEPS = 30
TRAIN = [
    *("-m", "bigner", "train", "run.yaml", f"training.max_steps={STEPS}", "training.log_every=1"),
    *("strategy={kind: fsdp}", "checkpoint.every_steps=5", "evaluation.every=20"),
    *("training.global_batch_size=8", "training.micro_batch_size=1"),
]
# Without it a restarted run may find the addresses of ranks that are gone (pytorch issue 135712).
OWN_STORE = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}


def _told(run: Running) -> list[tuple[str, str]]:
    """Step and rank of each message on a rank that was lost; torchrun alone prints tracebacks."""
    assert "bigner/__main__.py" not in run.output
    assert "gloo" not in run.output
    return re.findall(r"error: after step (\d+): (rank \d+) ended or did not ans", run.output)


def _last_step(run: Running) -> int:
    return int(lines(run.run_dir)[-1]["step"])


def test_a_rank_that_dies_and_one_that_hangs(project: Path) -> None:
    restarted = [*TORCHRUN, "--max-restarts", "1", *TRAIN, "collective_timeout=10"]
    with Running(restarted, project, **OWN_STORE) as run:
        run.wait_for_step(7)
        run.send(signal.SIGKILL, run.rank(0))
        # torchrun starts both ranks anew.
        run.wait_until(lambda: "going on from step 5" in run.output)
        assert [rank for _, rank in _told(run)] == ["rank 0"]
        run.wait_for_step(12)
        hung = run.rank(1)
        run.send(signal.SIGSTOP, hung)
        run.wait_until(lambda: len(_told(run)) == 2)
        run.send(signal.SIGKILL, hung)
        assert run.end() == 1
        step, rank = _told(run)[1]
        assert rank == "rank 1"
        assert int(step) >= 12
    done = run_command([*TORCHRUN, *TRAIN], project)
    assert done.returncode == 0, done.stderr
    assert "going on from step" in done.stderr
    steps = [line["step"] for line in lines(project / "run") if "split" not in line]
    assert steps == list(range(1, STEPS + 1))
