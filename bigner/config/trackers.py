"""Where trackers keep a run, as config and environment say; none of their libraries is loaded."""

from __future__ import annotations

import os
from pathlib import Path

from bigner.config.schema import RunConfig, Tracker, TrackersConfig
from bigner.errors import hide_users

_PROJECT = "bigner"


def mlflow_experiment(trackers: TrackersConfig) -> str:
    """Name of MLflow's experiment."""
    return trackers.project or os.environ.get("MLFLOW_EXPERIMENT_NAME") or _PROJECT


def wandb_project(trackers: TrackersConfig) -> str:
    """Name of the project of W&B."""
    return trackers.project or os.environ.get("WANDB_PROJECT") or _PROJECT


def wandb_dir(config: RunConfig) -> Path:
    """The folder in which W&B makes its own, which is called ``wandb``."""
    return Path(os.environ.get("WANDB_DIR") or config.run_dir)


def destinations(config: RunConfig) -> dict[str, str]:
    """For each tracker of a run, where the numbers go: a folder, or a place in words."""
    return {name: _destination(name, config) for name in config.tracking}


def _destination(tracker: Tracker, config: RunConfig) -> str:
    if tracker == "tensorboard":
        return str(config.run_dir / "tensorboard")
    if tracker == "mlflow":
        return f"experiment {mlflow_experiment(config.trackers)}, {_mlflow_place(config)}"
    return f"project {_wandb_place(config)}, files in {wandb_dir(config) / 'wandb'}"


def _mlflow_place(config: RunConfig) -> str:
    uri = config.trackers.mlflow_uri or os.environ.get("MLFLOW_TRACKING_URI")
    # Which place that is, its versions disagree on.
    return hide_users(uri) if uri else "MLflow's own place in the working directory"


def _wandb_place(config: RunConfig) -> str:
    project, entity = wandb_project(config.trackers), os.environ.get("WANDB_ENTITY")
    offline = " (offline)" * (os.environ.get("WANDB_MODE") in ("offline", "dryrun"))
    return f"{entity}/{project}{offline}" if entity else f"{project}{offline}"
