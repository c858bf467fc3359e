"""PyTorch FSDP2: parameters, gradients and optimizer state sharded along dimension 0."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel

from bigner.config.schema import FsdpStrategy, Precision, TrainingConfig
from bigner.distributed import World
from bigner.modeling import units
from bigner.optim import parameter_groups
from bigner.strategies.base import DTYPES, Shard, StepOutcome, Stepper, Strategy


class Fsdp(Strategy):
    """``fully_shard`` on the embeddings, each layer and the root; fp32 shards in every precision."""

    def __init__(
        self,
        model: PreTrainedModel,
        config: FsdpStrategy,
        training: TrainingConfig,
        precision: Precision,
        world: World,
    ) -> None:
        self._world = world
        self._model = model
        mesh = init_device_mesh(world.device.type, (world.size,))
        dtype = None if precision == "fp32" else DTYPES[precision]
        policy = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32)
        # Only the root hands its output to us; casting between layers would break the next one.
        root = MixedPrecisionPolicy(
            param_dtype=dtype, reduce_dtype=torch.float32, output_dtype=torch.float32
        )
        reshard = config.reshard_after_forward
        for unit in units(model):
            fully_shard(unit, mesh=mesh, mp_policy=policy, reshard_after_forward=reshard)
        fully_shard(model, mesh=mesh, mp_policy=root)
        # Buffers and whatever fully_shard left where it was.
        model.to(world.device)
        # After sharding: the optimizer must hold the DTensors, not the whole parameters.
        self._stepper = Stepper(
            model, parameter_groups(model, training.weight_decay), training, precision, world.device
        )

    def forward(self, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        self._model.train()
        return self._model(**inputs).logits

    def backward(self, loss_share: torch.Tensor, *, last: bool) -> None:
        # Gradients are reduced after each micro-batch, so that none is ever held whole; FSDP
        # divides by the world size, which the contract does not want.
        self._stepper.backward(loss_share * self._world.size)

    def step(self, learning_rate: float) -> StepOutcome:
        return self._stepper.step(learning_rate)

    @torch.no_grad()
    def predict(self, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        self._model.eval()
        return self._model(**inputs).logits

    def shards(self) -> Iterator[Shard]:
        # A forward without a backward leaves the root gathered; its parameters would be whole.
        for module in self._model.modules():
            if isinstance(module, FSDPModule):
                module.reshard()
        state = self._stepper.optimizer.state
        for name, parameter in self._model.named_parameters():
            assert isinstance(parameter, DTensor)
            moments = state.get(parameter, {})
            flat = {
                key: moments[key].to_local().view(-1)
                for key in ("exp_avg", "exp_avg_sq")
                if moments
            }
            values = parameter.to_local().detach().view(-1)
            # torch.chunk's rule: every rank has ceil(rows / size) rows until none are left.
            rows = parameter.shape[0]
            first_row = min(self._world.rank * -(-rows // self._world.size), rows)
            offset = first_row * (parameter.numel() // rows)
            yield Shard(name, tuple(parameter.shape), offset, values.numel(), values, **flat)

    def publish(self) -> None:
        """Nothing to do: low-precision copies are made from the shards in every forward."""

    def scalars(self) -> dict[str, float]:
        return self._stepper.scalars()

    def load_scalars(self, scalars: Mapping[str, float]) -> None:
        self._stepper.load_scalars(scalars)

    def close(self) -> None:
        """The process group belongs to the World."""
