"""The runs of a report: found, and with predictions for the same words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bigner.comparison.runs import FinishedRun, find_runs
from bigner.config.checks import is_file
from bigner.errors import UserError
from bigner.evaluation.counts import TaggedWords
from bigner.predictions import TaggedLines, read_predictions
from bigner.report.confidence import LineConfidences

_SPLITS = ("test", "validation")
# Two ways to divide the same whole numbers.
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class ReportedRun:
    """A finished run and what it says of a split."""

    run: FinishedRun
    split: str
    head: str | None
    """The head that is reported; None where the run has but one."""
    lines: TaggedLines
    words: TaggedWords
    confidences: LineConfidences | None
    """Of the lines; None where an earlier version of bigner wrote them."""

    def score(self, name: str) -> float | None:
        """A number of the summary's scores of the split.

        Raises:
            UserError: it is no number.
        """
        return self.run.number(name, self.split, self.head)

    def strict_f1(self) -> float | None:
        """F1 by seqeval's strict mode, as the summary has it."""
        strict = self.run.scores(self.split, self.head).get("strict")
        value = strict.get("f1") if isinstance(strict, dict) else None
        return float(value) if isinstance(value, int | float) else None

    def warning(self, f1: float) -> str | None:
        """What to say where the predictions are not those that the summary scored.

        Args:
            f1: of the predictions.
        """
        noted = self.score("f1")
        if noted is None or abs(noted - f1) <= _ROUNDING:
            return None
        return (
            f"{self.run}: the predictions give F1 {f1:.6f} and the summary says {noted:.6f}; the "
            f"predictions count"
        )


def read_runs(
    folders: Sequence[Path], *, split: str | None = None, head: str | None = None
) -> list[ReportedRun]:
    """Read runs that were asked the same.

    Args:
        folders: of a run each.
        split: ``test`` or ``validation``; test where the first run has it, if None.
        head: the tag head, where the runs have several.

    Raises:
        UserError: a folder holds no finished run, or one without predictions of the split and head,
            or for other words than the first.
    """
    runs = [_the_run(folder) for folder in folders]
    split = split or next((name for name in _SPLITS if runs[0].has(name)), "test")
    reported = [_reported(run, split, head) for run in runs]
    for other in reported[1:]:
        if difference := other.lines.difference(reported[0].lines):
            raise UserError(f"the runs were not asked the same: {difference}")
    return reported


def _the_run(folder: Path) -> FinishedRun:
    """The one run of a folder."""
    finished, unfinished = find_runs([folder])
    # One whose seeds lie in it is meant itself.
    itself = [run for run in finished if run.run_dir.path == folder] or finished
    if not itself:
        raise UserError(
            f"{', '.join(map(str, unfinished))} is not finished: it has no summary.json yet; "
            f"the command that started it goes on with it"
        )
    if len(itself) > 1:
        raise UserError(
            f"{folder} holds {len(itself)} runs, and a report is of one: name {itself[0]}, or "
            f"another of them"
        )
    return itself[0]


def _reported(run: FinishedRun, split: str, head: str | None) -> ReportedRun:
    if not run.has(split):
        raise UserError(f"{run} has no scores on {split}; try --split, or give data.{split}")
    chosen = _head_of(run, head)
    own = chosen if len(run.heads) > 1 else None
    path = run.run_dir.predictions(split, own)
    if not is_file(path):
        raise UserError(
            f"{run} left no predictions of {split}: there is no {path}; earlier versions of bigner "
            f"wrote none, and their runs must be trained anew"
        )
    lines = read_predictions(path)
    words = TaggedWords.of(lines.gold, lines.predicted)
    known = None if lines.confidences is None else LineConfidences(lines.confidences)
    return ReportedRun(run, split, own, lines, words, known)


def _head_of(run: FinishedRun, wanted: str | None) -> str:
    """The head of tags that is reported."""
    heads = run.heads
    if wanted is not None and wanted not in heads:
        raise UserError(f"{run} has no head {wanted!r}; it has {', '.join(heads)}")
    of_tags = [name for name, kind in heads.items() if kind == "tags"]
    if wanted is not None and wanted not in of_tags:
        raise UserError(f"head {wanted!r} of {run} is of classes; a report is of entities")
    if not of_tags:
        raise UserError(f"{run} has no head of tags; a report is of entities")
    if wanted is None and len(of_tags) > 1:
        raise UserError(f"{run} has several heads ({', '.join(of_tags)}); --head chooses one")
    return wanted or of_tags[0]


def differing_fields(runs: Sequence[ReportedRun]) -> list[tuple[str, list[Any]]]:
    """What the configs of the runs differ in, seed included: names, and the value of each run."""
    fields = [{"seed": run.run.seed, **run.run.fields} for run in runs]
    names = dict.fromkeys(name for of_run in fields for name in of_run)
    values = ((name, [of_run.get(name) for of_run in fields]) for name in names)
    return [(name, of_runs) for name, of_runs in values if of_runs[0] != of_runs[-1]]
