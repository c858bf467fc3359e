"""The command line: one command per verb, each importing its verb when it is called."""

from __future__ import annotations

import os
import sys
from typing import Any

import typer

# Importing them adds their commands.
from bigner.cli import before, models, runs  # noqa: F401
from bigner.cli.root import app


def strip_launcher_options(arguments: list[str]) -> list[str]:
    """The arguments without ``--local_rank=N`` in any spelling, which launchers put in.

    The environment says which rank this is.
    """
    kept = []
    skip = False
    for argument in arguments:
        if skip:
            skip = False
        elif argument in ("--local_rank", "--local-rank"):
            skip = True
        elif not argument.startswith(("--local_rank=", "--local-rank=")):
            kept.append(argument)
    return kept


# What a wrong command line raises; some versions of typer bring a click of their own.
_WRONG_USE: Any = typer.BadParameter.__mro__[2]
# What typer makes of Ctrl-C, where it does not raise Abort.
_STOPPED = 130


def run(arguments: list[str] | None = None) -> int:
    """Run one command; returns its exit code, after telling of a wrong command line.

    Raises:
        BignerError: whatever the command raises; see ``bigner.__main__``.
        KeyboardInterrupt: Ctrl-C.
    """
    if arguments is None:
        arguments = sys.argv[1:]
    command = typer.main.get_command(app)
    try:
        outcome = command.main(
            strip_launcher_options(arguments), prog_name="bigner", standalone_mode=False
        )
    except typer.Abort:
        outcome = _STOPPED
    except _WRONG_USE as error:
        if os.environ.get("RANK", "0") == "0":
            error.show()
        return int(error.exit_code)
    if outcome == _STOPPED:
        raise KeyboardInterrupt
    return outcome if isinstance(outcome, int) else 0
