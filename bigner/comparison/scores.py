"""Groups of runs compared: means, spread, and whether a difference is more than chance.

Scores come from the predictions a run left behind, which all runs must have been asked for on the
same words with the same gold tags; of a run without them, from its summary.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from bigner.comparison.groups import Group
from bigner.comparison.runs import FinishedRun
from bigner.errors import UserError
from bigner.evaluation.bootstrap import Difference, paired_difference, resampled_f1
from bigner.evaluation.counts import Counts, count
from bigner.predictions import TaggedLines, read_predictions

# Two ways to divide the same whole numbers.
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class RunScores:
    """What one run scored on one split."""

    run: FinishedRun
    f1: float
    precision: float
    recall: float
    accuracy: float
    f1_of_type: dict[str, float]
    counts: Counts | None
    """Absent where the run left no predictions."""
    another_test_set: str
    """Where its predictions are for other words or gold tags than the first run's, if they are."""


@dataclass(frozen=True, slots=True)
class GroupScores:
    """What the runs of a group scored."""

    group: Group
    runs: tuple[RunScores, ...]
    difference: Difference | None = None
    """To the baseline, if both are on the same test set and left predictions."""

    def mean(self, score: Callable[[RunScores], float]) -> float:
        """Mean over the runs."""
        return statistics.fmean(score(run) for run in self.runs)

    @property
    def f1_deviation(self) -> float | None:
        """Sample standard deviation of F1; one run has none."""
        return statistics.stdev(run.f1 for run in self.runs) if len(self.runs) > 1 else None

    @property
    def f1_of_type(self) -> dict[str, float]:
        """Mean over the runs that have the type, in gold or prediction."""
        types = sorted({name for run in self.runs for name in run.f1_of_type})
        return {
            name: statistics.fmean(
                run.f1_of_type[name] for run in self.runs if name in run.f1_of_type
            )
            for name in types
        }

    def numbers(self, name: str) -> list[float]:
        """A number of each run's summary that has it."""
        found = [run.run.number(name) for run in self.runs]
        return [number for number in found if number is not None]


@dataclass(slots=True)
class Comparison:
    """Groups of runs on one split, the baseline first."""

    split: str
    head: str | None
    resamples: int
    groups: list[GroupScores]
    warnings: list[str] = field(default_factory=list)


def compare_groups(
    groups: Sequence[Group], *, split: str, head: str | None, resamples: int
) -> Comparison:
    """Compare groups with the first of them.

    Raises:
        UserError: predictions cannot be read.
    """
    comparison = Comparison(split, head, resamples, [])
    reader = _Reader(split, head, comparison.warnings)
    scored = [
        GroupScores(members, tuple(reader.scores(run) for run in members.runs))
        for members in groups
    ]
    comparison.groups = _with_differences(scored, resamples, comparison.warnings)
    return comparison


class _Reader:
    """Reads the scores of one run after the other, and compares what they were asked."""

    def __init__(self, split: str, head: str | None, warnings: list[str]) -> None:
        self._split = split
        self._head = head
        self._warnings = warnings
        self._first: TaggedLines | None = None

    def scores(self, run: FinishedRun) -> RunScores:
        """The scores of a run.

        Raises:
            UserError: it has no such head, or its predictions cannot be read.
        """
        head = self._head_of(run)
        path = run.run_dir.predictions(self._split, head if len(run.heads) > 1 else None)
        if head is None or run.heads[head] == "classes" or not path.is_file():
            return self._from_summary(run, head)
        lines = read_predictions(path)
        counts = count(lines.gold, lines.predicted)
        self._first = self._first or lines
        self._check_summary(run, head, counts)
        return RunScores(
            run,
            counts.f1,
            counts.precision,
            counts.recall,
            counts.accuracy,
            counts.f1_of_type,
            counts,
            lines.difference(self._first),
        )

    def _head_of(self, run: FinishedRun) -> str | None:
        """The head that is compared; None for several of which none was named."""
        heads = list(run.heads)
        if self._head is not None and self._head not in heads:
            raise UserError(f"{run} has no head {self._head!r}; it has {', '.join(heads)}")
        if self._head is None and len(heads) > 1:
            self._warnings.append(
                f"{run} has several heads ({', '.join(heads)}): scores are those of the head that "
                f"chose its weights; --head compares one of them"
            )
            return None
        return self._head or heads[0]

    def _check_summary(self, run: FinishedRun, head: str, counts: Counts) -> None:
        noted = run.number("f1", self._split, head) if run.has(self._split) else None
        if noted is not None and abs(noted - counts.f1) > _ROUNDING:
            self._warnings.append(
                f"{run}: the predictions give F1 {counts.f1:.6f} and the summary says "
                f"{noted:.6f}; the predictions count"
            )

    def _from_summary(self, run: FinishedRun, head: str | None) -> RunScores:
        found = {name: run.number(name, self._split, head) for name in _SCORES}
        if missing := [name for name, value in found.items() if value is None]:
            raise UserError(f"{run.run_dir.summary} has no {self._split}.{missing[0]}")
        return RunScores(
            run,
            **{name: float(value or 0.0) for name, value in found.items()},
            f1_of_type=run.f1_of_type(self._split, head),
            counts=None,
            another_test_set="",
        )


_SCORES = ("f1", "precision", "recall", "accuracy")


def _with_differences(
    groups: list[GroupScores], resamples: int, warnings: list[str]
) -> list[GroupScores]:
    """The groups with their differences to the first, where these can be told."""
    problems = [_problem(scored, alone=len(groups) == 1) for scored in groups]
    for scored, problem in zip(groups, problems, strict=True):
        if problem:
            name = scored.group.name.replace("\n", ", ")
            warnings.append(f"{name}: no significance, {problem}")
    baseline, sound = groups[0], [not problem for problem in problems]
    if not sound[0] or sum(sound) == 1:
        return groups
    runs = [run for scored, well in zip(groups, sound, strict=True) if well for run in scored.runs]
    resampled = resampled_f1([run.counts for run in runs if run.counts], resamples)
    size = len(baseline.runs)
    compared, first = [baseline], size
    for scored, well in zip(groups[1:], sound[1:], strict=True):
        if not well:
            compared.append(scored)
            continue
        difference = paired_difference(
            scored.mean(lambda run: run.f1),
            baseline.mean(lambda run: run.f1),
            resampled[:, first : first + len(scored.runs)],
            resampled[:, :size],
        )
        first += len(scored.runs)
        compared.append(replace(scored, difference=difference))
    return compared


def _problem(scored: GroupScores, *, alone: bool) -> str:
    """Why a group cannot be compared with others sentence by sentence, if it cannot."""
    for run in scored.runs:
        if run.counts is None and not alone:
            return f"{run.run} left no predictions of one head of tags"
        if run.another_test_set:
            return f"not the same test set: {run.another_test_set}"
    return ""
