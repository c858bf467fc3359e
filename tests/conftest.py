"""What tests of every kind share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

_ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of the shared corpora and tokenizer; a test that needs it is skipped without it."""
    folder = _ROOT / os.environ.get("BIGNER_TEST_DATA", "../shared/data")
    if not folder.is_dir():
        pytest.skip(f"no shared corpora at {folder}; set BIGNER_TEST_DATA")
    return folder.resolve()
