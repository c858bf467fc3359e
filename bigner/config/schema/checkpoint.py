"""``checkpoint``: what is saved so that a run can go on."""

from __future__ import annotations

from pydantic import Field

from bigner.config.schema.base import Section


class CheckpointConfig(Section):
    """What is saved so that a run can go on."""

    every_steps: int | None = Field(default=None, ge=1)
    """Save a checkpoint every so many optimizer steps; none if absent."""

    keep_last: int = Field(default=2, ge=1)
    """Checkpoints to keep; older ones are deleted after a newer one is whole."""

    background: bool = True
    """Write while training goes on, from a copy in host memory: 12 bytes for each parameter that a
    rank owns, 16 with `training.average_decay`. Without it training waits for the disk."""

    resume: str = Field(default="auto", min_length=1)
    """`auto` goes on from the last checkpoint in run_dir, `none` starts anew, anything else is
    the folder of a checkpoint."""
