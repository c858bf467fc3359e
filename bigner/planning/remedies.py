"""What to change where a run does not fit, from what costs least to what costs most."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from bigner.planning.job import Change, Job
from bigner.planning.layouts import layout_of
from bigner.planning.memory import memory_of

MOST_RANKS = 1024


@dataclass(frozen=True, slots=True)
class Remedy:
    """A change to a run, and what its peak would then be."""

    change: str
    """Fields and their values, as overrides."""
    cost: str
    peak_bytes: int
    fits: bool


def remedies(job: Job, memory_gib: float) -> list[Remedy]:
    """Changes to a run that does not fit, each on top of those before it, up to the first that
    suffices.
    """
    found = []
    for one in _changes(job, memory_gib):
        memory = memory_of(one.job)
        found.append(Remedy(one.change, one.cost, memory.peak.total, memory.fits(memory_gib)))
        if found[-1].fits:
            break
    return found


def _changes(job: Job, memory_gib: float) -> Iterator[Change]:
    if memory_of(job).peak.phase == "evaluation" and job.evaluation_tokens > job.window:
        job = replace(job, evaluation_tokens=job.window)
        yield Change(
            f"evaluation.batch_tokens={job.window}, no evaluation.batch_size",
            "slower evaluation",
            job,
        )
    if job.windows > 1 and memory_of(job).peak.phase != "evaluation":
        fitting = largest_micro_batch(job, memory_gib) or 1
        job = with_micro_batch(job, fitting)
        size = {"samples": ("size", fitting), "tokens": ("tokens", fitting * job.window)}
        name, value = size[job.batching]
        yield Change(
            f"training.micro_batch_{name}={value}",
            "nothing but speed: more micro-batches make up the same global batch",
            job,
        )
    if not job.checkpointing:
        job = replace(job, checkpointing="selective")
        yield Change("training.gradient_checkpointing=selective", "a few percent of time", job)
    if job.checkpointing == "selective":
        job = replace(job, checkpointing=True)
        yield Change("training.gradient_checkpointing=true", "about a third more time", job)
    for change in layout_of(job).changes(job):
        job = change.job
        yield change
    if (ranks := fewest_ranks(job, memory_gib)) is not None and ranks > job.ranks:
        yield Change(f"{ranks} GPUs", "more GPUs", replace(job, ranks=ranks))


def with_micro_batch(job: Job, windows: int) -> Job:
    """The same with so many windows in a micro-batch, and as many in a step."""
    accumulation = -(-job.accumulation * job.windows // windows)
    return replace(job, tokens=windows * job.window, accumulation=accumulation)


def largest_micro_batch(job: Job, memory_gib: float) -> int | None:
    """The most windows of full length in a micro-batch that fit; None if not even one does."""
    if not memory_of(with_micro_batch(job, 1)).fits(memory_gib):
        return None
    fits, too_many = 1, 2
    while memory_of(with_micro_batch(job, too_many)).fits(memory_gib):
        fits, too_many = too_many, 2 * too_many
        if fits > 2**20:
            break
    while too_many - fits > 1:
        middle = (fits + too_many) // 2
        if memory_of(with_micro_batch(job, middle)).fits(memory_gib):
            fits = middle
        else:
            too_many = middle
    return fits


def fewest_ranks(job: Job, memory_gib: float) -> int | None:
    """The smallest power of two, times the copies of the model, that the run fits on."""
    ranks = job.replicas
    while ranks <= MOST_RANKS:
        if memory_of(replace(job, ranks=ranks)).fits(memory_gib):
            return ranks
        ranks *= 2
    return None
