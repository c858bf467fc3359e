"""Numbers that no longer make sense: skipped, counted, told of, and the end of a run in time."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import main
from tests.e2e.running import checkpoints, lines

TRAIN = ["train", "run.yaml", "training.log_every=1"]
WILD = [
    *("training.learning_rate=1.0", "training.max_grad_norm=null", "training.adam_epsilon=1e-45"),
    *("training.warmup_ratio=0", "training.adam_beta2=0", "training.adam_beta1=0"),
    # An order of the sentences in which some steps are skipped, and others are not.
    *("evaluation.every=4", "training.pool_batches=32"),
]
"""Diverges within some steps."""


def _skipped(run_dir: Path) -> list[bool]:
    """Of each step whether it was skipped."""
    return [line["skipped"] for line in lines(run_dir) if "split" not in line]


def _draw_weights(project: Path, spread: float) -> None:
    """Let the weights be drawn with a standard deviation."""
    path = project / "models" / "bare" / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "initializer_range": spread}))


def _strict(path: Path) -> Any:
    """JSON as other languages read it, which know no NaN."""
    constants: list[str] = []
    found = json.loads(path.read_text(), parse_constant=constants.append)
    assert not constants
    return found


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_diverging_run_saves_before_it_ends(
    project: Path, capsys: pytest.CaptureFixture[str], precision: str
) -> None:
    wild = [*TRAIN, *WILD, f"precision={precision}", "training.max_steps=40"]
    assert main([*wild, "training.max_skipped_steps=4"]) == 1
    error = re.search(
        r"bigner: error: step (\d+): the gradient was not finite 4 times in a row, so the model "
        r"diverged; last losses before steps were skipped: ([\d., ]+); lower "
        r"training.learning_rate",
        capsys.readouterr().err,
    )
    assert error is not None
    step, skipped = int(error[1]), _skipped(project / "run")
    assert checkpoints(project / "run") == [f"step-{step:08d}"]
    assert len(skipped) == step
    assert skipped[-4:] == [True] * 4
    assert len(error[2].split(", ")) == min(5, skipped.count(False))
    # What it had come to is not forgotten: one more is one too many.
    assert main([*wild, "training.max_skipped_steps=5"]) == 1
    assert "not finite 5 times in a row" in capsys.readouterr().err


def test_skipped_steps_are_counted(project: Path) -> None:
    wild = [*TRAIN, *WILD, "training.max_steps=12", "training.max_skipped_steps=12"]
    assert main(wild) == 0
    skipped = _skipped(project / "run")
    assert len(skipped) == 12
    assert 0 < skipped.count(True) < 12
    summary = _strict(project / "run" / "summary.json")
    assert summary["skipped_steps"] == skipped.count(True)
    assert summary["validation"]["loss"] is None
    # Done already: what is shown of it has no loss.
    assert main(wild) == 0


def test_fp16_ends_at_its_smallest_loss_scale(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _draw_weights(project, 1e5)
    assert main([*TRAIN, "precision=fp16", "training.max_steps=40"]) == 1
    error = capsys.readouterr().err
    assert "gradients overflow fp16 at loss scale 1, the smallest there is" in error
    assert "set precision to bf16 or fp32" in error
    steps = [line for line in lines(project / "run") if "split" not in line]
    scales = [line["loss_scale"] for line in steps]
    assert scales == [2.0**power for power in range(len(scales) - 1, -1, -1)]
    assert f"error: step {len(steps)}: " in error
    assert checkpoints(project / "run") == [f"step-{len(steps):08d}"]


def test_a_collapsed_model_is_told_of_after_warm_up(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Hardly anything but O to learn from, and time for no more.
    (project / "train.conll").write_text("Anna B-PER\nOslo B-LOC\n\n" + "in O\nreads O\n\n" * 30)
    evaluated = [*TRAIN, "training.max_steps=12", "training.warmup_ratio=0.6", "evaluation.every=4"]
    evaluated += ["training.learning_rate=0.05"]
    assert main(evaluated) == 0
    told = capsys.readouterr().err
    scores = [line for line in lines(project / "run") if "split" in line]
    # Of the nine words of validation five are tagged so.
    assert [line["accuracy"] for line in scores] == [pytest.approx(5 / 9)] * 3
    warnings = re.findall(
        r"^warning: step (\d+): every word of validation is tagged O,", told, re.M
    )
    assert warnings == ["8", "12"]
    assert "training.learning_rate of 1e-5" in told

    assert main([*evaluated, "run_dir=stopped", "evaluation.on_collapse=stop"]) == 1
    error = capsys.readouterr().err
    assert "error: step 8: every word of validation is tagged O, so the model collapsed" in error
    assert "saved in stopped/checkpoints/step-00000008" in error
    assert checkpoints(project / "stopped") == ["step-00000008"]

    text = (project / "dev.conll").read_text()
    (project / "dev.conll").write_text(re.sub(r" [BI]-\w+", " O", text))
    assert main([*evaluated, "run_dir=nothing", "evaluation.on_collapse=stop"]) == 0
