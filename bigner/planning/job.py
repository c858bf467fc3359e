"""A run on so many ranks, in the numbers that its memory, traffic and time follow from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from bigner.config.deepspeed import node_ranks, tuning_of
from bigner.config.schema import FsdpStrategy, Precision, RunConfig, StrategyConfig, ZeroStrategy
from bigner.planning.shapes import ModelShape

Checkpointing = bool | Literal["selective"]


@dataclass(frozen=True, slots=True)
class Job:
    """What one rank of a run does in a step, with every window as long as windows can be."""

    shape: ModelShape
    precision: Precision
    strategy: StrategyConfig
    tuning: Mapping[str, Any]
    """``zero_optimization`` of the ds_configs file."""
    ranks: int
    tokens: int
    """Pieces that a rank computes at once in training."""
    batching: Literal["samples", "tokens"]
    """How the run file measures them."""
    window: int
    """Pieces in a window."""
    accumulation: int
    """Micro-batches in a step."""
    evaluation_tokens: int
    """Pieces that a rank predicts at once."""
    checkpointing: Checkpointing
    keeps_average: bool
    """Whether a moving average of the weights is kept."""
    keeps_copies: bool
    """Whether checkpoints are written from copies in host memory."""

    @property
    def windows(self) -> int:
        """Windows in a micro-batch."""
        return max(1, self.tokens // self.window)

    @property
    def value_bytes(self) -> int:
        """Bytes of a value in the precision that is computed in."""
        return 4 if self.precision == "fp32" else 2

    @property
    def state_bytes(self) -> int:
        """Bytes of fp32 state beside the master of a trained value: AdamW's two moments and, where
        one is kept, the moving average.
        """
        return 12 if self.keeps_average else 8

    @property
    def reduced_bytes(self) -> int:
        """Bytes of a gradient's value as it is added up over ranks."""
        dtype = getattr(self.strategy, "reduce_dtype", "fp32")
        return 4 if dtype == "fp32" else self.value_bytes

    @property
    def replicas(self) -> int:
        """Copies of the sharded model."""
        return self.strategy.dp_replicate if isinstance(self.strategy, FsdpStrategy) else 1

    @property
    def shard_ranks(self) -> int:
        """Ranks that a copy of the model is spread over."""
        return self.ranks // self.replicas

    @property
    def stage(self) -> int:
        """The stage of ZeRO; 0 for what is not ZeRO."""
        return self.strategy.stage if isinstance(self.strategy, ZeroStrategy) else 0

    @property
    def node_ranks(self) -> int | None:
        """Ranks of a node, which ZeRO++ spreads a second copy of the weights over, if it does."""
        size = node_ranks(self.tuning)
        return min(size, self.ranks) if self.stage == 3 and size > 1 else None

    def offloads(self, what: Literal["optimizer", "param"]) -> bool:
        """Whether ZeRO keeps it in host memory."""
        section = self.tuning.get(f"offload_{what}")
        return isinstance(section, dict) and section.get("device") == "cpu"


@dataclass(frozen=True, slots=True)
class Change:
    """A change to a run."""

    change: str
    """Fields and their values, as overrides."""
    cost: str
    job: Job
    """The run with it."""


def job_of(config: RunConfig, shape: ModelShape, ranks: int) -> Job:
    """The job that a run is with so many ranks.

    Raises:
        ConfigError: its ds_configs file is wrong.
    """
    training, window = config.training, config.data.max_length
    if training.batching == "tokens":
        tokens = training.micro_batch_tokens
        whole = training.global_batch_tokens or training.global_batch_size * window
        accumulation = max(1, -(-whole // (tokens * ranks)))
    else:
        tokens = training.micro_batch_size * window
        accumulation = training.accumulation(ranks) or 1
    tuning: Mapping[str, Any] = {}
    if isinstance(config.strategy, ZeroStrategy):
        tuning = tuning_of(config.strategy).get("zero_optimization", {})
    evaluation = config.evaluation
    at_once = (
        evaluation.batch_tokens if not evaluation.batch_size else evaluation.batch_size * window
    )
    return Job(
        shape=shape,
        precision=config.precision,
        strategy=config.strategy,
        tuning=tuning,
        ranks=ranks,
        tokens=tokens,
        batching=training.batching,
        window=window,
        accumulation=accumulation,
        evaluation_tokens=max(at_once, window),
        checkpointing=training.gradient_checkpointing,
        keeps_average=training.average_decay is not None,
        keeps_copies=config.checkpoint.every_steps is not None and config.checkpoint.background,
    )
