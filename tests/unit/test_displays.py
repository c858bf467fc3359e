"""The course of a launched run, as a notebook, a terminal and a log file show it."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from bigner.api import displays
from bigner.api.course import Course
from bigner.api.going_on import going_on
from bigner.api.processes import _without_a_word
from bigner.config.load import load_config

BAR = {"description": "training", "total": 8, "completed": 2, "note": "loss 0.5000"}
NUMBERS = {"loss": 0.25, "f1": 0.5, "precision": 0.4, "recall": None}
EVENTS: list[dict[str, Any]] = [
    {"kind": "process", "rank": 0, "pid": 1},
    {"kind": "message", "text": "going on from step 1", "warning": False},
    {"kind": "message", "text": "slow [/N] on this machine", "warning": True},
    {"kind": "bar", "number": 0, "bar": BAR},
    {"kind": "scores", "step": 2, "split": "validation", "numbers": NUMBERS},
    {"kind": "bar", "number": 0, "bar": {**BAR, "completed": 3}},
]


def drawn(course: Course) -> str:
    paper = Console(file=io.StringIO(), width=100)
    paper.print(course.picture())
    assert isinstance(paper.file, io.StringIO)
    return paper.file.getvalue()


def test_the_picture_has_all_there_is_to_know() -> None:
    course = Course()
    assert drawn(course).strip() == ""
    for event in EVENTS:
        course.note(event)
    picture = drawn(course)
    assert "warning: slow [/N] on this machine" in picture
    assert "3/8" in picture
    assert "loss 0.5000" in picture
    (row,) = [line.split() for line in picture.splitlines() if line.startswith("2 ")]
    assert row == ["2", "validation", "0.2500", "0.5000", "0.4000", "-"]
    course.note({"kind": "bar", "number": 0, "bar": None})
    assert "3/8" not in drawn(course)
    for step in range(3, 30):
        course.note({"kind": "scores", "step": step, "split": "test", "numbers": NUMBERS})
    assert len(drawn(course).splitlines()) < 20


def test_a_log_file_gets_a_line_for_each_thing(monkeypatch: pytest.MonkeyPatch) -> None:
    paper = Console(file=io.StringIO(), soft_wrap=True)
    monkeypatch.setattr(displays, "console", paper)
    with displays.display(progress=True) as shown:
        shown.show(EVENTS)
    assert isinstance(paper.file, io.StringIO)
    assert paper.file.getvalue().splitlines() == [
        "going on from step 1",
        "warning: slow [/N] on this machine",
        "training: 2/8  loss 0.5000",
        "validation, step 2: F1 0.5000",
    ]


def test_a_terminal_keeps_one_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    paper = Console(file=io.StringIO(), force_terminal=True, width=100)
    monkeypatch.setattr(displays, "console", paper)
    with displays.display(progress=True) as shown:
        shown.show(EVENTS[:4])
        shown.show(EVENTS[4:])
    assert isinstance(paper.file, io.StringIO)
    text = paper.file.getvalue()
    assert "3/8" in text
    # The cursor goes up and draws over what was there.
    assert "\x1b[1A" in text


def test_quiet_is_quiet(capfd: pytest.CaptureFixture[str]) -> None:
    with displays.display(progress=False) as shown:
        shown.show(EVENTS)
    assert capfd.readouterr() == ("", "")


def test_a_process_that_told_nothing_is_named_with_its_last_words() -> None:
    failure = "Failures:\n  rank      : 1 (local_rank: 1)\n  exitcode  : -9 (pid: 12)\n"
    output = f"loading\n\nFatal Python error\n{failure}"
    error = _without_a_word(output, 1)
    assert str(error) == ("rank 1 was ended by SIGKILL, as the system does where memory is short")
    assert "Fatal Python error" in error.__notes__[0]
    assert str(_without_a_word("", 3)) == "rank 0 was ended by exit code 3"


def test_the_call_that_goes_on(tmp_path: Path) -> None:
    values = {"run_dir": "runs/a", "model": {"name_or_path": "x"}, "data": {"train": "x"}}
    config = load_config(values)
    assert going_on("bigner.train", values, config) == "bigner.train(config)"
    assert going_on("bigner.launch", Path("run.yaml"), config, ", nproc=2") == (
        "bigner.launch('run.yaml', nproc=2)"
    )
    again = load_config(config, ["training.stop_after=3", "checkpoint.resume=none"])
    assert going_on("bigner.train", again, again) == (
        "bigner.train(bigner.load_config(config, "
        "['checkpoint.resume=auto', 'training.stop_after=null']))"
    )
