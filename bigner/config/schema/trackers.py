"""``tracking`` and ``trackers``: where the curves go."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from bigner.config.schema.base import Section
from bigner.errors import hide_users

TagName = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_.-]{0,63}$")]
Tracker = Literal["tensorboard", "mlflow", "wandb"]


class TrackersConfig(Section):
    """What `mlflow` and `wandb` call the run."""

    project: str | None = Field(default=None, min_length=1)
    """MLflow's experiment and the project of W&B; if not given, what `MLFLOW_EXPERIMENT_NAME` and
    `WANDB_PROJECT` say, or else `bigner`."""

    name: str | None = Field(default=None, min_length=1)
    """Name of the run; run_dir, if not given."""

    tags: dict[TagName, str] = Field(default={})
    """Tags of the run, such as `{corpus: wnut17}`; in W&B `corpus:wnut17`."""

    mlflow_uri: str | None = Field(default=None, min_length=1)
    """MLflow's server or database, such as `http://mlflow:5000` or `sqlite:///mlflow.db`; if not
    given, what `MLFLOW_TRACKING_URI` says."""

    @model_validator(mode="after")
    def _uri_holds_no_password(self) -> TrackersConfig:
        if self.mlflow_uri is not None and hide_users(self.mlflow_uri) != self.mlflow_uri:
            raise ValueError(
                "mlflow_uri holds a user or a password, and run files are kept and shared; take it "
                "out and set MLFLOW_TRACKING_URI, or MLFLOW_TRACKING_USERNAME and "
                "MLFLOW_TRACKING_PASSWORD, in the environment"
            )
        return self
