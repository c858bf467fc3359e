"""Runs that are tracked: what the trackers have is what metrics.jsonl has, whatever happened."""

from __future__ import annotations

import json
import shutil
import struct
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.e2e.conftest import main
from tests.e2e.running import lines

# What the libraries have to say of each other.
pytestmark = pytest.mark.filterwarnings("ignore")

STEPS = ["training.max_steps=6", "training.log_every=1", "checkpoint.every_steps=2"]
TRAIN = ["train", "run.yaml", *STEPS, "checkpoint.keep_last=9", "data.test=dev.conll"]
OF_SPEED = ("seconds", "tokens_per_second", "words_per_second")
Curves = dict[str, list[tuple[int, float]]]
"""By flat name, such as ``train/loss``: step and value."""


def curves(run_dir: Path) -> Curves:
    """What metrics.jsonl has."""
    found: Curves = {}
    for line in lines(run_dir):
        for name, value in line.items():
            if name not in ("step", "split") and value is not None:
                flat = f"{line.get('split', 'train')}/{name}"
                found.setdefault(flat, []).append((line["step"], float(value)))
    assert {"train/loss", "train/grad_norm", "validation/f1", "test/f1"} <= found.keys()
    return found


def without_speed(found: Curves) -> Curves:
    return {name: steps for name, steps in found.items() if not name.endswith(OF_SPEED)}


def told(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The warnings that trackers were the reason of."""
    return [line for line in capsys.readouterr().err.splitlines() if "warning: tracking" in line]


def go_back(project: Path, step: int) -> str:
    """Have the next run in this folder begin again after a step."""
    (project / "run" / "summary.json").unlink()
    return f"checkpoint.resume=run/checkpoints/step-{step:08d}"


# ---------------------------------------------------------------- TensorBoard


def test_tensorboard_has_the_lines(project: Path) -> None:
    track = [*TRAIN, "tracking=[tensorboard]"]
    assert main([*track, "training.stop_after=3"]) == 0
    assert main(track) == 0
    assert main([*track, go_back(project, 2)]) == 0
    board = EventAccumulator(str(project / "run" / "tensorboard"), {"scalars": 0}).Reload()
    found = {
        name: [(event.step, event.value) for event in board.Scalars(name)]
        for name in board.Tags()["scalars"]
    }
    expected = curves(project / "run")
    assert found.keys() == expected.keys()
    for name, steps in expected.items():
        assert found[name] == [(step, pytest.approx(value)) for step, value in steps]


# ---------------------------------------------------------------- MLflow


@pytest.fixture(scope="module")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow's tables, which take seconds to be made."""
    mlflow = pytest.importorskip("mlflow")
    path = tmp_path_factory.mktemp("mlflow") / "empty.db"
    mlflow.MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def database(project: Path, empty_database: Path) -> Path:
    shutil.copy(empty_database, project / "mlflow.db")
    return project / "mlflow.db"


def mlflow_runs(database: Path, project: str) -> list[Any]:
    from mlflow import MlflowClient  # noqa: PLC0415

    client = MlflowClient(f"sqlite:///{database}")
    experiment = client.get_experiment_by_name(project)
    return list(client.search_runs([experiment.experiment_id]))


def mlflow_curves(database: Path, run: Any) -> Curves:
    from mlflow import MlflowClient  # noqa: PLC0415

    client = MlflowClient(f"sqlite:///{database}")
    return {
        name: [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, name)]
        for name in run.data.metrics
    }


def test_mlflow_has_the_lines(
    project: Path, database: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    named = "trackers={project: letters, name: first, tags: {corpus: toy}}"
    track = [*TRAIN, "tracking=[mlflow]", named, f"trackers.mlflow_uri=sqlite:///{database}"]
    assert main([*track, "training.stop_after=3"]) == 0
    (run,) = mlflow_runs(database, "letters")
    assert run.info.status == "KILLED"
    assert main(track) == 0
    (run,) = mlflow_runs(database, "letters")
    assert run.info.status == "FINISHED"
    assert mlflow_curves(database, run) == curves(project / "run")
    assert run.info.run_name == "first"
    assert run.data.params["training.max_steps"] == "6"
    assert run.data.params["data.test"] == "dev.conll"
    assert run.data.tags["corpus"] == "toy"
    assert run.data.tags["environment.world_size"] == "1"
    assert {"environment.torch", "environment.device"} <= run.data.tags.keys()

    # Steps that are done again are there already.
    assert main([*track, go_back(project, 2)]) == 0
    (run,) = mlflow_runs(database, "letters")
    found = without_speed(mlflow_curves(database, run))
    assert found == without_speed(curves(project / "run"))
    assert told(capsys) == []


def test_what_mlflow_missed_it_gets_when_the_run_goes_on(
    project: Path, database: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    track = [*TRAIN, "tracking=[mlflow]", f"trackers.mlflow_uri=sqlite:///{database}"]
    assert main([*track, "training.stop_after=2"]) == 0
    assert told(capsys) == []
    # A folder in its place cannot be written to.
    database.rename(project / "aside.db")
    database.mkdir()
    assert main([*track, "training.stop_after=4"]) == 0
    (warning,) = told(capsys)
    assert warning.startswith("warning: tracking mlflow: failed (")
    database.rmdir()
    (project / "aside.db").rename(database)
    assert main(track) == 0
    assert told(capsys) == []
    (run,) = mlflow_runs(database, "bigner")
    assert mlflow_curves(database, run) == curves(project / "run")


def test_a_server_that_is_not_there_stops_no_run(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:opensesame@127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    assert main([*TRAIN, "tracking=[tensorboard, mlflow]"]) == 0
    output = capsys.readouterr().err
    assert output.count("warning: tracking mlflow: failed (") == 1
    assert output.count("warning") == 1
    assert "opensesame" not in output
    assert json.loads((project / "run" / "summary.json").read_text())["steps"] == 6


# ---------------------------------------------------------------- W&B


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    # What its process-wide part knows of the environment may be another test's.
    wandb.teardown()
    yield
    wandb.teardown()


BLOCK = 32_768
FULL, FIRST, LAST = 1, 2, 4


def wandb_records(file: Path) -> Iterator[Any]:
    """The records of a .wandb file: LevelDB's log of protocol buffers, after a head of 7 bytes."""
    from wandb.proto.wandb_internal_pb2 import Record  # noqa: PLC0415

    content, at, parts = file.read_bytes(), 7, b""
    while at + 7 <= len(content):
        if BLOCK - at % BLOCK < 7:
            at += BLOCK - at % BLOCK
            continue
        _, length, kind = struct.unpack_from("<IHB", content, at)
        at += 7 + length
        parts = (
            content[at - length : at]
            if kind in (FULL, FIRST)
            else parts + content[at - length : at]
        )
        if kind in (FULL, LAST):
            yield Record.FromString(parts)


def test_wandb_has_the_lines(
    project: Path, offline: None, capsys: pytest.CaptureFixture[str]
) -> None:
    named = "trackers={project: letters, name: first, tags: {corpus: toy}}"
    track = [*TRAIN, "tracking=[wandb]", named]
    assert main([*track, "training.stop_after=3"]) == 0
    # Its folders are told apart by the second in which they begin.
    time.sleep(1)
    assert main(track) == 0
    assert told(capsys) == []
    files = sorted((project / "run" / "wandb").glob("offline-run-*/run-*.wandb"))
    legs = [list(wandb_records(file)) for file in files]
    assert len(legs) == 2
    found: Curves = {}
    for record in (record for records in legs for record in records):
        values = {
            item.key or "/".join(item.nested_key): json.loads(item.value_json)
            for item in record.history.item
        }
        for name, value in values.items():
            if not name.startswith("_") and name != "step":
                found.setdefault(name, []).append((values["step"], value))
    assert found == curves(project / "run")

    runs = [record.run for records in legs for record in records if record.HasField("run")]
    kept = json.loads((project / "run" / "tracking" / "wandb.json").read_text())
    assert {run.run_id for run in runs} == {kept["run"]}
    assert {(run.project, run.display_name) for run in runs} == {("letters", "first")}
    assert list(runs[0].tags) == ["corpus:toy"]
    config = {item.key: json.loads(item.value_json) for item in runs[0].config.update}
    assert config["training"]["max_steps"] == 6
    assert config["environment"]["world_size"] == "1"


# ---------------------------------------------------------------- not installed


@pytest.mark.parametrize("tracker", ["mlflow", "wandb"])
@pytest.mark.parametrize("command", ["validate", "train"])
def test_a_tracker_that_is_not_installed_is_told_at_once(
    project: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    tracker: str,
) -> None:
    # With this Python finds no such module.
    monkeypatch.setitem(sys.modules, tracker, None)
    assert main([command, "run.yaml", f"tracking=[tensorboard, {tracker}]"]) == 2
    error = capsys.readouterr().err
    assert f"tracking.1: {tracker} is not installed; pip install 'bigner[{tracker}]'" in error
    assert not (project / "run").exists()
