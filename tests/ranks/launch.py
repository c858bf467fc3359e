"""Run a plain function in N real processes, joined by ``torchrun`` as a user's run would be.

A case is a function ``case(world, **arguments)`` in a module below ``tests``; what it returns
(plain JSON values) comes back for each rank. As a launch costs seconds, a case does several things.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT_SECONDS = 420


def environment(device: str = "cpu") -> dict[str, str]:
    """The environment of a child: one thread a rank, nothing of an outer launch."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
    }
    scripts = str(Path(sys.executable).parent)
    return {
        **kept,
        "PATH": os.pathsep.join([scripts, kept.get("PATH", "")]),
        "OMP_NUM_THREADS": "1",
        "DS_ACCELERATOR": device,
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }


def run_command(
    command: list[str], folder: Path, device: str = "cpu"
) -> subprocess.CompletedProcess[str]:
    """Run a launcher to its end; on a timeout its ranks are ended with it."""
    with subprocess.Popen(
        command,
        cwd=folder,
        env=environment(device),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            stdout, stderr = process.communicate(timeout=TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            # The launcher ends its ranks; killed outright it would leave them behind.
            process.send_signal(signal.SIGTERM)
            raise
    return subprocess.CompletedProcess(command, process.returncode, stdout, stderr)


def run_ranks(
    size: int, case: Callable[..., Any], folder: Path, *, device: str = "cpu", **arguments: Any
) -> list[Any]:
    """What ``case`` returned on each of ``size`` ranks; fails with the ranks' output."""
    folder.mkdir(parents=True, exist_ok=True)
    task = {"module": case.__module__, "name": case.__name__, "arguments": arguments}
    (folder / "task.json").write_text(json.dumps(task))
    # --standalone lets the launcher take a free port.
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    worker = [f"--nproc-per-node={size}", "-m", "tests.ranks.launch", str(folder)]
    done = run_command([*launcher, *worker], ROOT, device)
    assert done.returncode == 0, f"{case.__name__} on {size} ranks:\n{done.stdout}\n{done.stderr}"
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(size)]


def main(folder: Path) -> None:
    """One rank: run the case, leave its result."""
    from bigner import distributed  # noqa: PLC0415

    task = json.loads((folder / "task.json").read_text())
    case = getattr(importlib.import_module(task["module"]), task["name"])
    world = distributed.start(sharded=True)
    result = case(world, **task["arguments"])
    (folder / f"{world.rank}.json").write_text(json.dumps(result))
    distributed.leave_group(0)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
