"""What a run tells: messages and bars on rank 0's terminal, metrics.jsonl.

People read standard error; results that are asked for (a table, JSON) go to standard output.
Without a terminal there are plain lines and no bars, without a line break or a colour code that a
log file would have to put up with.
"""

from __future__ import annotations

import json
import math
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from rich.box import HEAVY_HEAD, SIMPLE_HEAD, Box
from rich.console import Console
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

from bigner.errors import RunError
from bigner.relay import RelayedBars, relay

Item = TypeVar("Item")

console = Console(stderr=True, soft_wrap=True, highlight=False)

_quiet = False


def set_quiet(quiet: bool) -> None:
    """Tell warnings alone from now on, or everything again."""
    global _quiet  # noqa: PLW0603
    _quiet = quiet


def is_quiet() -> bool:
    """Whether only warnings, errors and results are wanted."""
    return _quiet


def table_box() -> Box:
    """The lines of a table on standard output: a frame on a terminal, none in a file."""
    return HEAVY_HEAD if sys.stdout.isatty() else SIMPLE_HEAD


class _Bars:
    """All bars of a process, one display: rich cannot show two at once."""

    def __init__(self) -> None:
        self._progress: Progress | None = None
        self._open = 0

    @property
    def shown(self) -> bool:
        """Whether this is the rank with a terminal to show them on, and they are wanted."""
        return console.is_terminal and not _quiet and os.environ.get("RANK", "0") == "0"

    def add(self, description: str, total: int, completed: int = 0) -> int:
        """Show one more bar."""
        if self._progress is None:
            self._progress = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TimeRemainingColumn(compact=True),
                TextColumn("{task.fields[note]}"),
                console=console,
                transient=True,
            )
            self._progress.start()
        self._open += 1
        return self._progress.add_task(description, total=total, completed=completed, note="")

    def advance(self, bar: int, note: str | None = None) -> None:
        """Move a bar on by one, with another note if there is one."""
        assert self._progress is not None
        self._progress.advance(TaskID(bar))
        if note is not None:
            self._progress.update(TaskID(bar), note=note)

    def remove(self, bar: int) -> None:
        """Take a bar away; the display ends with the last one."""
        assert self._progress is not None
        self._progress.remove_task(TaskID(bar))
        self._open -= 1
        if not self._open:
            self._progress.stop()
            self._progress = None


_bars = _Bars() if relay is None else RelayedBars(relay)


def progress(items: Sequence[Item], description: str, enabled: bool = True) -> Iterator[Item]:
    """Go over items behind a bar, where there is somebody to see it."""
    if not (enabled and _bars.shown):
        yield from items
        return
    bar = _bars.add(description, len(items))
    try:
        for item in items:
            yield item
            _bars.advance(bar)
    finally:
        _bars.remove(bar)


def inform(message: str) -> None:
    """A line for the user about the course of things."""
    if not _quiet:
        _print(message)
    if relay is not None:
        relay.message(message)


def warn(message: str) -> None:
    """A line for the user to think about."""
    _print(f"warning: {message}", style="yellow")
    if relay is not None:
        relay.message(message, warning=True)


def _print(line: str, style: str | None = None) -> None:
    # A run goes on where nobody can be told any more: a full disk, a terminal that is gone.
    with suppress(OSError):
        console.print(line, markup=False, style=style)


def plain(values: Any) -> Any:
    """Values as they are when JSON was made of them and read again, with null for each number that
    is not finite, which it has no word for.
    """
    if isinstance(values, Mapping):
        return {key: plain(value) for key, value in values.items()}
    if isinstance(values, list | tuple):
        return [plain(value) for value in values]
    return None if isinstance(values, float) and not math.isfinite(values) else values


class MetricsLog:
    """The course of one training run, written by rank 0.

    Args:
        run_dir: where ``metrics.jsonl`` is kept.
        enabled: whether this is the rank that writes.
        first_step: steps done before; later lines of an earlier attempt are dropped.
        total_steps: steps of the whole run.
        also: called with each line as it is written.

    Raises:
        RunError: in every method, if ``metrics.jsonl`` cannot be written.
    """

    def __init__(
        self,
        run_dir: Path,
        *,
        enabled: bool,
        first_step: int,
        total_steps: int,
        also: Callable[[Mapping[str, Any]], None] | None = None,
    ) -> None:
        self._enabled = enabled
        self._total = total_steps
        self._started = time.perf_counter()
        self._first_step = first_step
        self._bar: int | None = None
        self._also = also
        if not enabled:
            return
        self._path = run_dir / "metrics.jsonl"
        with self._writing():
            _drop_lines(self._path, lambda line: line["step"] > first_step)
            self._file = self._path.open("a", encoding="utf-8")
        if _bars.shown:
            self._bar = _bars.add("training", total_steps, first_step)

    def step_done(self, step: int, metrics: Mapping[str, Any] | None) -> None:
        """Note that ``step`` steps are done; with metrics where the step is logged."""
        if not self._enabled:
            return
        note = None
        if metrics is not None:
            self._write({"step": step, **metrics})
            note = _one_line(metrics)
        if self._bar is not None:
            _bars.advance(self._bar, note)
        elif metrics is not None:
            left = (time.perf_counter() - self._started) / (step - self._first_step)
            left *= self._total - step
            inform(f"step {step}/{self._total}  {note}  {_duration(left)} left")

    def evaluated(self, step: int, split: str, scores: Mapping[str, Any]) -> None:
        """Note the scores of an evaluation."""
        if not self._enabled:
            return
        if step == self._first_step:
            self._forget(step, split)
        numbers = _numbers(scores)
        for head, of_head in scores.get("heads", {}).items():
            numbers |= {f"{head}/{name}": value for name, value in _numbers(of_head).items()}
        self._write({"step": step, "split": split, **numbers})
        if relay is not None:
            relay.scores(step, split, plain(numbers))

    def median(self, name: str) -> float | None:
        """The median of a number over all logged steps of the run, those of earlier legs included.

        None on ranks that do not write, and where there is none.
        """
        values = [line[name] for line in self.lines() if line.get(name) is not None]
        return statistics.median(values) if values else None

    def lines(self) -> list[dict[str, Any]]:
        """All that was logged so far, by earlier legs too; none on ranks that do not write."""
        if not self._enabled:
            return []
        with self._writing():
            return [json.loads(line) for line in self._path.read_text("utf-8").splitlines()]

    def _forget(self, step: int, split: str) -> None:
        """Drop an evaluation that an attempt noted which broke off before it saved."""
        with self._writing():
            self._file.close()
            _drop_lines(self._path, lambda line: (line["step"], line.get("split")) == (step, split))
            self._file = self._path.open("a", encoding="utf-8")

    def _write(self, record: Mapping[str, Any]) -> None:
        line = plain(record)
        with self._writing():
            self._file.write(json.dumps(line, allow_nan=False) + "\n")
            self._file.flush()
            if not os.fstat(self._file.fileno()).st_nlink:
                raise FileNotFoundError("it was deleted while the run was writing to it")
        if self._also is not None:
            self._also(line)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Turn what a disk refuses into an error for the user."""
        try:
            yield
        except OSError as error:
            raise RunError(f"{self._path} cannot be written: {error}") from None

    def __enter__(self) -> MetricsLog:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            _bars.remove(self._bar)
        if not self._enabled:
            return
        # Closing writes what could not be written before, and fails on it again.
        with suppress(OSError):
            self._file.close()


def _drop_lines(path: Path, unwanted: Callable[[dict[str, Any]], bool]) -> None:
    """Drop lines, which a resumed run will write again, and what a crash left of a line."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True):
        with suppress(ValueError, KeyError, TypeError):
            if line.endswith("\n") and not unwanted(json.loads(line)):
                kept.append(line)
    # Never half there: what was noted before cannot be computed again.
    working = path.with_name(f".{path.name}.tmp")
    working.write_text("".join(kept), encoding="utf-8")
    working.replace(path)


def _numbers(scores: Mapping[str, Any]) -> dict[str, int | float]:
    return {name: value for name, value in scores.items() if isinstance(value, int | float)}


def _one_line(metrics: Mapping[str, Any]) -> str:
    parts = [
        f"loss {_number(metrics['loss']):.4f}",
        f"lr {metrics['learning_rate']:.2e}",
        f"{metrics['tokens_per_second']:,.0f} tokens/s",
    ]
    if metrics["loss_scale"] != 1:
        parts.insert(2, f"scale {metrics['loss_scale']:g}")
    return "  ".join(parts)


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def show_scores(title: str, scores: Mapping[str, Any]) -> None:
    """Print scores on standard output: a line for each type, then the totals.

    Args:
        title: what was scored.
        scores: as ``Timed.as_json`` gives them; of several heads each is shown.
    """
    output = Console(highlight=False, soft_wrap=True)
    heads = scores.get("heads", {"": scores})
    for name, of_head in heads.items():
        output.print(_score_table(f"{title}, {name}" if name else title, of_head))
        output.print(
            f"accuracy {of_head['accuracy']:.4f}, loss {_number(of_head['loss']):.4f}",
            end="\n" if len(heads) > 1 else "; ",
        )
    output.print(
        f"{scores['words']:,} words in {scores['sentences']:,} sentences, "
        f"{scores['words_without_pieces']} without sub-words; "
        f"{scores['words_per_second']:,.0f} words/s"
    )


def _score_table(title: str, scores: Mapping[str, Any]) -> Table:
    table = Table(title=title, title_justify="left", box=table_box())
    table.add_column("type")
    for name in ("precision", "recall", "f1", "support"):
        table.add_column(name, justify="right")
    for name, values in scores["per_type"].items():
        # As Text: in a string, [/N] would be markup, and it is a class of some corpora.
        table.add_row(Text(name), *_row(values))
    table.add_section()
    total = {name: scores[name] for name in ("precision", "recall", "f1")}
    if strict := scores.get("strict"):
        table.add_row("all", *_row({**total, "support": strict["support"]}), style="bold")
        table.add_row("all, strict IOB2", *_row(strict))
    else:
        table.add_row("macro average", *_row({**total, "support": scores["words"]}), style="bold")
    return table


def _row(values: Mapping[str, Any]) -> list[str]:
    numbers = [f"{values[name]:.4f}" for name in ("precision", "recall", "f1")]
    return [*numbers, str(values["support"])]
