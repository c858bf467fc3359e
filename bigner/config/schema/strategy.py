"""``strategy``: how the model is spread over processes."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from bigner.config.schema.base import FilePath, Section


class SingleStrategy(Section):
    """One process, nothing sharded: the reference for the others."""

    needs_process_group: ClassVar[bool] = False
    can_be_traced: ClassVar[bool] = False

    kind: Literal["single"] = "single"
    """Tells the strategies apart."""


_ReduceDtype = Literal["fp32", "precision"]


class FsdpStrategy(Section):
    """PyTorch FSDP2: `fully_shard` on every layer, the embeddings and the root."""

    needs_process_group: ClassVar[bool] = True
    can_be_traced: ClassVar[bool] = True

    kind: Literal["fsdp"]
    """Tells the strategies apart."""

    reshard_after_forward: bool = True
    """Free a layer's gathered weights after its forward: less memory, one more all-gather."""

    dp_replicate: int = Field(default=1, ge=1)
    """Copies of the sharded model, each spread over its share of neighbouring ranks. With one copy
    on each node, weights are gathered within nodes and only gradients go between them, for as many
    times the memory."""

    reduce_dtype: _ReduceDtype = "fp32"
    """Number format in which gradients are added up over ranks: `fp32`, or that of `precision`,
    with half the traffic and the rounding of sixteen bits."""


class ZeroStrategy(Section):
    """DeepSpeed ZeRO."""

    needs_process_group: ClassVar[bool] = True
    can_be_traced: ClassVar[bool] = False

    kind: Literal["zero"]
    """Tells the strategies apart."""

    stage: Literal[1, 2, 3] = 3
    """What is sharded: 1 optimizer state, 2 and gradients, 3 and parameters."""

    reduce_dtype: _ReduceDtype = "fp32"
    """Number format in which gradients are added up over ranks: `fp32`, or that of `precision`,
    with half the traffic and the rounding of sixteen bits."""

    deepspeed_config: FilePath | None = None
    """A ds_configs file that tunes ZeRO: buckets, prefetch, persistence, offload; nothing else."""


StrategyConfig = Annotated[
    SingleStrategy | FsdpStrategy | ZeroStrategy, Field(discriminator="kind")
]
