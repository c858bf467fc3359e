"""A finished run as an HTML page, alone or beside another."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bigner.comparison.runs import suspicions
from bigner.errors import UserError
from bigner.report.reading import read_runs
from bigner.run_dir import write_text


def report(
    folders: Sequence[Path],
    output: Path,
    *,
    split: str | None = None,
    head: str | None = None,
) -> list[str]:
    """Write the report of a run, or of two beside one another.

    Args:
        folders: one run's, or two.
        output: the file; an earlier one is replaced.
        split: ``test`` or ``validation``; test where the first run has it, if None.
        head: the tag head, where the runs have several.

    Returns:
        What there is to be warned of.

    Raises:
        UserError: there is no such run, or what is in it cannot be read, or the file not written.
    """
    runs = read_runs(folders, split=split, head=head)
    # Templates and all: wrong input is told before they are loaded.
    from bigner.report.page import page  # noqa: PLC0415

    warnings = suspicions(run.run for run in runs)
    text = page(runs, warnings)
    try:
        write_text(output, text)
    except OSError as error:
        raise UserError(f"--output {output} cannot be written: {error.strerror}") from None
    return warnings


def require_html(output: Path) -> None:
    """Refuse a file whose name is not one of a page; it may be something else that would be lost.

    Raises:
        UserError: it is not.
    """
    if output.suffix not in (".html", ".htm"):
        raise UserError(f"--output must end in .html; got {str(output)!r}")
