"""One process, nothing sharded: the reference the other strategies are tested against."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from transformers import PreTrainedModel

from bigner.config.schema import Precision, TrainingConfig
from bigner.distributed import World
from bigner.modeling import allocate
from bigner.strategies.adamw import Stepper, TorchStrategy
from bigner.strategies.base import DTYPES, Shard


class Single(TorchStrategy):
    """Plain torch; low precision by autocast over fp32 parameters."""

    def __init__(
        self,
        model: PreTrainedModel,
        training: TrainingConfig | None,
        precision: Precision,
        world: World,
    ) -> None:
        device = world.device
        allocate(model, device)
        super().__init__(
            model,
            Stepper(model, training, precision, world) if training else None,
            torch.autocast(device.type, dtype=DTYPES[precision], enabled=precision != "fp32"),
            cancel_mean=1,
        )

    def shards(self) -> Iterator[Shard]:
        for name, parameter in self._model.named_parameters():
            values = parameter.detach().view(-1)
            flat = {key: moment.view(-1) for key, moment in self._moments(parameter).items()}
            yield Shard(name, tuple(parameter.shape), 0, values.numel(), values, **flat)
