"""``--help`` as a guide: commands under headings in the order of their use, then examples.

It is plain text on terminals too: nothing has to be taken out of it for a file.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from typer.core import TyperCommand, TyperGroup

from bigner.terminal.guide import EXAMPLES, EXIT_CODES, FIRST_RUN, GROUPS

# typer's context and formatter are click's in some versions, and its own in others.


class GuideGroup(TyperGroup):
    """All commands, grouped."""

    def list_commands(self, ctx: Any) -> list[str]:
        """The names in the order of their use."""
        guided = [name for names in GROUPS.values() for name in names]
        return sorted(super().list_commands(ctx), key=guided.index)

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002
        """Write a section for each heading."""
        for heading, names in GROUPS.items():
            with formatter.section(heading):
                formatter.write_dl([(name, one_line_of(self.commands[name])) for name in names])

    def format_epilog(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002
        """Write the first run, and what the exit codes mean."""
        _write_lines(formatter, "First run, on generated letters, in about a minute", FIRST_RUN)
        formatter.write_paragraph()
        formatter.write_text(EXIT_CODES)
        formatter.write_paragraph()
        formatter.write_text("bigner COMMAND --help has the options of a command, and examples.")


class GuideCommand(TyperCommand):
    """A command whose help ends with examples."""

    def format_epilog(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002
        """Write them."""
        _write_lines(formatter, "Examples", EXAMPLES[str(self.name)])


def one_line_of(command: Any) -> str:
    """The first sentence of a command's help, whole."""
    line: str = command.get_short_help_str(limit=1_000)
    return line


def _write_lines(formatter: Any, heading: str, lines: Iterable[str]) -> None:
    with formatter.section(heading):
        for line in lines:
            # As they are: a wrapped line cannot be copied.
            formatter.write(f"{'':{formatter.current_indent}}{line}\n")
