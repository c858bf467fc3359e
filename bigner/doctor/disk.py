"""Free disk where runs, prepared data and models go."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from bigner.config.schema import DataConfig
from bigner.doctor.findings import GIB, Finding, gib, ok

# XLM-R-large: 2.2 GB the best weights, 6.7 GB a checkpoint, of which two are kept while a third is
# written.
_RUN_WANTED = 25 * GIB
_CACHE_WANTED = 2 * GIB
_MODELS_WANTED = 5 * GIB


def look() -> Iterator[Finding]:
    """The folders that runs of this user write to."""
    cache = DataConfig(train="train").cache_root()
    yield free_at("disk: run folders", Path.cwd(), _RUN_WANTED, "run_dir on another disk")
    yield free_at("disk: prepared data", cache, _CACHE_WANTED, "BIGNER_CACHE or data.cache_dir")
    yield free_at("disk: models of the Hub", _hub_cache(), _MODELS_WANTED, "HF_HOME")


def _hub_cache() -> Path:
    home = os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface"
    return Path(os.environ.get("HF_HUB_CACHE") or Path(home) / "hub")


def free_at(subject: str, folder: Path, wanted: int, elsewhere: str) -> Finding:
    """Room in the disk of a folder that may not be there yet.

    Args:
        subject: what goes there.
        folder: where.
        wanted: bytes that XLM-R-large takes.
        elsewhere: what sends it to another disk.
    """
    above = next(path for path in (folder, *folder.absolute().parents) if path.is_dir())
    if not os.access(above, os.W_OK):
        return Finding(
            subject,
            "warning",
            f"{above} cannot be written to",
            "runs that write there are refused",
            elsewhere,
        )
    return enough(subject, folder, shutil.disk_usage(above).free, wanted, elsewhere)


def enough(subject: str, folder: Path, free: int, wanted: int, elsewhere: str) -> Finding:
    """Whether the free bytes are enough."""
    found = f"{gib(free)} free at {folder}"
    if free >= wanted:
        return ok(subject, found)
    return Finding(subject, "warning", found, f"XLM-R-large takes {gib(wanted)}", elsewhere)
