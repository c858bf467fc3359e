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
    """fp32 weights; autocast makes copies of the matrices that it computes with."""
    shape, kept = job.shape, activations(job)
    states: Parts = {"masters": 4 * shape.numel, "optimizer state": 8 * shape.num_trained}
    matrices = sum(
        tensor.numel
        for unit in (*shape.layers, shape.root)
        for tensor in unit.tensors
        if tensor.width > 1
    )
    copies = 0 if job.precision == "fp32" else 2 * matrices
    yield from around(job, states, copies, 0)
    full = Held(kept, len(shape.layers))
    yield Moment(
        "forward",
        "last layer",
        {**states, "gathered weights": copies, "activations": full.after(len(shape.layers))},
    )
    done = 4 * shape.root.numel * shape.root.is_trained
    before = 4 * shape.num_trained if job.accumulation > 1 else 0
    for i in range(len(shape.layers), 0, -1):
        layer = shape.layers[i - 1]
        done += 4 * layer.numel * layer.is_trained
        yield Moment(
            "backward",
            layer.name,
            {
                **states,
                "gathered weights": copies * i // len(shape.layers),
                "gradients": max(before, done) + job.value_bytes * layer.numel,
                "activations": full.in_backward(i),
            },
        )
    gradients = 4 * shape.num_trained
    yield Moment(
        "backward",
        shape.table.name,
        {
            **states,
            # Of the table a new one is added to the old one.
            "gradients": gradients + (4 * shape.table.numel if before else 0),
            "activations": kept.embeddings,
        },
    )
    yield Moment("update", "AdamW", {**states, "gradients": gradients})


def traffic(job: Job) -> Traffic:  # noqa: ARG001
    """There is nobody to send to."""
    return Traffic(NOTHING, NOTHING, NOTHING, NOTHING, NOTHING)


def changes(job: Job) -> Iterator[Change]:
    """Sharding it."""
    sharded = replace(job, strategy=FsdpStrategy(kind="fsdp"))
    yield Change("strategy={kind: fsdp}", "a launch with torchrun", sharded)
