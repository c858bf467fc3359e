"""Help that is a guide, examples that are commands, and quiet commands."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from bigner import log
from bigner.cli import run
from bigner.terminal.guide import EXAMPLES, FIRST_RUN, GROUPS, group_of
from tests.command_lines import parse_problems
from tests.ranks.launch import environment

COMMANDS = tuple(name for names in GROUPS.values() for name in names)


def help_of(capsys: pytest.CaptureFixture[str], *command: str) -> str:
    capsys.readouterr()
    assert run([*command, "--help"]) == 0
    return capsys.readouterr().out


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


# --- the guide --------------------------------------------------------------------------------


@pytest.mark.usefixtures("narrow")
def test_help_groups_commands_in_the_order_of_their_use(capsys: pytest.CaptureFixture[str]) -> None:
    text = help_of(capsys)
    places = [text.index(f"\n{heading}:\n") for heading in GROUPS]
    assert places == sorted(places)
    shown = re.findall(r"^  ([a-z]+) {2,}[A-Z]", text, flags=re.MULTILINE)
    assert tuple(shown) == COMMANDS
    assert [group_of(name) for name in ("init", "push")] == ["Before a run", "Use and share"]


@pytest.mark.usefixtures("narrow")
def test_each_command_has_one_whole_line(capsys: pytest.CaptureFixture[str]) -> None:
    lines = help_of(capsys).splitlines()
    for command in COMMANDS:
        (line,) = [line for line in lines if line.startswith(f"  {command} ")]
        assert line.endswith("."), line
        assert not line.endswith("..."), line
    assert max(map(len, lines)) < 80


@pytest.mark.usefixtures("narrow")
def test_help_ends_with_a_first_run_and_the_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    text = help_of(capsys)
    for line in FIRST_RUN:
        assert f"\n  {line}\n" in text
    for code in ("0 done", "1 the run failed", "2 the input is wrong", "143", "130", "138"):
        assert code in text


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.usefixtures("narrow")
def test_help_of_a_command_ends_with_examples(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text = help_of(capsys, command)
    examples = EXAMPLES[command]
    assert 1 <= len(examples) <= 3
    assert text.endswith("\nExamples:\n" + "".join(f"  {line}\n" for line in examples))
    # What is longer is folded by a terminal.
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize("line", [*FIRST_RUN, *(one for of in EXAMPLES.values() for one in of)])
def test_examples_are_command_lines(line: str) -> None:
    assert parse_problems(line) == []


def test_the_guide_has_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert sorted(EXAMPLES) == sorted(COMMANDS)
    assert parse_problems("bigner frobnicate run.yaml") != []


# --- plain ------------------------------------------------------------------------------------

PRINT_TABLE = """
from bigner.log import inform, progress, show_scores, warn
warn("beware")
inform("on its way")
for _ in progress([1, 2], "counting"):
    pass
row = {"precision": 0.5, "recall": 0.25, "f1": 0.3, "support": 4}
counts = {"words": 8, "sentences": 2, "words_without_pieces": 0, "words_per_second": 1.0}
show_scores("test", {**row, **counts, "accuracy": 0.5, "loss": 1.0, "per_type": {"PER": row}})
"""


def on_a_terminal(arguments: list[str], **variables: str) -> str:
    """What a process shows on a terminal of its own."""
    ours, theirs = pty.openpty()
    known = environment()
    known.pop("NO_COLOR", None)
    with subprocess.Popen(
        arguments,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=known | {"TERM": "xterm-256color", "COLUMNS": "80"} | variables,
    ) as process:
        os.close(theirs)
        shown = b""
        try:
            while part := os.read(ours, 65536):
                shown += part
        except OSError:
            # How Linux says that the other side is closed.
            pass
    os.close(ours)
    assert process.returncode == 0, shown
    return shown.decode()


def test_files_get_neither_colours_nor_frames() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PRINT_TABLE],
        capture_output=True,
        text=True,
        check=True,
        env=environment() | {"TERM": "xterm-256color"},
    )
    assert not {"\x1b", "│", "┃", "┏"} & set(done.stdout + done.stderr)
    assert done.stderr == "warning: beware\non its way\n"
    assert "  PER" in done.stdout


def test_terminals_get_both_and_no_color_is_honoured() -> None:
    shown = on_a_terminal([sys.executable, "-c", PRINT_TABLE])
    assert "\x1b[33mwarning" in shown
    assert "┃" in shown
    assert "counting" in shown
    plain = on_a_terminal([sys.executable, "-c", PRINT_TABLE], NO_COLOR="1")
    # Bold and the moves of a bar are no colours.
    assert re.search(r"\x1b\[[0-9;]*(3[0-7]|9[0-7]|38;5)[0-9;]*m", plain) is None
    assert "beware" in plain


def test_help_is_plain_on_terminals_too() -> None:
    assert "\x1b" not in on_a_terminal([sys.executable, "-m", "bigner", "--help"])


# --- quiet ------------------------------------------------------------------------------------


def test_quiet_keeps_warnings_and_results(capfd: pytest.CaptureFixture[str]) -> None:
    log.set_quiet(True)
    try:
        assert not log._bars.shown
        log.inform("on its way")
        log.warn("beware")
    finally:
        log.set_quiet(False)
    assert capfd.readouterr().err == "warning: beware\n"
    log.inform("on its way")
    assert capfd.readouterr().err == "on its way\n"


QUIET = ("lint", "train", "evaluate", "export", "compare", "report", "predict")


@pytest.mark.parametrize("command", QUIET)
def test_commands_that_take_long_can_be_quiet(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "-q, --quiet" in help_of(capsys, command)


@pytest.mark.parametrize("option", ["-q", "--quiet"])
def test_quiet_lasts_as_long_as_its_command(
    option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []

    def compare(*_: object, **__: object) -> None:
        asked.append(log.is_quiet())

    monkeypatch.setattr("bigner.commands.compare.compare", compare)
    monkeypatch.setattr("bigner.cli.runs._show", lambda *_, **__: None)
    assert run(["compare", str(tmp_path), option]) == 0
    assert run(["compare", str(tmp_path)]) == 0
    assert asked == [True, False]
    assert not log.is_quiet()


def test_bars_are_rank_0s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log.console, "_force_terminal", True)
    assert log._bars.shown
    monkeypatch.setenv("RANK", "1")
    assert not log._bars.shown
