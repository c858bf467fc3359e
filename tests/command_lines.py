"""Command lines as they stand in documents: the calls of bigner in them, parsed and not run."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from typing import Any

import typer

from bigner.cli import app, strip_launcher_options

# What stands between commands, and what begins a redirection.
_SEPARATORS = {"|", "&&", "||", ";", "&", "do", "done", "then"}
_REDIRECTION = re.compile(r"^[0-9]?(>>?|<)")
_MODULE = re.compile(r"(?:-m|--module)\s+bigner\b")


def joined(block: str) -> list[str]:
    """The lines of a block, those that go on after a backslash as one, comments left out."""
    lines = [line.strip() for line in block.replace("\\\n", " ").splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


def calls(line: str) -> Iterator[list[str]]:
    """The arguments of each call of bigner in a line, by itself or under a launcher.

    Raises:
        ValueError: the line's quotes do not match.
    """
    lexer = shlex.shlex(_MODULE.sub("bigner", line), posix=True, punctuation_chars="|&;<>")
    lexer.whitespace_split = True
    arguments: list[str] | None = None
    redirected = False
    for word in lexer:
        if word in _SEPARATORS:
            if arguments is not None:
                yield arguments
            arguments = None
        elif arguments is None and word == "bigner":
            arguments = []
        elif arguments is None or redirected:
            redirected = False
        elif _REDIRECTION.match(word):
            redirected = True
        else:
            arguments.append(word)
    if arguments is not None:
        yield arguments


def parse_problems(line: str) -> list[str]:
    """What bigner would say of the calls in a line, without doing what they ask."""
    problems = []
    for arguments in calls(line):
        try:
            _parse(arguments)
        except Exception as error:
            problems.append(f"bigner {shlex.join(arguments)}: {error or type(error).__name__}")
    return problems


def _parse(arguments: list[str]) -> None:
    group: Any = typer.main.get_command(app)
    arguments = strip_launcher_options(arguments)
    if not arguments:
        raise ValueError("no command")
    name, *rest = arguments
    if name.startswith("--"):
        known = {option for one in group.params for option in one.opts} | {"--help"}
        if name not in known:
            raise ValueError(f"no option {name}")
        return
    command = group.commands.get(name)
    if command is None:
        raise ValueError(f"no command {name}")
    if {"--help", "-h"} & set(rest):
        return
    command.make_context(name, rest).close()
