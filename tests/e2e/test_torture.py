"""Runs that are killed at random moments go on as if nobody had killed them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.ranks.launch import environment

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "torture.py"
ROUNDS = 6
SECONDS = 870


@pytest.mark.timeout(SECONDS + 30)
def test_killed_runs_lose_nothing() -> None:
    command = [sys.executable, str(SCRIPT), "--rounds", str(ROUNDS)]
    with subprocess.Popen(
        command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            stdout, stderr = process.communicate(timeout=SECONDS)
        except subprocess.TimeoutExpired:
            # Killed outright it would leave what it launched behind.
            process.terminate()
            stdout, stderr = process.communicate()
    assert process.returncode == 0, stdout + stderr
    *rounds, result = stdout.splitlines()
    assert len(rounds) == ROUNDS
    assert re.fullmatch(
        rf"{ROUNDS} rounds \(\d+ of them left half a checkpoint or model\), \d+ chains, "
        r"\d+ of them under one strategy throughout \(bit for bit\), "
        r"\d+ mixed \(largest loss difference \d\.\de[-+]\d\d\); no committed checkpoint was lost",
        result,
    )
