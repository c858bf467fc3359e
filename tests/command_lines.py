"""Command lines as they stand in documents: the calls of bigner in them, parsed and not run."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from typing import Any

import typer

from bigner.cli import app, strip_launcher_options

# What stands between commands, and what sends input and output elsewhere.
_SEPARATORS = {"|", "&&", "||", ";", "&", "do", "done", "then"}
_REDIRECTION = re.compile(r"\s[0-9]?(?:>>?&?|<)\s*\S+")
_BY_A_LAUNCHER = "@bigner"
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
    line = _REDIRECTION.sub("", _MODULE.sub(_BY_A_LAUNCHER, line))
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;")
    lexer.whitespace_split = True
    words: list[str] = []
    for word in [*lexer, ";"]:
        if word not in _SEPARATORS:
            words.append(word)
            continue
        # What stands before a command's name are values of variables.
        while words and "=" in words[0]:
            del words[0]
        if words and words[0] == "bigner":
            yield words[1:]
        elif _BY_A_LAUNCHER in words:
            yield words[words.index(_BY_A_LAUNCHER) + 1 :]
        words = []


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
