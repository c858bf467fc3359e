"""Write docs/commands.md, the reference of every command, from the command line itself.

python scripts/command_reference.py            rewrites the file
python scripts/command_reference.py --check    fails if it is not what the command line says
"""

from __future__ import annotations

import inspect
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from bigner.cli import app
from bigner.terminal.guide import EXAMPLES, EXIT_CODES, GROUPS

TARGET = Path(__file__).resolve().parents[1] / "docs" / "commands.md"
HEAD = f"""\
# The commands

Every command with its arguments and options, as `bigner COMMAND --help` has them, in the order of
their use. The examples are for the project that the first of them makes. `KEY=VALUE` are overrides
of [the run file](run_file.md). Written by `scripts/command_reference.py`.

{textwrap.fill(EXIT_CODES, 99)}

`bigner --install-completion` lets the Tab key complete commands, options, run files, and fields of
a run file with their values: `training.lear` becomes `training.learning_rate=`.
"""
# The test that runs the examples leaves these out.
NOT_RUN = {"torchrun": "minutes", "HF_TOKEN=...": "the network"}


def reference() -> str:
    """The whole page."""
    group: Any = typer.main.get_command(app)
    parts = [HEAD]
    for heading, names in GROUPS.items():
        parts.append(f"## {heading}\n")
        for name in names:
            parts.append(f"### `bigner {name}`\n")
            parts += _command(group.commands[name])
    return "\n".join(parts)


def _command(command: Any) -> Iterator[str]:
    yield inspect.cleandoc(command.help) + "\n"
    yield from _examples(command.name)
    rows = [_row(one) for one in command.params]
    if rows:
        yield "| argument or option | | default |\n| --- | --- | --- |"
        yield "\n".join(rows) + "\n"


def _examples(name: str) -> Iterator[str]:
    """A block for the lines that a test runs, and one for each reason not to run a line."""
    blocks: dict[str, list[str]] = {}
    for line in EXAMPLES[name]:
        blocks.setdefault(NOT_RUN.get(line.split()[0], ""), []).append(line)
    for reason, lines in blocks.items():
        if reason:
            yield f"<!-- not run: {reason} -->"
        yield "```bash\n" + "\n".join(lines) + "\n```\n"


def _row(parameter: Any) -> str:
    # Not as help shows them, which differs between versions of typer.
    called = parameter.metavar or parameter.name.upper()
    if parameter.param_type_name == "option":
        value = "" if parameter.is_flag else f" {called.replace('_', '-')}"
        called = ", ".join(parameter.opts) + value
    default = "" if parameter.default in (None, False, ()) else f"`{parameter.default}`"
    return f"| `{called}` | {parameter.help} | {'needed' if parameter.required else default} |"


def main() -> int:
    """Write the page, or compare it."""
    if "--check" not in sys.argv:
        TARGET.write_text(reference(), encoding="utf-8")
        return 0
    if TARGET.exists() and TARGET.read_text(encoding="utf-8") == reference():
        return 0
    print(f"{TARGET} is not what the command line says; run python scripts/command_reference.py")
    return 1


if __name__ == "__main__":
    sys.exit(main())
