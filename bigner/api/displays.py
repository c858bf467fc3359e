"""Where the course of a launched run is shown: a notebook, a terminal, a file, or nowhere."""

from __future__ import annotations

import io
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Protocol

from rich.console import Console
from rich.live import Live

from bigner.api.course import Course
from bigner.log import console

_PAGE = '<pre style="white-space:pre-wrap;line-height:normal;margin:0">{code}</pre>'
_PAGE_WIDTH = 100


class Display(Protocol):
    """Shows the course of a run while it is entered."""

    def __enter__(self) -> Display: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    def show(self, events: list[dict[str, Any]]) -> None:
        """Take in what the run told since the last time, and show it."""
        ...


class Nowhere:
    """Shows nothing."""

    def __enter__(self) -> Nowhere:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def show(self, events: list[dict[str, Any]]) -> None:
        """Let it pass."""


class Lines:
    """Prints a line for all there is to tell, as a log file wants it."""

    def __init__(self) -> None:
        self._notes: dict[int, str] = {}

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def show(self, events: list[dict[str, Any]]) -> None:
        """Print what is new."""
        for event in events:
            if line := self._line(event):
                console.print(line, markup=False)

    def _line(self, event: Mapping[str, Any]) -> str | None:
        match event["kind"]:
            case "message":
                return f"warning: {event['text']}" if event["warning"] else str(event["text"])
            case "scores":
                numbers = event["numbers"]
                return f"{event['split']}, step {event['step']}: F1 {numbers['f1']:.4f}"
            case "bar" if event["bar"] is not None:
                return self._bar_line(event["number"], event["bar"])
        return None

    def _bar_line(self, number: int, bar: Mapping[str, Any]) -> str | None:
        if bar["note"] == self._notes.get(number, ""):
            return None
        self._notes[number] = bar["note"]
        return f"{bar['description']}: {bar['completed']}/{bar['total']}  {bar['note']}"


class Terminal:
    """Keeps a picture of the course up to date at the end of a terminal."""

    def __init__(self) -> None:
        self._course = Course()
        self._live = Live(console=console, auto_refresh=False)

    def __enter__(self) -> Terminal:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def show(self, events: list[dict[str, Any]]) -> None:
        """Draw it anew, for time goes on where nothing else does."""
        for event in events:
            self._course.note(event)
        self._live.update(self._course.picture(), refresh=True)


class Notebook:
    """Keeps a picture of the course up to date in the output of a cell."""

    def __init__(self) -> None:
        self._course = Course()
        self._handle: Any = None

    def __enter__(self) -> Notebook:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def show(self, events: list[dict[str, Any]]) -> None:
        """Draw it anew where there is something new; all of it is sent to the browser."""
        import IPython.display  # noqa: PLC0415

        if not events:
            return
        for event in events:
            self._course.note(event)
        page = self._page()
        if self._handle is None:
            self._handle = IPython.display.display(page, raw=True, display_id=True)
        else:
            self._handle.update(page, raw=True)

    def _page(self) -> dict[str, str]:
        # By itself rich shows what changes with ipywidgets alone, which few environments have.
        paper = Console(
            file=io.StringIO(),
            record=True,
            width=_PAGE_WIDTH,
            force_jupyter=False,
            color_system="truecolor",
        )
        paper.print(self._course.picture())
        html = paper.export_html(inline_styles=True, code_format=_PAGE, clear=False)
        return {"text/html": html, "text/plain": paper.export_text()}


def display(*, progress: bool) -> Display:
    """The display that suits where this process shows what it has to tell."""
    if not progress:
        return Nowhere()
    if console.is_jupyter:
        return Notebook()
    return Terminal() if console.is_terminal else Lines()
