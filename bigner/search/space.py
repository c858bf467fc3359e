"""The space file: fields of the run config, and the values that a search may give them.

training.learning_rate: {low: 1.0e-5, high: 3.0e-4, log: true}
training.epochs: {low: 2, high: 5}
evaluation.decoding: [argmax, iob2]
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bigner.config.load import load_config
from bigner.config.schema import RunConfig
from bigner.config.text_file import read_text
from bigner.config.yaml_file import parse_yaml
from bigner.errors import ConfigError, Problem

_HOW = "a list of values, or {low: 1, high: 5}, with log: true or a step if wanted"
# Of a number of steps, such as 0.3 / 0.1.
_ROUNDING = 1e-9
_RANGE_KEYS = {"low", "high", "log", "step"}
# What a search itself sets, and what would make trials incomparable.
_REFUSED = {
    "run_dir": "the search gives each trial a folder",
    "collective_timeout": "processes agree on it before the first trial",
    "strategy.kind": "processes are started for one kind",
    "evaluation.every": "trials are compared evaluation by evaluation",
    "evaluation.metric": "trials are compared by it",
    "evaluation.head": "trials are compared by its score",
    "data.validation": "trials are compared on it",
    "data.heads": "trials are compared on the same labels",
    "data.labels": "trials are compared on the same labels",
    "data.scheme": "trials are compared on the same labels",
    "data.test": "a search looks at no test data",
    "data.fold": "a search looks at no test data",
    "checkpoint.resume": "the search resumes trials itself",
    "training.stop_after": "it would stop the search",
}


@dataclass(frozen=True, slots=True)
class Choices:
    """Some values, in no order."""

    field: str
    values: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Range:
    """The numbers from ``low`` to ``high``, both included; whole ones if both are."""

    field: str
    low: float
    high: float
    log: bool
    """Drawn evenly over the logarithm."""
    step: float | None

    @property
    def is_whole(self) -> bool:
        """Whether all values are whole numbers."""
        return all(isinstance(n, int) for n in (self.low, self.high, self.step or 1))


Parameter = Choices | Range


def read_space(path: Path, config: RunConfig, overrides: Sequence[str] = ()) -> list[Parameter]:
    """Read a space file, and check that the run config may have each of its values.

    Args:
        path: the space file.
        config: what the search begins with.
        overrides: those of the command line, which must not set what is searched.

    Raises:
        ConfigError: holds every problem found, each with its line.
    """
    document = parse_yaml(read_text(path, "space file"), str(path))
    if not isinstance(document.value, dict) or not document.value:
        message = f"a space file gives values to fields, such as training.learning_rate: {_HOW}"
        raise ConfigError([Problem(document.where(()), "", message)])
    given = {override.partition("=")[0] for override in overrides}
    parameters: list[Parameter] = []
    problems: list[Problem] = []
    for key, value in document.value.items():
        field, where = str(key), document.where((key,))
        try:
            if refusal := next((_REFUSED[one] for one in _REFUSED if _is_of(one, field)), None):
                raise _wrong(where, field, f"cannot be searched: {refusal}; take it out")
            if any(_is_of(one, field) or _is_of(field, one) for one in given):
                raise _wrong(where, field, "an override sets it, too; take one of them out")
            parameter = _parameter(where, field, value)
            _check_values(parameter, config, where)
            parameters.append(parameter)
        except ConfigError as error:
            problems += error.problems
    if problems:
        raise ConfigError(problems)
    return parameters


def values_at_most(parameter: Parameter) -> tuple[Any, ...]:
    """The values at the ends of a parameter; of choices all."""
    return parameter.values if isinstance(parameter, Choices) else (parameter.low, parameter.high)


def _is_of(inner: str, outer: str) -> bool:
    """Whether a field is another one, or lies in that section."""
    return inner == outer or inner.startswith(f"{outer}.")


def _wrong(where: str, field: str, message: str) -> ConfigError:
    return ConfigError([Problem(where, field, message)])


def _parameter(where: str, field: str, value: Any) -> Parameter:
    if isinstance(value, list):
        if len(value) < 2:
            raise _wrong(where, field, "needs two values or more to choose from")
        return Choices(field, tuple(value))
    if not isinstance(value, dict) or not {"low", "high"} <= value.keys() <= _RANGE_KEYS:
        raise _wrong(where, field, f"must be {_HOW}")
    low, high, step = value["low"], value["high"], value.get("step")
    log = value.get("log", False)
    numbers = [low, high, *([] if step is None else [step])]
    if any(isinstance(n, bool) or not isinstance(n, int | float) for n in numbers):
        raise _wrong(where, field, "low, high and step must be numbers")
    if not all(map(math.isfinite, numbers)):
        raise _wrong(where, field, "low, high and step must be finite numbers")
    if not isinstance(log, bool):
        raise _wrong(where, field, "log must be true or false")
    if not low < high:
        raise _wrong(where, field, f"low {low} must be less than high {high}")
    if log and (low <= 0 or step is not None):
        raise _wrong(where, field, "log: true needs a low above 0 and no step")
    if step is not None and not (step > 0 and _is_whole((high - low) / step)):
        raise _wrong(where, field, f"step {step} must lead from low {low} to high {high}")
    return Range(field, low, high, log, step)


def _is_whole(number: float) -> bool:
    return abs(number - round(number)) < _ROUNDING * max(1.0, abs(number))


def _check_values(parameter: Parameter, config: RunConfig, where: str) -> None:
    """Have the run config take each value, or both ends of a range."""
    for value in values_at_most(parameter):
        try:
            load_config(config, {parameter.field: value})
        except ConfigError as error:
            raise ConfigError(
                [
                    Problem(where, problem.field, f"{problem.message} (to search {value!r:.80})")
                    for problem in error.problems
                ]
            ) from None
