"""AdamW as all strategies use it, and the step of those that leave it to torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from bigner.config.deepspeed import INITIAL_LOSS_SCALE_POWER, LOSS_SCALE_WINDOW, MIN_LOSS_SCALE
from bigner.config.schema import Precision, TrainingConfig
from bigner.distributed import World
from bigner.strategies.base import PendingOutcome, Strategy
from bigner.strategies.precision import computed_in

_SUMMED_AT_ONCE = 2**17

ZerosLike = Callable[[torch.Tensor], torch.Tensor]
Groups = list[dict[str, Any]]
"""``optim.parameter_groups``, or the like of them: what is optimised, and by which settings."""


def adamw(groups: Groups, training: TrainingConfig) -> torch.optim.AdamW:
    """The optimizer of every strategy."""
    return torch.optim.AdamW(
        groups,
        lr=training.learning_rate,
        betas=(training.adam_beta1, training.adam_beta2),
        eps=training.adam_epsilon,
        fused=True,
    )


def untouched_zeros(like: torch.Tensor) -> torch.Tensor:
    """fp32 zeros that take no memory of the host before they are written to."""
    if like.device.type != "cpu":
        return torch.zeros_like(like, dtype=torch.float32)
    # numpy asks the system for zeroed pages, where torch writes the zeros itself.
    return torch.from_numpy(np.zeros(like.shape, dtype=np.float32))


def create_adamw_state(
    optimizer: torch.optim.AdamW,
    parameters: Iterable[torch.Tensor],
    zeros_like: ZerosLike = untouched_zeros,
) -> None:
    """Create the optimizer state that AdamW itself would create in its first step.

    With it in place from the start, shards can be written before any step was made.
    """
    for parameter in parameters:
        optimizer.state[parameter] = {
            "step": torch.zeros((), dtype=torch.float32, device=parameter.device),
            "exp_avg": zeros_like(parameter),
            "exp_avg_sq": zeros_like(parameter),
        }


def optimizer_step(optimizer: torch.optim.Optimizer) -> float:
    """Updates the optimizer has applied; skipped steps do not count."""
    return next((float(state["step"]) for state in optimizer.state.values()), 0.0)


def set_optimizer_step(optimizer: torch.optim.Optimizer, step: float) -> None:
    """Set the count of applied updates, which AdamW corrects its bias by."""
    for state in optimizer.state.values():
        state["step"].fill_(step)


def set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    """Give each group its share of this step's learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate * group["lr_factor"]


def total_norm(tensors: Iterable[torch.Tensor]) -> torch.Tensor:
    """2-norm of all their values together."""
    return torch.nn.utils.get_total_norm([part for each in tensors for part in _summands(each)])


def _summands(tensor: torch.Tensor) -> Sequence[torch.Tensor]:
    """Parts of which torch computes the norm well enough."""
    if tensor.device.type != "cpu" or tensor.numel() <= _SUMMED_AT_ONCE:
        return (tensor,)
    # A processor adds squares one after the other, in fp32; of 300 million it loses 6%.
    return torch.split(tensor.flatten(), _SUMMED_AT_ONCE)


class LossScale:
    """The dynamic loss scale of fp16, as torch's ``GradScaler`` moves it; 1 in other precisions.

    It lives on the device and moves there: the host never waits for it.
    """

    def __init__(self, precision: Precision, device: torch.device) -> None:
        self.is_dynamic = precision == "fp16"
        initial = 2.0**INITIAL_LOSS_SCALE_POWER if self.is_dynamic else 1.0
        self.value = torch.tensor(initial, device=device)
        self.steps_since_change = torch.tensor(0.0, device=device)

    def update(self, overflowed: torch.Tensor) -> None:
        """Halve it after an overflow, double it after a window of steps without one."""
        if not self.is_dynamic:
            return
        since = self.steps_since_change + 1
        grows = since == LOSS_SCALE_WINDOW
        kept = torch.where(grows, 2 * self.value, self.value)
        self.value = torch.where(overflowed, self.value / 2, kept).clamp(min=MIN_LOSS_SCALE)
        self.steps_since_change = since.masked_fill(overflowed | grows, 0.0)


class Stepper:
    """AdamW with clipping and, under fp16, a dynamic loss scale, over plain tensors.

    Unscaling, clipping and the update are one pass of the fused AdamW over the gradients, which
    also skips a step whose gradient is not finite.

    Args:
        groups: this rank's fp32 values; their ``grad`` is what a step goes by.
        training: its optimizer and clipping.
        precision: fp16 has a loss scale.
        world: over which gradients are sharded, if they are.
        zeros_like: makes optimizer state.
        copies: of the model among the ranks; each has all gradients.
    """

    def __init__(
        self,
        groups: Groups,
        training: TrainingConfig,
        precision: Precision,
        world: World,
        zeros_like: ZerosLike = untouched_zeros,
        copies: int = 1,
    ) -> None:
        self.optimizer = adamw(groups, training)
        self._optimised = [tensor for group in groups for tensor in group["params"]]
        create_adamw_state(self.optimizer, self._optimised, zeros_like)
        self._max_norm = training.max_grad_norm or float("inf")
        self._scale = LossScale(precision, world.device)
        self._world = world
        self._copies = copies

    def backward(self, loss: torch.Tensor) -> None:
        """Backward of the scaled loss."""
        torch.autograd.backward(loss * self._scale.value)

    def step(self, learning_rate: float) -> PendingOutcome:
        """Unscale, clip, update; a gradient that is not finite skips the update everywhere."""
        set_learning_rate(self.optimizer, learning_rate)
        for tensor in self._optimised:
            if tensor.grad is None:
                # Nothing depends on it. Under ZeRO, too, weight decay moves it all the same.
                tensor.grad = torch.zeros_like(tensor)
        scale, grad_norm = self._scale.value, self._grad_norm()
        overflowed = ~grad_norm.isfinite()
        # As torch's clip_grad_norm_ has it.
        clipped_to = (self._max_norm / (grad_norm + 1e-6)).clamp(max=1.0)
        # What GradScaler gives a fused optimizer: it divides by one and heeds the other.
        self.optimizer.grad_scale = scale / clipped_to  # type: ignore[attr-defined]
        self.optimizer.found_inf = overflowed.float()  # type: ignore[attr-defined]
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self._scale.update(overflowed)
        return PendingOutcome(torch.stack([grad_norm, overflowed.float(), scale]))

    @torch.no_grad()
    def _grad_norm(self) -> torch.Tensor:
        """2-norm of the unscaled gradient, over all ranks."""
        gradients = [tensor.grad for tensor in self._optimised if tensor.grad is not None]
        squares = self._world.sum(total_norm(gradients).square()) / self._copies
        return squares.sqrt() / self._scale.value

    def scalars(self) -> dict[str, float]:
        """Optimizer step; under fp16 also the loss scale and the steps since it changed."""
        scalars = {"optimizer_step": optimizer_step(self.optimizer)}
        if self._scale.is_dynamic:
            scalars["loss_scale"] = float(self._scale.value)
            scalars["steps_since_overflow"] = float(self._scale.steps_since_change)
        return scalars

    def load_scalars(self, scalars: Mapping[str, float]) -> None:
        """Take over the numbers of ``scalars``."""
        set_optimizer_step(self.optimizer, scalars["optimizer_step"])
        if self._scale.is_dynamic and "loss_scale" in scalars:
            self._scale.value.fill_(scalars["loss_scale"])
            self._scale.steps_since_change.fill_(scalars["steps_since_overflow"])


class TorchStrategy(Strategy):
    """A strategy whose parameters and optimizer are torch's own, sharded or not.

    Args:
        model: ready to run.
        precision: what it is computed in.
        stepper: None if the model is only to predict.
        cancel_mean: what the backend divides gradients by.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        precision: Precision,
        stepper: Stepper | None,
        cancel_mean: int,
    ) -> None:
        self._model = model
        self._precision = precision
        self._stepper = stepper
        self._cancel_mean = cancel_mean

    @property
    def _training(self) -> Stepper:
        assert self._stepper is not None, "opened to predict, not to train"
        return self._stepper

    def _moments(self, optimised: torch.Tensor) -> dict[str, torch.Tensor]:
        """AdamW's two moments; none of what is frozen, or if nothing is trained."""
        state = self._stepper.optimizer.state.get(optimised) if self._stepper else None
        return {key: state[key] for key in ("exp_avg", "exp_avg_sq")} if state else {}

    def forward(self, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        if not self._model.training:
            self._model.train()
        with computed_in(self._precision, self._model):
            logits: torch.Tensor = self._model(**inputs).logits
        return logits

    def backward(self, loss_share: torch.Tensor, *, last: bool) -> None:  # noqa: ARG002
        self._training.backward(loss_share * self._cancel_mean)

    def step(self, learning_rate: float) -> PendingOutcome:
        return self._training.step(learning_rate)

    @torch.no_grad()
    def predict(self, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        if self._model.training:
            self._model.eval()
        with computed_in(self._precision, self._model):
            logits: torch.Tensor = self._model(**inputs).logits
        return logits

    def scalars(self) -> dict[str, float]:
        return self._training.scalars()

    def load_scalars(self, scalars: Mapping[str, float]) -> None:
        self._training.load_scalars(scalars)

    def close(self) -> None:
        """Nothing is held; the process group belongs to the World."""
