"""Text of any kind as Markdown that says just this text."""

from __future__ import annotations

import re
from collections.abc import Sequence

from bigner.errors import printable

# All that may begin something within a line: emphasis, links, code, HTML, formulas, the next cell.
_SPECIAL = re.compile(r"[\\`*_\[\]<>#|~$&:@]")
_BACKTICKS = re.compile(r"`+")
_NO_NUMBER = "-"


def text(value: object) -> str:
    """A value as one line, in which nothing is markup."""
    one_line = printable(" ".join(str(value).split()))
    return _SPECIAL.sub(r"\\\g<0>", one_line)


def number(value: float | None) -> float | str:
    """What a table shows of a number; a dash for what is none."""
    return _NO_NUMBER if value is None else value


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table, numbers to the right."""
    columns = range(len(header))
    right = [bool(rows) and all(_is_number(row[column]) for row in rows) for column in columns]
    return "\n".join(
        [
            _line([text(name) for name in header]),
            _line(["---:" if numbers else "---" for numbers in right]),
            *(_line([_cell(value) for value in row]) for row in rows),
        ]
    )


def fenced(code: str, language: str) -> str:
    """A block of code, which nothing in the code ends."""
    longest = max((len(run) for run in _BACKTICKS.findall(code)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{code.rstrip()}\n{fence}"


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4f}"
    return f"{value:,}" if isinstance(value, int) else text(value)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) or value == _NO_NUMBER


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
