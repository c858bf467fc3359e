"""Any strategy with a moving average of its weights beside them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

import torch

from bigner.strategies.base import PendingOutcome, Shard, Strategy


class Averaged(Strategy):
    """Trains as ``strategy`` does, and predicts with the average where that is asked for.

    After step t each trained value has the average ``d * average + (1 - d) * value``, where d is
    ``min(decay, (1 + t) / (10 + t))``, so that a short run does not average its first weights for
    long. A skipped step counts. The average is fp32 and lies in shards as the values do: nothing is
    communicated for it in a step.

    Args:
        strategy: trains the weights.
        decay: what the average keeps of itself in a step, once t is large.
    """

    def __init__(self, strategy: Strategy, decay: float) -> None:
        self._strategy = strategy
        self._decay = decay
        self._steps = 0
        # The views stay valid, and listing shards in every step would gather and reshard.
        owned = [shard for shard in strategy.shards() if shard.exp_avg is not None and shard.numel]
        self._values = [shard.master[: shard.numel] for shard in owned]
        self._averages = [torch.zeros_like(values) for values in self._values]
        self._average_of = dict(zip((shard.name for shard in owned), self._averages, strict=True))

    def forward(self, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        return self._strategy.forward(inputs)

    def backward(self, loss_share: torch.Tensor, *, last: bool) -> None:
        self._strategy.backward(loss_share, last=last)

    @torch.no_grad()
    def step(self, learning_rate: float) -> PendingOutcome:
        if not self._steps:
            for average, values in zip(self._averages, self._values, strict=True):
                average.copy_(values)
        outcome = self._strategy.step(learning_rate)
        self._steps += 1
        decay = min(self._decay, (1 + self._steps) / (10 + self._steps))
        if self._averages:
            torch._foreach_lerp_(self._averages, self._values, 1.0 - decay)
        return outcome

    def predict(self, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        return self._strategy.predict(inputs)

    def shards(self) -> Iterator[Shard]:
        for shard in self._strategy.shards():
            yield replace(shard, average=self._average_of.get(shard.name))

    def publish(self) -> None:
        self._strategy.publish()

    @contextmanager
    def averaged(self) -> Iterator[None]:
        # Before the first step there is no average yet.
        if not self._steps:
            yield
            return
        self._exchange()
        yield
        # Not after an error: exchanging is collective, and the other ranks may be elsewhere.
        self._exchange()

    @torch.no_grad()
    def _exchange(self) -> None:
        for average, values in zip(self._averages, self._values, strict=True):
            kept = values.clone()
            values.copy_(average)
            average.copy_(kept)
        self._strategy.publish()

    def scalars(self) -> dict[str, float]:
        return {**self._strategy.scalars(), "average_steps": float(self._steps)}

    def load_scalars(self, scalars: Mapping[str, float]) -> None:
        self._strategy.load_scalars(scalars)
        # Of a run without an average it is not known; then the next step begins one.
        self._steps = int(scalars.get("average_steps", 0))

    def close(self) -> None:
        self._values, self._averages, self._average_of = [], [], {}
        self._strategy.close()
