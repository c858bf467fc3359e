"""Parameter groups and learning rate: what every strategy optimises by, in the same way."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import get_scheduler

from bigner.config.schema import TrainingConfig


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """AdamW's groups: matrices with decay; biases, norms and other vectors without."""
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


class LearningRate:
    """The learning rate of each step: a pure function of the step and the scores so far.

    transformers' schedules are written for an optimizer; this drives them with a one-number
    stand-in, so that a strategy is only ever told a number.
    """

    def __init__(
        self, training: TrainingConfig, total_steps: int, *, lower_is_better: bool
    ) -> None:
        self._training = training
        # The last step is never part of warm-up: a linear schedule would end in it, at zero.
        self.warmup_steps = min(round(training.warmup_ratio * total_steps), total_steps - 1)
        self._stand_in = torch.optim.SGD([torch.zeros(1)], lr=training.learning_rate)
        self._plateau: torch.optim.lr_scheduler.ReduceLROnPlateau | None = None
        if training.schedule == "reduce_on_plateau":
            self._plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(
                self._stand_in,
                mode="min" if lower_is_better else "max",
                factor=training.plateau_factor,
                patience=training.plateau_patience,
            )
        else:
            name = {"constant": "constant_with_warmup"}.get(training.schedule, training.schedule)
            schedule = get_scheduler(name, self._stand_in, self.warmup_steps, total_steps)
            self._factor = schedule.lr_lambdas[0]

    def at(self, step: int) -> float:
        """The learning rate of optimizer step ``step``, counted from 0."""
        # Warm-up counts from 1: a first step at rate zero would be a step thrown away.
        rising = step < self.warmup_steps
        if self._plateau is None:
            return float(self._training.learning_rate * self._factor(step + 1 if rising else step))
        share = (step + 1) / self.warmup_steps if rising else 1.0
        return float(self._stand_in.param_groups[0]["lr"] * share)

    def scored(self, metric: float) -> None:
        """Tell a plateau schedule the validation score; the others do not listen."""
        if self._plateau is not None:
            self._plateau.step(metric)
