"""Finished runs compared: what they scored, and whether the differences are more than chance."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bigner.comparison.groups import group
from bigner.comparison.runs import FinishedRun, find_runs, suspicions
from bigner.comparison.scores import Comparison, compare_groups
from bigner.comparison.tables import FILE_KINDS, as_file
from bigner.errors import UserError
from bigner.run_dir import write_text

RESAMPLES = 10_000


def compare(
    folders: Sequence[Path],
    *,
    split: str | None = None,
    head: str | None = None,
    baseline: Path | None = None,
    resamples: int = RESAMPLES,
) -> Comparison:
    """Compare the finished runs in some folders.

    Args:
        folders: folders of runs, or that hold such; see ``find_runs``.
        split: ``test`` or ``validation``; test where a run has it, if None.
        head: the tag head, where the runs have several.
        baseline: the folder of the runs that the others are compared with; by default the group of
            the first run.
        resamples: of the bootstrap.

    Raises:
        UserError: there is nothing to compare, or what there is cannot be read.
    """
    first = _baseline_runs(baseline) if baseline is not None else []
    found, unfinished = find_runs([*([baseline] if baseline is not None else []), *folders])
    warnings = [f"{path} is not finished: left out" for path in unfinished]
    if not found:
        raise UserError(f"no run is finished: {', '.join(map(str, unfinished))}")
    split = split or ("test" if any(run.has("test") for run in found) else "validation")
    runs = [run for run in found if run.has(split)]
    warnings += [f"{run} has no scores on {split}: left out" for run in found if run not in runs]
    if not runs or (first and not any(run.has(split) for run in first)):
        whose = "no run" if not runs else f"--baseline {baseline}"
        raise UserError(f"{whose} has scores on {split}; try --split, or give data.{split}")
    groups = group(runs)
    warnings += suspicions(runs)
    warnings += [warning for members in groups for warning in members.repeated_seeds()]
    comparison = compare_groups(groups, split=split, head=head, resamples=resamples)
    comparison.warnings[:0] = warnings
    return comparison


def _baseline_runs(folder: Path) -> list[FinishedRun]:
    runs, _ = find_runs([folder])
    if not runs:
        raise UserError(f"--baseline {folder}: no run in it is finished")
    if len(groups := group(runs)) > 1:
        names = " and ".join(members.name.replace("\n", ", ") for members in groups)
        raise UserError(
            f"--baseline {folder} holds runs of {len(groups)} configs ({names}); name the folder "
            f"of one of them"
        )
    return runs


def require_kind(output: Path | None) -> None:
    """Refuse a file whose name does not say how to write it.

    Raises:
        UserError: it is none of those known.
    """
    if output is not None and output.suffix not in FILE_KINDS:
        raise UserError(f"--output must end in {', '.join(FILE_KINDS)}; got {str(output)!r}")


def write(comparison: Comparison, output: Path) -> None:
    """Write a comparison into a file.

    Raises:
        UserError: it cannot be written.
    """
    try:
        write_text(output, as_file(comparison, output))
    except OSError as error:
        raise UserError(f"--output {output} cannot be written: {error.strerror}") from None
