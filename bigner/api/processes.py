"""The processes of a run that this one launched: started, asked to stop, never left behind."""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from bigner.config.schema import RunConfig
from bigner.config.yaml_file import as_yaml
from bigner.errors import RunError
from bigner.relay import VARIABLE, error_of
from bigner.run_dir import write_text

_OF_A_LAUNCH = (
    *("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"),
    # A notebook asks for colours, which nobody sees here.
    *("FORCE_COLOR", "CLICOLOR_FORCE"),
)
_SECONDS_TO_END = 10.0
_LAST_LINES = 12


class LaunchedRun:
    """A training run in processes of its own; leaving the block ends what is left of them.

    Several are started by torchrun on a free port, whatever the strategy.

    Args:
        config: the run's.
        nproc: processes.
    """

    def __init__(self, config: RunConfig, nproc: int) -> None:
        self._config = config
        self._nproc = nproc
        self._pids: dict[int, int] = {}
        self._errors: list[Mapping[str, Any]] = []
        self._asked_to_stop = False

    def __enter__(self) -> LaunchedRun:
        self._folder = tempfile.TemporaryDirectory(prefix="bigner-launch-")
        folder = Path(self._folder.name)
        run_file, relay = folder / "run.yaml", folder / "relay.jsonl"
        values = self._config.model_dump(mode="json")
        write_text(run_file, as_yaml(values))
        self._relay: IO[bytes] = relay.open("w+b")
        # Held until this process ends, however it does: by that the run knows that it is alone.
        fcntl.flock(self._relay, fcntl.LOCK_EX)
        self._output = folder / "output.txt"
        with self._output.open("wb") as output:
            self._process = subprocess.Popen(
                [*_launcher(self._nproc), "-m", "bigner.worker", str(run_file)],
                env=_environment(relay, self._nproc),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                # Ctrl-C in a terminal is for this process, which passes it on.
                start_new_session=True,
            )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if self._process.poll() is None:
                self.events()
                self._end()
        finally:
            self._relay.close()
            self._folder.cleanup()

    @property
    def is_over(self) -> bool:
        """Whether all of it has ended."""
        return self._process.poll() is not None

    def wait(self, seconds: float) -> None:
        """Wait a while, or for its end."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)

    def events(self) -> list[dict[str, Any]]:
        """What its processes told since the last call."""
        found = []
        while line := self._relay.readline():
            if not line.endswith(b"\n"):
                # Half of it was written so far.
                self._relay.seek(-len(line), os.SEEK_CUR)
                break
            try:
                event = json.loads(line)
            except ValueError:
                # On a full disk a line is cut short, and the next one stands right behind it.
                continue
            if event["kind"] == "process":
                self._pids[event["rank"]] = event["pid"]
            elif event["kind"] == "error":
                self._errors.append(event)
            found.append(event)
        return found

    def stop(self) -> None:
        """Ask it to save and stop, as Ctrl-C does."""
        # Past the launcher, which would give its processes half a minute to save. Ranks agree on
        # stopping, so one of them is enough.
        self._asked_to_stop = True
        pid = self._pids.get(0)
        with suppress(ProcessLookupError):
            if pid is None:
                self._process.terminate()
            else:
                os.kill(pid, signal.SIGINT)

    def failure(self) -> BaseException | None:
        """What it was ended by, if not by having come to its end."""
        # A rank that lost another knows less than that one.
        told = sorted(self._errors, key=lambda event: event["error"] == "LostRankError")
        if told:
            return error_of(told[0])
        if self._process.returncode and self._asked_to_stop:
            # Before there was anything that could be saved, or told.
            return KeyboardInterrupt()
        if code := self._process.returncode:
            return _without_a_word(self._output.read_text("utf-8", errors="replace"), code)
        return None

    def _end(self) -> None:
        for pid in self._pids.values():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        # Of processes that have not told of themselves yet the launcher takes care.
        self._process.terminate()
        try:
            self._process.wait(_SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _launcher(nproc: int) -> list[str]:
    if nproc == 1:
        return [sys.executable]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    return [*torchrun, "--nproc-per-node", str(nproc)]


def _environment(relay: Path, nproc: int) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in _OF_A_LAUNCH}
    # torchrun's own choice is one thread for each process, however many cores there are.
    threads = max(1, len(os.sched_getaffinity(0)) // nproc)
    return {"OMP_NUM_THREADS": str(threads), **kept, VARIABLE: str(relay)}


def _without_a_word(output: str, code: int) -> RunError:
    """The error of a run whose processes could not tell what ended them."""
    ended = re.search(r"rank +: (\d+).*\n +exitcode +: (-?\d+)", output)
    rank, number = ended.groups() if ended else ("0", str(code))
    how = f"exit code {number}"
    if number.startswith("-"):
        with suppress(ValueError):
            how = signal.Signals(-int(number)).name
    if how == "SIGKILL":
        how += ", as the system does where memory is short"
    error = RunError(f"rank {rank} was ended by {how}")
    if lines := [line for line in output.splitlines() if line.strip()]:
        error.add_note("It printed last:\n" + "\n".join(lines[-_LAST_LINES:]))
    return error
