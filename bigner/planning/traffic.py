"""Bytes a step moves, and the time it takes by a roofline: the slower of computing and moving.

Collectives go around a ring, so each rank sends (n - 1) / n of what is gathered or reduced, twice
that for an all-reduce, and each waits for n - 1 hops, which is what many ranks with little to do
wait for. A rank computes at ``EFFICIENCY`` of its card's dense rate and moves at
``LINK_EFFICIENCY`` of its link's. Every window is as long as windows can be.
"""

from __future__ import annotations

from dataclasses import dataclass

from bigner.planning.hardware import Gpu, Links
from bigner.planning.job import Job
from bigner.planning.layouts import layout_of
from bigner.planning.moved import Moved

EFFICIENCY = 0.35
"""Of a card's dense matrix rate, what a step of an encoder reaches: XLM-R-large on an H100, with 64
windows of 512 pieces (``scripts/bench_gpu.py``); of other cards an assumption."""
LINK_EFFICIENCY = 0.7
"""Of a link's stated rate, what collectives reach: an assumption."""
_MEMORY_EFFICIENCY = 0.7


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
    moved, (forward, backward) = layout_of(job).traffic(job), flops_of(job)
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
