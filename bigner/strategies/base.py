"""The contract of a strategy: how a model is spread over ranks, and nothing about its task."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from bigner.config.deepspeed import INITIAL_LOSS_SCALE_POWER, LOSS_SCALE_WINDOW
from bigner.config.schema import Precision, TrainingConfig
from bigner.errors import RunError

DTYPES: dict[Precision, torch.dtype] = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}
MIN_LOSS_SCALE = 1.0


@dataclass(frozen=True, slots=True)
class Shard:
    """The one contiguous range of a parameter's flattened values that this rank owns.

    The tensors are views: what is written into them is what the strategy goes on with, once
    ``Strategy.publish`` was called. All three are flat, fp32 and ``numel`` long; a frozen
    parameter has no optimizer state, and its values are in the dtype it is computed in.
    """

    name: str
    shape: tuple[int, ...]
    """Shape of the whole parameter."""
    offset: int
    numel: int
    master: torch.Tensor
    exp_avg: torch.Tensor | None = None
    exp_avg_sq: torch.Tensor | None = None


@dataclass(frozen=True, slots=True)
class StepOutcome:
    """What one optimizer step came to."""

    grad_norm: float
    """2-norm of the global gradient before clipping; not finite if the step was skipped."""
    skipped: bool
    """A gradient overflowed: no parameter moved."""
    loss_scale: float
    """The fp16 loss scale the step was computed with; 1 under bf16 and fp32."""


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
    def step(self, learning_rate: float) -> StepOutcome:
        """Clip, update the parameters, and clear the gradients."""

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
        """Make what was written into the shards the values that are computed with."""

    @abstractmethod
    def scalars(self) -> dict[str, float]:
        """The few numbers that go with the shards: optimizer step and loss scale."""

    @abstractmethod
    def load_scalars(self, scalars: Mapping[str, float]) -> None:
        """Take over the numbers that ``scalars`` of any strategy gave."""

    @abstractmethod
    def close(self) -> None:
        """Release what the backend holds; the strategy is not used after it."""


def adamw(groups: list[dict[str, Any]], training: TrainingConfig) -> torch.optim.AdamW:
    """The optimizer of every strategy."""
    return torch.optim.AdamW(
        groups,
        lr=training.learning_rate,
        betas=(training.adam_beta1, training.adam_beta2),
        eps=training.adam_epsilon,
        fused=True,
    )


def create_adamw_state(
    optimizer: torch.optim.AdamW, parameters: Iterable[torch.Tensor]
) -> None:
    """Create the optimizer state that AdamW itself would create in its first step.

    With it in place from the start, shards can be written before any step was made.
    """
    for parameter in parameters:
        optimizer.state[parameter] = {
            "step": torch.zeros((), dtype=torch.float32, device=parameter.device),
            "exp_avg": torch.zeros_like(parameter),
            "exp_avg_sq": torch.zeros_like(parameter),
        }


def optimizer_step(optimizer: torch.optim.Optimizer) -> float:
    """Updates the optimizer has applied; skipped steps do not count."""
    return next((float(state["step"]) for state in optimizer.state.values()), 0.0)


def set_optimizer_step(optimizer: torch.optim.Optimizer, step: float) -> None:
    """Set the count of applied updates, which AdamW corrects its bias by."""
    for state in optimizer.state.values():
        state["step"].fill_(step)


def set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    """Give all groups the learning rate of this step."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate


class Stepper:
    """AdamW with clipping and, under fp16, torch's dynamic loss scale.

    Shared by the strategies whose parameters are plain torch parameters or DTensors.
    """

    def __init__(
        self, model: nn.Module, groups: list[dict[str, Any]], training: TrainingConfig,
        precision: Precision, device: torch.device,
    ) -> None:
        self.optimizer = adamw(groups, training)
        self._parameters = [p for p in model.parameters() if p.requires_grad]
        create_adamw_state(self.optimizer, self._parameters)
        self._max_norm = training.max_grad_norm or float("inf")
        self.scaler = torch.amp.GradScaler(
            device.type,
            enabled=precision == "fp16",
            init_scale=2.0**INITIAL_LOSS_SCALE_POWER,
            growth_interval=LOSS_SCALE_WINDOW,
        )

    def backward(self, loss: torch.Tensor) -> None:
        """Backward of the scaled loss."""
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]

    def step(self, learning_rate: float) -> StepOutcome:
        """Unscale, clip, update; a gradient that is not finite skips the update everywhere."""
        set_learning_rate(self.optimizer, learning_rate)
        loss_scale = self.scaler.get_scale()
        self.scaler.unscale_(self.optimizer)
        norm = torch.nn.utils.clip_grad_norm_(self._parameters, self._max_norm)
        if hasattr(norm, "full_tensor"):
            norm = norm.full_tensor()
        grad_norm = float(norm)
        skipped = not torch.isfinite(torch.tensor(grad_norm)).item()
        if self.scaler.is_enabled():
            self.scaler.step(self.optimizer)
            self.scaler.update()
        elif not skipped:
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if skipped:
            check_loss_scale(loss_scale, enabled=self.scaler.is_enabled())
        return StepOutcome(grad_norm, skipped, loss_scale)

    def scalars(self) -> dict[str, float]:
        """Optimizer step, loss scale and the steps since it last changed."""
        state = self.scaler.state_dict()
        return {
            "optimizer_step": optimizer_step(self.optimizer),
            "loss_scale": float(state.get("scale", 1.0)),
            "steps_since_overflow": float(state.get("_growth_tracker", 0)),
        }

    def load_scalars(self, scalars: Mapping[str, float]) -> None:
        """Take over the numbers of ``scalars``."""
        set_optimizer_step(self.optimizer, scalars["optimizer_step"])
        if self.scaler.is_enabled():
            state = self.scaler.state_dict()
            state["scale"] = scalars["loss_scale"]
            state["_growth_tracker"] = int(scalars["steps_since_overflow"])
            self.scaler.load_state_dict(state)


def check_loss_scale(loss_scale: float, *, enabled: bool) -> None:
    """Stop a run whose gradients overflow even with the smallest loss scale.

    Raises:
        RunError: the scale cannot be halved any further.
    """
    if enabled and loss_scale <= MIN_LOSS_SCALE:
        raise RunError(
            f"gradients overflow fp16 at loss scale {loss_scale:g}, the smallest there is: the "
            f"model diverges; lower training.learning_rate, raise training.warmup_ratio, or set "
            f"precision to bf16 or fp32"
        )
