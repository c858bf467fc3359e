"""A plan, put together from its parts, as plain values."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

from bigner.planning.hardware import (
    GIB,
    GPUS,
    HOP_BETWEEN_NODES,
    HOP_WITHIN_NODE,
    Gpu,
    Links,
)
from bigner.planning.job import Job
from bigner.planning.layouts import layout_of
from bigner.planning.memory import RESERVED_GIB, Memory, memory_of
from bigner.planning.remedies import (
    MOST_RANKS,
    fewest_ranks,
    largest_micro_batch,
    remedies,
)
from bigner.planning.traffic import EFFICIENCY, LINK_EFFICIENCY, flops_of, time_of
from bigner.planning.zero import deepspeed_estimate


@dataclass(frozen=True, slots=True)
class Cluster:
    """The machines a run is planned for."""

    gpu: Gpu
    memory_gib: float
    gpus_per_node: int
    nodes: int
    links: Links

    @property
    def ranks(self) -> int:
        """All GPUs."""
        return self.gpus_per_node * self.nodes


def report(job: Job, cluster: Cluster) -> dict[str, Any]:
    """Everything that a plan says, for JSON."""
    memory, gib = memory_of(job), cluster.memory_gib
    fits = memory.fits(gib)
    return {
        "strategy": job.strategy.model_dump(mode="json"),
        "precision": job.precision,
        "cluster": {
            "gpu": cluster.gpu.name,
            "memory_gib": gib,
            "nodes": cluster.nodes,
            "gpus_per_node": cluster.gpus_per_node,
            "gbps_within_node": cluster.links.within_node,
            "gbps_between_nodes": cluster.links.between_nodes,
        },
        "model": {
            "model_type": job.shape.model_type,
            "parameters": job.shape.numel,
            "trained": job.shape.num_trained,
            "embedding_table": job.shape.table.numel,
            "labels": job.shape.num_labels,
        },
        "step": {
            "pieces_at_once": job.tokens,
            "window": job.window,
            "accumulation": job.accumulation,
            "gradient_checkpointing": job.checkpointing,
        },
        "memory": {
            "fits": fits,
            "peak_gib": _gib(memory.peak.total),
            "peak_phase": memory.peak.phase,
            "peak_at": memory.peak.where,
            "reserved_gib": RESERVED_GIB,
            "phases": _phases(memory),
            "host_gib": {what: _gib(size) for what, size in memory.host.items()},
            "largest_micro_batch": largest_micro_batch(job, gib),
            "fewest_gpus": (fewest := fewest_ranks(job, gib)),
            "on_half_of_them": _on_half(job, fewest),
            **({"deepspeed_states_gib": _gib(deepspeed_estimate(job))} if job.stage else {}),
        },
        "traffic_gb": layout_of(job).traffic(job).in_gb(),
        "time": _time(job, cluster),
        "scaling": list(_scaling(job, cluster)),
        "remedies": [] if fits else [_remedy(asdict(one)) for one in remedies(job, gib)],
        "assumed": {
            "share_of_dense_rate": EFFICIENCY,
            "share_of_link_rate": LINK_EFFICIENCY,
            "hop_seconds_within_node": HOP_WITHIN_NODE,
            "hop_seconds_between_nodes": HOP_BETWEEN_NODES,
        },
    }


def _gib(size: float) -> float:
    return round(size / GIB, 3)


def _phases(memory: Memory) -> dict[str, Any]:
    return {
        phase: {
            "at": moment.where,
            "total_gib": _gib(moment.total),
            "parts_gib": {part: _gib(size) for part, size in moment.parts.items() if size},
        }
        for phase, moment in memory.phases.items()
    }


def _on_half(job: Job, fewest: int | None) -> dict[str, Any] | None:
    """What does not fit on half of the fewest GPUs that do."""
    if fewest is None or fewest <= job.replicas:
        return None
    peak = memory_of(replace(job, ranks=fewest // 2)).peak
    parts = sorted(peak.parts.items(), key=lambda part: -part[1])
    return {
        "gpus": fewest // 2,
        "peak_gib": _gib(peak.total),
        "peak_phase": peak.phase,
        "largest_parts_gib": {part: _gib(size) for part, size in parts[:3]},
    }


def _remedy(values: dict[str, Any]) -> dict[str, Any]:
    return {
        "change": values["change"],
        "cost": values["cost"],
        "peak_gib": _gib(values["peak_bytes"]),
        "fits": values["fits"],
    }


def _time(job: Job, cluster: Cluster) -> dict[str, Any]:
    time = time_of(job, cluster.gpu, cluster.links)
    forward, backward = flops_of(job)
    return {
        "teraflops": round((forward + backward) * job.accumulation / 1e12, 2),
        "compute_seconds": _seconds(time.compute),
        "link_seconds": _seconds(time.link),
        "update_seconds": _seconds(time.update),
        "step_seconds": _seconds(time.step),
        "bound_by": time.bound_by,
        "tokens_per_second": round(time.tokens_per_second),
    }


def _seconds(value: float) -> float:
    return float(f"{value:.3g}")


def _scaling(job: Job, cluster: Cluster) -> Iterator[dict[str, Any]]:
    """The same work on each of 1 to 1,024 GPUs, and how much of the time they compute."""
    ranks = 1
    while ranks <= MOST_RANKS:
        if ranks > 1 and not job.strategy.needs_process_group:
            return
        here = _on(job, ranks)
        memory, time = memory_of(here), time_of(here, cluster.gpu, cluster.links)
        yield {
            "gpus": ranks,
            "peak_gib": _gib(memory.peak.total),
            "fits": memory.fits(cluster.memory_gib),
            "largest_micro_batch": largest_micro_batch(here, cluster.memory_gib),
            "tokens_per_second": round(time.tokens_per_second),
            "computing_share": round(time.compute / time.step, 3),
            "bound_by": time.bound_by,
        }
        ranks *= 2


def _on(job: Job, ranks: int) -> Job:
    """The same on so many ranks; copies of the model are of as many ranks as they were."""
    strategy = job.strategy
    if job.replicas > 1:
        replicas = max(1, ranks // job.shard_ranks)
        strategy = strategy.model_copy(update={"dp_replicate": replicas})
    return replace(job, ranks=ranks, strategy=strategy)


def verdict(job: Job) -> str:
    """The memory of a run in one line, for ``validate``, which knows of no cluster."""
    memory = memory_of(job)
    peak = memory.peak
    roomy = [gpu for gpu in GPUS.values() if memory.fits(gpu.memory_gib)]
    smallest = min(roomy, key=lambda gpu: gpu.memory_gib, default=None)
    says = "more than any GPU has" if smallest is None else f"fits {smallest.name} and larger"
    return f"{_gib(peak.total):,.2f} GiB a rank, at the peak in the {peak.phase}; {says}"
