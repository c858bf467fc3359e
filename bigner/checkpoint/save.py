"""Saving: training stops for the copy of the shards to host memory; a thread does the rest."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from bigner.checkpoint.folders import folder_of, link_folder
from bigner.checkpoint.manifest import FORMAT_VERSION, KINDS, MANIFEST
from bigner.distributed import World
from bigner.errors import CheckpointError
from bigner.run_dir import write_json
from bigner.strategies.base import Shard, Strategy
from bigner.tensor_files import entries_of, write_tensors

IDLE, WRITING, FAILED = 0, 1, 2
"""What a rank's writer is at; of the ranks the greatest counts."""


@dataclass(frozen=True, slots=True)
class Saved:
    """A checkpoint that became whole."""

    folder: Path
    step: int
    pause: float
    """Seconds that training stood still for it, on the slowest rank."""
    seconds: float
    """Seconds of writing, on the slowest rank."""
    num_bytes: int
    """Over all ranks."""


@dataclass
class _Task:
    """One rank's part in a checkpoint; filled by the writer, read when it is done."""

    folder: Path
    working: Path
    step: int
    state: dict[str, Any]
    file: str
    ranges: list[dict[str, Any]]
    """Name, shape, offset and numel of each range, and later the checksums of its tensors."""
    pause: float = 0.0
    seconds: float = 0.0
    num_bytes: int = 0
    failure: str = ""
    writer: threading.Thread | None = field(default=None)


class Saver:
    """Writes the checkpoints of a run, one at a time; every method is collective but ``status``.

    Args:
        checkpoints: the folder they go into; it is there.
        strategy: whose shards are saved.
        world: all ranks.
        background: copy the shards and write them while training goes on; else write at once,
            without the memory of a copy.
    """

    def __init__(
        self, checkpoints: Path, strategy: Strategy, world: World, *, background: bool
    ) -> None:
        self._checkpoints = checkpoints
        self._strategy = strategy
        self._world = world
        self._background = background
        self._copies: dict[str, torch.Tensor] = {}
        self._task: _Task | None = None

    @property
    def status(self) -> int:
        """What this rank's writer is at: ``IDLE`` when there is nothing to wait for."""
        task = self._task
        if task is None or task.writer is None:
            return IDLE
        if task.writer.is_alive():
            return WRITING
        return FAILED if task.failure else IDLE

    @property
    def unfinished(self) -> bool:
        """Whether a checkpoint was begun and not committed; alike on every rank."""
        return self._task is not None

    def begin(self, step: int, state: Mapping[str, Any], links: Mapping[str, Path]) -> None:
        """Begin a checkpoint; the one before must be committed.

        Args:
            step: steps done.
            state: plain values for the manifest.
            links: folders to keep along, by their names in the checkpoint.

        Raises:
            CheckpointError: the folder cannot be made; on every rank.
        """
        assert self._task is None, "commit the checkpoint before first"
        start = time.perf_counter()
        folder = folder_of(self._checkpoints, step)
        working = folder.with_name(f".{folder.name}.tmp")
        self._world.main_first(lambda: _make_folder(working, folder, links))
        shards = [shard for shard in self._strategy.shards() if shard.numel]
        task = _Task(
            folder,
            working,
            step,
            {**state, "step": step, "scalars": self._strategy.scalars()},
            file=f"shards-{self._world.rank:05d}.safetensors",
            ranges=[_described(shard) for shard in shards],
        )
        tensors = dict(_named_tensors(shards))
        if self._background:
            tensors = {name: self._copy(name, values) for name, values in tensors.items()}
            task.writer = threading.Thread(target=_write, args=(task, tensors), daemon=True)
            task.writer.start()
        else:
            _write(task, tensors)
        task.pause = time.perf_counter() - start
        self._task = task

    def _copy(self, name: str, values: torch.Tensor) -> torch.Tensor:
        """The values in host memory that is kept from one checkpoint to the next."""
        copy = self._copies.get(name)
        if copy is None:
            copy = torch.empty_like(values, device="cpu", pin_memory=values.is_cuda)
            self._copies[name] = copy
        return copy.copy_(values)

    def commit(self) -> Saved:
        """Wait until every rank has written, and make the checkpoint whole.

        Raises:
            CheckpointError: a rank could not write; on every rank, and nothing whole is left
                behind.
        """
        task = self._task
        assert task is not None
        start = time.perf_counter()
        if task.writer is not None:
            task.writer.join()
        self._task = None
        part = {
            name: getattr(task, name)
            for name in ("file", "ranges", "pause", "seconds", "num_bytes", "failure")
        }
        parts = self._world.gather_objects(part)
        saved: list[Saved] = []

        def finish() -> None:
            assert parts is not None
            _finish(task, parts)
            pause = max(part["pause"] for part in parts) + time.perf_counter() - start
            seconds = max(part["seconds"] for part in parts)
            num_bytes = sum(part["num_bytes"] for part in parts)
            saved.append(Saved(task.folder, task.step, pause, seconds, num_bytes))

        self._world.main_first(finish)
        result: Saved = self._world.share_object(saved[0] if saved else None)
        return result


def _described(shard: Shard) -> dict[str, Any]:
    return {
        "name": shard.name,
        "shape": shard.shape,
        "offset": shard.offset,
        "numel": shard.numel,
        "kinds": [kind for kind in KINDS if getattr(shard, kind) is not None],
    }


def _named_tensors(shards: list[Shard]) -> Iterator[tuple[str, torch.Tensor]]:
    for shard in shards:
        for kind in KINDS:
            tensor = getattr(shard, kind)
            if tensor is not None:
                yield f"{shard.name}/{kind}", tensor[: shard.numel]


def _make_folder(working: Path, folder: Path, links: Mapping[str, Path]) -> None:
    """Make what becomes ``folder`` once it is whole."""
    try:
        if working.exists():
            shutil.rmtree(working)
        # Not its parents: a run whose folder vanished must not go on as if nothing had happened.
        working.mkdir()
        for name, source in links.items():
            link_folder(source, working / name)
    except OSError as error:
        shutil.rmtree(working, ignore_errors=True)
        raise _cannot_write(folder, str(error)) from None


def _write(task: _Task, tensors: Mapping[str, torch.Tensor]) -> None:
    """Write this rank's file, and note how it went."""
    start = time.perf_counter()
    path = task.working / task.file
    entries = entries_of(tensors)
    try:
        checksums = dict(zip(tensors, write_tensors(path, entries, tensors.values()), strict=True))
        for part in task.ranges:
            kinds = part.pop("kinds")
            part["sha256"] = {kind: checksums[f"{part['name']}/{kind}"] for kind in kinds}
        task.num_bytes = path.stat().st_size
    except OSError as error:
        task.failure = str(error)
    except Exception as error:
        # A defect, but one that must not leave the other ranks waiting.
        task.failure = f"{type(error).__name__}: {error}"
    task.seconds = time.perf_counter() - start


def _finish(task: _Task, parts: list[dict[str, Any]]) -> None:
    """Write the manifest and give the folder its name; for rank 0."""
    try:
        for part in parts:
            if part["failure"]:
                raise OSError(part["failure"])
        written = [part for part in parts if part["ranges"]]
        manifest = {
            "format_version": FORMAT_VERSION,
            **task.state,
            "files": {part["file"]: part["num_bytes"] for part in written},
            "parameters": _parameters(written),
        }
        for part in parts:
            if not part["ranges"]:
                # Of a small model the last ranks may own nothing.
                (task.working / part["file"]).unlink()
        write_json(task.working / MANIFEST, manifest)
        _sync(task.working)
        shutil.rmtree(task.folder, ignore_errors=True)
        task.working.rename(task.folder)
        _sync(task.folder.parent)
    except OSError as error:
        shutil.rmtree(task.working, ignore_errors=True)
        raise _cannot_write(task.folder, str(error)) from None


def _parameters(parts: list[dict[str, Any]]) -> dict[str, Any]:
    parameters: dict[str, Any] = {}
    for part in parts:
        for saved in part["ranges"]:
            entry = parameters.setdefault(saved["name"], {"shape": saved["shape"], "ranges": []})
            kept = {name: saved[name] for name in ("offset", "numel", "sha256")}
            entry["ranges"].append({"file": part["file"], **kept})
    for entry in parameters.values():
        # Under stages 1 and 2 a parameter may lie in the partitions of ranks in any order.
        entry["ranges"].sort(key=lambda saved: saved["offset"])
    return parameters


def _sync(folder: Path) -> None:
    """Bring the names in a folder to the disk, as fsync brings a file's bytes."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _cannot_write(folder: Path, reason: str) -> CheckpointError:
    return CheckpointError(
        f"checkpoint {folder} cannot be written: {reason}; the checkpoints before it are as they "
        f"were, and the same command goes on from the last of them"
    )
