"""MLflow: a run of an experiment in a database, a folder or on a server."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from pydantic import BaseModel

from bigner.config.trackers import mlflow_experiment
from bigner.tracking.base import About, Outcome, Point
from bigner.tracking.kept import Kept

_STATUS = {"finished": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}
# What a server takes in one request.
_MOST_METRICS = 1000
_MOST_PARAMS = 100


class Mlflow:
    """A run's parameters, tags and metrics, by a client of its own: nothing global is set."""

    def __init__(self, about: About, kept: Kept) -> None:
        # It tells of every table that it makes.
        logging.getLogger("mlflow").setLevel(logging.WARNING)
        self._client = MlflowClient(tracking_uri=about.config.trackers.mlflow_uri)
        if kept.run is None or not self._goes_on(kept.run):
            kept.begin(self._begin(about))
        assert kept.run is not None
        self._run = kept.run
        self._describe(about)

    def _goes_on(self, run: str) -> bool:
        """Whether the run is there still; it is running again then."""
        try:
            found = self._client.get_run(run)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return False
        if found.info.lifecycle_stage == "deleted":
            return False
        self._client.update_run(run, status="RUNNING")
        return True

    def _begin(self, about: About) -> str:
        name = mlflow_experiment(about.config.trackers)
        run = self._client.create_run(self._experiment(name), run_name=about.name)
        return str(run.info.run_id)

    def _experiment(self, name: str) -> str:
        found = self._client.get_experiment_by_name(name)
        if found is None:
            try:
                return str(self._client.create_experiment(name))
            except MlflowException:
                # Another run may have made it meanwhile.
                found = self._client.get_experiment_by_name(name)
                if found is None:
                    raise
        return str(found.experiment_id)

    def _describe(self, about: About) -> None:
        """Note config, environment and tags."""
        tags = dict(about.config.trackers.tags)
        tags |= {f"environment.{name}": value for name, value in about.environment.items()}
        if commit := about.environment.get("commit"):
            tags["mlflow.source.git.commit"] = commit
        self._client.log_batch(self._run, tags=[RunTag(*tag) for tag in tags.items()])
        # Parameters cannot change: a resumed run keeps those that it began with.
        there = self._client.get_run(self._run).data.params
        params = [Param(*one) for one in parameters(about.config) if one[0] not in there]
        for start in range(0, len(params), _MOST_PARAMS):
            self._client.log_batch(self._run, params=params[start : start + _MOST_PARAMS])

    def log(self, points: Sequence[Point]) -> None:
        """Add points to the metrics."""
        metrics = [
            Metric(name, value, round(1000 * point.seconds), point.step)
            for point in points
            for name, value in point.numbers.items()
        ]
        for start in range(0, len(metrics), _MOST_METRICS):
            some = metrics[start : start + _MOST_METRICS]
            self._client.log_batch(self._run, metrics=some, synchronous=True)

    def close(self, outcome: Outcome) -> None:
        """Note how the run ended."""
        self._client.set_terminated(self._run, status=_STATUS[outcome])


def parameters(section: BaseModel, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Dotted names and texts of all fields.

    What a field holds under names of the user's own stays one value: not every name can be that of
    a parameter.
    """
    values: dict[str, Any] = section.model_dump(mode="json")
    for name, value in values.items():
        inner = getattr(section, name)
        if isinstance(inner, BaseModel):
            yield from parameters(inner, f"{prefix}{name}.")
        else:
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            yield f"{prefix}{name}", text
