"""The memory of one rank, moment by moment of a step; the peak is the largest moment.

Counted is what torch's allocator hands out on the rank that owns the most. What lies outside of it,
CUDA's context, libraries, communicators, is ``RESERVED_GIB``, an assumption.
"""

from __future__ import annotations

from dataclasses import dataclass

from bigner.planning.hardware import GIB
from bigner.planning.job import Job
from bigner.planning.layouts import layout_of
from bigner.planning.moments import PHASES, Moment, Phase

RESERVED_GIB = 1.5
"""Of a card's memory, what torch's allocator never gets, and what it cannot use of the rest for
want of one piece that is large enough."""


@dataclass(frozen=True, slots=True)
class Memory:
    """The fullest moment of each phase of a run, on the rank that holds the most."""

    phases: dict[Phase, Moment]
    host: dict[str, int]
    """Bytes of host memory for each rank, by what they are for."""

    @property
    def peak(self) -> Moment:
        """The fullest moment of all."""
        return max(self.phases.values(), key=lambda moment: moment.total)

    @property
    def step_peak(self) -> Moment:
        """The fullest moment of a training step."""
        in_a_step: tuple[Phase, ...] = ("forward", "backward", "update")
        return max((self.phases[phase] for phase in in_a_step), key=lambda moment: moment.total)

    def fits(self, memory_gib: float) -> bool:
        """Whether a card of so much memory has room for it."""
        return self.peak.total <= (memory_gib - RESERVED_GIB) * GIB


def memory_of(job: Job) -> Memory:
    """The memory of each phase."""
    fullest: dict[Phase, Moment] = {}
    for moment in layout_of(job).moments(job):
        before = fullest.get(moment.phase)
        if before is None or moment.total > before.total:
            fullest[moment.phase] = moment
    return Memory({phase: fullest[phase] for phase in PHASES if phase in fullest}, _host(job))


def _host(job: Job) -> dict[str, int]:
    """Bytes of host memory of one rank, beside the interpreter's own."""
    shape = job.shape
    owned, trained = (-(-n // job.shard_ranks) for n in (shape.numel, shape.num_trained))
    needs: dict[str, int] = {}
    if job.offloads("param"):
        needs["weights"] = job.value_bytes * owned
    if job.offloads("optimizer"):
        needs["masters, optimizer state, gradients"] = (8 + job.state_bytes) * trained
    if job.keeps_copies:
        needs["checkpoint being written"] = (4 + job.state_bytes) * trained
    largest = max(tensor.numel for unit in shape.units for tensor in unit.tensors)
    needs["largest weight, while loading and exporting"] = 4 * largest
    return needs
