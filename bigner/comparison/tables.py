"""A comparison for people (a terminal, Markdown) and for programs (JSON, CSV)."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text

from bigner.comparison.scores import Comparison, GroupScores
from bigner.log import table_box

_NONE = "-"
_WIDEST = 10_000


@dataclass(frozen=True, slots=True)
class _Grid:
    """A table of texts; the first column is a name, the others are numbers."""

    title: str
    columns: list[str]
    rows: list[list[str]]


def show(comparison: Comparison) -> None:
    """Print a comparison on standard output."""
    for grid in _grids(comparison):
        title = Text(grid.title)
        table = Table(title=title, title_justify="left", show_lines=True, box=table_box())
        for i, name in enumerate(grid.columns):
            # Numbers stay whole, names are folded.
            justify: Literal["left", "right"] = "right" if i else "left"
            table.add_column(Text(name), justify=justify, overflow="fold", no_wrap=i > 0)
        for row in grid.rows:
            table.add_row(*map(Text, row))
        # A file has no width to keep to.
        whole = Console(width=_WIDEST).measure(table).maximum
        terminal = Console().is_terminal
        Console(highlight=False, width=None if terminal else whole).print(table)


def _grids(comparison: Comparison) -> list[_Grid]:
    groups = comparison.groups
    where = comparison.split + (f", head {comparison.head}" if comparison.head else "")
    grids = [_Grid(where, ["runs of", *_SCORES], [_scores(scored) for scored in groups])]
    types = _types(comparison)
    if types:
        rows = [
            [scored.group.name, *(_score(scored.f1_of_type.get(name)) for name in types)]
            for scored in groups
        ]
        grids.append(_Grid(f"{where}: F1 of each type", ["runs of", *types], rows))
    grids.append(_Grid("cost", ["runs of", *_COSTS], [_costs(scored) for scored in groups]))
    if len(groups) > 1:
        title = f"{where}: F1 less that of the first, by {comparison.resamples:,} resamples"
        rows = [_difference(scored) for scored in groups[1:]]
        grids.append(_Grid(title, ["runs of", "difference", "95 % interval", "p"], rows))
    return grids


_SCORES = ["runs", "F1", "precision", "recall", "accuracy"]
_COSTS = ["tokens/s", "peak memory", "steps"]


def _scores(scored: GroupScores) -> list[str]:
    spread = scored.f1_deviation
    return [
        scored.group.name,
        str(len(scored.runs)),
        _score(_f1(scored)) + ("" if spread is None else f" ± {spread:.4f}"),
        *(_score(scored.mean(mean)) for mean in _MEANS.values()),
    ]


def _costs(scored: GroupScores) -> list[str]:
    speed, steps = _mean(scored, "tokens_per_second"), _mean(scored, "steps")
    peak = max(scored.numbers("peak_memory_bytes"), default=None)
    return [
        scored.group.name,
        _NONE if speed is None else f"{speed:,.0f}",
        _NONE if peak is None else f"{peak / 1e9:.2f} GB",
        _NONE if steps is None else f"{steps:,.10g}",
    ]


_MEANS: dict[str, Callable[[Any], float]] = {
    "precision": lambda run: run.precision,
    "recall": lambda run: run.recall,
    "accuracy": lambda run: run.accuracy,
}


def _difference(scored: GroupScores) -> list[str]:
    found = scored.difference
    if found is None:
        return [scored.group.name, _NONE, _NONE, _NONE]
    interval = f"{found.low:+.4f} to {found.high:+.4f}"
    return [scored.group.name, f"{found.f1:+.4f}", interval, f"{found.p_value:.4f}"]


def _score(value: float | None) -> str:
    return _NONE if value is None else f"{value:.4f}"


def _f1(scored: GroupScores) -> float:
    return scored.mean(lambda run: run.f1)


def _mean(scored: GroupScores, name: str) -> float | None:
    numbers = scored.numbers(name)
    return sum(numbers) / len(numbers) if numbers else None


def _types(comparison: Comparison) -> list[str]:
    return sorted({name for scored in comparison.groups for name in scored.f1_of_type})


def _one_line(scored: GroupScores) -> str:
    return scored.group.name.replace("\n", ", ")


# ---------------------------------------------------------------- for programs and documents


def as_json(comparison: Comparison) -> dict[str, Any]:
    """All numbers as plain values."""
    return {
        "split": comparison.split,
        "head": comparison.head,
        "resamples": comparison.resamples,
        "warnings": comparison.warnings,
        "groups": [
            {
                "name": _one_line(scored),
                "fields": scored.group.fields,
                "runs": [
                    {"run_dir": str(run.run), "seed": run.run.seed, "f1": run.f1}
                    for run in scored.runs
                ],
                **_numbers(scored),
                "f1_of_type": scored.f1_of_type,
                "difference": scored.difference and asdict(scored.difference),
            }
            for scored in comparison.groups
        ],
    }


def _numbers(scored: GroupScores) -> dict[str, float | None]:
    return {
        "f1": _f1(scored),
        "f1_deviation": scored.f1_deviation,
        **{name: scored.mean(mean) for name, mean in _MEANS.items()},
        "tokens_per_second": _mean(scored, "tokens_per_second"),
        "peak_memory_bytes": max(scored.numbers("peak_memory_bytes"), default=None),
        "steps": _mean(scored, "steps"),
    }


def _as_csv(comparison: Comparison) -> str:
    stream = io.StringIO()
    types = _types(comparison)
    differences = ("f1", "low", "high", "p_value")
    rows = []
    for scored in comparison.groups:
        found: dict[str, Any] = asdict(scored.difference) if scored.difference else {}
        rows.append(
            {
                "name": _one_line(scored),
                "runs": len(scored.runs),
                **_numbers(scored),
                **{f"difference_{name}": found.get(name) for name in differences},
                **{f"f1 {name}": scored.f1_of_type.get(name) for name in types},
            }
        )
    writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def _as_markdown(comparison: Comparison) -> str:
    parts = []
    for grid in _grids(comparison):
        bars = ["---", *["---:"] * (len(grid.columns) - 1)]
        lines = [_row(grid.columns), _row(bars), *map(_row, grid.rows)]
        parts.append(f"{grid.title}\n\n" + "\n".join(lines) + "\n")
    parts += [f"Warning: {warning}\n" for warning in comparison.warnings]
    return "\n".join(parts)


def _row(cells: list[str]) -> str:
    escaped = (cell.replace("|", "\\|").replace("\n", ", ") for cell in cells)
    return f"| {' | '.join(escaped)} |"


def _as_json_text(comparison: Comparison) -> str:
    return json.dumps(as_json(comparison), indent=2, ensure_ascii=False) + "\n"


_WRITERS: dict[str, Callable[[Comparison], str]] = {
    ".md": _as_markdown,
    ".json": _as_json_text,
    ".csv": _as_csv,
}
FILE_KINDS = tuple(_WRITERS)
"""Suffixes of the files that a comparison can be written to."""


def as_file(comparison: Comparison, path: Path) -> str:
    """What a file of this name holds, by its suffix."""
    return _WRITERS[path.suffix](comparison)
