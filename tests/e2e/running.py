"""Runs that something happens to: processes that are watched, signalled, and never left behind.

A run's processes are known by a mark in their environment, which they inherit, and not as children
of children: who loses its parent is adopted by another and must be found all the same.
"""

from __future__ import annotations

import json
import os
import re
import resource
import shlex
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.ranks.launch import TIMEOUT_SECONDS, environment

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
SPEED_FIELDS = (
    *("seconds", "words_per_second", "tokens_per_second", "peak_memory_bytes"),
    *("run_dir", "model"),
)
"""What two runs that are the same differ in."""

_MARK = "BIGNER_TEST_RUN"
_POLL_SECONDS = 0.02


def deepspeed_launcher() -> list[str]:
    """DeepSpeed's own launcher of two processes, on a port that is free now."""
    with socket.socket() as free:
        free.bind(("", 0))
        port = str(free.getsockname()[1])
    launcher = [sys.executable, "-m", "deepspeed.launcher.runner", "--num_accelerators", "2"]
    return [*launcher, "--master_port", port, "--module"]


class Running:
    """A command that was started in a project's folder; leaving the block ends all of it.

    Args:
        command: ``[*launcher, "bigner", "train", "run.yaml", ...]``.
        folder: the project.
        run: name of the run's folder in it.
        variables: of the environment, beside the usual ones.
    """

    def __init__(
        self, command: list[str], folder: Path, run: str = "run", **variables: str
    ) -> None:
        self.run_dir = folder / run
        self._mark = f"{_MARK}={uuid.uuid4().hex}"
        name, value = self._mark.split("=")
        self._output = folder / f"output-{value}"
        with self._output.open("w") as stream:
            self._launcher = subprocess.Popen(
                command,
                cwd=folder,
                env={**environment(), **variables, name: value},
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                start_new_session=True,
            )

    def __enter__(self) -> Running:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        while left := [pid for pid, _ in self._processes()]:
            for pid in left:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self._launcher.poll()
            time.sleep(_POLL_SECONDS)
        self._launcher.wait()

    @property
    def pid(self) -> int:
        """The process that was started."""
        return self._launcher.pid

    @property
    def output(self) -> str:
        """All that its processes printed so far."""
        return self._output.read_text(encoding="utf-8", errors="replace")

    def wait_until(self, holds: Callable[[], Any]) -> None:
        """Wait until something is so; fails, with the output, where the command ends first."""
        end = time.monotonic() + TIMEOUT_SECONDS
        while not holds():
            assert self._launcher.poll() is None, f"ended before that:\n{self.output}"
            assert time.monotonic() < end, f"never came to that:\n{self.output}"
            time.sleep(_POLL_SECONDS)

    def wait_for_step(self, step: int) -> None:
        """Wait until a step was logged."""
        self.wait_until(lambda: any(line["step"] >= step for line in lines(self.run_dir)))

    def rank(self, rank: int) -> int:
        """The process of a rank that has begun."""
        # It is older than compilers and the like that it may have started.
        return min(pid for pid, env in self._processes() if f"RANK={rank}" in env)

    def ranks(self) -> list[int]:
        """The processes of all its ranks, without what they may have started."""
        found: dict[str, list[int]] = {}
        for pid, env in self._processes():
            for rank in (variable for variable in env if variable.startswith("RANK=")):
                found.setdefault(rank, []).append(pid)
        return [min(pids) for pids in found.values()]

    def children(self) -> list[int]:
        """The processes that the started one has started itself."""
        folder = Path(f"/proc/{self.pid}/task/{self.pid}/children")
        return [int(pid) for pid in folder.read_text().split()]

    def send(self, number: signal.Signals, pid: int | None = None) -> None:
        """Signal one of its processes, by default the one that was started."""
        os.kill(pid or self.pid, number)

    def limit_files(self, num_bytes: int) -> None:
        """From now on no process of the run can write a file beyond a size, as on a full disk."""
        for pid, _ in self._processes():
            _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (num_bytes, hard))

    def end(self) -> int:
        """Wait until the started process has ended; returns its exit code."""
        return self._launcher.wait(TIMEOUT_SECONDS)

    def _processes(self) -> Iterator[tuple[int, list[str]]]:
        """Its living processes, each with its environment."""
        for process in Path("/proc").iterdir():
            if process.name.isdecimal():
                with suppress(OSError):
                    variables = (process / "environ").read_bytes().decode(errors="replace")
                    if self._mark in (own := variables.split("\0")):
                        yield int(process.name), own


def lines(run_dir: Path) -> list[dict[str, Any]]:
    """The whole lines of metrics.jsonl."""
    try:
        text = (run_dir / "metrics.jsonl").read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    whole = (line for line in text.splitlines(keepends=True) if line.endswith("\n"))
    return [json.loads(line) for line in whole]


def checkpoints(run_dir: Path) -> list[str]:
    """What lies in the folder of checkpoints, hidden folders included."""
    return sorted(path.name for path in (run_dir / "checkpoints").iterdir())


def outcome(run_dir: Path) -> dict[str, Any]:
    """All numbers a run left behind but those of its speed."""
    summary = json.loads((run_dir / "summary.json").read_text(encoding="utf-8"))
    found: dict[str, Any] = _without_speed({"lines": lines(run_dir), "summary": summary})
    predictions = {path.name: path.read_text("utf-8") for path in run_dir.glob("predictions/*")}
    return {**found, "predictions": predictions}


def _without_speed(values: Any) -> Any:
    if isinstance(values, dict):
        return {k: _without_speed(v) for k, v in values.items() if k not in SPEED_FIELDS}
    if isinstance(values, list):
        return [_without_speed(value) for value in values]
    return values


def resuming_command(output: str) -> list[str]:
    """The arguments of the one command that a stopped run says goes on from there."""
    found = re.findall(r"go on with\n +(.*)\n", output)
    assert len(found) == 1, output
    words = shlex.split(found[0])
    return words[words.index("bigner") + 1 :]
