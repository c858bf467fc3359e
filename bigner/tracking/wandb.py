"""Weights & Biases: a run of a project, online or offline as its environment variables say."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from pathlib import Path

import wandb

from bigner.config.trackers import wandb_dir, wandb_project
from bigner.log import inform
from bigner.tracking.base import About, Outcome, Point
from bigner.tracking.kept import Kept

FINISH_SECONDS = 8.0
"""Time to upload what is left; after it, that is on the disk and ``wandb sync`` uploads it."""
_EXIT_CODES = {"finished": 0, "stopped": 1, "failed": 1}
_LONGEST_TAG = 64


class Wandb:
    """A run's config and history; its files lie in ``run_dir/wandb`` or in ``WANDB_DIR``.

    Raises:
        PermissionError: it is to be online and there is no key.
    """

    def __init__(self, about: About, kept: Kept) -> None:
        settings = wandb.Settings(
            # Standard error is the run's own, and its bars are nothing to keep.
            console="off",
            silent=True,
            finish_timeout=FINISH_SECONDS,
        )
        _require_key(settings)
        if kept.run is None:
            # Before it begins, so that a run that breaks off here goes on all the same.
            kept.begin(uuid.uuid4().hex[:8])
        trackers = about.config.trackers
        self._run = wandb.init(
            project=wandb_project(trackers),
            name=about.name,
            id=kept.run,
            resume="allow",
            reinit="create_new",
            dir=str(wandb_dir(about.config)),
            tags=[f"{name}:{value}"[:_LONGEST_TAG] for name, value in trackers.tags.items()],
            config={
                **about.config.model_dump(mode="json"),
                "environment": dict(about.environment),
            },
            allow_val_change=True,
            settings=settings,
        )
        # Its own steps count calls, and cannot be those of a run that goes back to a checkpoint.
        self._run.define_metric("*", step_metric="step")
        if self._run.offline:
            inform(f"wandb: offline; wandb sync {Path(self._run.dir).parent} uploads it")
        elif self._run.url:
            inform(f"wandb: {self._run.url}")

    def log(self, points: Sequence[Point]) -> None:
        """Add points to the history."""
        for point in points:
            self._run.log({"step": point.step, **point.numbers})

    def close(self, outcome: Outcome) -> None:
        """Upload what is left, for a while, and note how the run ended."""
        if outcome == "stopped":
            # Shown as preempted, not as failed.
            self._run.mark_preempting()
        self._run.finish(exit_code=_EXIT_CODES[outcome])
        # Its own process may have the last of it still to write to the disk.
        wandb.teardown()


def _require_key(settings: wandb.Settings) -> None:
    # On a terminal it would ask for one, and a run would stand and wait for the answer.
    mode = wandb.setup(settings=settings).settings.mode
    if mode not in ("offline", "dryrun", "disabled") and not wandb.login(prompt=False):
        raise PermissionError("no key; set WANDB_API_KEY, or WANDB_MODE=offline")
