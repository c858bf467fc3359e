"""How far a launched run has come, from what it told; and a picture of it."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

_SCORES_SHOWN = 10
_NUMBERS = ("loss", "f1", "precision", "recall")


@dataclass(slots=True)
class Course:
    """What a run told so far, as far as it is shown."""

    message: str = ""
    """The last one."""
    warnings: list[str] = field(default_factory=list)
    scores: deque[Mapping[str, Any]] = field(default_factory=lambda: deque(maxlen=_SCORES_SHOWN))
    _bars: Progress = field(
        default_factory=lambda: Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[note]}", markup=False),
            auto_refresh=False,
            console=Console(quiet=True),
        )
    )
    _tasks: dict[int, TaskID] = field(default_factory=dict)

    def note(self, event: Mapping[str, Any]) -> None:
        """Take in one event."""
        match event["kind"]:
            case "message" if event["warning"]:
                self.warnings.append(event["text"])
            case "message":
                self.message = event["text"]
            case "scores":
                self.scores.append(event)
            case "bar":
                self._note_bar(event["number"], event["bar"])

    def _note_bar(self, number: int, bar: Mapping[str, Any] | None) -> None:
        if bar is None:
            # What told of it may have been lost.
            if number in self._tasks:
                self._bars.remove_task(self._tasks.pop(number))
        elif number in self._tasks:
            self._bars.update(self._tasks[number], completed=bar["completed"], note=bar["note"])
        else:
            self._tasks[number] = self._bars.add_task(**bar)

    def picture(self) -> RenderableType:
        """All of it as one renderable."""
        parts: list[RenderableType] = [
            Text(f"warning: {warning}", style="yellow") for warning in self.warnings
        ]
        if self.scores:
            parts.append(self._table())
        if self._tasks:
            parts.append(self._bars.get_renderable())
        if self.message:
            parts.append(Text(self.message, style="dim"))
        return Group(*parts)

    def _table(self) -> Table:
        table = Table("step", "split", *_NUMBERS, box=None, pad_edge=False, header_style="bold")
        for column in table.columns[2:]:
            column.justify = "right"
        for event in self.scores:
            numbers = event["numbers"]
            found = [numbers.get(name) for name in _NUMBERS]
            cells = ["-" if value is None else f"{value:.4f}" for value in found]
            table.add_row(str(event["step"]), event["split"].replace("_", " "), *cells)
        return table
