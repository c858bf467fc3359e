"""What ranks talk to each other with: gloo on the host, nccl between GPUs."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from bigner.doctor.findings import Finding, ok

_PATIENCE = timedelta(seconds=10)


def look() -> Iterator[Finding]:
    """Both of them."""
    gloo_is_there = dist.is_available() and dist.is_gloo_available()
    yield gloo(gloo_is_there, gloo_failure() if gloo_is_there else "")
    nccl_is_there = dist.is_available() and dist.is_nccl_available()
    visible = torch.cuda.device_count() if torch.cuda.is_available() else 0
    yield nccl(nccl_version() if nccl_is_there else None, visible)


def gloo_failure() -> str:
    """Why a group of this process alone cannot sum up a number; empty if it can."""
    try:
        store = torch._C._distributed_c10d.HashStore()
        group: Any = dist.ProcessGroupGloo(store, 0, 1, _PATIENCE)
        group.allreduce([torch.ones(1)]).wait()
    except RuntimeError as error:
        return str(error).partition("\n")[0]
    return ""


def gloo(is_there: bool, failure: str) -> Finding:
    """What ranks agree through, on GPUs too."""
    costs = "one process on its own is all that runs: no fsdp and no zero"
    if not is_there:
        remedy = "a build of torch for Linux, which has it"
        return Finding("gloo", "missing", "this torch has none", costs, remedy)
    if failure:
        remedy = "a host name that resolves (/etc/hosts), or GLOO_SOCKET_IFNAME naming a network"
        return Finding("gloo", "missing", f"cannot be used: {failure}", costs, remedy)
    return ok("gloo", "summed up a number")


def nccl_version() -> str:
    """The version that torch was built with."""
    found: tuple[int, ...] = torch.cuda.nccl.version()  # type: ignore[no-untyped-call]
    return ".".join(map(str, found))


def nccl(version: str | None, num_gpus: int) -> Finding:
    """What GPUs exchange through; not asked for without GPUs."""
    if version is not None:
        return ok("nccl", version)
    if not num_gpus:
        return ok("nccl", "none, and no GPU that would need it")
    return Finding(
        "nccl",
        "missing",
        "this torch has none",
        "GPUs cannot work together: no fsdp and no zero on them",
        "a CUDA build of torch",
    )
