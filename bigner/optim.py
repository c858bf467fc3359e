"""Parameter groups and learning rate: what every strategy optimises by, in the same way."""

from __future__ import annotations

from typing import Any

import torch
from transformers import PreTrainedModel, get_scheduler

from bigner.config.schema import TrainingConfig
from bigner.modeling import anatomy


def parameter_groups(model: PreTrainedModel, training: TrainingConfig) -> list[dict[str, Any]]:
    """AdamW's groups, each with its ``weight_decay`` and ``lr_factor``; none with equal settings.

    Matrices have weight decay; biases, norms and other vectors have none.
    """
    factors = learning_rate_factors(model, training)
    groups: dict[tuple[float, float], list[torch.Tensor]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            weight_decay = training.weight_decay if parameter.ndim >= 2 else 0.0
            groups.setdefault((weight_decay, factors[name]), []).append(parameter)
    return [
        {"params": params, "weight_decay": weight_decay, "lr_factor": factor}
        for (weight_decay, factor), params in groups.items()
    ]


def learning_rate_factors(model: PreTrainedModel, training: TrainingConfig) -> dict[str, float]:
    """What each parameter's learning rate is multiplied with.

    The powers of ``layer_decay`` are counted as BEiT does: the head has none, the top layer one,
    the embeddings one more than there are layers. (ELECTRA, which began with it, has one more
    everywhere below the head.) What lies over the layers, such as a last norm, is of the top one.
    """
    parts = anatomy(model)
    head = (training.head_learning_rate or training.learning_rate) / training.learning_rate
    factors = dict.fromkeys(parts.head, head) | dict.fromkeys(parts.above, training.layer_decay)
    for power, names in enumerate((*reversed(parts.layers), parts.embeddings), start=1):
        factors |= dict.fromkeys(names, training.layer_decay**power)
    return factors


class LearningRate:
    """The learning rate of each step: a pure function of the step and the scores so far.

    transformers' schedules are written for an optimizer; this drives them with a one-number
    stand-in, so that a strategy is only ever told a number.
    """

    def __init__(
        self, training: TrainingConfig, total_steps: int, *, lower_is_better: bool
    ) -> None:
        self._training = training
        self.warmup_steps = training.warmup_steps(total_steps)
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
