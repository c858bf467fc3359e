"""Cores and memory of the host."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from bigner.doctor.findings import GIB, Finding, gib, ok

# XLM-R-large trained on the host: masters, gradients and moments are 16 bytes for each of 560
# million parameters, and activations come on top.
_MEMORY_OF_LARGE = 12 * GIB


def look() -> Iterator[Finding]:
    """What this process may use of the machine."""
    yield cores(len(os.sched_getaffinity(0)), cores_of_group(_group("cpu.max")))
    total, available = memory_sizes(_read("/proc/meminfo"))
    yield memory(total, available, memory_of_group(_group("memory.max")))


def cores(usable: int, limit: float | None) -> Finding:
    """Cores that may be used.

    Args:
        usable: those the process is bound to.
        limit: what a container is held to, if it is.
    """
    if limit is None or limit >= usable:
        return ok("cores", str(usable))
    return Finding(
        "cores",
        "warning",
        f"{usable}, and this container is held to {limit:g}",
        "as many threads as there are cores wait for one another",
        f"OMP_NUM_THREADS={max(1, int(limit))}, or a higher limit of the container",
    )


def memory(total: int, available: int, limit: int | None) -> Finding:
    """Memory of the host.

    Args:
        total: of the machine, in bytes.
        available: of it, what could be had now.
        limit: what a container is held to, if it is.
    """
    found = f"{gib(available)} of {gib(total)} available"
    if limit is not None and limit < total:
        found += f", and this container is held to {gib(limit)}"
        available = min(available, limit)
    if available >= _MEMORY_OF_LARGE:
        return ok("memory", found)
    return Finding(
        "memory",
        "warning",
        found,
        f"XLM-R-large trained on processors wants {gib(_MEMORY_OF_LARGE)} over all ranks",
        "a smaller encoder, more ranks on more machines, or GPUs; `bigner plan` tells what fits",
    )


def memory_sizes(meminfo: str) -> tuple[int, int]:
    """Bytes in all and available, of what ``/proc/meminfo`` says; 0 for what it does not."""
    sizes = {}
    for line in meminfo.splitlines():
        name, _, value = line.partition(":")
        number = value.removesuffix("kB").strip()
        if number.isdecimal():
            sizes[name] = int(number) * 1024
    return sizes.get("MemTotal", 0), sizes.get("MemAvailable", 0)


def cores_of_group(cpu_max: str) -> float | None:
    """Cores of a control group, of what its ``cpu.max`` says; None without a limit."""
    quota, _, period = cpu_max.strip().partition(" ")
    if not (quota.isdecimal() and period.isdecimal() and int(period)):
        return None
    return int(quota) / int(period)


def memory_of_group(memory_max: str) -> int | None:
    """Bytes of a control group, of what its ``memory.max`` says; None without a limit."""
    text = memory_max.strip()
    return int(text) if text.isdecimal() else None


def _group(name: str) -> str:
    # Within a container its own group is the root.
    return _read(f"/sys/fs/cgroup/{name}")


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
