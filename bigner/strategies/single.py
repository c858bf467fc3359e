"""One process, nothing sharded: the reference the other strategies are tested against."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from transformers import PreTrainedModel

from bigner.config.schema import Precision, TrainingConfig
from bigner.distributed import World
from bigner.optim import parameter_groups
from bigner.strategies.base import DTYPES, Shard, StepOutcome, Stepper, Strategy


class Single(Strategy):
    """Plain torch; low precision by autocast over fp32 parameters."""

    def __init__(
        self, model: PreTrainedModel, training: TrainingConfig, precision: Precision, world: World
    ) -> None:
        self._model = model.to(world.device)
        self._stepper = Stepper(
            model, parameter_groups(model, training.weight_decay), training, precision, world.device
        )
        self._autocast = torch.autocast(
            world.device.type, dtype=DTYPES[precision], enabled=precision != "fp32"
        )

    def forward(self, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        self._model.train()
        with self._autocast:
            return self._model(**inputs).logits

    def backward(self, loss_share: torch.Tensor, *, last: bool) -> None:
        self._stepper.backward(loss_share)

    def step(self, learning_rate: float) -> StepOutcome:
        return self._stepper.step(learning_rate)

    @torch.no_grad()
    def predict(self, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        self._model.eval()
        with self._autocast:
            return self._model(**inputs).logits

    def shards(self) -> Iterator[Shard]:
        state = self._stepper.optimizer.state
        for name, parameter in self._model.named_parameters():
            moments = state.get(parameter, {})
            flat = {key: moments[key].view(-1) for key in ("exp_avg", "exp_avg_sq") if moments}
            values = parameter.detach().view(-1)
            yield Shard(name, tuple(parameter.shape), 0, values.numel(), values, **flat)

    def publish(self) -> None:
        """Nothing to do: the shards are the parameters."""

    def scalars(self) -> dict[str, float]:
        return self._stepper.scalars()

    def load_scalars(self, scalars: Mapping[str, float]) -> None:
        self._stepper.load_scalars(scalars)

    def close(self) -> None:
        """Nothing is held."""
