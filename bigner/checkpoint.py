"""Checkpoints: flat shards on disk, readable under any strategy and world size.

A checkpoint is a folder of safetensors files, one a rank, and ``manifest.json``, which says which
range of which parameter lies where. It is written under a temporary name, the manifest last, then
renamed: a folder without a manifest is no checkpoint. There is no pickle in it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from bigner.config.schema import RunConfig
from bigner.distributed import World
from bigner.errors import CheckpointError, ConfigError, Problem
from bigner.run_dir import write_json
from bigner.strategies.base import Shard, Strategy

FORMAT_VERSION = 1
MANIFEST = "manifest.json"
BEST = "best"
_MANIFEST_KEYS = {"files", "parameters", "scalars"}
_TENSORS = ("master", "exp_avg", "exp_avg_sq")


@dataclass(frozen=True, slots=True)
class _Range:
    """Where the values ``[offset, offset + numel)`` of a parameter lie."""

    file: str
    offset: int
    numel: int


def folder_of(checkpoints: Path, step: int) -> Path:
    """The folder of the checkpoint after ``step`` steps."""
    return checkpoints / f"step-{step:08d}"


def latest(checkpoints: Path) -> Path | None:
    """The newest whole checkpoint, if there is one."""
    whole = [path.parent for path in checkpoints.glob(f"step-*/{MANIFEST}")]
    return max(whole, default=None, key=lambda path: path.name)


def find(wanted: str, checkpoints: Path) -> Path | None:
    """The checkpoint that ``checkpoint.resume`` means: ``auto``, ``none`` or a folder.

    Raises:
        ConfigError: a folder was named and is no whole checkpoint; that is wrong input, for nothing
            has run yet and trying again would not help.
    """
    if wanted == "none":
        return None
    if wanted == "auto":
        return latest(checkpoints)
    try:
        read_manifest(Path(wanted))
    except CheckpointError as error:
        advice = "give a folder such as RUN_DIR/checkpoints/step-00000500, or auto"
        raise ConfigError(
            [Problem("run config", "checkpoint.resume", f"{error}; {advice}")]
        ) from None
    return Path(wanted)


def check_fits(
    folder: Path, manifest: Mapping[str, Any], tags: tuple[str, ...], total_steps: int
) -> None:
    """Refuse a checkpoint that this run cannot go on from.

    Raises:
        ConfigError: its head means other labels than the data has, or it lies beyond the run's
            end.
    """
    message = ""
    if tuple(manifest["labels"]) != tags:
        message = f"was trained for the labels {manifest['labels']}, and the data has {list(tags)}"
    elif manifest["step"] > total_steps:
        message = (
            f"is of step {manifest['step']}, and this run ends at {total_steps}; raise "
            f"training.epochs or training.max_steps"
        )
    if message:
        raise ConfigError([Problem(str(folder), "", message)])


def config_of(folder: Path, manifest: Mapping[str, Any]) -> RunConfig:
    """The run config a checkpoint was written under.

    Raises:
        CheckpointError: this bigner cannot read it.
    """
    try:
        return RunConfig.model_validate(manifest["config"])
    except ValidationError as error:
        raise CheckpointError(f"{folder}: its run config cannot be read: {error}") from None


def set_newer_aside(checkpoints: Path, step: int) -> list[Path]:
    """Rename the checkpoints of a run that go beyond ``step``; for rank 0, on going back to it.

    Left where they are, ``auto`` would go on from one of them, and ``keep_last`` would keep them
    rather than those written from here on.

    Returns:
        what they are called now.
    """
    aside = []
    for path in sorted(checkpoints.glob(f"step-*/{MANIFEST}")):
        if path.parent.name > folder_of(checkpoints, step).name:
            target = path.parent.with_name(f"abandoned-{path.parent.name}")
            shutil.rmtree(target, ignore_errors=True)
            aside.append(path.parent.rename(target))
    return aside


def save(
    folder: Path,
    strategy: Strategy,
    world: World,
    state: Mapping[str, Any],
    best_model: Path | None = None,
) -> None:
    """Write a checkpoint; collective.

    Args:
        folder: where it will stand once it is whole.
        state: plain values to find again in the manifest, such as the step.
        best_model: the exported folder of the best weights so far, kept along: the run may
            export others after this checkpoint, and then come back to it.

    Raises:
        CheckpointError: it cannot be written; on every rank, and nothing whole is left behind.
    """
    working = folder.with_name(f".{folder.name}.tmp")
    world.main_first(lambda: _make_empty(working))
    scalars = strategy.scalars()
    file = f"shards-{world.rank:05d}.safetensors"
    shards = [shard for shard in strategy.shards() if shard.numel]
    failure = None
    try:
        save_file(dict(_named_tensors(shards)), working / file)
        checksum = _checksum(working / file)
    except (OSError, SafetensorError) as error:
        failure, checksum = str(error), ""
    described = {
        shard.name: {"shape": shard.shape, "offset": shard.offset, "numel": shard.numel}
        for shard in shards
    }
    parts = world.gather_objects((file, checksum, described, failure))

    def finish() -> None:
        assert parts is not None
        failures = [part[3] for part in parts if part[3]]
        if failures:
            raise CheckpointError(f"checkpoint {folder} cannot be written: {failures[0]}")
        if best_model is not None:
            _link_folder(best_model, working / BEST)
        _write_manifest(working, parts, {**state, "scalars": scalars})
        shutil.rmtree(folder, ignore_errors=True)
        working.rename(folder)

    world.main_first(finish)


def restore_best(folder: Path, model: Path) -> None:
    """Make the best weights of a checkpoint those of the run again, if it has any; for rank 0.

    Raises:
        CheckpointError: they cannot be put there.
    """
    if (folder / BEST).is_dir():
        shutil.rmtree(model, ignore_errors=True)
        _link_folder(folder / BEST, model)


def _link_folder(source: Path, target: Path) -> None:
    """Make ``target`` hold the files of ``source``: as hard links where the disk allows it.

    Exported files are never written to again, only replaced by others.
    """
    try:
        target.mkdir()
        for file in source.iterdir():
            try:
                os.link(file, target / file.name)
            except OSError:
                shutil.copyfile(file, target / file.name)
    except OSError as error:
        raise CheckpointError(f"{target} cannot be written: {error}") from None


def _named_tensors(shards: list[Shard]) -> Iterator[tuple[str, torch.Tensor]]:
    for shard in shards:
        for kind in _TENSORS:
            tensor = getattr(shard, kind)
            if tensor is not None:
                yield f"{shard.name}/{kind}", tensor[: shard.numel].contiguous().cpu()


def _make_empty(folder: Path) -> None:
    try:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    except OSError as error:
        raise CheckpointError(f"checkpoint {folder} cannot be written: {error}") from None


def _write_manifest(folder: Path, parts: list[Any], state: Mapping[str, Any]) -> None:
    parameters: dict[str, Any] = {}
    for file, _, described, _ in parts:
        for name, part in described.items():
            entry = parameters.setdefault(name, {"shape": part["shape"], "ranges": []})
            entry["ranges"].append({"file": file, "offset": part["offset"], "numel": part["numel"]})
    manifest = {
        "format_version": FORMAT_VERSION,
        **state,
        "files": {file: checksum for file, checksum, _, _ in parts},
        "parameters": parameters,
    }
    try:
        write_json(folder / MANIFEST, manifest)
    except OSError as error:
        raise CheckpointError(f"checkpoint {folder} cannot be written: {error}") from None


def _checksum(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def read_manifest(folder: Path) -> dict[str, Any]:
    """What a checkpoint says of itself.

    Raises:
        CheckpointError: there is no whole checkpoint, or one of another format.
    """
    try:
        manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        version = manifest["format_version"]
    except (OSError, ValueError, KeyError, TypeError):
        raise CheckpointError(f"{folder} is no whole checkpoint: no readable {MANIFEST}") from None
    if version != FORMAT_VERSION:
        raise CheckpointError(
            f"{folder} has format {version}, and this bigner reads {FORMAT_VERSION}"
        )
    if missing := sorted(_MANIFEST_KEYS - manifest.keys()):
        raise CheckpointError(f"{folder} is no whole checkpoint: {MANIFEST} has no {missing}")
    return manifest


def load(folder: Path, strategy: Strategy, world: World) -> dict[str, Any]:
    """Put a checkpoint into the strategy, whatever strategy wrote it; returns the manifest.

    Every rank reads only the ranges it owns.

    Raises:
        CheckpointError: a file is missing or changed, or its ranges do not make up this model.
    """
    manifest = read_manifest(folder)
    _check_files(folder, manifest["files"], world)
    files: dict[str, Any] = {}
    try:
        for name in manifest["files"]:
            files[name] = safe_open(folder / name, "pt")
        for shard in strategy.shards():
            entry = manifest["parameters"].get(shard.name)
            if entry is None or tuple(entry["shape"]) != shard.shape:
                raise CheckpointError(f"{folder} has no {shard.name} of shape {shard.shape}")
            ranges = [_Range(**part) for part in entry["ranges"]]
            for kind in _TENSORS:
                target = getattr(shard, kind)
                if target is not None:
                    _read_range(folder, files, ranges, shard, kind, target)
    except (OSError, SafetensorError, KeyError, TypeError) as error:
        raise CheckpointError(f"{folder} cannot be read: {error}") from None
    strategy.load_scalars(manifest["scalars"])
    strategy.publish()
    return manifest


def _check_files(folder: Path, files: Mapping[str, str], world: World) -> None:
    """Compare checksums; the ranks share the files among themselves."""
    bad = []
    for name in sorted(files)[world.rank :: world.size]:
        inside = Path(name).name == name and (folder / name).is_file()
        if not inside or _checksum(folder / name) != files[name]:
            bad.append(name)
    all_bad = world.share_object(world.gather_objects(bad))
    named = [name for part in all_bad for name in part]
    if named:
        raise CheckpointError(f"{folder}: missing or changed since it was written: {named}")


def _read_range(
    folder: Path,
    files: Mapping[str, Any],
    ranges: list[_Range],
    shard: Shard,
    kind: str,
    target: torch.Tensor,
) -> None:
    """Fill one flat range from all saved ranges that overlap it."""
    filled = 0
    for part in ranges:
        start = max(part.offset, shard.offset)
        stop = min(part.offset + part.numel, shard.offset + shard.numel)
        if start < stop:
            saved = files[part.file].get_slice(f"{shard.name}/{kind}")
            values = saved[start - part.offset : stop - part.offset]
            target[start - shard.offset : stop - shard.offset].copy_(values)
            filled += stop - start
    if filled != shard.numel:
        raise CheckpointError(
            f"{folder}: {filled} of {shard.numel} values of {shard.name} at {shard.offset}"
        )


def keep_last(checkpoints: Path, count: int) -> None:
    """Delete all but the newest whole checkpoints; for rank 0, after a newer one is whole."""
    whole = sorted(path.parent for path in checkpoints.glob(f"step-*/{MANIFEST}"))
    for folder in whole[:-count]:
        # Without its manifest a half-deleted folder is no checkpoint any more.
        (folder / MANIFEST).unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
