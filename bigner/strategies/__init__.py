"""How a model is spread over processes. The concrete strategies are named here and nowhere else."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from functools import partial

import torch
from torch.utils.checkpoint import create_selective_checkpoint_contexts
from transformers import PreTrainedModel

from bigner.config.deepspeed import render
from bigner.config.schema import (
    FsdpStrategy,
    Precision,
    RunConfig,
    SingleStrategy,
    TrainingConfig,
    ZeroStrategy,
)
from bigner.distributed import World
from bigner.dropout import draw_at_once
from bigner.errors import LaunchError
from bigner.modeling import layers
from bigner.strategies.adamw import Stepper
from bigner.strategies.averaged import Averaged
from bigner.strategies.base import PendingOutcome, Shard, StepOutcome, Strategy
from bigner.strategies.precision import check_precision

# What is dear to compute again, by what it takes to keep it.
_KEPT = (
    torch.ops.aten.mm.default,
    torch.ops.aten.addmm.default,
    torch.ops.aten._flash_attention_forward.default,
    torch.ops.aten._scaled_dot_product_flash_attention.default,
    torch.ops.aten._scaled_dot_product_efficient_attention.default,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default,
)

__all__ = ["PendingOutcome", "Shard", "StepOutcome", "Strategy", "open_strategy", "open_whole"]


def open_strategy(
    config: RunConfig, world: World, model: PreTrainedModel, *, training: bool = True
) -> Strategy:
    """Spread ``model``, which is shapes alone yet, as the config says.

    Its values are undefined until they were written into the shards and published.

    The backends are imported here, so a run needs only the one it uses.

    Args:
        training: whether the model will be trained; without an optimizer it takes a quarter of
            the memory, and only ``predict``, ``shards`` and ``close`` may be called.

    Raises:
        LaunchError: the device cannot compute the precision, or the batch sizes do not fit the
            world.
    """
    check_precision(config.precision, world.device)
    if training:
        _checkpoint_activations(model, config.training)
    if training and config.training.compile:
        for layer in layers(model):
            # In place: names of parameters stay as they are. Each batch has another shape.
            layer.compile(dynamic=True)
    if training and world.device.type == "cpu":
        draw_at_once(model)
    strategy = _open(config, world, model, training=training)
    decay = config.training.average_decay if training else None
    return strategy if decay is None else Averaged(strategy, decay)


def _open(config: RunConfig, world: World, model: PreTrainedModel, *, training: bool) -> Strategy:
    trained = config.training if training else None
    match config.strategy:
        case SingleStrategy():
            return _single(model, trained, config.precision, world)
        case FsdpStrategy() as strategy:
            from bigner.strategies.fsdp import Fsdp  # noqa: PLC0415

            return Fsdp(model, strategy, trained, config.precision, world)
        case ZeroStrategy() as strategy:
            from bigner.strategies.zero import Zero  # noqa: PLC0415

            settings = _settings(config, strategy, world, training)
            # Standard output holds what was asked for; DeepSpeed prints there what it compiled.
            with redirect_stdout(sys.stderr):
                return Zero(model, settings, trained, config.precision, world)


def open_whole(model: PreTrainedModel, precision: Precision, world: World) -> Strategy:
    """The whole of ``model``, which is shapes alone yet, on this process's device, to predict with.

    Nothing it does is collective: processes need not go in lockstep.

    Raises:
        LaunchError: the device cannot compute the precision.
    """
    check_precision(precision, world.device)
    return _single(model, None, precision, world)


def _single(
    model: PreTrainedModel, training: TrainingConfig | None, precision: Precision, world: World
) -> Strategy:
    from bigner.strategies.single import Single  # noqa: PLC0415

    return Single(model, training, precision, world)


def shard_fake_model(
    model: PreTrainedModel,
    strategy: FsdpStrategy,
    training: TrainingConfig,
    precision: Precision,
    world: World,
) -> Stepper:
    """A model of fake tensors, spread and checkpointed as the config says, to be traced."""
    from bigner.strategies import fsdp  # noqa: PLC0415

    _checkpoint_activations(model, training)
    return fsdp.shard_fake_model(model, strategy, training, precision, world)


def _checkpoint_activations(model: PreTrainedModel, training: TrainingConfig) -> None:
    """Let layers be recomputed in the backward, if that is wanted."""
    if not training.gradient_checkpointing:
        return
    # transformers 5.23 gave it a new name and warns of the old one, on every rank.
    enable = getattr(model, "activation_checkpointing_enable", None)
    how: dict[str, object] = {"use_reentrant": False}
    if training.gradient_checkpointing == "selective":
        how["context_fn"] = partial(create_selective_checkpoint_contexts, list(_KEPT))
    (enable or model.gradient_checkpointing_enable)(how)


def _settings(
    config: RunConfig, strategy: ZeroStrategy, world: World, training: bool
) -> dict[str, object]:
    try:
        return render(config, strategy, world.size, training=training)
    except ValueError as error:
        raise LaunchError(str(error)) from None
