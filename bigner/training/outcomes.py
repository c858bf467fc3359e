"""What the optimizer steps of a run came to, and when there is no use in going on."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import torch

from bigner.config.deepspeed import MIN_LOSS_SCALE
from bigner.config.schema import RunConfig
from bigner.distributed import World
from bigner.strategies import PendingOutcome, StepOutcome

_LOSSES_TOLD = 5


@dataclass
class Outcomes:
    """The steps' outcomes, asked of the device for several at once."""

    config: RunConfig
    world: World
    skipped: int = field(default=0, init=False)
    """Steps that were skipped so far."""
    skipped_in_a_row: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self.last = StepOutcome(grad_norm=0.0, skipped=False, loss_scale=1.0)
        """Of the last step that was settled."""
        self._pending: list[tuple[torch.Tensor, PendingOutcome]] = []
        self._losses: deque[torch.Tensor] = deque(maxlen=_LOSSES_TOLD)

    def note(self, loss_share: torch.Tensor, outcome: PendingOutcome) -> None:
        """Keep what a step will have come to.

        On a GPU it is asked for later, for several steps at once: the host would wait for the
        device in each.
        """
        self._pending.append((loss_share, outcome))
        if self.world.device.type == "cpu":
            self.settle()

    def settle(self) -> StepOutcome:
        """Wait for what the steps so far came to; returns that of the last one."""
        for loss_share, pending in self._pending:
            self.last = pending.wait()
            self.skipped += self.last.skipped
            self.skipped_in_a_row = self.skipped_in_a_row + 1 if self.last.skipped else 0
            if not self.last.skipped:
                self._losses.append(loss_share)
        self._pending.clear()
        return self.last

    def divergence(self) -> tuple[str, str] | None:
        """What happened and what to do, where steps go on being skipped and there is nothing left
        to lower.
        """
        if not self.last.skipped:
            return None
        if self.config.precision == "fp16":
            if self.last.loss_scale > MIN_LOSS_SCALE:
                return None
            return (
                f"gradients overflow fp16 at loss scale {self.last.loss_scale:g}, the smallest "
                f"there is",
                "lower training.learning_rate, raise training.warmup_ratio, or set precision to "
                "bf16 or fp32",
            )
        if self.skipped_in_a_row < self.config.training.max_skipped_steps:
            return None
        return (
            f"the gradient was not finite {self.skipped_in_a_row} times in a row",
            "lower training.learning_rate or raise training.warmup_ratio",
        )

    def last_losses(self) -> str:
        """The losses of the last steps that were not skipped, for a message; collective."""
        return ", ".join(f"{float(self.world.sum(loss)):.4g}" for loss in self._losses) or "none"
