"""The peak of a process's memory, counted anew for each run."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from bigner.memory import forget_peak, peak_memory_bytes

CPU = torch.device("cpu")
MEGABYTES = 300


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux counts anew")
def test_the_peak_is_that_of_what_came_since() -> None:
    forget_peak(CPU)
    before = peak_memory_bytes(CPU)
    # Written to, for the system gives no pages before that.
    values = torch.ones(MEGABYTES << 20, dtype=torch.uint8)
    held = peak_memory_bytes(CPU)
    assert held - before > (MEGABYTES - 10) << 20
    assert values.sum(dtype=torch.int64) == MEGABYTES << 20
    del values
    assert peak_memory_bytes(CPU) >= held
    forget_peak(CPU)
    assert peak_memory_bytes(CPU) < held - ((MEGABYTES - 50) << 20)
