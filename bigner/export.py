"""Whole weights: from the shards to a plain transformers folder, and from such a folder back."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from bigner.distributed import World
from bigner.errors import CheckpointError
from bigner.strategies.base import Strategy

WEIGHTS = "model.safetensors"


def export_model(
    folder: Path,
    strategy: Strategy,
    world: World,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    """Write a folder that ``transformers.pipeline`` loads, in fp32; collective.

    An earlier folder of that name is replaced once the new one is whole.

    Raises:
        CheckpointError: the folder cannot be written; on every rank.
    """
    weights = dict(gather_weights(strategy, world))

    def write() -> None:
        _write_folder(folder, weights, model, tokenizer)

    world.main_first(write)


def gather_weights(strategy: Strategy, world: World) -> Iterator[tuple[str, torch.Tensor]]:
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
        yield shard.name, whole


def _write_folder(
    folder: Path,
    weights: dict[str, torch.Tensor],
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    working = folder.with_name(f".{folder.name}.tmp")
    replaced = folder.with_name(f".{folder.name}.old")
    try:
        for leftover in (working, replaced):
            shutil.rmtree(leftover, ignore_errors=True)
        working.mkdir(parents=True)
        saved = model.state_dict(keep_vars=True).keys()
        buffers = {name: value.cpu() for name, value in model.named_buffers() if name in saved}
        save_file({**weights, **buffers}, working / WEIGHTS, metadata={"format": "pt"})
        model.config.save_pretrained(working)
        tokenizer.save_pretrained(working)
        if folder.exists():
            folder.rename(replaced)
        working.rename(folder)
        shutil.rmtree(replaced, ignore_errors=True)
    except OSError as error:
        raise CheckpointError(f"the model cannot be written to {folder}: {error}") from None


def load_weights(folder: Path, strategy: Strategy) -> None:
    """Put the weights of an exported folder into the shards; collective.

    Every rank reads its own ranges and nothing else.

    Raises:
        CheckpointError: the folder does not hold this model.
    """
    try:
        with safe_open(folder / WEIGHTS, "pt") as weights:
            for shard in strategy.shards():
                whole = weights.get_tensor(shard.name).view(-1)
                shard.master.copy_(whole[shard.offset : shard.offset + shard.numel])
    except (OSError, KeyError, RuntimeError) as error:
        raise CheckpointError(f"{folder} does not hold this run's weights: {error}") from None
    strategy.publish()
