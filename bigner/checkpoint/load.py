"""Loading: every rank reads only the ranges it owns, whatever strategy and world wrote them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError

from bigner.checkpoint.folders import TABLE
from bigner.checkpoint.manifest import KINDS, Manifest, SavedParameter, TensorKind, read_manifest
from bigner.distributed import World
from bigner.errors import CheckpointError, one_line
from bigner.log import progress
from bigner.strategies.base import Shard, Strategy
from bigner.table import TableFolder
from bigner.tensor_files import checksum_of, read_range

_NAMES: dict[TensorKind, str] = {
    "master": "values",
    "exp_avg": "optimizer state",
    "exp_avg_sq": "optimizer state",
    "average": "moving average",
}


def damage(folder: Path, world: World) -> str:
    """What is wrong with a checkpoint, or nothing; collective, the same on every rank.

    The ranks share the files' checksums among themselves, so that each byte is read once for it.
    """
    found = ""
    try:
        manifest = read_manifest(folder)
        found = (
            next(_damaged_files(folder, manifest), "")
            or _damaged_ranges(folder, manifest, world.rank, world.size)
            or (_damaged_table(folder) if world.is_main else "")
        )
    except CheckpointError as error:
        found = str(error)
    everywhere = world.gather_objects(found)
    first: str = world.share_object(next(filter(None, everywhere or []), ""))
    return first


def _damaged_files(folder: Path, manifest: Manifest) -> Iterator[str]:
    for name, num_bytes in manifest.files.items():
        path = folder / name
        if not path.is_file():
            yield f"{folder}: {name} is missing"
        elif path.stat().st_size != num_bytes:
            yield f"{path} has {path.stat().st_size} bytes and had {num_bytes} when it was written"


def _damaged_ranges(folder: Path, manifest: Manifest, first: int, step: int) -> str:
    """The first range, of every ``step``-th one, that is not as it was written."""
    tensors = [
        (part, name, kind)
        for name, saved in manifest.parameters.items()
        for part in saved.ranges
        for kind in part.sha256
    ]
    for part, name, kind in progress(tensors[first::step], "checking the checkpoint"):
        path = folder / part.file
        try:
            changed = part.sha256[kind] != checksum_of(path, f"{name}/{kind}", part.numel)
            reason = "changed since it was written"
        except (OSError, SafetensorError, ValueError, RuntimeError) as error:
            changed, reason = True, f"cannot be read ({error})"
        if changed:
            return one_line(str(path), f"{kind} of {name} at {part.offset} {reason}")
    return ""


def _damaged_table(folder: Path) -> str:
    """What is wrong with the table that rows in use are put back into, if there is one."""
    table = TableFolder(folder / TABLE)
    return table.damage() if table.path.is_dir() else ""


def load(folder: Path, manifest: Manifest, strategy: Strategy) -> None:
    """Put a sound checkpoint into the strategy; collective.

    Raises:
        CheckpointError: its ranges do not make up this model.
    """
    strange = set(manifest.parameters)
    for shard in progress(list(strategy.shards()), "reading the checkpoint"):
        saved = manifest.parameters.get(shard.name)
        if saved is None or saved.shape != shard.shape:
            raise CheckpointError(f"{folder} has no {shard.name} of shape {shard.shape}")
        strange.discard(shard.name)
        for kind in KINDS:
            target = getattr(shard, kind)
            # A run that kept no moving average left none; one begins with the next step.
            absent = kind == "average" and not manifest.keeps_average
            if target is not None and shard.numel and not absent:
                _read(folder, saved, shard, kind, target[: shard.numel])
    if strange:
        raise CheckpointError(f"{folder} has {sorted(strange)[0]}, which this model has not")
    strategy.load_scalars(manifest.scalars)
    strategy.publish()


def _read(
    folder: Path, saved: SavedParameter, shard: Shard, kind: TensorKind, target: torch.Tensor
) -> None:
    """Fill one flat range from all saved ranges that overlap it."""
    for part in saved.ranges:
        start = max(part.offset, shard.offset)
        stop = min(part.stop, shard.offset + shard.numel)
        if start >= stop:
            continue
        if kind not in part.sha256:
            raise CheckpointError(
                f"{folder} has no {_NAMES[kind]} of {shard.name}, which was frozen in that run"
            )
        piece = target[start - shard.offset : stop - shard.offset]
        path = folder / part.file
        try:
            read_range(path, f"{shard.name}/{kind}", start - part.offset, piece)
        except (OSError, SafetensorError, ValueError, RuntimeError) as error:
            raise CheckpointError(one_line(f"{path} cannot be read", str(error))) from None


def read_parameter(folder: Path, manifest: Manifest, name: str) -> torch.Tensor:
    """The fp32 values of a whole parameter of a checkpoint: what the run would predict with, which
    is the moving average where it keeps one.

    Raises:
        CheckpointError: its file cannot be read.
    """
    saved = manifest.parameters[name]
    try:
        values = torch.empty(saved.shape, dtype=torch.float32)
    except (RuntimeError, MemoryError) as error:
        reason = f"{name} of shape {saved.shape} is not to be held ({error})"
        raise CheckpointError(one_line(str(folder), reason)) from None
    whole = Shard(name, saved.shape, 0, values.numel(), values.view(-1))
    is_frozen = any("exp_avg" not in part.sha256 for part in saved.ranges)
    kind: TensorKind = "average" if manifest.keeps_average and not is_frozen else "master"
    _read(folder, saved, whole, kind, whole.master)
    return values
