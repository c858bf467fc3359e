"""What happens to a run: it is repeated, resumed, gone back on, shared by mistake, diverges."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from bigner.run_dir import RunDir
from tests.e2e.conftest import main
from tests.ranks.launch import run_command

STEPS = ["training.max_steps=6", "checkpoint.every_steps=2", "checkpoint.keep_last=2"]


def _summary(project: Path) -> dict[str, object]:
    summary: dict[str, object] = json.loads((project / "run" / "summary.json").read_text())
    return summary


def _checkpoints(project: Path) -> list[str]:
    return sorted(path.name for path in (project / "run" / "checkpoints").iterdir())


def test_a_finished_run_is_not_trained_again(project: Path) -> None:
    assert main(["train", "run.yaml", *STEPS]) == 0
    before = _summary(project)
    assert main(["train", "run.yaml", *STEPS]) == 0
    assert _summary(project) == before


def test_the_last_checkpoints_are_kept(project: Path) -> None:
    assert main(["train", "run.yaml", *STEPS]) == 0
    assert _checkpoints(project) == ["step-00000004", "step-00000006"]


def test_a_broken_off_run_goes_on(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "run.yaml", *STEPS]) == 0
    whole = _summary(project)
    # As a crash between the checkpoint of step 4 and the next one would leave it.
    (project / "run" / "summary.json").unlink()
    (project / "run" / "checkpoints" / "step-00000006" / "manifest.json").unlink()
    assert main(["train", "run.yaml", *STEPS]) == 0
    assert "going on from step 4" in capsys.readouterr().err
    again = _summary(project)
    assert again["validation"]["loss"] == whole["validation"]["loss"]  # type: ignore[index]
    lines = (project / "run" / "metrics.jsonl").read_text().splitlines()
    steps = [json.loads(line)["step"] for line in lines if "split" not in json.loads(line)]
    assert steps == sorted(set(steps))


def test_going_back_sets_the_newer_checkpoints_aside(project: Path) -> None:
    assert main(["train", "run.yaml", *STEPS]) == 0
    (project / "run" / "summary.json").unlink()
    earlier = "checkpoint.resume=run/checkpoints/step-00000004"
    assert main(["train", "run.yaml", *STEPS, earlier]) == 0
    names = _checkpoints(project)
    assert names == ["abandoned-step-00000006", "step-00000004", "step-00000006"]


def test_a_checkpoint_beyond_the_end_is_refused(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "run.yaml", *STEPS]) == 0
    resume = "checkpoint.resume=run/checkpoints/step-00000006"
    assert main(["train", "run.yaml", "run_dir=other", "training.max_steps=3", resume]) == 2
    assert "is of step 6, and this run ends at 3" in capsys.readouterr().err


def test_another_config_on_resume_is_told(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "run.yaml", *STEPS]) == 0
    resume = "checkpoint.resume=run/checkpoints/step-00000004"
    assert main(["train", "run.yaml", *STEPS, "run_dir=other", "seed=7", resume]) == 0
    assert "warning: seed was 42" in capsys.readouterr().err


def test_starting_over_moves_the_earlier_run_aside(project: Path) -> None:
    assert main(["train", "run.yaml"]) == 0
    before = _summary(project)
    over = ["seed=7", "checkpoint.resume=none"]
    assert main(["train", "run.yaml", *over]) == 0
    assert json.loads((project / "run.1" / "summary.json").read_text()) == before


def test_two_runs_do_not_share_a_folder(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with RunDir(project / "run").lock():
        assert main(["train", "run.yaml", "run_dir=" + str(project / "run")]) == 2
    assert "another process is training into" in capsys.readouterr().err


def test_a_run_that_diverges_is_stopped(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wild = ["training.max_steps=40", "training.learning_rate=1.0", "training.log_every=1"]
    wild += ["training.max_grad_norm=null", "training.adam_epsilon=1e-45"]
    wild += ["training.warmup_ratio=0", "training.adam_beta2=0", "training.adam_beta1=0"]
    assert main(["train", "run.yaml", *wild]) == 1
    error = capsys.readouterr().err
    assert "the gradient was not finite 10 times in a row" in error
    assert "lower training.learning_rate" in error


def test_ranks_warn_once_of_what_a_large_model_may_collapse_on(project: Path) -> None:
    path = project / "models" / "bare" / "config.json"
    config = {**json.loads(path.read_text()), "hidden_size": 1024, "num_hidden_layers": 1}
    path.write_text(json.dumps(config))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", "2", "-m", "bigner", "train", "run.yaml"]
    done = run_command(
        [*command, "strategy={kind: fsdp}", "training.micro_batch_size=1", "training.max_steps=20"],
        project,
    )
    assert done.returncode == 0, done.stderr
    warning = "warning: run.yaml:13: training.global_batch_size: 2 is less than 16"
    assert done.stderr.count(warning) == 1
    assert done.stderr.count("large encoders") == 1


def test_ranks_that_fail_alike_tell_once(project: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", "2", "-m", "bigner", "train", "run.yaml"]
    done = run_command(
        [*command, "strategy={kind: fsdp}", "training.micro_batch_size=1", "data.train=gone.conll"],
        project,
    )
    assert done.returncode != 0
    assert done.stderr.count("error: override 'data.train=gone.conll'") == 1
    assert "bigner: rank 1" not in done.stderr
