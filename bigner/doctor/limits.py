"""What the system allows a process: shared memory, open files, locked memory."""

from __future__ import annotations

import resource
import shutil
from collections.abc import Iterator
from pathlib import Path

from bigner.doctor.findings import GIB, Finding, gib, ok

_SHARED = Path("/dev/shm")
# DeepSpeed's CPU collectives take 66 MiB for each rank of a node, and nccl takes some where GPUs do
# not reach each other; containers have 64 MiB unless told otherwise.
_SHARED_WANTED = GIB
_FILES_WANTED = 1024
_INFINIBAND = Path("/sys/class/infiniband")


def look() -> Iterator[Finding]:
    """The limits of this process."""
    yield shared_memory(shutil.disk_usage(_SHARED).total if _SHARED.is_dir() else None)
    yield open_files(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    has_infiniband = _INFINIBAND.is_dir() and any(_INFINIBAND.iterdir())
    yield locked_memory(resource.getrlimit(resource.RLIMIT_MEMLOCK)[0], has_infiniband)


def shared_memory(size: int | None) -> Finding:
    """Bytes of ``/dev/shm``; None where there is none."""
    costs = (
        "the ranks of a node exchange through it: DeepSpeed on processors and nccl fail at start"
    )
    remedy = "docker run --shm-size 8g; in Kubernetes an emptyDir of medium Memory at /dev/shm"
    if size is None:
        return Finding("/dev/shm", "missing", "there is none", costs, remedy)
    if size < _SHARED_WANTED:
        return Finding("/dev/shm", "warning", gib(size), costs, remedy)
    return ok("/dev/shm", gib(size))


def open_files(limit: int) -> Finding:
    """How many files a process may have open."""
    if limit == resource.RLIM_INFINITY:
        return ok("open files", "unlimited")
    if limit >= _FILES_WANTED:
        return ok("open files", f"{limit:,}")
    return Finding(
        "open files",
        "warning",
        f"{limit:,}",
        "data, shards and connections to all ranks are files: large runs end with 'too many open "
        "files'",
        "ulimit -n 65536",
    )


def locked_memory(limit: int, has_infiniband: bool) -> Finding:
    """How many bytes a process may keep from being swapped, which InfiniBand cards ask for."""
    found = "unlimited" if limit == resource.RLIM_INFINITY else gib(limit)
    if limit == resource.RLIM_INFINITY or not has_infiniband:
        return ok("locked memory", found)
    return Finding(
        "locked memory",
        "warning",
        found,
        "nccl cannot register buffers with the InfiniBand card, and fails or goes through TCP",
        "ulimit -l unlimited; docker run --ulimit memlock=-1",
    )
