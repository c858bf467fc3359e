"""Whole weights: from the shards to a plain transformers folder, and from such a folder back."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path

import torch
from safetensors import SafetensorError
from transformers import PreTrainedModel

from bigner.distributed import World
from bigner.errors import CheckpointError
from bigner.log import progress
from bigner.run_dir import write_json
from bigner.strategies.base import Strategy
from bigner.table import TableFolder, UsedRows, fill_rows
from bigner.tensor_files import TensorEntry, entries_of, read_range, write_tensors

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
MAX_FILE_BYTES = 5_000_000_000
"""What transformers and the Hub take as the size of a file."""


def export_model(
    folder: Path,
    plain: Path,
    strategy: Strategy,
    world: World,
    model: PreTrainedModel,
    *,
    table: TableFolder | None = None,
    max_file_bytes: int = MAX_FILE_BYTES,
) -> None:
    """Write a folder that ``transformers.pipeline`` loads, in fp32; collective.

    Parameters come to rank 0 one at a time. An earlier folder of that name is replaced once the
    new one is whole.

    Args:
        folder: the folder to write.
        plain: config and tokenizer to put beside the weights.
        strategy: whose shards are exported.
        world: all ranks.
        model: names the buffers that are saved.
        table: the whole embedding table, where the model has some of its rows.
        max_file_bytes: beyond it the weights are spread over several files.

    Raises:
        CheckpointError: the folder cannot be written; on every rank.
    """
    gathered = gather_weights(strategy, world)
    failure: CheckpointError | None = None
    if world.is_main:
        entries = [
            TensorEntry(shard.name, torch.float32, shard.shape) for shard in strategy.shards()
        ]
        tensors = gathered
        try:
            if table is not None:
                tensors = table.tensors([entry.name for entry in entries], gathered)
                entries = table.entries(entries)
            write_model(folder, plain, model, entries, tensors, max_file_bytes)
        except CheckpointError as error:
            failure = error
    for _ in gathered:
        # The other ranks give what they own; after a failure rank 0 takes it all the same.
        pass
    failure = world.share_object(failure)
    if failure is not None:
        raise failure


def gather_weights(strategy: Strategy, world: World) -> Iterator[torch.Tensor]:
    """Each parameter whole, in fp32 on rank 0's CPU; collective, nothing comes on other ranks."""
    shards = list(strategy.shards())
    ranges = world.gather_objects([(shard.offset, shard.numel) for shard in shards])
    for i, shard in enumerate(shards):
        values = shard.master[: shard.numel].float()
        if ranges is None:
            if shard.numel:
                world.send_to_main(values)
            continue
        whole = torch.empty(shard.shape, dtype=torch.float32)
        flat = whole.view(-1)
        for rank, (offset, numel) in enumerate(owned[i] for owned in ranges):
            if numel:
                part = values if rank == 0 else world.receive(numel, torch.float32, rank)
                flat[offset : offset + numel].copy_(part)
        yield whole


def write_model(
    folder: Path,
    plain: Path,
    model: PreTrainedModel,
    entries: Sequence[TensorEntry],
    tensors: Iterable[torch.Tensor],
    max_file_bytes: int = MAX_FILE_BYTES,
) -> None:
    """Write parameters as they come, and the model's saved buffers, to a transformers folder.

    Raises:
        CheckpointError: the folder cannot be written.
    """
    working = folder.with_name(f".{folder.name}.tmp")
    replaced = folder.with_name(f".{folder.name}.old")
    try:
        for leftover in (working, replaced):
            shutil.rmtree(leftover, ignore_errors=True)
        shutil.copytree(plain, working)
        state_dtype(working, entries[0].dtype)
        _write_weights(working, entries, tensors, _saved_buffers(model), max_file_bytes)
        if folder.exists():
            folder.rename(replaced)
        working.rename(folder)
        shutil.rmtree(replaced, ignore_errors=True)
    except OSError as error:
        raise CheckpointError(f"the model cannot be written to {folder}: {error}") from None
    finally:
        # Whatever ended it, a checkpoint that turns out damaged or Ctrl-C.
        shutil.rmtree(working, ignore_errors=True)


def state_dtype(folder: Path, dtype: torch.dtype) -> None:
    """Let the config say what the weights are, which is what transformers loads them as."""
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    stated = str(dtype).removeprefix("torch.")
    if config.get("dtype") != stated:
        config.pop("torch_dtype", None)
        write_json(path, config | {"dtype": stated})


def _saved_buffers(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    saved = model.state_dict(keep_vars=True).keys()
    found = {name: value.cpu() for name, value in model.named_buffers() if name in saved}
    return dict(sorted(found.items(), key=lambda item: -item[1].dtype.itemsize))


def _write_weights(
    folder: Path,
    entries: Sequence[TensorEntry],
    tensors: Iterable[torch.Tensor],
    buffers: dict[str, torch.Tensor],
    max_file_bytes: int,
) -> None:
    """One file, or several with an index."""
    files = _split(entries, max_file_bytes)
    names = [SINGLE]
    if len(files) > 1:
        names = [f"model-{i + 1:05d}-of-{len(files):05d}.safetensors" for i in range(len(files))]
    # The widest numbers first: so each tensor begins at a multiple of its own width.
    width = entries[0].dtype.itemsize
    first = {key: b for key, b in buffers.items() if b.dtype.itemsize >= width}
    last = {key: b for key, b in buffers.items() if b.dtype.itemsize < width}
    coming = iter(tensors)
    weight_map: dict[str, str] = {}
    total = 0
    for name, inside in zip(names, files, strict=True):
        parameters = (
            tensor.to(entry.dtype)
            for entry, tensor in zip(
                progress(inside, "writing the model"), islice(coming, len(inside)), strict=True
            )
        )
        before = first if name == names[0] else {}
        after = last if name == names[-1] else {}
        everything = [*entries_of(before), *inside, *entries_of(after)]
        values = chain(before.values(), parameters, after.values())
        write_tensors(folder / name, everything, values, {"format": "pt"})
        weight_map |= dict.fromkeys((entry.name for entry in everything), name)
        total += sum(entry.num_bytes for entry in everything)
    if len(files) > 1:
        write_json(folder / INDEX, {"metadata": {"total_size": total}, "weight_map": weight_map})


def _split(entries: Sequence[TensorEntry], max_file_bytes: int) -> list[list[TensorEntry]]:
    """Runs of neighbours that fit a file each; one that is larger has a file of its own."""
    files: list[list[TensorEntry]] = [[]]
    size = 0
    for entry in entries:
        if files[-1] and size + entry.num_bytes > max_file_bytes:
            files.append([])
            size = 0
        files[-1].append(entry)
        size += entry.num_bytes
    return files


def load_weights(folder: Path, strategy: Strategy, rows: UsedRows | None = None) -> None:
    """Put the weights of an exported folder into the shards, to predict with; collective.

    Every rank reads its own ranges and nothing else.

    Args:
        folder: the folder.
        strategy: whose shards are filled.
        rows: of the embedding table, where the model has some of them.

    Raises:
        CheckpointError: the folder does not hold this model.
    """
    try:
        index = folder / INDEX
        places = {}
        if index.exists():
            places = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        for shard in strategy.shards():
            path = folder / places.get(shard.name, SINGLE)
            values = shard.master[: shard.numel]
            if rows is not None and shard.name == rows.parameter:
                fill_rows(path, rows, shard.offset, values, shard.shape[1])
            else:
                read_range(path, shard.name, shard.offset, values)
    except (OSError, ValueError, KeyError, SafetensorError, RuntimeError) as error:
        raise CheckpointError(f"{folder} does not hold this run's weights: {error}") from None
    strategy.publish()


def largest_difference(first: torch.Tensor, second: torch.Tensor) -> float:
    """Of two tensors' values; of a diverged model, what is no number in both is no difference."""
    both = torch.where(first.isnan() & second.isnan(), 0.0, (first - second).abs())
    return float(both.nan_to_num(nan=math.inf, posinf=math.inf).max())
