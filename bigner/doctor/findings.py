"""What a check of the machine has to tell: how it is, what that costs, how to mend it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

Level = Literal["ok", "warning", "missing"]
"""``warning``: runs are possible, and slower or less safe than they need be. ``missing``: something
cannot be done at all."""

GIB = 2**30


@dataclass(frozen=True, slots=True)
class Finding:
    """The outcome of one check."""

    subject: str
    """What was looked at, whatever was found."""
    level: Level
    found: str
    costs: str = ""
    """What it costs, where it is not ok."""
    remedy: str = ""
    needed: bool = False
    """Where it is missing: no run is possible without it."""

    def as_json(self) -> dict[str, Any]:
        """As ``--json`` writes it."""
        return asdict(self)


def ok(subject: str, found: str) -> Finding:
    """Nothing to be done."""
    return Finding(subject, "ok", found)


def gib(num_bytes: float) -> str:
    """A size for people."""
    if num_bytes < GIB:
        return f"{num_bytes / 2**20:,.0f} MiB"
    return f"{num_bytes / GIB:,.1f} GiB"
