"""Runs that are asked to stop: they save, say how to go on, and come to what one run comes to."""

from __future__ import annotations

import json
import re
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import main
from tests.e2e.running import (
    TORCHRUN,
    Running,
    checkpoints,
    deepspeed_launcher,
    lines,
    outcome,
    resuming_command,
)
from tests.ranks.launch import run_command

TRAIN = ["train", "run.yaml", "training.log_every=1", "training.learning_rate=1e-3"]
LONG = [*TRAIN, "training.max_steps=20", "evaluation.every=8"]
SLOW = [*LONG, "training.global_batch_size=32"]
"""Long enough to be stopped before it is over, however fast the machine is."""

EXIT_CODES = {signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGUSR1: 138}


def _sharded(kind: str) -> list[str]:
    batch = ["training.global_batch_size=8", "training.micro_batch_size=1"]
    return [*LONG, *batch, f"strategy={{kind: {kind}}}"]


def _stopped_after(run: Running, by: str) -> int:
    """The step after which a run says that it stopped; it says so once, and has saved it."""
    found = re.findall(
        rf"^bigner: stopped by {by} after step (\d+), saved in (.*);", run.output, re.M
    )
    assert len(found) == 1, run.output
    step, folder = int(found[0][0]), Path(found[0][1])
    assert folder.name == checkpoints(run.run_dir)[-1] == f"step-{step:08d}"
    assert lines(run.run_dir)[-1]["step"] == step
    assert "bigner: rank" not in run.output
    return step


def _signal(run: Running, number: signal.Signals) -> None:
    """Signal a run once it trains, and wait for its end."""
    run.wait_for_step(2)
    run.send(number)
    assert run.end() == EXIT_CODES[number], run.output


def test_a_signal_stops_a_run_saved(project: Path) -> None:
    assert main([*SLOW, "run_dir=whole"]) == 0
    with ExitStack() as stack, ThreadPoolExecutor() as pool:
        command = [sys.executable, "-m", "bigner", *SLOW]
        runs = [
            stack.enter_context(Running([*command, f"run_dir={name}"], project, name))
            for name in (number.name for number in EXIT_CODES)
        ]
        list(pool.map(_signal, runs, EXIT_CODES))
        for run, number in zip(runs, EXIT_CODES, strict=True):
            assert f"bigner: {number.name}: saving and stopping after this step" in run.output
            assert "Traceback" not in run.output
            step = _stopped_after(run, number.name)
            assert checkpoints(run.run_dir) == [f"step-{step:08d}"]
            assert main(resuming_command(run.output)) == 0
            assert outcome(run.run_dir) == outcome(project / "whole")


def test_a_second_ctrl_c_ends_a_run_at_once(project: Path) -> None:
    # A step of minutes, so that it is the second one that ends it.
    endless = [*TRAIN, "training.global_batch_size=200000"]
    with Running([sys.executable, "-m", "bigner", *endless], project) as run:
        run.wait_until((run.run_dir / "metrics.jsonl").exists)
        run.send(signal.SIGINT)
        run.wait_until(lambda: "Ctrl-C again ends it at once" in run.output)
        run.send(signal.SIGINT)
        assert run.end() == 130
        assert run.output.endswith("bigner: stopped by Ctrl-C\n")
        assert "Traceback" not in run.output
        assert checkpoints(run.run_dir) == []


# One evaluation is due where the run stops, the other in between.
@pytest.mark.parametrize("evaluated_every", [2, 3])
def test_legs_come_to_what_one_run_comes_to(
    project: Path, capsys: pytest.CaptureFixture[str], evaluated_every: int
) -> None:
    steps = [*TRAIN, "training.max_steps=7", f"evaluation.every={evaluated_every}"]
    assert main([*steps, "run_dir=whole"]) == 0
    for last in (2, 4, 4):
        capsys.readouterr()
        assert main([*steps, f"training.stop_after={last}"]) == 0
        told = capsys.readouterr().err
        assert f"bigner: stopped by training.stop_after after step {last}, saved in" in told
        assert "training.stop_after=null" in told
        assert checkpoints(project / "run")[-1] == f"step-{last:08d}"
    assert main(steps) == 0
    assert outcome(project / "run") == outcome(project / "whole")


def test_an_evaluation_of_a_broken_off_leg_is_not_noted_twice(project: Path) -> None:
    steps = [*TRAIN, "training.max_steps=3", "evaluation.every=2"]
    assert main([*steps, "run_dir=whole"]) == 0
    assert main([*steps, "training.stop_after=2"]) == 0
    # As a leg leaves it that is killed between the evaluation of step 2 and the next checkpoint.
    noted: dict[str, Any] = {"step": 2, "split": "validation", "f1": 0.5}
    with (project / "run" / "metrics.jsonl").open("a") as stream:
        stream.write(json.dumps(noted) + '\n{"step": 3, "lo')
    assert main(steps) == 0
    assert outcome(project / "run") == outcome(project / "whole")


def test_fsdp_stops_as_one_and_goes_on(project: Path) -> None:
    launch, sharded = [*TORCHRUN, "-m", "bigner"], _sharded("fsdp")
    with Running([*launch, *sharded], project) as run:
        run.wait_for_step(2)
        run.send(signal.SIGTERM, run.rank(1))
        # torchrun's own code; that of the ranks is in what it prints.
        assert run.end() == 1
        assert "exitcode  : 143" in run.output
        first = _stopped_after(run, "SIGTERM")
        again = resuming_command(run.output)
    with Running([*launch, *again], project) as run:
        run.wait_for_step(first + 2)
        run.send(signal.SIGINT)
        assert run.end() == 1
        assert _stopped_after(run, "SIGINT") > first
        again = resuming_command(run.output)
    for arguments in (again, [*sharded, "run_dir=whole"]):
        done = run_command([*launch, *arguments], project)
        assert done.returncode == 0, done.stderr
    assert outcome(project / "run") == outcome(project / "whole")


def test_zero_stops_by_its_launcher_and_goes_on(project: Path) -> None:
    sharded = _sharded("zero")
    with Running([*deepspeed_launcher(), "bigner", *sharded], project) as run:
        run.wait_for_step(2)
        # The command itself passes nothing on; what it started, which starts the ranks, does.
        (launcher,) = run.children()
        run.send(signal.SIGTERM, launcher)
        assert run.end() == 1
        _stopped_after(run, "SIGTERM")
        assert "deepspeed --num_gpus 2 --module bigner train" in run.output
        again = resuming_command(run.output)
    for arguments in (again, [*sharded, "run_dir=whole"]):
        # torchrun starts sooner than deepspeed.
        done = run_command([*TORCHRUN, "-m", "bigner", *arguments], project)
        assert done.returncode == 0, done.stderr
    assert outcome(project / "run") == outcome(project / "whole")
