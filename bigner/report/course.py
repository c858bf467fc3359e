"""The course of a run, from its metrics.jsonl."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bigner.config.checks import is_file
from bigner.errors import DataError

_Line = dict[str, Any]
# Of a line in a chart that is a few hundred points wide.
_MOST_POINTS = 400


@dataclass(frozen=True, slots=True)
class Curve:
    """Values by step; nan where the run had no number."""

    steps: list[float]
    values: list[float]

    def __bool__(self) -> bool:
        return any(map(math.isfinite, self.values))

    def thinned(self, most: int = _MOST_POINTS) -> Curve:
        """The means of as many neighbours as it takes to have no more points than some number."""
        size = -(-len(self.steps) // most)
        if size <= 1:
            return self
        groups = [slice(start, start + size) for start in range(0, len(self.steps), size)]
        return Curve(
            [_mean(self.steps[group]) for group in groups],
            [_mean(self.values[group]) for group in groups],
        )

    def turns(self) -> Curve:
        """Where the value becomes another, and both ends: all that steps of a stair are."""
        last = len(self.steps) - 1
        kept = [
            i for i in range(last + 1) if i in (0, last) or self.values[i] != self.values[i - 1]
        ]
        return Curve([self.steps[i] for i in kept], [self.values[i] for i in kept])


@dataclass(frozen=True, slots=True)
class Course:
    """What a run logged of its training."""

    loss: Curve
    learning_rate: Curve
    loss_scale: Curve
    validation_f1: Curve
    validation_loss: Curve
    skipped: list[float]
    """Logged steps that were skipped."""

    @property
    def is_scaled(self) -> bool:
        """Whether there was a loss scale."""
        return any(value != 1 for value in self.loss_scale.values)


def read_course(path: Path, head: str | None = None) -> Course | None:
    """What ``MetricsLog`` wrote; None where there is no such file.

    Args:
        path: of metrics.jsonl.
        head: the one whose validation scores are wanted, where there are several.

    Raises:
        DataError: it cannot be read, or a line is none of a log.
    """
    if not is_file(path):
        return None
    lines = list(_lines(path))
    trained = [line for line in lines if "split" not in line]
    scored = [line for line in lines if line.get("split") == "validation"]
    prefix = f"{head}/" if head else ""
    return Course(
        loss=_curve(trained, "loss"),
        learning_rate=_curve(trained, "learning_rate"),
        loss_scale=_curve(trained, "loss_scale"),
        validation_f1=_curve(scored, f"{prefix}f1"),
        validation_loss=_curve(scored, f"{prefix}loss"),
        skipped=[line["step"] for line in trained if line.get("skipped") is True],
    )


def _lines(path: Path) -> Iterator[_Line]:
    try:
        texts = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 (byte {error.start})") from None
    for number, text in enumerate(texts, start=1):
        try:
            line = json.loads(text)
        except (ValueError, RecursionError):
            line = None
        if not (isinstance(line, dict) and _is_number(line.get("step"))):
            raise DataError.at(path, number, f"no line of a run's log: {text!r:.80}")
        yield line


def _curve(lines: list[_Line], name: str) -> Curve:
    """The numbers of a name, of the lines that have it; null is nan."""
    having = [line for line in lines if name in line]
    return Curve([line["step"] for line in having], [_number(line[name]) for line in having])


def _number(value: Any) -> float:
    return float(value) if _is_number(value) else math.nan


def _is_number(value: Any) -> bool:
    # What no chart has room for is none, infinity and nan among it.
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e30


def _mean(values: list[float]) -> float:
    finite = [value for value in values if math.isfinite(value)]
    return sum(finite) / len(finite) if finite else math.nan
