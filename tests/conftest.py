"""What tests of every kind share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# Runs of this process and of others are compared bit for bit, and a sum that two threads take is
# another sum: one thread for both, said before torch is imported.
os.environ["OMP_NUM_THREADS"] = "1"

_ROOT = Path(__file__).resolve().parents[1]
_FUZZ_CASES = 300


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--fuzz-cases",
        type=int,
        metavar="N",
        help=f"cases of each test in tests/fuzz, drawn anew each time; without it always the same "
        f"{_FUZZ_CASES}",
    )


def pytest_configure(config: pytest.Config) -> None:
    cases = config.getoption("fuzz_cases")
    settings.register_profile(
        "fuzz",
        max_examples=cases or _FUZZ_CASES,
        derandomize=cases is None,
        deadline=None,
        # A busy machine is slow to draw, too.
        suppress_health_check=[HealthCheck.too_slow],
    )


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of the shared corpora and tokenizer; a test that needs it is skipped without it."""
    folder = _ROOT / os.environ.get("BIGNER_TEST_DATA", "../shared/data")
    if not folder.is_dir():
        pytest.skip(f"no shared corpora at {folder}; set BIGNER_TEST_DATA")
    return folder.resolve()
