"""The files the repository ships are what the code says they are."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from bigner.config.advice import advice
from bigner.config.checks import Where
from bigner.config.load import load_config, load_with_source
from bigner.config.schema import RunConfig
from bigner.run_dir import differences

ROOT = Path(__file__).resolve().parents[2]
RUN_FILES = sorted((ROOT / "run_configs").glob("*.yaml"))


@pytest.mark.parametrize("path", RUN_FILES, ids=lambda path: path.name)
def test_run_files_load_and_suit_their_gpus(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    config = load_config(path)
    ranks = 16 if "2x8" in path.stem else 1 if config.strategy.kind == "single" else 8
    assert config.training.accumulation(ranks) == (4 if ranks == 1 else 1)


@pytest.mark.parametrize("path", RUN_FILES, ids=lambda path: path.name)
def test_run_files_are_on_safe_ground(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert advice(*_loaded(path)) == []
    # Which is no wonder unless their models are of the kind that is looked at.
    fields = [problem.field for problem in advice(*_loaded(path, "training.learning_rate=5e-5"))]
    assert fields == ["training.learning_rate"]


def test_the_first_question_is_one_of_models_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    files = sorted((ROOT / "run_configs" / "first_question").glob("*.yaml"))
    assert len(files) == 5
    answers = ("run_dir", "model", "training.learning_rate", "training.epochs")
    for path in files:
        assert advice(*_loaded(path)) == []
        config = load_config(path)
        assert config.run_dir == Path("runs/first_question") / path.stem
        differing = [name for name, *_ in differences(config, load_config(files[0]))]
        assert [name for name in differing if not name.startswith(answers)] == []


def _loaded(path: Path, *overrides: str) -> tuple[RunConfig, Where]:
    config, source = load_with_source(path, overrides)
    return config, source.where


@pytest.mark.parametrize(
    "name", ["command_reference.py", "run_file_reference.py", "shipped_plans.py"]
)
def test_pages_that_are_written_are_current(name: str) -> None:
    script = ROOT / "scripts" / name
    done = subprocess.run(
        [sys.executable, str(script), "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
