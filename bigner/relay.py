"""What a process of a run tells the one that launched it, past whatever it prints.

``bigner.launch`` names a file in the environment of the run it starts. The processes of the run
append lines of JSON to it: their ids, bars and messages of rank 0, scores, and what ended them.
Telling never disturbs a run; but a run that nobody can stop any more stops itself, saved.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import time
import traceback
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from itertools import count
from typing import Any

from bigner.errors import (
    BignerError,
    ConfigError,
    LostRankError,
    Problem,
    Pruned,
    RunError,
    Stopped,
)

VARIABLE = "BIGNER_RELAY"
"""The environment's name for the file, which the launching process keeps locked."""

_SECONDS_BETWEEN = 0.2


class Relay:
    """The way from a process of a run to whoever launched it.

    Args:
        path: the file.
        rank: this process's.
    """

    def __init__(self, path: str, rank: int) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_APPEND)
        self._rank = rank

    @property
    def is_main(self) -> bool:
        """Whether this is the process that tells of the run's course."""
        return self._rank == 0

    def begin(self) -> None:
        """Tell which process this rank is."""
        self._tell("process", rank=self._rank, pid=os.getpid())

    def message(self, text: str, *, warning: bool = False) -> None:
        """Tell what rank 0 tells its terminal."""
        self._tell("message", text=text, warning=warning)

    def bar(self, number: int, bar: Mapping[str, Any] | None) -> None:
        """Tell how a bar stands, or with None that it is gone."""
        self._tell("bar", number=number, bar=bar)

    def scores(self, step: int, split: str, numbers: Mapping[str, Any]) -> None:
        """Tell the numbers of an evaluation."""
        self._tell("scores", step=step, split=split, numbers=numbers)

    def ended(self, error: BaseException) -> None:
        """Tell what ends this process."""
        self._tell("error", rank=self._rank, **_as_json(error))

    def heed_launcher(self) -> None:
        """Stop this process, saved, if the one that launched it is gone."""
        with suppress(OSError):
            # The lock of a process goes with it.
            fcntl.flock(self._file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            fcntl.flock(self._file, fcntl.LOCK_UN)
            os.kill(os.getpid(), signal.SIGTERM)

    def _tell(self, kind: str, **values: Any) -> None:
        line = json.dumps({"kind": kind, **values}) + "\n"
        # At once, so that lines of several processes do not mix.
        with suppress(OSError):
            os.write(self._file, line.encode())


class RelayedBars:
    """Bars that are shown by the process that launched this one."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay
        self._numbers = count()
        self._bars: dict[int, dict[str, Any]] = {}
        self._told = 0.0

    @property
    def shown(self) -> bool:
        """Whether this is the rank whose bars are wanted."""
        return self._relay.is_main

    def add(self, description: str, total: int, completed: int = 0) -> int:
        """Show one more bar."""
        number = next(self._numbers)
        bar = {"description": description, "total": total, "completed": completed, "note": ""}
        self._bars[number] = bar
        self._relay.bar(number, bar)
        return number

    def advance(self, bar: int, note: str | None = None) -> None:
        """Move a bar on by one, with another note if there is one."""
        values = self._bars[bar]
        values["completed"] += 1
        if note is not None:
            values["note"] = note
        if note or time.monotonic() - self._told > _SECONDS_BETWEEN:
            self._told = time.monotonic()
            self._relay.bar(bar, values)
            self._relay.heed_launcher()

    def remove(self, bar: int) -> None:
        """Take a bar away."""
        del self._bars[bar]
        self._relay.bar(bar, None)


def opened_relay() -> Relay | None:
    """The relay of a process that ``bigner.launch`` started; others have none."""
    path = os.environ.get(VARIABLE)
    return Relay(path, int(os.environ.get("RANK", "0"))) if path else None


relay = opened_relay()
"""Of this process."""


def _as_json(error: BaseException) -> dict[str, Any]:
    values: dict[str, Any] = {"error": type(error).__name__, "message": str(error)}
    if isinstance(error, ConfigError):
        values["problems"] = [asdict(problem) for problem in error.problems]
    if isinstance(error, Stopped):
        values["exit_code"] = error.exit_code
    if not isinstance(error, BignerError | KeyboardInterrupt):
        values["trace"] = "".join(traceback.format_exception(error))
    return values


def error_of(event: Mapping[str, Any]) -> BaseException:
    """The error that a process was ended by, from what it told of it.

    One that is no error of bigner's is a ``RunError`` here, with its traceback as a note.
    """
    name, message, rank = event["error"], event["message"], event["rank"]
    match name:
        case "ConfigError":
            return ConfigError([Problem(**problem) for problem in event["problems"]])
        case "Stopped" | "Pruned":
            stopped = Stopped if name == "Stopped" else Pruned
            return stopped(message, event["exit_code"])
        case "LostRankError":
            return LostRankError(message, rank)
        case "KeyboardInterrupt":
            return KeyboardInterrupt()
    if name in (kinds := _kinds(BignerError)):
        return kinds[name](message)
    error = RunError(f"rank {rank} failed: {name}: {message}")
    error.add_note(event["trace"])
    return error


def _kinds(kind: type[BignerError]) -> dict[str, type[BignerError]]:
    below = [_kinds(one) for one in kind.__subclasses__()]
    return {kind.__name__: kind} | {name: one for found in below for name, one in found.items()}
