"""What a run's folder keeps of a tracker: its name for the run, and how far it has come."""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from bigner.run_dir import write_json
from bigner.tracking.base import Point


class Kept:
    """A small file, by which a resumed run goes on in the same run of its tracker.

    Args:
        path: the file; one that is not there, or cannot be read, is that of a new run.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.run: str | None = None
        """The tracker's identifier of the run."""
        self._steps: dict[str, int] = {}
        with suppress(OSError, ValueError, KeyError, TypeError):
            values = json.loads(path.read_text(encoding="utf-8"))
            steps = {str(group): int(step) for group, step in values["steps"].items()}
            self.run, self._steps = str(values["run"]), steps

    def begin(self, run: str) -> None:
        """Keep which run of the tracker this is; another one has no points yet.

        Raises:
            OSError: it cannot be written.
        """
        if run != self.run:
            self.run, self._steps = run, {}
            self._write()

    def missing(self, points: Iterable[Point]) -> list[Point]:
        """Those points that the tracker does not have, in their order."""
        last = dict(self._steps)
        found = []
        for point in points:
            if point.step > last.get(point.group, -1):
                last[point.group] = point.step
                found.append(point)
        return found

    def note(self, points: Iterable[Point]) -> None:
        """Keep that the tracker has these points, too.

        Raises:
            OSError: it cannot be written.
        """
        self._steps |= {point.group: point.step for point in points}
        self._write()

    def _write(self) -> None:
        # Not its parents: a run's folder that was removed is not made again.
        self._path.parent.mkdir(exist_ok=True)
        write_json(self._path, {"run": self.run, "steps": self._steps})
