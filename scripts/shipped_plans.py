"""The plan of every shipped run file, as docs/plans.md has it.

Each run file in run_configs/ says in a comment how it is planned (``#   bigner plan ...``); this
runs the command and writes what it prints.

    python scripts/shipped_plans.py [--check]
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

from typer.testing import CliRunner

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "plans.md"
WIDTH = 100
INTRODUCTION = """# Plans of the shipped run files

What `bigner plan` says of each, before anything is rented; [planning.md](planning.md) tells how to
read it. Written by `python scripts/shipped_plans.py`, and held up to date by a test.
"""


def main() -> None:
    """Write the page, or say that it is not as it would be written."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; 1 if it is outdated")
    options = parser.parse_args()
    os.chdir(ROOT)
    page = "\n".join([INTRODUCTION, *sections()])
    if not options.check:
        PAGE.write_text(page, encoding="utf-8")
    elif PAGE.read_text(encoding="utf-8") != page:
        sys.exit("docs/plans.md is outdated: python scripts/shipped_plans.py writes it")


def sections() -> Iterator[str]:
    """The page's part for each run file."""
    for path in sorted((ROOT / "run_configs").glob("*.yaml")):
        title, command = _told_in(path)
        yield f"## {title}\n\n```console\n$ {command}\n{_output_of(command)}```\n"


def _told_in(path: Path) -> tuple[str, str]:
    """What a run file's first line says it is, and the command that plans it."""
    text = path.read_text(encoding="utf-8")
    command = re.search(r"^#   (bigner plan .*)$", text, re.MULTILINE)
    if command is None:
        sys.exit(f"{path} has no comment that says how it is planned")
    title = text.splitlines()[0].removeprefix("# ").rstrip(".")
    return title, command[1]


def _output_of(command: str) -> str:
    from bigner.cli import app  # noqa: PLC0415

    # What rich makes of a terminal's width and colours is none of the plan.
    variables = {"COLUMNS": str(WIDTH), "TERM": "dumb", "NO_COLOR": "1"}
    done = CliRunner().invoke(app, shlex.split(command)[1:], env=variables)
    if done.exit_code:
        sys.exit(f"{command}: {done.output}{done.exception or ''}")
    return "\n".join(line.rstrip() for line in done.stdout.splitlines()) + "\n"


if __name__ == "__main__":
    main()
