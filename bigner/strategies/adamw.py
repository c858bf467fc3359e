"""AdamW as all strategies use it, and the step of those that leave it to torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager

import numpy as np
import torch
from transformers import PreTrainedModel

from bigner.config.deepspeed import INITIAL_LOSS_SCALE_POWER, LOSS_SCALE_WINDOW
from bigner.config.schema import Precision, TrainingConfig
from bigner.optim import parameter_groups
from bigner.strategies.base import StepOutcome, Strategy

ZerosLike = Callable[[torch.Tensor], torch.Tensor]


def adamw(model: PreTrainedModel, training: TrainingConfig) -> torch.optim.AdamW:
    """The optimizer of every strategy, over the parameters that are trained."""
    return torch.optim.AdamW(
        parameter_groups(model, training),
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


class Stepper:
    """AdamW with clipping and, under fp16, torch's dynamic loss scale, over torch parameters."""

    def __init__(
        self,
        model: PreTrainedModel,
        training: TrainingConfig,
        precision: Precision,
        device: torch.device,
        zeros_like: ZerosLike = untouched_zeros,
    ) -> None:
        self.optimizer = adamw(model, training)
        self._parameters = [p for p in model.parameters() if p.requires_grad]
        create_adamw_state(self.optimizer, self._parameters, zeros_like)
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
        return StepOutcome(grad_norm, skipped, loss_scale)

    def scalars(self) -> dict[str, float]:
        """Optimizer step; under fp16 also the loss scale and the steps since it changed."""
        scalars = {"optimizer_step": optimizer_step(self.optimizer)}
        if self.scaler.is_enabled():
            state = self.scaler.state_dict()
            scalars["loss_scale"] = float(state["scale"])
            scalars["steps_since_overflow"] = float(state["_growth_tracker"])
        return scalars

    def load_scalars(self, scalars: Mapping[str, float]) -> None:
        """Take over the numbers of ``scalars``."""
        set_optimizer_step(self.optimizer, scalars["optimizer_step"])
        if self.scaler.is_enabled() and "loss_scale" in scalars:
            state = self.scaler.state_dict()
            state["scale"] = scalars["loss_scale"]
            state["_growth_tracker"] = int(scalars["steps_since_overflow"])
            self.scaler.load_state_dict(state)


class TorchStrategy(Strategy):
    """A strategy whose parameters and optimizer are torch's own, sharded or not.

    Args:
        model: ready to run.
        stepper: None if the model is only to predict.
        autocast: what a forward is computed in.
        cancel_mean: what the backend divides gradients by.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        stepper: Stepper | None,
        autocast: AbstractContextManager[object],
        cancel_mean: int,
    ) -> None:
        self._model = model
        self._stepper = stepper
        self._autocast = autocast
        self._cancel_mean = cancel_mean

    @property
    def _training(self) -> Stepper:
        assert self._stepper is not None, "opened to predict, not to train"
        return self._stepper

    def _moments(self, parameter: torch.Tensor) -> dict[str, torch.Tensor]:
        """AdamW's two moments of a parameter; none if it is frozen or nothing is trained."""
        state = self._stepper.optimizer.state.get(parameter) if self._stepper else None
        return {key: state[key] for key in ("exp_avg", "exp_avg_sq")} if state else {}

    def forward(self, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        self._model.train()
        with self._autocast:
            logits: torch.Tensor = self._model(**inputs).logits
        return logits

    def backward(self, loss_share: torch.Tensor, *, last: bool) -> None:  # noqa: ARG002
        self._training.backward(loss_share * self._cancel_mean)

    def step(self, learning_rate: float) -> StepOutcome:
        return self._training.step(learning_rate)

    @torch.no_grad()
    def predict(self, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        self._model.eval()
        with self._autocast:
            logits: torch.Tensor = self._model(**inputs).logits
        return logits

    def publish(self) -> None:
        """Nothing to do: low-precision copies are made from the shards in every forward."""

    def scalars(self) -> dict[str, float]:
        return self._training.scalars()

    def load_scalars(self, scalars: Mapping[str, float]) -> None:
        self._training.load_scalars(scalars)

    def close(self) -> None:
        """Nothing is held; the process group belongs to the World."""
