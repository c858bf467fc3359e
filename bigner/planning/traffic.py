"""Bytes a step moves, and the time it takes by a roofline: the slower of computing and moving.

Collectives go around a ring, so each rank sends (n - 1) / n of what is gathered or reduced, twice
that for an all-reduce, and each waits for n - 1 hops, which is what many ranks with little to do
wait for. A rank computes at ``EFFICIENCY`` of its card's dense rate and moves at
``LINK_EFFICIENCY`` of its link's. Every window is as long as windows can be.
"""

from __future__ import annotations

from dataclasses import dataclass

from bigner.config.schema import FsdpStrategy, SingleStrategy
from bigner.planning.hardware import Gpu, Links
from bigner.planning.job import Job
from bigner.planning.zero import BUCKET

EFFICIENCY = 0.45
"""Of a card's dense matrix rate, what a step of an encoder reaches: an assumption."""
LINK_EFFICIENCY = 0.7
"""Of a link's stated rate, what collectives reach: an assumption."""
_MEMORY_EFFICIENCY = 0.7


@dataclass(frozen=True, slots=True)
class Moved:
    """What the collectives of one kind send in an optimizer step."""

    num_bytes: int
    """Of one rank."""
    calls: int
    ranks: int
    """Of a ring; each call goes around it once."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """What a rank sends in one optimizer step."""

    gathered_forward: Moved
    gathered_backward: Moved
    """Under ZeRO's stages 1 and 2, what is gathered after the update."""
    reduced: Moved
    replicated: Moved
    """The all-reduce between copies of the model."""
    last_reduced: Moved
    """Of ``reduced``, the table's in the last micro-batch, with nothing to compute beside it."""

    def in_gb(self) -> dict[str, float]:
        """GB of each kind."""
        kinds = ("gathered_forward", "gathered_backward", "reduced", "replicated")
        return {kind: round(getattr(self, kind).num_bytes / 1e9, 3) for kind in kinds}


@dataclass(frozen=True, slots=True)
class StepTime:
    """Seconds of one optimizer step."""

    compute: float
    link: float
    """If nothing were computed meanwhile."""
    update: float
    step: float
    tokens_per_second: float
    """Over all ranks."""

    @property
    def bound_by(self) -> str:
        """What holds it up."""
        return "link" if self.link > self.compute else "compute"


def traffic_of(job: Job) -> Traffic:
    """What one optimizer step of a rank sends, and in how many collectives."""
    if isinstance(job.strategy, SingleStrategy):
        nothing = Moved(0, 0, 1)
        return Traffic(nothing, nothing, nothing, nothing, nothing)
    if 0 < job.stage < 3:
        return _whole_weights(job)
    shape, ranks, micro = job.shape, job.shard_ranks, job.accumulation
    trained = [unit for unit in shape.units if unit.is_trained]
    reduced = job.reduced_bytes * shape.num_trained
    again = [shape.embeddings, *shape.layers]
    if isinstance(job.strategy, FsdpStrategy) and not job.strategy.reshard_after_forward:
        again = []
    within = job.node_ranks or ranks
    table = job.reduced_bytes * shape.table.numel * shape.table.is_trained
    return Traffic(
        _ring(job.value_bytes * shape.numel, len(shape.units), ranks, micro),
        # The table is not gathered again for its gradient, nor is the head, which stays.
        _ring(job.value_bytes * sum(unit.numel for unit in again), len(again), within, micro),
        _ring(reduced, len(trained), ranks, micro),
        # An all-reduce goes around twice.
        _ring(reduced // ranks, len(trained), job.replicas, 2 * micro),
        _ring(table, 1, ranks, 1),
    )


def _ring(num_bytes: float, calls: int, ranks: int, times: int) -> Moved:
    """A gather or reduction of so many bytes in all, so many times."""
    sent = num_bytes * times * (ranks - 1) / ranks
    return Moved(round(sent), calls * times if ranks > 1 else 0, ranks)


def _whole_weights(job: Job) -> Traffic:
    """Stages 1 and 2: weights come once, after the update, and stage 1 reduces once a step."""
    shape, ranks = job.shape, job.ranks
    times = job.accumulation if job.stage == 2 else 1
    weights = job.value_bytes * shape.num_trained
    gathers = -(-weights // round(job.tuning.get("allgather_bucket_size", BUCKET)))
    buckets = -(-shape.num_trained // round(job.tuning.get("reduce_bucket_size", BUCKET)))
    table = job.reduced_bytes * shape.table.numel * shape.table.is_trained
    return Traffic(
        Moved(0, 0, 1),
        _ring(weights, gathers, ranks, 1),
        _ring(job.reduced_bytes * shape.num_trained, buckets, ranks, times),
        Moved(0, 0, 1),
        _ring(table, 1, ranks, 1),
    )


def flops_of(job: Job) -> tuple[float, float]:
    """Floating-point operations of one micro-batch: forward, and backward with what is recomputed.

    Two for each weight of a matrix and piece, and four for each pair of pieces and width of
    attention; the backward has twice the forward's (Kaplan et al., 2020; appendix B of PaLM).
    """
    shape = job.shape
    matrices = sum(t.numel for layer in shape.layers for t in layer.tensors if t.width > 1)
    head = sum(t.numel for t in shape.root.tensors if t.width > 1)
    window = min(job.window, job.tokens)
    attention = 4 * window * shape.hidden_size * shape.num_layers
    layers = job.tokens * (2.0 * matrices + attention)
    forward = layers + 2.0 * job.tokens * head
    lowest = next(
        (i for i, layer in enumerate(shape.layers) if layer.is_trained), len(shape.layers)
    )
    # Below the lowest part that moves nothing has a backward.
    moving = 1.0 if shape.table.is_trained else 1 - lowest / len(shape.layers)
    backward = 2 * layers * moving + 4.0 * job.tokens * head
    if job.checkpointing is True:
        backward += layers * moving
    elif job.checkpointing == "selective":
        backward += 0.05 * layers * moving
    return forward, backward


def time_of(job: Job, gpu: Gpu, links: Links) -> StepTime:
    """The seconds of a step, gathers and reductions hidden behind what is computed meanwhile."""
    moved, (forward, backward) = traffic_of(job), flops_of(job)
    rate = EFFICIENCY * gpu.tflops(job.precision) * 1e12
    micro = job.accumulation
    computing_forward, computing_backward = micro * forward / rate, micro * backward / rate
    forward_link = _around(moved.gathered_forward, links)
    alone = _around(moved.last_reduced, links)
    backward_link = (
        _around(moved.gathered_backward, links)
        + _around(moved.reduced, links)
        + _across(moved.replicated, links, job.ranks)
    )
    update = 28 * _owned(job) / (_MEMORY_EFFICIENCY * gpu.memory_gbps * 1e9)
    step = (
        max(computing_forward, forward_link)
        + max(computing_backward, backward_link - alone)
        + alone
        + update
    )
    tokens = job.tokens * micro * job.ranks
    return StepTime(
        compute=computing_forward + computing_backward,
        link=forward_link + backward_link,
        update=update,
        step=step,
        tokens_per_second=tokens / step,
    )


def _around(moved: Moved, links: Links) -> float:
    """Seconds of rings over neighbouring ranks."""
    rate = LINK_EFFICIENCY * 1e9 * links.ring_gbps(moved.ranks)
    return moved.num_bytes / rate + moved.calls * links.ring_seconds(moved.ranks)


def _across(moved: Moved, links: Links, all_ranks: int) -> float:
    """Seconds of rings over the ranks of one place in each copy of the model."""
    rate = LINK_EFFICIENCY * 1e9 * links.counterpart_gbps(all_ranks)
    hop = links.hop_seconds(is_between=all_ranks > links.gpus_per_node)
    return moved.num_bytes / rate + moved.calls * (moved.ranks - 1) * hop


def _owned(job: Job) -> int:
    """Values that AdamW updates on a rank, reading four fp32 numbers of each and writing three."""
    return -(-job.shape.num_trained // job.shard_ranks)
