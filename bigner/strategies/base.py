"""The contract of a strategy: how a model is spread over ranks, and nothing about its task."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch

from bigner.config.schema import Precision

DTYPES: dict[Precision, torch.dtype] = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}


@dataclass(frozen=True, slots=True)
class Shard:
    """The one contiguous range of a parameter's flattened values that this rank owns.

    The tensors are views: what is written into them is what the strategy goes on with, once
    ``Strategy.publish`` was called. All are flat, ``numel`` long, and fp32 where the parameter is
    trained. A frozen one, and all of a model that only predicts, has no optimizer
    state, and its values are fp32 or in the dtype it is computed in.
    """

    name: str
    shape: tuple[int, ...]
    """Shape of the whole parameter."""
    offset: int
    numel: int
    master: torch.Tensor
    exp_avg: torch.Tensor | None = None
    exp_avg_sq: torch.Tensor | None = None
    average: torch.Tensor | None = None
    """The moving average of the values, where one is kept (``training.average_decay``)."""


@dataclass(frozen=True, slots=True)
class StepOutcome:
    """What one optimizer step came to."""

    grad_norm: float
    """2-norm of the global gradient before clipping; not finite if the step was skipped."""
    skipped: bool
    """A gradient overflowed: no parameter moved."""
    loss_scale: float
    """The fp16 loss scale the step was computed with; 1 under bf16 and fp32."""


class PendingOutcome:
    """What one optimizer step will have come to, once the device has computed it.

    Args:
        numbers: ``[3]``: grad norm, whether the step was skipped, and loss scale.
    """

    def __init__(self, numbers: torch.Tensor) -> None:
        self._numbers = numbers

    def wait(self) -> StepOutcome:
        """The outcome; the host waits for the device here, and nowhere else in a step."""
        grad_norm, skipped, loss_scale = self._numbers.tolist()
        return StepOutcome(grad_norm, bool(skipped), loss_scale)


class Strategy(ABC):
    """A model made ready to train or predict; every verb is collective, in lockstep.

    The gradient contract: the ``loss_share`` values of all ranks and micro-batches of a step sum
    to the mean loss of the global batch. The strategy cancels its backend's own averaging.
    """

    @abstractmethod
    def forward(self, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Logits in training mode, with a graph."""

    @abstractmethod
    def backward(self, loss_share: torch.Tensor, *, last: bool) -> None:
        """Add the gradients of a share of the loss; ``last`` marks a step's last micro-batch."""

    @abstractmethod
    def step(self, learning_rate: float) -> PendingOutcome:
        """Clip, update the parameters, and clear the gradients; nothing waits for the device."""

    @abstractmethod
    def predict(self, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Logits in evaluation mode, without a graph."""

    @abstractmethod
    def shards(self) -> Iterator[Shard]:
        """The ranges this rank owns, in the model's order of parameters, alike on every rank.

        A parameter of which this rank owns nothing comes with ``numel`` 0.
        """

    @abstractmethod
    def publish(self) -> None:
        """Make what was written into the shards the values that are computed with.

        The next ``forward`` or ``predict`` computes with them alone, whatever the backend still
        held of earlier values: gathered, prefetched or replicated.
        """

    def averaged(self) -> AbstractContextManager[None]:
        """Compute with the moving average of the weights inside the block, where one is kept.

        There the shards' ``master`` has the average, and must not be saved in a checkpoint.
        """
        return nullcontext()

    @abstractmethod
    def scalars(self) -> dict[str, float]:
        """The few numbers that go with the shards: optimizer step and, under fp16, loss scale."""

    @abstractmethod
    def load_scalars(self, scalars: Mapping[str, float]) -> None:
        """Take over the numbers that ``scalars`` of any strategy gave."""

    @abstractmethod
    def close(self) -> None:
        """Release what the backend holds; the strategy is not used after it."""
