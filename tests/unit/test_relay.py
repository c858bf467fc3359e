"""What a launched process tells, and what becomes of it where it was launched."""

from __future__ import annotations

import fcntl
import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bigner import errors, log
from bigner.errors import ConfigError, LostRankError, Problem, RunError, Stopped
from bigner.relay import Relay, RelayedBars, error_of

EVERY_ERROR = [
    ConfigError([Problem("run.yaml:3", "seed", "must be a number"), Problem("x", "", "y")]),
    errors.DataError.at("train.conll", 3, "no tag"),
    errors.ModelError("no such model"),
    errors.LaunchError("no GPU"),
    errors.UserError("wrong"),
    RunError("failed"),
    errors.GatherError("one is missing"),
    errors.CheckpointError("half a checkpoint"),
    LostRankError("rank 1 is gone", 0),
    errors.DivergedError("the model diverged"),
    Stopped("stopped by SIGINT", 130),
    errors.Pruned("pruned after step 3", 0),
]


@pytest.fixture
def told(tmp_path: Path) -> Iterator[Path]:
    """The file, kept locked by who launched."""
    path = tmp_path / "relay.jsonl"
    with path.open("w") as launcher:
        fcntl.flock(launcher, fcntl.LOCK_EX)
        yield path


def events(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("error", EVERY_ERROR, ids=lambda error: type(error).__name__)
def test_an_error_arrives_as_what_it_is(error: errors.BignerError, told: Path) -> None:
    Relay(str(told), 0).ended(error)
    (event,) = events(told)
    arrived = error_of(event)
    assert type(arrived) is type(error)
    assert str(arrived) == str(error)
    assert arrived.exit_code == error.exit_code  # type: ignore[attr-defined]


def test_every_kind_of_error_is_tried() -> None:
    kinds = {kind for kind in vars(errors).values() if isinstance(kind, type)}
    kinds = {kind for kind in kinds if issubclass(kind, errors.BignerError)}
    assert kinds - {errors.BignerError} == {type(error) for error in EVERY_ERROR}


def test_a_defect_arrives_with_its_traceback(told: Path) -> None:
    try:
        _ = 1 // 0
    except ZeroDivisionError as error:
        Relay(str(told), 3).ended(error)
    arrived = error_of(events(told)[0])
    assert type(arrived) is RunError
    assert str(arrived) == "rank 3 failed: ZeroDivisionError: integer division or modulo by zero"
    assert "1 // 0" in "".join(arrived.__notes__)
    Relay(str(told), 0).ended(KeyboardInterrupt())
    assert type(error_of(events(told)[1])) is KeyboardInterrupt


def test_bars_are_told_as_they_stand(told: Path) -> None:
    bars = RelayedBars(Relay(str(told), 0))
    bar = bars.add("training", 3, 1)
    bars.advance(bar, "loss 1.0")
    for _ in range(1000):
        bars.advance(bar)
    bars.remove(bar)
    found = events(told)
    # Not each of a thousand steps that take no time.
    assert 3 <= len(found) < 20
    assert found[1]["bar"] == {
        "description": "training",
        "total": 3,
        "completed": 2,
        "note": "loss 1.0",
    }
    assert found[-1] == {"kind": "bar", "number": bar, "bar": None}


def test_messages_and_scores_go_past_the_terminal(
    told: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log, "relay", Relay(str(told), 0))
    log.inform("hello")
    log.warn("look out")
    with log.MetricsLog(tmp_path, enabled=True, first_step=0, total_steps=1) as metrics:
        metrics.evaluated(1, "validation", {"f1": 0.5, "loss": float("nan"), "per_type": {}})
    assert [event for event in events(told) if event["kind"] != "bar"] == [
        {"kind": "message", "text": "hello", "warning": False},
        {"kind": "message", "text": "look out", "warning": True},
        {
            "kind": "scores",
            "step": 1,
            "split": "validation",
            "numbers": {"f1": 0.5, "loss": None},
        },
    ]


def test_a_full_disk_does_not_disturb_the_run() -> None:
    Relay("/dev/full", 0).message("lost")


def test_a_process_stops_without_its_launcher(tmp_path: Path) -> None:
    told = tmp_path / "relay.jsonl"
    told.touch()
    relay = Relay(str(told), 0)
    received: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: received.append(number))
    try:
        with told.open() as launcher:
            fcntl.flock(launcher, fcntl.LOCK_EX)
            relay.heed_launcher()
            assert received == []
        relay.heed_launcher()
        assert received == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)
