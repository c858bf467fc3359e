"""Trackers one by one: what they keep, and what becomes of a run whose tracker fails or hangs."""

from __future__ import annotations

import json
import socket
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType

import pytest

from bigner.config.checks import is_installed
from bigner.config.schema import DataConfig, LossConfig, ModelConfig, RunConfig, TrackersConfig
from bigner.errors import one_line
from bigner.run_dir import RunDir
from bigner.tracking import Tracking
from bigner.tracking.base import About, Point
from bigner.tracking.feed import Feed
from bigner.tracking.kept import Kept
from bigner.tracking.secrets import hide_secrets

# What the libraries have to say of each other.
pytestmark = pytest.mark.filterwarnings("ignore")

WAITED_SECONDS = 60.0


def config(run_dir: Path, **trackers: str) -> RunConfig:
    return RunConfig(
        run_dir=run_dir,
        model=ModelConfig(name_or_path="models/bare"),
        data=DataConfig(train="train.conll"),
        loss=LossConfig(class_weights={"[/N][Nom]": 2.0}),
        trackers=TrackersConfig(**trackers),
    )


def about(run_dir: Path, **trackers: str) -> About:
    return About(config(run_dir, **trackers), RunDir(run_dir), {"world_size": "1"}, first_step=0)


def losses(*steps: int) -> list[Point]:
    return [Point.of({"step": step, "loss": 1 / step}) for step in steps]


def wait_until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + WAITED_SECONDS
    while not holds():
        assert time.monotonic() < end, "never came to that"
        time.sleep(0.01)


# ---------------------------------------------------------------- what is kept


def test_a_line_is_its_finite_numbers() -> None:
    line = {"step": 3, "split": "test", "f1": 0.5, "loss": None, "words": 9, "note": "x"}
    assert Point.of(line) == Point("test", 3, {"test/f1": 0.5, "test/words": 9.0})
    skipped = {"step": 2, "skipped": True, "grad_norm": None}
    assert Point.of(skipped) == Point("train", 2, {"train/skipped": 1.0})


def test_a_point_is_missing_once(tmp_path: Path) -> None:
    kept = Kept(tmp_path / "tracking" / "mlflow.json")
    kept.begin("first")
    scored = Point.of({"step": 2, "split": "validation", "f1": 0.5})
    kept.note([*losses(1, 2), scored])
    again = Kept(tmp_path / "tracking" / "mlflow.json")
    assert again.run == "first"
    assert again.missing([*losses(1, 2, 3), scored, *losses(3, 4)]) == losses(3, 4)
    again.begin("first")
    assert again.missing(losses(2)) == []
    again.begin("second")
    assert Kept(tmp_path / "tracking" / "mlflow.json").missing(losses(1)) == losses(1)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"run": "a"}', '{"run": 1, "steps": {"a": []}}'])
def test_a_damaged_file_is_that_of_a_new_run(tmp_path: Path, text: str) -> None:
    (tmp_path / "mlflow.json").write_text(text)
    kept = Kept(tmp_path / "mlflow.json")
    assert kept.run is None
    assert kept.missing(losses(1)) == losses(1)


def test_a_folder_that_was_removed_is_not_made_again(tmp_path: Path) -> None:
    kept = Kept(RunDir(tmp_path / "run").tracking("mlflow"))
    with pytest.raises(FileNotFoundError):
        kept.begin("first")


# ---------------------------------------------------------------- secrets, packages


def test_secrets_are_in_no_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "0123456789")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "opensesame")
    assert hide_secrets("0123456789 or opensesame, not 01234") == "*** or ***, not 01234"
    assert one_line("a", "http://me:pw@host/x, s3://bucket") == "a: http://***@host/x, s3://bucket"


@pytest.mark.parametrize(
    "uri", ["http://me:pw@host", "postgresql://me:pw@host/db", "http://t@host"]
)
def test_an_address_holds_no_password(uri: str) -> None:
    with pytest.raises(ValueError, match="mlflow_uri holds a user or a password"):
        TrackersConfig(mlflow_uri=uri)
    TrackersConfig(mlflow_uri=uri.replace("me:pw@", "").replace("t@", ""))


def test_a_folder_of_a_package_s_name_is_no_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "notatracker").mkdir()
    assert not is_installed("notatracker")
    (tmp_path / "notatracker" / "__init__.py").touch()
    assert is_installed("notatracker")
    assert not is_installed("nosuchtracker")


# ---------------------------------------------------------------- MLflow


@pytest.fixture
def mlflow(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    module: ModuleType = pytest.importorskip("mlflow")
    return module


@pytest.fixture
def feeds(tmp_path: Path) -> Callable[[str], Feed]:
    """Makes feeds of MLflow, for a run in ``tmp_path``."""
    (tmp_path / "run").mkdir()

    def feed(uri: str) -> Feed:
        from bigner.tracking.mlflow import Mlflow  # noqa: PLC0415

        told = about(tmp_path / "run", mlflow_uri=uri)
        kept = Kept(told.run_dir.tracking("mlflow"))
        return Feed("mlflow", partial(Mlflow, told, kept), kept, pause=0.02)

    return feed


def test_every_field_is_a_parameter(tmp_path: Path, mlflow: ModuleType) -> None:
    from bigner.tracking.mlflow import parameters  # noqa: PLC0415

    found = dict(parameters(config(tmp_path)))
    assert found["seed"] == "42"
    assert found["model.name_or_path"] == "models/bare"
    assert found["model.freeze.layers"] == "0"
    assert found["data.test"] == "null"
    assert found["training.learning_rate"] == "1e-05"
    # Not every class could be a parameter's name.
    assert found["loss.class_weights"] == '{"[/N][Nom]": 2.0}'


def test_a_tracker_that_fails_in_the_middle_is_tried_again(
    tmp_path: Path,
    mlflow: ModuleType,
    feeds: Callable[[str], Feed],
    capsys: pytest.CaptureFixture[str],
) -> None:
    feed = feeds((tmp_path / "store").as_uri())
    kept = RunDir(tmp_path / "run").tracking("mlflow")

    def has(step: int) -> bool:
        return kept.exists() and json.loads(kept.read_text())["steps"].get("train") == step

    feed.put(losses(1, 2))
    wait_until(lambda: has(2))
    (metrics,) = (tmp_path / "store").glob("*/*/metrics")
    metrics.rename(tmp_path / "aside")
    metrics.touch()
    feed.put(losses(3))
    told = ""
    while "warning" not in told:
        time.sleep(0.01)
        told += capsys.readouterr().err
    feed.put(losses(4))
    time.sleep(0.2)
    metrics.unlink()
    (tmp_path / "aside").rename(metrics)
    wait_until(lambda: has(4))
    feed.end("finished")
    feed.join(time.monotonic() + WAITED_SECONDS)
    told += capsys.readouterr().err
    assert told.startswith("warning: tracking mlflow: failed (")
    assert told.splitlines()[1:] == ["tracking mlflow works again"]

    client = mlflow.MlflowClient((tmp_path / "store").as_uri())
    run = client.get_run(json.loads(kept.read_text())["run"])
    assert run.info.status == "FINISHED"
    history = client.get_metric_history(run.info.run_id, "train/loss")
    assert [(metric.step, metric.value) for metric in history] == [
        (step, 1 / step) for step in (1, 2, 3, 4)
    ]


def test_a_tracker_that_hangs_is_left(
    mlflow: ModuleType, feeds: Callable[[str], Feed], capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        feed = feeds(f"http://127.0.0.1:{silent.getsockname()[1]}")
        begun = time.monotonic()
        feed.put(losses(1))
        # It has accepted what nobody answers.
        silent.settimeout(WAITED_SECONDS)
        connection, _ = silent.accept()
        feed.end("finished")
        feed.join(time.monotonic() + 0.2)
        assert time.monotonic() - begun < WAITED_SECONDS
        connection.close()
    assert capsys.readouterr().err == (
        "warning: tracking mlflow: does not answer; what it did not take is in metrics.jsonl\n"
    )


def test_a_run_that_is_gone_there_is_another_one(
    tmp_path: Path, mlflow: ModuleType, feeds: Callable[[str], Feed]
) -> None:
    uri = (tmp_path / "store").as_uri()
    client = mlflow.MlflowClient(uri)
    names = []
    for steps in (losses(1), losses(1, 2)):
        with Tracking([feed := feeds(uri)]):
            feed.put(steps)
        names.append(json.loads(RunDir(tmp_path / "run").tracking("mlflow").read_text())["run"])
        client.delete_run(names[-1])
    assert names[0] != names[1]
    # The new one begins with what the other had.
    assert [m.step for m in client.get_metric_history(names[1], "train/loss")] == [1, 2]


# ---------------------------------------------------------------- W&B


def test_wandb_asks_nobody_for_a_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = pytest.importorskip("wandb")
    from bigner.tracking.wandb import Wandb  # noqa: PLC0415

    for name in ("WANDB_API_KEY", "WANDB_MODE", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path))
    monkeypatch.setattr(sys, "stdin", None)
    wandb.teardown()
    try:
        with pytest.raises(PermissionError, match="set WANDB_API_KEY, or WANDB_MODE=offline"):
            Wandb(about(tmp_path), Kept(tmp_path / "wandb.json"))
    finally:
        wandb.teardown()
    assert not (tmp_path / "wandb.json").exists()
