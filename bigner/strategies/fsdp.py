"""PyTorch FSDP2: parameters, gradients and optimizer state sharded along dimension 0."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping

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
from bigner.optim import parameter_groups
from bigner.strategies.adamw import Stepper, TorchStrategy, ZerosLike, untouched_zeros
from bigner.strategies.base import DTYPES, PendingOutcome, Shard
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
        _shard_units(model, config, precision, self._mesh)
        _make_room(model, world)
        # After sharding and making room: what is optimised is this rank's part of each.
        self._owned = _owned(model)
        stepper = None
        if training:
            stepper = _stepper(model, self._owned, config, training, precision, world)
        super().__init__(model, precision, stepper, cancel_mean=world.size)

    @torch.no_grad()
    def step(self, learning_rate: float) -> PendingOutcome:
        # The optimizer knows plain tensors, for each call with DTensors is dear to the host.
        for parameter, owned in self._owned.items():
            if parameter.grad is not None:
                assert isinstance(parameter.grad, DTensor)
                owned.grad, parameter.grad = parameter.grad.to_local(), None
        return super().step(learning_rate)

    def shards(self) -> Iterator[Shard]:
        self._reshard()
        copy, rank = self._mesh.get_coordinate() or (0, 0)
        for name, parameter in self._model.named_parameters():
            owned = self._owned[parameter]
            tensors = {"master": owned, **self._moments(owned)}
            # The first copy of the model speaks for the others.
            stop = 0 if copy else owned.numel()
            flat = {key: tensor.view(-1)[:stop] for key, tensor in tensors.items()}
            # torch.chunk's rule: every rank has ceil(rows / size) rows until none are left.
            rows = parameter.shape[0]
            first_row = min(rank * -(-rows // self._mesh.size(1)), rows)
            offset = first_row * (parameter.numel() // rows)
            yield Shard(name, tuple(parameter.shape), offset, stop, **flat)

    def _reshard(self) -> None:
        """Free what a forward without a backward leaves gathered: the root, at least."""
        for module in self._model.modules():
            if isinstance(module, FSDPModule):
                module.reshard()

    def publish(self) -> None:
        """Give the other copies of the model what was written into the first one's shards; every
        gather makes the low-precision weights from those.
        """
        self._reshard()
        if self._mesh.size(0) == 1:
            return
        group = self._mesh.get_group(0)
        for owned in self._owned.values():
            for tensor in (owned, *self._moments(owned).values()):
                if tensor.numel():
                    dist.broadcast(tensor, group=group, group_src=0)


def shard_fake_model(
    model: PreTrainedModel,
    config: FsdpStrategy,
    training: TrainingConfig,
    precision: Precision,
    world: World,
) -> Stepper:
    """Shard a model of fake tensors as GPUs would, with their collectives.

    Returns:
        What goes backward, with its optimizer's state; gradients are given to it by ``Fsdp.step``.
    """
    with unset_fake_temporarily():
        mesh = _new_mesh(config, world)
    _shard_units(model, config, precision, mesh)
    return _stepper(model, _owned(model), config, training, precision, world, torch.zeros_like)


def _owned(model: PreTrainedModel) -> dict[torch.Tensor, torch.Tensor]:
    """Each parameter's rows on this rank, as a plain tensor over the same memory."""
    owned: dict[torch.Tensor, torch.Tensor] = {}
    for parameter in model.parameters():
        assert isinstance(parameter, DTensor)
        owned[parameter] = parameter.to_local().detach()
    return owned


def _stepper(
    model: PreTrainedModel,
    owned: Mapping[torch.Tensor, torch.Tensor],
    config: FsdpStrategy,
    training: TrainingConfig,
    precision: Precision,
    world: World,
    zeros_like: ZerosLike = untouched_zeros,
) -> Stepper:
    groups = [
        {**group, "params": [owned[parameter] for parameter in group["params"]]}
        for group in parameter_groups(model, training)
    ]
    return Stepper(groups, training, precision, world, zeros_like, config.dp_replicate)


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


_meshes: dict[tuple[int, int], DeviceMesh] = {}
"""By world and copies: one for all runs of a process, for each has process groups of its own."""


def _mesh_of(config: FsdpStrategy, world: World) -> DeviceMesh:
    key = (id(world), config.dp_replicate)
    if key not in _meshes:
        _meshes[key] = mesh = _new_mesh(config, world)
        # DTensor's caches keep the mesh for as long as the process lives, and its groups with it.
        world.when_closed(mesh._pg_registry.clear)
        world.when_closed(_meshes.clear)
    return _meshes[key]


def _new_mesh(config: FsdpStrategy, world: World) -> DeviceMesh:
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
