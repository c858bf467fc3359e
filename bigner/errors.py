"""The errors a user can meet.

    BignerError
    ├── UserError            what was asked for is wrong; exit code 2
    │   ├── ConfigError      a run file, an override or a ds_configs file
    │   ├── DataError        a data file: names file, line and reason
    │   ├── ModelError       a model or tokenizer that cannot be used as asked
    │   └── LaunchError      the machine or the launch cannot do what the config asks
    ├── Stopped              asked to stop, and saved; 128 + the signal's number
    │   └── Pruned           a trial of a search that fell behind; not saved
    └── RunError             the run itself failed; exit code 1
        ├── DivergedError    the model diverged or collapsed; on every rank
        ├── LostRankError    another process of the run ended or does not answer
        ├── GatherError      a prediction is missing or came twice
        └── CheckpointError  a checkpoint that cannot be written or read

Everything else that escapes is a defect of bigner and keeps its traceback.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

MOST_PROBLEMS = 100
"""Problems of one file that are told at once."""
# What is quoted of hostile input ends somewhere.
_LONGEST_REASON = 2000
_USER_IN_ADDRESS = re.compile(r"://[^/\s]*@")


def one_line(place: str, reason: str) -> str:
    """``place: reason`` as one line; what a terminal would obey or refuse is escaped."""
    if len(reason) > _LONGEST_REASON:
        reason = f"{reason[: _LONGEST_REASON - 3]}..."
    return printable(hide_users(f"{place}: {reason}"))


def printable(text: str) -> str:
    """Text without a character that a terminal would obey or refuse."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )


def hide_users(text: str) -> str:
    """A text without the users and passwords of addresses, such as ``http://user:password@host``."""
    return _USER_IN_ADDRESS.sub("://***@", text)


class BignerError(Exception):
    """Base of every error that is shown to the user without a traceback."""

    exit_code = 1


class UserError(BignerError):
    """The user's input is wrong: the message says what, where, which rule and what to do."""

    exit_code = 2


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong in a run config: where it stands and which rule it breaks."""

    where: str
    """``file:line`` of the value, or the override that set it."""
    field: str
    """Dotted name of the field, such as ``training.learning_rate``."""
    message: str
    """The rule, the value it got, and what to change."""

    def __str__(self) -> str:
        reason = f"{self.field}: {self.message}" if self.field else self.message
        return one_line(self.where, reason)


class ConfigError(UserError):
    """Everything that is wrong in a run file, its overrides or its ds_configs file, at once."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))

    def __reduce__(self) -> tuple[type[ConfigError], tuple[tuple[Problem, ...]]]:
        # Exceptions are pickled by their message, and rank 0 hands this one to the others.
        return type(self), (self.problems,)


class DataError(UserError):
    """A data file cannot be read as the run config says."""

    file: str | None = None
    line: int | None = None
    """Where it is at one line; the message says it too."""

    @classmethod
    def at(cls, path: str | Path, line: int, reason: str) -> DataError:
        """An error at one line (counted from 1) of a data file."""
        error = cls(one_line(f"{path}:{line}", reason))
        error.file, error.line = str(path), line
        return error


class ModelError(UserError):
    """The model or tokenizer cannot be loaded, or does not fit the data."""


class LaunchError(UserError):
    """The machine or the way the run was launched cannot do what the config asks for."""


class Stopped(BignerError):  # noqa: N818
    """A run that was asked to stop, finished its step and saved: no failure."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code
        self.go_on = ""
        """The command that resumes it."""

    def __str__(self) -> str:
        message = super().__str__()
        return f"{message}; go on with\n  {self.go_on}" if self.go_on else message


class Pruned(Stopped):
    """A trial that the search said is not worth going on with; on every rank."""


class RunError(BignerError):
    """A run that began and could not be brought to its end."""


class DivergedError(RunError):
    """The model diverged or collapsed: the run's settings do not train it. On every rank."""


class LostRankError(RunError):
    """Another process of the run ended or does not answer.

    Args:
        message: what happened.
        speaker: the lowest rank that is left, which tells it.
    """

    def __init__(self, message: str, speaker: int) -> None:
        super().__init__(message)
        self.speaker = speaker


class GatherError(RunError):
    """Gathered predictions do not cover every sample exactly once."""


class CheckpointError(RunError):
    """A checkpoint could not be written, or what is on disk is not a whole checkpoint."""
