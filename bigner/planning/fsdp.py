"""A plan under FSDP2."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from bigner.config.schema import FsdpStrategy
from bigner.planning.activations import activations
from bigner.planning.job import Change, Job
from bigner.planning.moments import Held, Moment, Parts, around, largest_shards
from bigner.planning.moved import Traffic, ring


def moments(job: Job) -> Iterator[Moment]:
    """As ``fully_shard`` goes about it: the gathered bytes of a unit are kept until the next one
    has come, the next one's come while one is computed in the backward, and what was sent to be
    reduced is kept until the next reduction begins.
    """
    shape, ranks, value = job.shape, job.shard_ranks, job.value_bytes
    owned, trained = largest_shards(shape.units, ranks)
    states: Parts = {"masters": 4 * owned, "optimizer state": job.state_bytes * trained}
    # In one process nothing is gathered, and in fp32 nothing even copied.
    weight = 0 if ranks == 1 and value == 4 else value
    buffer = value if ranks > 1 else 0
    table = shape.table
    yield from around(job, states, weight * table.numel, buffer * table.numel)
    yield from _forward(job, states, weight, buffer)
    yield from _backward(job, states, weight, buffer)
    yield Moment("update", "AdamW", {**states, "gradients": 4 * trained})


def _forward(job: Job, states: Parts, weight: int, buffer: int) -> Iterator[Moment]:
    shape, full = job.shape, Held(activations(job), len(job.shape.layers))
    stays_open, last = weight * shape.root.numel, buffer * shape.root.numel
    for i, unit in enumerate(shape.units[1:]):
        opened, coming = weight * unit.numel, buffer * unit.numel
        yield Moment(
            "forward",
            unit.name,
            {
                **states,
                "gradients": _before(job),
                "gathered weights": stays_open + opened,
                # The last unit's bytes are let go before those that came are put in place.
                "communication": coming + max(0, last - opened),
                # The table and the other embeddings come before the first layer.
                "activations": full.after(i - 1) if i > 1 else 0,
            },
        )
        last = coming
        stays_open += 0 if _strategy(job).reshard_after_forward else opened


def _before(job: Job) -> int:
    """Bytes of the gradients that earlier micro-batches of a step left, sharded."""
    if job.accumulation == 1:
        return 0
    return 4 * largest_shards(job.shape.units, job.shard_ranks)[1]


def _backward(job: Job, states: Parts, weight: int, buffer: int) -> Iterator[Moment]:
    shape, ranks = job.shape, job.shard_ranks
    full = Held(activations(job), len(shape.layers))
    reduced = job.reduced_bytes
    done, sent, before = 0, 0, _before(job)
    order = list(reversed(shape.units[1:]))
    stay_open = 0 if _strategy(job).reshard_after_forward else weight
    for k, unit in enumerate(order):
        is_table = unit is shape.table
        layer = len(shape.layers) - k
        coming = order[k + 1] if k + 1 < len(order) else None
        # The gradient of a look-up needs no value of the table, which is not gathered for it.
        prefetched = 0 if coming is None or coming is shape.table or stay_open else coming.numel
        below = stay_open * sum(other.numel for other in order[k + 1 :])
        gathered = weight * shape.root.numel + below
        of_unit = job.value_bytes * unit.numel * unit.is_trained
        sending = reduced * unit.numel * unit.is_trained
        # What comes back is this rank's; one of sixteen bits becomes fp32 beside it.
        back = (reduced if reduced == 4 else reduced + 4) * unit.shard(ranks) * unit.is_trained
        held = full.in_backward(layer) if layer > 0 else full.kept.embeddings
        computing: Parts = {
            **states,
            "gathered weights": gathered + (0 if is_table else weight * unit.numel),
            "gradients": max(before, done) + of_unit,
            "communication": buffer * prefetched + sent,
            "activations": held,
        }
        yield Moment("backward", unit.name, computing)
        yield Moment(
            "backward",
            f"{unit.name}, reduced",
            {
                **computing,
                "gathered weights": gathered,
                "communication": buffer * prefetched + sending + back,
                "activations": full.in_backward(layer - 1) if layer > 1 else full.kept.embeddings,
            },
        )
        sent = sending
        done += 4 * unit.shard(ranks) * unit.is_trained


def traffic(job: Job) -> Traffic:
    """Units are gathered for the forward, and again for the backward if they were let go."""
    shape, ranks, micro = job.shape, job.shard_ranks, job.accumulation
    trained = [unit for unit in shape.units if unit.is_trained]
    reduced = job.reduced_bytes * shape.num_trained
    # The table is not gathered again for its gradient, nor is the head, which stays.
    again = [shape.embeddings, *shape.layers] if _strategy(job).reshard_after_forward else []
    table = job.reduced_bytes * shape.table.numel * shape.table.is_trained
    return Traffic(
        ring(job.value_bytes * shape.numel, len(shape.units), ranks, micro),
        ring(job.value_bytes * sum(unit.numel for unit in again), len(again), ranks, micro),
        ring(reduced, len(trained), ranks, micro),
        # An all-reduce goes around twice.
        ring(reduced // ranks, len(trained), job.replicas, 2 * micro),
        ring(table, 1, ranks, 1),
    )


def changes(job: Job) -> Iterator[Change]:
    """Letting layers go, and one copy of the model in place of several."""
    if not _strategy(job).reshard_after_forward:
        job = _with(job, reshard_after_forward=True)
        cost = "one more all-gather in each micro-batch"
        yield Change("strategy.reshard_after_forward=true", cost, job)
    if job.replicas > 1:
        job = _with(job, dp_replicate=1)
        yield Change("strategy.dp_replicate=1", "gathers over all nodes", job)


def _strategy(job: Job) -> FsdpStrategy:
    assert isinstance(job.strategy, FsdpStrategy)
    return job.strategy


def _with(job: Job, **values: object) -> Job:
    return replace(job, strategy=job.strategy.model_copy(update=values))
