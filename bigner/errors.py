"""The errors a user can meet.

    BignerError
    ├── UserError            what was asked for is wrong; exit code 2
    │   ├── ConfigError      a run file, an override or a ds_configs file
    │   ├── DataError        a data file: names file, line and reason
    │   ├── ModelError       a model or tokenizer that cannot be used as asked
    │   └── LaunchError      the machine or the launch cannot do what the config asks
    └── RunError             the run itself failed; exit code 1
        ├── GatherError      a prediction is missing or came twice
        └── CheckpointError  a checkpoint that cannot be written or read

Everything else that escapes is a defect of bigner and keeps its traceback.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


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
        head = f"{self.where}: {self.field}" if self.field else self.where
        return f"{head}: {self.message}"


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

    @classmethod
    def at(cls, path: str | Path, line: int, reason: str) -> DataError:
        """An error at one line (counted from 1) of a data file."""
        return cls(f"{path}:{line}: {reason}")


class ModelError(UserError):
    """The model or tokenizer cannot be loaded, or does not fit the data."""


class LaunchError(UserError):
    """The machine or the way the run was launched cannot do what the config asks for."""


class RunError(BignerError):
    """A run that began and could not be brought to its end."""


class GatherError(RunError):
    """Gathered predictions do not cover every sample exactly once."""


class CheckpointError(RunError):
    """A checkpoint could not be written, or what is on disk is not a whole checkpoint."""
