"""What a tracker is to a run: it takes points, and is told how the run ended."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from bigner.config.schema import RunConfig
from bigner.run_dir import RunDir

Outcome = Literal["finished", "stopped", "failed"]


@dataclass(frozen=True, slots=True)
class About:
    """What a tracker is told of a run when it is opened."""

    config: RunConfig
    run_dir: RunDir
    environment: Mapping[str, str]
    """Versions, device, world size: what the result depends on beside the config."""
    first_step: int
    """Steps done before."""

    @property
    def name(self) -> str:
        """What people know the run by."""
        return self.config.trackers.name or str(self.config.run_dir)


@dataclass(frozen=True, slots=True)
class Point:
    """The numbers of one line of metrics.jsonl."""

    group: str
    """``train`` or the split that was scored; steps never go back within one."""
    step: int
    numbers: Mapping[str, float]
    """By flat name, such as ``train/loss``."""
    seconds: float = field(default_factory=time.time, compare=False)
    """When it was logged, since the epoch."""

    @classmethod
    def of(cls, line: Mapping[str, Any]) -> Point:
        """The point of a line; what is no number, or not finite and so null, is left out."""
        group = line.get("split", "train")
        numbers = {
            f"{group}/{name}": float(value)
            for name, value in line.items()
            if name != "step" and isinstance(value, int | float)
        }
        return cls(group, line["step"], numbers)


class Tracker(Protocol):
    """One tracker, open; every method may wait for a server, and raise what its library raises."""

    def log(self, points: Sequence[Point]) -> None:
        """Take points; the same ones may come again after a failure."""

    def close(self, outcome: Outcome) -> None:
        """Write what is left and note how the run ended."""
