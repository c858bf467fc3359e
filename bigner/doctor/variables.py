"""Variables of the environment that change what a run does."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping

from bigner.doctor.findings import Finding, ok

_YES = ("1", "ON", "YES", "TRUE")
# What is turned off with them has a slower way around it.
_FAST_WAYS = {
    "NCCL_P2P_DISABLE": "GPUs of a node do not reach each other directly",
    "NCCL_SHM_DISABLE": "ranks of a node do not exchange through shared memory",
    "NCCL_IB_DISABLE": "nodes exchange through TCP in place of InfiniBand",
}
_OF_A_LAUNCH = ("RANK", "WORLD_SIZE", "LOCAL_RANK")


def look() -> Iterator[Finding]:
    """The environment of this process."""
    environment = os.environ
    yield threads(environment.get("OMP_NUM_THREADS"))
    yield accelerator(environment.get("DS_ACCELERATOR"))
    yield visible_gpus(environment.get("CUDA_VISIBLE_DEVICES"))
    yield from offline(environment)
    yield token(environment)
    yield from of_nccl(environment)
    yield from left_by_a_launch(environment)


def threads(value: str | None) -> Finding:
    """``OMP_NUM_THREADS``: threads of a process on processors."""
    if value is None:
        return ok("OMP_NUM_THREADS", "not set: bigner shares the cores among the ranks of a node")
    # Nested parallelism has a list of them.
    if all(part.strip().isdecimal() and int(part) for part in value.split(",")):
        return ok("OMP_NUM_THREADS", value)
    return Finding(
        "OMP_NUM_THREADS",
        "warning",
        f"{value!r} is no number of threads",
        "every rank starts a thread for every core",
        "unset OMP_NUM_THREADS",
    )


def accelerator(value: str | None) -> Finding:
    """``DS_ACCELERATOR``: what runs compute on, whatever the strategy."""
    if value in (None, "cuda"):
        return ok("DS_ACCELERATOR", value or "not set: GPUs where there are any")
    return Finding(
        "DS_ACCELERATOR",
        "warning",
        str(value),
        "runs compute on processors, GPUs or not",
        "unset DS_ACCELERATOR where GPUs shall be used",
    )


def visible_gpus(value: str | None) -> Finding:
    """``CUDA_VISIBLE_DEVICES``: which GPUs there seem to be."""
    if value is None or value.strip() not in ("", "-1"):
        return ok("CUDA_VISIBLE_DEVICES", value or "not set: all GPUs")
    return Finding(
        "CUDA_VISIBLE_DEVICES",
        "warning",
        f"{value!r} hides every GPU",
        "runs compute on processors",
        "unset CUDA_VISIBLE_DEVICES where GPUs shall be used",
    )


def offline(environment: Mapping[str, str]) -> Iterator[Finding]:
    """``HF_HUB_OFFLINE`` and what means the same."""
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        value = environment.get(name, "")
        if value.upper() in _YES:
            yield Finding(
                name,
                "warning",
                value,
                "models and data sets come from the cache alone; `bigner push` is refused",
                f"unset {name}, or name folders in the run file",
            )
        elif name in environment or name == "HF_HUB_OFFLINE":
            yield ok(name, value or "not set")


def token(environment: Mapping[str, str]) -> Finding:
    """``HF_TOKEN``: whether there is one; never what it is."""
    if environment.get("HF_TOKEN"):
        return ok("HF_TOKEN", "set")
    return ok("HF_TOKEN", "not set: public models only, and no `bigner push`")


def of_nccl(environment: Mapping[str, str]) -> Iterator[Finding]:
    """All of nccl's that are set."""
    for name in sorted(name for name in environment if name.startswith("NCCL_")):
        value = environment[name]
        costs = _FAST_WAYS.get(name)
        if costs and value.strip() != "0":
            yield Finding(name, "warning", value, costs, f"unset {name} unless nccl fails without")
        else:
            yield ok(name, value)


def left_by_a_launch(environment: Mapping[str, str]) -> Iterator[Finding]:
    """What a launcher tells its processes, in a shell where there is no launcher."""
    found = [f"{name}={environment[name]}" for name in _OF_A_LAUNCH if name in environment]
    if found and "TORCHELASTIC_RUN_ID" not in environment:
        yield Finding(
            "variables of a launch",
            "warning",
            " ".join(found),
            "unless a launcher started this, a run waits for processes that nobody started",
            f"unset {' '.join(_OF_A_LAUNCH)}",
        )
