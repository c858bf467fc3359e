"""The validation scores of a run, and which of them is best."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from bigner.config.schema import EvaluationConfig


@dataclass
class History:
    """What each evaluation of validation found, in the order of its steps."""

    evaluation: EvaluationConfig
    entries: list[dict[str, Any]] = field(default_factory=list)
    """Scores, each with its ``step``."""

    @property
    def last_step(self) -> int:
        """The step of the last evaluation; 0 before the first."""
        return int(self.entries[-1]["step"]) if self.entries else 0

    @property
    def lower_is_better(self) -> bool:
        """Whether the metric that chooses the best weights is a loss."""
        return self.evaluation.metric == "loss"

    def metric(self, scores: dict[str, Any]) -> float:
        """The number that chooses the best weights, out of all scores."""
        name = self.evaluation.metric
        return float(scores["strict"]["f1"] if name == "strict_f1" else scores[name])

    def best(self) -> dict[str, Any] | None:
        """The entry with the best metric; of equals the one of the least loss."""
        return max(
            self.entries,
            key=lambda scores: (self._gain(scores), _or_worst(-float(scores["loss"]))),
            default=None,
        )

    def stops_early(self) -> bool:
        """Whether nothing was gained for as long as the config waits for it."""
        patience, min_gain = self.evaluation.patience, self.evaluation.min_gain
        if patience is None:
            return False
        best, waited = -math.inf, 0
        for scores in self.entries:
            value = self._gain(scores)
            waited = 0 if value > best + min_gain else waited + 1
            best = value if not waited else best
        return waited >= patience

    def _gain(self, scores: dict[str, Any]) -> float:
        """The metric, such that more is better."""
        return _or_worst(-self.metric(scores) if self.lower_is_better else self.metric(scores))


def _or_worst(value: float) -> float:
    """What compares with every number, as nan does not."""
    return -math.inf if math.isnan(value) else value
