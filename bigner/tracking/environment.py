"""What a result depends on beside the config, for trackers to show."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Mapping
from contextlib import suppress

import torch

from bigner.distributed import World

_GIT_SECONDS = 2.0


def environment(world: World, versions: Mapping[str, str]) -> dict[str, str]:
    """Versions, device, world size, and the commit of the working directory if it has one."""
    device = world.device
    found = {
        **versions,
        "python": platform.python_version(),
        "world_size": str(world.size),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
    }
    if commit := _commit():
        found["commit"] = commit
    return found


def _commit() -> str:
    with suppress(OSError, subprocess.SubprocessError):
        command = ["git", "rev-parse", "HEAD"]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_GIT_SECONDS, check=True
        )
        return done.stdout.strip()
    return ""
