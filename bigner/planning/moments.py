"""The memory of one rank at one moment, and the moments that all strategies have alike."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

from bigner.planning.activations import Activations, predicting_bytes
from bigner.planning.job import Job
from bigner.planning.shapes import Unit

Phase = Literal["load", "forward", "backward", "update", "evaluation", "save"]
PHASES: tuple[Phase, ...] = get_args(Phase)
Part = Literal[
    "masters",
    "optimizer state",
    "low-precision weights",
    "gathered weights",
    "gradients",
    "communication",
    "activations",
]
PARTS: tuple[Part, ...] = get_args(Part)
Parts = dict[Part, int]


@dataclass(frozen=True, slots=True)
class Moment:
    """Bytes that are held at one moment, by what they are."""

    phase: Phase
    where: str
    parts: Parts

    @property
    def total(self) -> int:
        """All bytes of the moment."""
        return sum(self.parts.values())


def largest_shards(units: tuple[Unit, ...], ranks: int) -> tuple[int, int]:
    """Values of the largest shard: all of them, and those that are trained."""
    owned = [(unit.shard(ranks), unit.is_trained) for unit in units]
    return sum(n for n, _ in owned), sum(n for n, trained in owned if trained)


def around(job: Job, states: Parts, gathered: int, communication: int) -> Iterator[Moment]:
    """The moments of a run that are not of a step.

    Args:
        job: the run.
        states: what stays from one step to the next.
        gathered: the largest unit's weights, in the precision that is computed in.
        communication: what gathering it takes besides.
    """
    yield Moment("load", "weights", states)
    predicting = predicting_bytes(job)
    yield Moment(
        "evaluation",
        "predicting",
        {
            **states,
            "gathered weights": states.get("gathered weights", 0) + gathered,
            "communication": communication,
            "activations": predicting,
        },
    )
    # Rank 0 takes the ranges of one parameter after the other.
    largest = max(tensor.numel for unit in job.shape.units for tensor in unit.tensors)
    whole = 0 if job.ranks == 1 else 4 * largest
    yield Moment("save", "the table", {**states, "communication": whole})


@dataclass(frozen=True, slots=True)
class Held:
    """Activations that are held at a place of the forward or of the backward."""

    kept: Activations
    num_layers: int

    def after(self, layers: int) -> int:
        """In the forward, behind so many layers."""
        last = self.kept.head if layers == self.num_layers else 0
        return self.kept.embeddings + layers * self.kept.layer + last + self.kept.inside

    def in_backward(self, layer: int) -> int:
        """In the backward of a layer, counted from 1."""
        kept = self.kept
        return kept.embeddings + layer * kept.layer + kept.inside + kept.moving
