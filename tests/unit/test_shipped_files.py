"""The files the repository ships are what the code says they are."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from bigner.config.load import load_config

ROOT = Path(__file__).resolve().parents[2]
RUN_FILES = sorted((ROOT / "run_configs").glob("*.yaml"))


@pytest.mark.parametrize("path", RUN_FILES, ids=lambda path: path.name)
def test_run_files_load_and_suit_eight_gpus(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    config = load_config(path)
    assert config.training.accumulation(8) >= 1
    # The ground on which large encoders do not collapse.
    assert config.training.learning_rate <= 2e-5
    assert config.training.global_batch_size >= 16
    assert config.training.warmup_ratio >= 0.05


def test_the_reference_of_fields_is_current() -> None:
    script = ROOT / "scripts" / "run_file_reference.py"
    done = subprocess.run(
        [sys.executable, str(script), "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
