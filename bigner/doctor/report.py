"""All findings, for people and as JSON."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import dataclass
from typing import Any, get_args

from rich.console import Console
from rich.table import Table
from rich.text import Text

from bigner.doctor.findings import Finding, Level
from bigner.errors import LaunchError, one_line, printable

_STYLES: dict[Level, str] = {"ok": "green", "warning": "yellow", "missing": "bold red"}


@dataclass(frozen=True, slots=True)
class Report:
    """The outcome of all checks, in their order."""

    findings: list[Finding]

    def number(self, level: Level) -> int:
        """Findings of a level."""
        return Counter(finding.level for finding in self.findings)[level]

    @property
    def totals(self) -> str:
        """How many findings of each level there are."""
        return ", ".join(f"{self.number(level)} {level}" for level in get_args(Level))

    @property
    def lacks(self) -> list[str]:
        """What no run is possible without, and is missing."""
        return [one.subject for one in self.findings if one.needed and one.level == "missing"]

    def require_possible(self) -> None:
        """Refuse a machine on which every run would fail.

        Raises:
            LaunchError: something needed is missing.
        """
        if self.lacks:
            raise LaunchError(
                f"no run is possible here without {' and '.join(self.lacks)}; the report says how "
                f"to get it"
            )

    def as_json(self) -> dict[str, Any]:
        """All that is known."""
        return {
            "possible": not self.lacks,
            "totals": {level: self.number(level) for level in get_args(Level)},
            "findings": [finding.as_json() for finding in self.findings],
        }

    def show(self) -> None:
        """Print it on standard output: a table on a terminal, else a line for each finding."""
        output = Console(highlight=False, soft_wrap=not sys.stdout.isatty(), markup=False)
        if sys.stdout.isatty():
            output.print(_table(self.findings))
        else:
            for finding in self.findings:
                output.print(_line(finding))
        output.print(self.totals)


def _table(findings: list[Finding]) -> Table:
    table = Table()
    for name in ("", "subject", "found", "what it costs", "how to get it"):
        table.add_column(name, overflow="fold")
    for finding in findings:
        told = (finding.subject, finding.found, finding.costs, finding.remedy)
        # As Text: in a string, brackets would be markup.
        cells = [Text(printable(text)) for text in told]
        table.add_row(Text(finding.level, style=_STYLES[finding.level]), *cells)
    return table


def _line(finding: Finding) -> str:
    text = finding.found
    if finding.costs:
        text += f"; costs: {finding.costs}"
    if finding.remedy:
        text += f"; remedy: {finding.remedy}"
    return f"{finding.level:<7}  {one_line(finding.subject, text)}"
