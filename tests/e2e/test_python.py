"""``bigner.load_config``, ``train``, ``evaluate`` and ``launch``, as Python code calls them."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist
import yaml

import bigner
from bigner.api.course import Course
from bigner.api.processes import LaunchedRun
from bigner.api.results import Scores, Summary
from bigner.errors import ConfigError, DataError, LaunchError, ModelError, Stopped, UserError
from tests.e2e.conftest import RUN_FILE
from tests.e2e.running import TORCHRUN, Running, checkpoints, lines
from tests.ranks.launch import environment, run_command

FSDP = {"strategy": {"kind": "fsdp"}, "training.micro_batch_size": 1}
MANY_STEPS = {
    "training.max_steps": 20,
    "training.global_batch_size": 8,
    "training.log_every": 1,
    "training.learning_rate": 1e-3,
}
LAUNCHED = """\
import bigner
from bigner.errors import BignerError
try:
    summary = bigner.launch("run.yaml", nproc={nproc})
    print("returned", summary["steps"], flush=True)
except BignerError as error:
    print(f"{{type(error).__name__}}: {{error}}", flush=True)
"""
IN_EVERY_RANK = """\
import bigner
for number, kind in enumerate(("fsdp", "zero", "zero")):
    changes = {"strategy.kind": kind, "training.micro_batch_size": 1, "run_dir": f"run-{number}"}
    config = bigner.load_config("run.yaml", changes)
    summary = bigner.train(config)
    scores = bigner.evaluate(config, split="validation")
    assert scores["loss"] == summary["validation"]["loss"]
    print(f"{kind} {scores['loss']:.4f}", flush=True)
"""


def without_speed(scores: Any) -> dict[str, Any]:
    return {k: v for k, v in scores.items() if k not in ("seconds", "words_per_second", "step")}


# ---------------------------------------------------------------- in this process


def test_train_and_evaluate_return_what_the_run_leaves(project: Path) -> None:
    values = yaml.safe_load(RUN_FILE)
    values["data"]["train"] = project / "train.conll"
    config = bigner.load_config(values, {"data.test": "dev.conll"})
    summary = bigner.train(config)
    assert summary == json.loads((project / "run" / "summary.json").read_text())
    assert set(summary) == set(Summary.__annotations__)
    assert summary["test"] is not None
    optional = {"heads", "step"}
    assert set(summary["test"]) == set(Scores.__annotations__) - optional
    assert set(Scores.__annotations__) == Scores.__required_keys__ | Scores.__optional_keys__

    scores = bigner.evaluate(config, predictions="found.tsv")
    assert without_speed(scores) == without_speed(summary["test"])
    assert (project / "found.tsv").read_text() == (
        project / "run" / "predictions" / "test.tsv"
    ).read_text()
    trained = bigner.evaluate("run.yaml", model="models/trained", split="validation")
    assert trained["loss"] != scores["loss"]
    # A finished run only tells its scores.
    assert bigner.train(config) == summary


# DeepSpeed's own.
@pytest.mark.filterwarnings("ignore:`torch.jit.script:DeprecationWarning")
def test_a_process_trains_one_run_after_the_other(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # With the ninja that launched runs compile with; another version would begin anew.
    monkeypatch.setenv("PATH", environment()["PATH"])
    losses = []
    for number, kind in enumerate(("single", "fsdp", "zero", "zero", "fsdp")):
        overrides = {"strategy": {"kind": kind}, "run_dir": f"run-{number}"}
        config = bigner.load_config("run.yaml", overrides)
        validation = bigner.train(config)["validation"]
        assert validation is not None
        losses.append(validation["loss"])
        assert not dist.is_initialized()
    assert losses == pytest.approx([losses[0]] * 5, abs=1e-4)


def test_what_failed_is_let_go_of(project: Path) -> None:
    damaged = project / "damaged.conll"
    damaged.write_text("Anna B-PER\nsleeps\n")
    config = bigner.load_config("run.yaml", {**FSDP, "data.train": str(damaged)})
    with pytest.raises(DataError, match=r"damaged\.conll:2"):
        bigner.train(config)
    # As a notebook keeps it, the exception is still there, with all that its traceback holds.
    assert not dist.is_initialized()
    damaged.write_text("Anna B-PER\nsleeps O\n\nOslo B-LOC\n")
    assert bigner.train(config)["steps"] == 1


def test_a_stop_says_which_call_goes_on(project: Path) -> None:
    config = bigner.load_config("run.yaml", ["training.max_steps=3", "training.stop_after=1"])
    with pytest.raises(Stopped) as caught:
        bigner.train(config)
    _, call = str(caught.value).split("go on with\n  ")
    assert call == "bigner.train(bigner.load_config(config, ['training.stop_after=null']))"
    assert eval(call, {"bigner": bigner, "config": config})["steps"] == 3


def test_a_thread_may_train(project: Path) -> None:
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(bigner.train("run.yaml")))
    thread.start()
    thread.join()
    assert found[0]["steps"] == 1


def test_wrong_arguments_have_one_message(project: Path) -> None:
    (project / "run.yaml").write_text(RUN_FILE.replace("models/bare", "./nowhere"))
    with pytest.raises(ConfigError, match=r"run\.yaml:3: model\.name_or_path: .*nowhere"):
        bigner.train("run.yaml")
    (project / "run.yaml").write_text(RUN_FILE)
    with pytest.raises(ModelError, match="there is no model folder gone; model names an exported"):
        bigner.evaluate("run.yaml", model="gone")
    with pytest.raises(UserError, match="split must be train, validation, test; got 'dev'"):
        bigner.evaluate("run.yaml", model="models/trained", split="dev")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="predictions must name a file"):
        bigner.evaluate("run.yaml", model="models/trained", predictions=".")


def test_a_process_group_of_somebody_else_is_not_taken(project: Path) -> None:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        with pytest.raises(LaunchError, match="is in a process group already"):
            bigner.train(bigner.load_config("run.yaml", FSDP))
    finally:
        dist.destroy_process_group()


def test_every_rank_of_a_launched_script_trains(project: Path) -> None:
    (project / "script.py").write_text(IN_EVERY_RANK)
    done = run_command([*TORCHRUN, "script.py"], project)
    assert done.returncode == 0, done.stderr
    told = [line for line in done.stdout.splitlines() if line.startswith(("fsdp ", "zero "))]
    assert len(told) == 6
    assert len({line.split()[1] for line in told}) == 1


# ---------------------------------------------------------------- in processes of its own


def test_launched_ranks_come_to_what_one_process_comes_to(
    project: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config = bigner.load_config("run.yaml", {**FSDP, "training.log_every": 1})
    summary = bigner.launch(config, nproc=2)
    assert summary == json.loads((project / "run" / "summary.json").read_text())
    assert summary["world_size"] == 2
    shown = capfd.readouterr().err.splitlines()
    assert any(line.startswith("training: 1/1  loss ") for line in shown)
    assert any(line.startswith("validation, step 1: F1 0.") for line in shown)
    assert shown[-1].startswith("done: model in run/model")

    alone = bigner.launch(bigner.load_config(config, {"run_dir": "alone"}), progress=False)
    assert capfd.readouterr() == ("", "")
    assert alone["world_size"] == 1
    assert alone["validation"] is not None
    assert summary["validation"] is not None
    assert alone["validation"]["loss"] == summary["validation"]["loss"]


def test_a_rank_s_own_error_is_raised(project: Path) -> None:
    (project / "train.conll").write_text("Anna B-PER\nsleeps\n")
    with pytest.raises(DataError) as caught:
        bigner.launch("run.yaml", progress=False)
    assert str(caught.value).startswith("train.conll:2: ")
    assert "\n" not in str(caught.value)


def test_what_is_wrong_is_told_before_a_process_is_started(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("subprocess.Popen", None)
    with pytest.raises(ConfigError, match="the world is 2; set it to fsdp or zero"):
        bigner.launch("run.yaml", nproc=2)
    with pytest.raises(ConfigError, match=r"config: data\.train: .*gone\.conll"):
        bigner.launch({**yaml.safe_load(RUN_FILE), "data": {"train": "gone.conll"}})
    with pytest.raises(LaunchError, match="nproc must be a number of processes, 1 or more; got 0"):
        bigner.launch("run.yaml", nproc=0)
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(LaunchError, match=r"call bigner\.train instead"):
        bigner.launch("run.yaml")


def _script(project: Path, nproc: int, overrides: dict[str, Any]) -> list[str]:
    """A script that launches a run, whose run file says it all."""
    config = bigner.load_config("run.yaml", overrides)
    (project / "run.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json")))
    (project / "script.py").write_text(LAUNCHED.format(nproc=nproc))
    return [sys.executable, "script.py"]


def test_an_interrupted_launch_saves_and_goes_on(project: Path) -> None:
    command = _script(project, 2, {**FSDP, **MANY_STEPS})
    with Running(command, project) as run:
        run.wait_for_step(2)
        run.send(signal.SIGINT)
        assert run.end() == 0, run.output
        assert run.ranks() == []
    assert "warning: stopping after this step" in run.output
    assert "Stopped: stopped by SIGINT after step" in run.output
    assert run.output.endswith("go on with\n  bigner.launch('run.yaml', nproc=2)\n")
    assert "Traceback" not in run.output
    assert len(checkpoints(project / "run")) == 1
    stopped = lines(project / "run")[-1]["step"]
    # One process goes on with what two have begun.
    assert bigner.train("run.yaml")["steps"] == 20
    steps = [line["step"] for line in lines(project / "run") if "split" not in line]
    assert steps == list(range(1, 21))
    assert 2 <= stopped < 20


def test_an_interrupt_before_it_trains_is_one(project: Path) -> None:
    with LaunchedRun(bigner.load_config("run.yaml"), nproc=1) as run:
        # Its interpreter has hardly begun.
        run.stop()
        while not run.is_over:
            run.wait(1.0)
        run.events()
        assert isinstance(run.failure(), KeyboardInterrupt)


def test_a_line_that_a_full_disk_cut_short_is_passed_over(project: Path) -> None:
    with LaunchedRun(bigner.load_config("run.yaml"), nproc=1) as run:
        with (Path(run._folder.name) / "relay.jsonl").open("ab") as relay:
            relay.write(b'{"kind": "mess{"kind": "message", "text": "a", "warning": false}\n')
            relay.write(b'{"kind": "bar", "number": 7, "bar": null}\n')
        events = run.events()
        assert {"kind": "bar", "number": 7, "bar": None} in events
        course = Course()
        for event in events:
            course.note(event)


def test_a_second_interrupt_ends_a_launch_at_once(project: Path) -> None:
    # A step of minutes, so that it is the second one that ends it.
    endless = {**MANY_STEPS, "training.global_batch_size": 200_000}
    with Running(_script(project, 1, endless), project) as run:
        run.wait_until((project / "run" / "metrics.jsonl").exists)
        run.send(signal.SIGINT)
        run.wait_until(lambda: "interrupt again to end it at once" in run.output)
        run.send(signal.SIGINT)
        # As Python ends by an interrupt that nobody takes.
        assert run.end() == -signal.SIGINT
        assert run.ranks() == []
    assert run.output.rstrip().endswith("KeyboardInterrupt")
    assert checkpoints(project / "run") == []


def test_a_killed_rank_is_named(project: Path) -> None:
    endless = {**FSDP, **MANY_STEPS, "training.max_steps": 100_000}
    with Running(_script(project, 2, endless), project) as run:
        run.wait_for_step(2)
        run.send(signal.SIGKILL, run.rank(1))
        assert run.end() == 0, run.output
        assert run.ranks() == []
    error = run.output.splitlines()[-1]
    assert error.startswith(("LostRankError: after step", "RunError: rank 1 was ended by SIGKILL"))
    assert "torch.distributed.elastic" not in run.output


def test_a_run_without_its_launcher_stops_saved(project: Path) -> None:
    endless = {**MANY_STEPS, "training.max_steps": 100_000}
    # Where it leaves what a killed process cannot clear away.
    with Running(_script(project, 1, endless), project, TMPDIR=str(project)) as run:
        run.wait_for_step(2)
        os.kill(run.pid, signal.SIGKILL)
        run.end()
        deadline = 600
        while list(run._processes()) and deadline:
            threading.Event().wait(0.1)
            deadline -= 1
        assert deadline
    assert len(checkpoints(project / "run")) == 1
