"""PyTorch FSDP2: parameters, gradients and optimizer state sharded along dimension 0."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import torch
import torch.distributed as dist
from torch._subclasses.fake_tensor import unset_fake_temporarily
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel

from bigner.config.schema import FsdpStrategy, Precision, TrainingConfig
from bigner.distributed import World
from bigner.modeling import allocate, lookup_table, units
from bigner.strategies.adamw import Stepper, TorchStrategy, ZerosLike, untouched_zeros
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
        self._mesh = _mesh_of(config, world)
        # DTensor's caches keep the mesh for as long as the process lives, and its groups with it.
        world.when_closed(self._mesh._pg_registry.clear)
        _shard_units(model, config, precision, self._mesh)
        _make_room(model, world)
        # After sharding: the optimizer must hold the DTensors, not the whole parameters.
        stepper = None
        if training:
            stepper = _stepper(model, config, training, precision, world, _zeros_like)
        super().__init__(model, precision, stepper, cancel_mean=world.size)

    def shards(self) -> Iterator[Shard]:
        # A forward without a backward leaves the root gathered; its parameters would be whole.
        for module in self._model.modules():
            if isinstance(module, FSDPModule):
                module.reshard()
        copy, rank = self._mesh.get_coordinate() or (0, 0)
        for name, parameter in self._model.named_parameters():
            values = _local(parameter.detach())
            flat = {key: _local(moment) for key, moment in self._moments(parameter).items()}
            if copy:
                # The first copy of the model speaks for the others.
                values, flat = values[:0], {key: moment[:0] for key, moment in flat.items()}
            # torch.chunk's rule: every rank has ceil(rows / size) rows until none are left.
            rows = parameter.shape[0]
            first_row = min(rank * -(-rows // self._mesh.size(1)), rows)
            offset = first_row * (parameter.numel() // rows)
            yield Shard(name, tuple(parameter.shape), offset, values.numel(), values, **flat)

    def publish(self) -> None:
        """Give the other copies of the model what was written into the first one's shards; the
        low-precision weights are made of those in every forward.
        """
        if self._mesh.size(0) == 1:
            return
        group = self._mesh.get_group(0)
        for parameter in self._model.parameters():
            for tensor in (parameter.detach(), *self._moments(parameter).values()):
                values = _local(tensor)
                if values.numel():
                    dist.broadcast(values, group=group, group_src=0)


def shard_fake_model(
    model: PreTrainedModel,
    config: FsdpStrategy,
    training: TrainingConfig,
    precision: Precision,
    world: World,
) -> Stepper:
    """Shard a model of fake tensors as GPUs would, with their collectives; its optimizer."""
    with unset_fake_temporarily():
        mesh = _mesh_of(config, world)
    _shard_units(model, config, precision, mesh)
    return _stepper(model, config, training, precision, world, torch.zeros_like)


def _stepper(
    model: PreTrainedModel,
    config: FsdpStrategy,
    training: TrainingConfig,
    precision: Precision,
    world: World,
    zeros_like: ZerosLike,
) -> Stepper:
    return Stepper(
        model,
        training,
        precision,
        world,
        zeros_like=zeros_like,
        local=_local,
        copies=config.dp_replicate,
    )


def _make_room(model: PreTrainedModel, world: World) -> None:
    """Give a sharded model its memory; on processors its ranks exchange what they gather and
    reduce.
    """
    if world.device.type == "cpu" and world.size > 1:
        for module in model.modules():
            if isinstance(module, FSDPModule):
                module.set_custom_all_gather(ExchangedAllGather())  # type: ignore[arg-type]
                module.set_custom_reduce_scatter(ExchangedReduceScatter())  # type: ignore[arg-type]
    allocate(model, world.device)


def _mesh_of(config: FsdpStrategy, world: World) -> DeviceMesh:
    """The ranks as ``[copies of the model, ranks of a copy]``."""
    copies = config.dp_replicate
    names = ("dp_replicate", "dp_shard")
    shape = (copies, world.size // copies)
    return init_device_mesh(world.device.type, shape, mesh_dim_names=names)


def _shard_units(
    model: PreTrainedModel, config: FsdpStrategy, precision: Precision, ranks: DeviceMesh
) -> None:
    """Cut the model into units, innermost first, and shard each over the ranks of a copy."""
    # With one copy there is nobody to reduce with.
    mesh = ranks if ranks.size(0) > 1 else ranks["dp_shard"]
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
