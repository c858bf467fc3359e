"""The garbage collector is off where it should be, and on again whatever happened there."""

from __future__ import annotations

import gc
import subprocess
import sys

import pytest

from bigner import collector
from tests.ranks.launch import environment


def test_it_is_paused_and_goes_on() -> None:
    with collector.paused():
        assert not gc.isenabled()
        with collector.paused():
            assert not gc.isenabled()
        assert not gc.isenabled()
    assert gc.isenabled()


def test_it_goes_on_after_an_error() -> None:
    with pytest.raises(KeyError), collector.paused():
        raise KeyError
    assert gc.isenabled()


def test_what_was_loaded_is_passed_by() -> None:
    # In a process of its own: what is there for good is so for all tests that follow.
    code = (
        "import gc\n"
        "from bigner import collector\n"
        "with collector.loading():\n"
        "    import json\n"
        "print(gc.isenabled(), gc.get_freeze_count() > 1000)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment(), check=True
    )
    assert done.stdout == "True True\n"
