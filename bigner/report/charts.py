"""Charts as SVG to be put into a page, whose colours and fonts they take.

matplotlib is imported when something is drawn: it takes longer than to find that there is nothing.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bigner.report.confidence import Calibration
from bigner.report.course import Course, Curve

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Colours that nothing else has, each in place of a variable of page.css.
_INK, _GRID, _RUNS = "#010101", "#020202", ("#0a0a01", "#0a0a02")
_VARIABLES = {_INK: "--muted", _GRID: "--line", _RUNS[0]: "--run-a", _RUNS[1]: "--run-b"}
# What is no name of matplotlib's, it refuses itself.
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.size": 9.0,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "axes.edgecolor": _GRID,
    "axes.labelcolor": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "axes.formatter.useoffset": False,
    "axes.formatter.limits": (-3, 5),
    "grid.color": _GRID,
    "grid.linewidth": 0.6,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "ytick.minor.size": 0,
    "lines.linewidth": 1.4,
}
_INCHES = (4.8, 2.3)
# What would be another each time, or tells of a file's maker.
_METADATA = ("Date", "Creator", "Format", "Type")
_STAIR = "stair"

_Curves = Sequence[tuple[Curve, str]]
"""Each with how it is drawn: a stair on a scale of powers of two, or by matplotlib's formats."""


@dataclass(frozen=True, slots=True)
class Chart:
    """A drawing and what it shows."""

    title: str
    note: str
    svg: str


def charts(courses: Sequence[Course | None]) -> list[Chart]:
    """What there is to draw of runs, each in its own colour; None for one that left no log."""

    def chart(title: str, note: str, curves: Callable[[Course], _Curves]) -> Chart | None:
        runs = [curves(course) if course else [] for course in courses]
        return _chart(title, note, runs, _as_course)

    found = [
        chart(
            "Loss",
            "training; dashed: validation",
            lambda c: [(c.loss.thinned(), "-"), (c.validation_loss, "--o")],
        ),
        chart("Validation F1", "at each evaluation", lambda c: [(c.validation_f1, "-o")]),
        chart(
            "Learning rate",
            "before any decay by layer",
            lambda c: [(c.learning_rate.thinned(), "-")],
        ),
        chart(
            "Loss scale",
            "crosses: logged steps that were skipped",
            lambda c: [(c.loss_scale.turns(), _STAIR), (_skipped(c), "x")] if c.is_scaled else [],
        ),
    ]
    return [drawn for drawn in found if drawn is not None]


def reliability_chart(calibrations: Sequence[Calibration | None]) -> Chart | None:
    """How often runs were right by how sure they were, each in its own colour."""

    def curve(found: Calibration) -> Curve:
        return Curve(
            [each.confidence for each in found.bins], [each.correct for each in found.bins]
        )

    return _chart(
        "Correct by confidence",
        "share of predicted entities, in bins of 0.1; dotted: right as often as sure",
        [[(curve(found), "-o")] if found else [] for found in calibrations],
        _as_reliability,
    )


def _as_reliability(axes: Axes) -> None:
    axes.set_xlabel("mean confidence")
    axes.set_xlim(0, 1.02)
    axes.set_ylim(0, 1.05)
    axes.plot([0, 1], [0, 1], ":", color=_INK, linewidth=1.0)


def _as_course(axes: Axes) -> None:
    axes.set_xlabel("step")


def _skipped(course: Course) -> Curve:
    """The scale at the steps that were skipped."""
    skipped = set(course.skipped)
    points = zip(course.loss_scale.steps, course.loss_scale.values, strict=True)
    kept = [(step, value) for step, value in points if step in skipped]
    return Curve([step for step, _ in kept], [value for _, value in kept])


def _chart(
    title: str,
    note: str,
    runs: Sequence[_Curves],
    prepare: Callable[[Axes], None],
) -> Chart | None:
    """Draw the curves of each run; None where none has a number."""
    if not any(curve for curves in runs for curve, _ in curves):
        return None
    import matplotlib as mpl  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    with mpl.rc_context():
        # Whatever a user's own matplotlibrc says.
        mpl.rcdefaults()
        mpl.rcParams.update({**_STYLE, "svg.hashsalt": title})
        figure = Figure(figsize=_INCHES, layout="constrained")
        axes = figure.add_subplot()
        prepare(axes)
        for color, curves in zip(_RUNS, runs, strict=False):
            for curve, how in curves:
                _draw(axes, curve, how, color)
        stream = io.StringIO()
        figure.savefig(stream, format="svg", metadata=dict.fromkeys(_METADATA))
    return Chart(title, note, _inline(stream.getvalue(), title))


def _draw(axes: Axes, curve: Curve, how: str, color: str) -> None:
    if how == _STAIR:
        axes.set_yscale("log", base=2)
        axes.plot(curve.steps, curve.values, color=color, drawstyle="steps-post")
    elif curve:
        # Of a point alone a line shows nothing.
        how = how if len(curve.steps) > 1 else "o"
        axes.plot(curve.steps, curve.values, how, color=color, markersize=5 if how == "x" else 3.5)


def _inline(svg: str, title: str) -> str:
    """An SVG file as a part of a page that holds others."""
    svg = svg[svg.index("<svg ") :]
    svg = re.sub(r"<(metadata|style)\b.*?</\1>", "", svg, flags=re.DOTALL)
    # Each file counts its parts from 1.
    name = title.lower().replace(" ", "-")
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", svg)
    for color, variable in _VARIABLES.items():
        svg = svg.replace(color, f"var({variable})")
    # What was measured with one font is shown in the page's.
    svg = re.sub(r"font: ([\d.]+px)[^;\"]*", r"font-size: \1", svg)
    return svg.replace("<svg ", f'<svg role="img" aria-label="{title}" ', 1)
