"""A plan under DeepSpeed's stages, and what its own estimators say."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from bigner.planning.activations import activations
from bigner.planning.job import Change, Job
from bigner.planning.moments import Held, Moment, Parts, around
from bigner.planning.moved import NOTHING, Traffic, ring

# DeepSpeed's own defaults.
_BUCKET = 5e8
_PREFETCH = 5e7
_MAX_LIVE = 1e9
_PERSISTENT = 1e5
_SUB_GROUP = 1e9


def moments(job: Job) -> Iterator[Moment]:
    """Those of the run's stage."""
    return _sharded_weights(job) if job.stage == 3 else _whole_weights(job)


def _states(job: Job) -> tuple[Parts, int]:
    """What stays between steps, and the values of a shard that are trained."""
    shape = job.shape
    owned, trained = (-(-n // job.ranks) for n in (shape.numel, shape.num_trained))
    kept_dtype = 4 if job.accumulation > 1 else job.value_bytes
    states: Parts = {}
    if not job.offloads("param"):
        weights = owned if job.stage == 3 else shape.numel
        # ZeRO++'s second copy lies within the node.
        again = shape.numel // job.node_ranks if job.node_ranks else 0
        states["low-precision weights"] = job.value_bytes * (weights + again)
    if not job.offloads("optimizer"):
        states["masters"] = 4 * trained
        states["optimizer state"] = job.state_bytes * trained
        if job.stage >= 2:
            states["gradients"] = kept_dtype * trained
    return states, trained


def _sharded_weights(job: Job) -> Iterator[Moment]:
    """Weights are gathered as they are met, and kept while DeepSpeed's limits allow."""
    shape, value, tuning = job.shape, job.value_bytes, job.tuning
    states, trained = _states(job)
    threshold = tuning.get("stage3_param_persistence_threshold", _PERSISTENT)
    small = sum(t.numel for unit in shape.units for t in unit.tensors if t.numel <= threshold)
    states["gathered weights"] = value * small
    limit = tuning.get("stage3_max_live_parameters", _MAX_LIVE)
    # One that is larger than the limit is gathered all the same.
    live = max(min(limit, shape.numel), shape.table.numel)
    coming = min(tuning.get("stage3_prefetch_bucket_size", _PREFETCH), shape.numel)
    gathered = round(value * (live + coming))
    yield from around(job, states, gathered, 0)
    full = Held(activations(job), len(shape.layers))
    bucket = min(tuning.get("reduce_bucket_size", _BUCKET), shape.num_trained)
    kept = states.get("gradients", 0)
    held = {**states, "gathered weights": states["gathered weights"] + gathered}
    yield Moment(
        "forward",
        "last layer",
        {
            **held,
            "communication": round(value * bucket),
            "activations": full.after(len(shape.layers)),
        },
    )
    reducing = round((value + job.reduced_bytes) * bucket)
    yield Moment(
        "backward",
        "last layer",
        {**held, "communication": reducing, "activations": full.in_backward(len(shape.layers))},
    )
    # A gradient that is larger than a bucket is reduced by itself.
    table = shape.table.numel * shape.table.is_trained
    by_itself = job.reduced_bytes * table if table > bucket else 0
    yield Moment(
        "backward",
        shape.table.name,
        {
            **held,
            "gradients": kept + value * table,
            "communication": round(value * bucket) + max(by_itself, reducing - value * bucket),
            "activations": full.kept.embeddings,
        },
    )
    at_once = (
        0 if job.offloads("optimizer") else min(tuning.get("sub_group_size", _SUB_GROUP), trained)
    )
    yield Moment(
        "update",
        "AdamW",
        {
            **states,
            "gradients": kept + round(4 * at_once),
            "communication": round(value * bucket),
        },
    )


def _whole_weights(job: Job) -> Iterator[Moment]:
    """Stages 1 and 2: whole weights on every rank, optimizer state and then gradients sharded."""
    shape, value, tuning = job.shape, job.value_bytes, job.tuning
    states, trained = _states(job)
    yield from around(job, states, 0, 0)
    full = Held(activations(job), len(shape.layers))
    bucket = min(tuning.get("reduce_bucket_size", _BUCKET), shape.num_trained)
    buckets = round((value + job.reduced_bytes) * bucket)
    kept = states.get("gradients", 0)
    whole = (4 if job.accumulation > 1 else value) * shape.num_trained if job.stage == 1 else 0
    yield Moment("forward", "last layer", {**states, "activations": full.after(len(shape.layers))})
    yield Moment(
        "backward",
        "last layer",
        {**states, "communication": buckets, "activations": full.in_backward(len(shape.layers))},
    )
    table = shape.table.numel * shape.table.is_trained
    of_table = value * table if job.stage == 2 else 0
    yield Moment(
        "backward",
        shape.table.name,
        {
            **states,
            "gradients": kept + whole + of_table,
            "communication": max(buckets, job.reduced_bytes * table),
            "activations": full.kept.embeddings,
        },
    )
    yield Moment("update", "AdamW", {**states, "gradients": kept + whole + 4 * trained})


def traffic(job: Job) -> Traffic:
    """Modules are gathered for the forward and for the backward; under ZeRO++ for that within a
    node.
    """
    if job.stage < 3:
        return _traffic_of_whole_weights(job)
    shape, ranks, micro = job.shape, job.ranks, job.accumulation
    trained = sum(unit.is_trained for unit in shape.units)
    again = [shape.embeddings, *shape.layers]
    table = job.reduced_bytes * shape.table.numel * shape.table.is_trained
    return Traffic(
        ring(job.value_bytes * shape.numel, len(shape.units), ranks, micro),
        ring(
            job.value_bytes * sum(unit.numel for unit in again),
            len(again),
            job.node_ranks or ranks,
            micro,
        ),
        ring(job.reduced_bytes * shape.num_trained, trained, ranks, micro),
        NOTHING,
        ring(table, 1, ranks, 1),
    )


def _traffic_of_whole_weights(job: Job) -> Traffic:
    """Stages 1 and 2: weights come once, after the update, and stage 1 reduces once a step."""
    shape, ranks = job.shape, job.ranks
    times = job.accumulation if job.stage == 2 else 1
    weights = job.value_bytes * shape.num_trained
    gathers = -(-weights // round(job.tuning.get("allgather_bucket_size", _BUCKET)))
    buckets = -(-shape.num_trained // round(job.tuning.get("reduce_bucket_size", _BUCKET)))
    table = job.reduced_bytes * shape.table.numel * shape.table.is_trained
    return Traffic(
        NOTHING,
        ring(weights, gathers, ranks, 1),
        ring(job.reduced_bytes * shape.num_trained, buckets, ranks, times),
        NOTHING,
        ring(table, 1, ranks, 1),
    )


def changes(job: Job) -> Iterator[Change]:
    """Sharding all, and optimizer state on the host."""
    if job.stage < 3:
        job = replace(job, strategy=job.strategy.model_copy(update={"stage": 3}))
        yield Change("strategy.stage=3", "one and a half times the traffic", job)
    if not job.offloads("optimizer"):
        tuning = {**job.tuning, "offload_optimizer": {"device": "cpu"}}
        yield Change(
            "strategy.deepspeed_config=ds_configs/zero3_offload.json",
            "an update at the speed of the host",
            replace(job, tuning=tuning),
        )


def deepspeed_estimate(job: Job) -> int:
    """Bytes of model states on a GPU as DeepSpeed's own estimators have them, which leave out
    activations, buckets and what is gathered ahead (``estimate_zero3_model_states_mem_needs`` in
    ``deepspeed.runtime.zero.stage3``, and its like for stage 2).
    """
    shape = job.shape
    if job.stage == 3:
        largest = max(unit.numel for unit in shape.units)
        per_value = 2 if job.offloads("optimizer") else 18
        shared = 0 if job.offloads("param") else per_value * shape.numel // job.ranks
        return 4 * largest + shared
    if job.offloads("optimizer"):
        return 2 * shape.numel
    return 2 * shape.numel + 18 * shape.numel // job.ranks
