"""A disk that is full, read-only or gone: one clear message, and every earlier checkpoint whole."""

from __future__ import annotations

import os
import re
import shutil
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from bigner.checkpoint.load import damage
from bigner.distributed import World
from tests.e2e.conftest import main
from tests.e2e.running import Running, checkpoints, lines

TRAIN = ["train", "run.yaml", "training.max_steps=100", "evaluation.every=100"]
SAVED = [*TRAIN, "checkpoint.every_steps=4", "checkpoint.keep_last=100"]
LONG = [*SAVED, "training.max_steps=400"]
SHARDS_DO_NOT_FIT = 40_000
"""Bytes: the shards of a checkpoint have more, every other file has less."""
LOG_DOES_NOT_FIT = 4_000


def _start(stack: ExitStack, project: Path, arguments: list[str], run: str) -> Running:
    command = [sys.executable, "-m", "bigner", *arguments, f"run_dir={run}"]
    return stack.enter_context(Running(command, project, run))


def _error(run: Running) -> str:
    """What a run that failed says of it, in one message."""
    assert run.end() == 1, run.output
    assert "Traceback" not in run.output
    (error,) = re.findall(r"^bigner: error: (.*)$", run.output, re.M)
    return str(error)


def _fill_disk(run: Running) -> str:
    """Leave no room for another checkpoint once there is one; returns what the run says of it."""
    run.wait_until((run.run_dir / "checkpoints" / "step-00000004").exists)
    run.limit_files(SHARDS_DO_NOT_FIT)
    return _error(run)


def test_a_checkpoint_that_does_not_fit_ends_the_run(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with ExitStack() as stack, ThreadPoolExecutor() as pool:
        ways = {"behind": "true", "at_once": "false"}
        runs = [
            _start(stack, project, [*LONG, f"checkpoint.background={way}"], name)
            for name, way in ways.items()
        ]
        for run, error in zip(runs, pool.map(_fill_disk, runs), strict=True):
            name = run.run_dir.name
            failed = re.match(
                rf"checkpoint {name}/checkpoints/(step-\d+) cannot be written: .*File too large; "
                rf"the checkpoints before it are as they were",
                error,
            )
            assert failed is not None
            left = checkpoints(run.run_dir)
            assert left[0] == "step-00000004"
            assert all(re.fullmatch(r"step-\d+", name) for name in left)
            assert failed[1] > left[-1]
            for checkpoint in left:
                assert damage(run.run_dir / "checkpoints" / checkpoint, World()) == ""
            capsys.readouterr()
            step = int(left[-1].removeprefix("step-"))
            assert main([*LONG, f"run_dir={name}", f"training.stop_after={step + 5}"]) == 0
            assert f"going on from step {step} " in capsys.readouterr().err
            assert checkpoints(run.run_dir)[-1] == f"step-{step + 5:08d}"


def test_a_log_that_does_not_fit_ends_the_run(project: Path) -> None:
    steps = [*TRAIN, "training.log_every=1"]
    with ExitStack() as stack:
        run = _start(stack, project, steps, "run")
        run.wait_until((run.run_dir / "metrics.jsonl").exists)
        run.limit_files(LOG_DOES_NOT_FIT)
        assert re.match(r"run/metrics.jsonl cannot be written: .*File too large", _error(run))
    noted = [line["step"] for line in lines(project / "run")]
    assert noted == list(range(1, len(noted) + 1))
    # What is left of the line that there was no room for is in nobody's way.
    assert main([*steps, "training.stop_after=1"]) == 0
    assert [line["step"] for line in lines(project / "run")] == [1]


def _remove_when_there(run_dir: Path, *, moved: bool) -> threading.Thread:
    """Remove a run's folder as soon as it trains, or move it elsewhere in one go."""

    def remove() -> None:
        while not (run_dir / "metrics.jsonl").exists():
            time.sleep(0.001)
        if moved:
            run_dir.rename(run_dir.with_suffix(".moved"))
        else:
            shutil.rmtree(run_dir)

    thread = threading.Thread(target=remove, daemon=True)
    thread.start()
    return thread


@pytest.mark.parametrize(
    ("arguments", "moved", "message"),
    [
        ([*TRAIN, "training.log_every=1"], False, "run/metrics.jsonl cannot be written: it was d"),
        ([*SAVED, "training.log_every=1000"], True, "checkpoint run/checkpoints/step-"),
        ([*TRAIN, "training.log_every=1000"], True, "the model cannot be written to run/model: "),
    ],
    ids=["log", "checkpoint", "export"],
)
def test_a_folder_that_goes_while_running_is_not_made_again(
    project: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    moved: bool,
    message: str,
) -> None:
    removal = _remove_when_there(project / "run", moved=moved)
    assert main(arguments) == 1
    removal.join()
    error = capsys.readouterr().err
    assert f"bigner: error: {message}" in error
    assert "Traceback" not in error
    assert not (project / "run").exists()


def test_a_file_where_a_folder_is_wanted(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*TRAIN, "training.stop_after=1"]) == 0
    in_the_way = project / "run" / "checkpoints" / ".step-00000002.tmp"
    in_the_way.write_text("")
    assert main([*TRAIN, "training.stop_after=2"]) == 1
    error = capsys.readouterr().err
    assert "error: checkpoint run/checkpoints/step-00000002 cannot be written: " in error
    assert checkpoints(project / "run") == [in_the_way.name, "step-00000001"]


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is read-only for root")
def test_a_folder_that_is_read_only(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*TRAIN, "training.stop_after=1"]) == 0
    (project / "run" / "checkpoints").chmod(0o555)
    assert main([*TRAIN, "training.stop_after=2"]) == 1
    error = capsys.readouterr().err
    (project / "run" / "checkpoints").chmod(0o755)
    assert "error: checkpoint run/checkpoints/step-00000002 cannot be written: " in error
    assert checkpoints(project / "run") == ["step-00000001"]
