"""PyTorch FSDP2: parameters, gradients and optimizer state sharded along dimension 0."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import nullcontext

import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel

from bigner.config.schema import FsdpStrategy, Precision, TrainingConfig
from bigner.distributed import World
from bigner.modeling import allocate, lookup_table, units
from bigner.strategies.adamw import Stepper, TorchStrategy, untouched_zeros
from bigner.strategies.base import DTYPES, Shard
from bigner.strategies.exchange import ExchangedAllGather, ExchangedReduceScatter

# Nothing here changes logits in place, which is what this warns of at every first forward.
warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")


class Fsdp(TorchStrategy):
    """``fully_shard`` on the embeddings, each layer and the root; fp32 shards in every precision.

    Gradients are reduced after each micro-batch, so that none is ever held whole.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        config: FsdpStrategy,
        training: TrainingConfig | None,
        precision: Precision,
        world: World,
    ) -> None:
        self._world = world
        _shard(model, config, precision, world)
        # After sharding: the optimizer must hold the DTensors, not the whole parameters.
        stepper = None
        if training:
            stepper = Stepper(
                model, training, precision, world, zeros_like=_zeros_like, local=_local
            )
        super().__init__(model, stepper, nullcontext(), cancel_mean=world.size)

    def shards(self) -> Iterator[Shard]:
        # A forward without a backward leaves the root gathered; its parameters would be whole.
        for module in self._model.modules():
            if isinstance(module, FSDPModule):
                module.reshard()
        for name, parameter in self._model.named_parameters():
            values = _local(parameter.detach())
            flat = {key: _local(moment) for key, moment in self._moments(parameter).items()}
            # torch.chunk's rule: every rank has ceil(rows / size) rows until none are left.
            rows = parameter.shape[0]
            first_row = min(self._world.rank * -(-rows // self._world.size), rows)
            offset = first_row * (parameter.numel() // rows)
            yield Shard(name, tuple(parameter.shape), offset, values.numel(), values, **flat)


def _shard(
    model: PreTrainedModel, config: FsdpStrategy, precision: Precision, world: World
) -> None:
    """Cut the model into units, innermost first, and shard each over all ranks."""
    mesh = init_device_mesh(world.device.type, (world.size,))
    dtype = None if precision == "fp32" else DTYPES[precision]
    reduced = torch.float32 if config.reduce_dtype == "fp32" else DTYPES[precision]
    policy = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=reduced)
    # Only the root hands its output to us; casting between layers would break the next one.
    root = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=reduced, output_dtype=torch.float32)
    reshard = config.reshard_after_forward
    found = lookup_table(model)
    tables = [] if found is None else [found[1]]
    # Some models have nothing but the table as their embeddings, and none is wrapped twice.
    for unit in dict.fromkeys([*tables, *units(model)]):
        fully_shard(unit, mesh=mesh, mp_policy=policy, reshard_after_forward=reshard)
    for table in tables:
        # The gradient of a look-up needs no value of the table, the largest parameter by far.
        assert isinstance(table, FSDPModule)
        table.set_unshard_in_backward(False)
    fully_shard(model, mesh=mesh, mp_policy=root)
    if world.device.type == "cpu" and world.size > 1:
        for module in model.modules():
            if isinstance(module, FSDPModule):
                module.set_custom_all_gather(ExchangedAllGather())  # type: ignore[arg-type]
                module.set_custom_reduce_scatter(ExchangedReduceScatter())  # type: ignore[arg-type]
    allocate(model, world.device)


def _zeros_like(parameter: torch.Tensor) -> torch.Tensor:
    assert isinstance(parameter, DTensor)
    return DTensor.from_local(
        untouched_zeros(parameter.to_local()),
        parameter.device_mesh,
        parameter.placements,
        shape=parameter.shape,
        stride=parameter.stride(),
    )


def _local(tensor: torch.Tensor) -> torch.Tensor:
    """This rank's rows, flat."""
    assert isinstance(tensor, DTensor)
    return tensor.to_local().view(-1)
