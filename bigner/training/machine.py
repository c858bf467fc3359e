"""What a run's results depend on besides its config."""

from __future__ import annotations

import platform
from contextlib import suppress
from importlib import metadata
from pathlib import Path

import torch

from bigner import __version__


def device_name(device: torch.device) -> str:
    """What a rank computes on, as its maker calls it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.machine()


def versions() -> dict[str, str]:
    """The versions that a result depends on."""
    names = ("torch", "transformers", "deepspeed", "seqeval")
    found = {"bigner": __version__}
    for name in names:
        # A run under fsdp needs no deepspeed.
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found
