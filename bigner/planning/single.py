"""A plan of one process: nothing is sharded and nothing sent."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from bigner.config.schema import FsdpStrategy
from bigner.planning.activations import activations
from bigner.planning.job import Change, Job
from bigner.planning.moments import Held, Moment, Parts, around
from bigner.planning.moved import NOTHING, Traffic


def moments(job: Job) -> Iterator[Moment]:
    """fp32 weights, and in low precision copies of them, which are what is computed with; their
    gradients become those of the masters at the end of each backward.
    """
    shape, kept, value = job.shape, activations(job), job.value_bytes
    is_copied = job.precision != "fp32"
    states: Parts = {
        "masters": 4 * shape.numel,
        "optimizer state": job.state_bytes * shape.num_trained,
    }
    if is_copied:
        states["low-precision weights"] = value * shape.numel
    yield from around(job, states, 0, 0)
    full = Held(kept, len(shape.layers))
    gradients = 4 * shape.num_trained
    before = gradients if job.accumulation > 1 else 0
    yield Moment(
        "forward",
        "last layer",
        {**states, "gradients": before, "activations": full.after(len(shape.layers))},
    )
    done = value * shape.root.numel * shape.root.is_trained
    for i in range(len(shape.layers), 0, -1):
        layer = shape.layers[i - 1]
        done += value * layer.numel * layer.is_trained
        # What is no copy adds up in place, once it was computed.
        added = before + done if is_copied else max(before, done) + value * layer.numel
        yield Moment(
            "backward",
            layer.name,
            {**states, "gradients": added, "activations": full.in_backward(i)},
        )
    table = value * shape.table.numel * shape.table.is_trained
    given = value * shape.num_trained
    yield Moment(
        "backward",
        shape.table.name,
        {
            **states,
            # Of the table a new one is added to the old one.
            "gradients": before + (given if is_copied else table) if before else given,
            "activations": kept.embeddings,
        },
    )
    if is_copied:
        yield Moment("backward", "to the masters", {**states, "gradients": gradients + given})
    yield Moment("update", "AdamW", {**states, "gradients": gradients})


def traffic(job: Job) -> Traffic:  # noqa: ARG001
    """There is nobody to send to."""
    return Traffic(NOTHING, NOTHING, NOTHING, NOTHING, NOTHING)


def changes(job: Job) -> Iterator[Change]:
    """Sharding it."""
    sharded = replace(job, strategy=FsdpStrategy(kind="fsdp"))
    yield Change("strategy={kind: fsdp}", "a launch with torchrun", sharded)
