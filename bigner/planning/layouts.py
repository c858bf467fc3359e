"""What a strategy means for a plan: one file for each, named here and nowhere else in this room."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from bigner.config.schema import FsdpStrategy, SingleStrategy, ZeroStrategy
from bigner.planning import fsdp, single, zero
from bigner.planning.job import Change, Job
from bigner.planning.moments import Moment
from bigner.planning.moved import Traffic


class Layout(Protocol):
    """How a strategy lays a model out over ranks."""

    def moments(self, job: Job) -> Iterator[Moment]:
        """What a rank holds, moment by moment of a run."""

    def traffic(self, job: Job) -> Traffic:
        """What a rank sends in one optimizer step."""

    def changes(self, job: Job) -> Iterator[Change]:
        """What of the strategy can be changed to hold less, each on top of those before it."""


def layout_of(job: Job) -> Layout:
    """That of the job's strategy."""
    match job.strategy:
        case SingleStrategy():
            return single
        case FsdpStrategy():
            return fsdp
        case ZeroStrategy():
            return zero
