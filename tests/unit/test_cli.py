"""The command line: options of launchers, what each command prints, wrong use."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bigner import __version__
from bigner.__main__ import report
from bigner.cli import run, strip_launcher_options
from bigner.errors import ConfigError

COMMANDS = (
    *("validate", "plan", "lint", "schema", "train", "compare", "report", "evaluate", "predict"),
    *("export", "onnx", "card", "push", "doctor", "init"),
)


@pytest.fixture
def run_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "train.conll").write_text("Anna B-PER\nsleeps O\n\nOslo B-LOC\n")
    path = tmp_path / "run.yaml"
    path.write_text(
        f"run_dir: {tmp_path}/run\n"
        "model: {name_or_path: xlm-roberta-base}\n"
        f"data: {{train: {tmp_path}/train.conll}}\n"
        "training: {global_batch_size: 8, micro_batch_size: 4}\n"
        "strategy: {kind: fsdp}\n"
    )
    return path


def output_of(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    capsys.readouterr()
    assert run([str(argument) for argument in arguments]) == 0
    return capsys.readouterr().out


# --- what launchers put in --------------------------------------------------------------------


@pytest.mark.parametrize(
    "option",
    [["--local_rank=1"], ["--local-rank=1"], ["--local_rank", "1"], ["--local-rank", "1"]],
    ids=" ".join,
)
@pytest.mark.parametrize("position", range(4))
def test_launcher_options_are_taken_out_wherever_they_stand(
    option: list[str], position: int
) -> None:
    arguments = ["train", "run.yaml", "seed=1"]
    with_option = [*arguments[:position], *option, *arguments[position:]]
    assert strip_launcher_options(with_option) == arguments


@pytest.mark.parametrize(
    ("arguments", "kept"),
    [
        ([], []),
        (["--local_rank"], []),
        (["--local_rank=0", "--local-rank", "0", "train"], ["train"]),
        (["train", "--local_rank=", "run.yaml"], ["train", "run.yaml"]),
        (["train", "--local_ranks=1"], ["train", "--local_ranks=1"]),
        (["train", "local_rank=1"], ["train", "local_rank=1"]),
    ],
)
def test_launcher_options_at_the_edges(arguments: list[str], kept: list[str]) -> None:
    assert strip_launcher_options(arguments) == kept


@given(st.lists(st.sampled_from(["train", "a=1", "--json", "-h", "--split", "--local", ""])))
def test_other_arguments_are_left_alone(arguments: list[str]) -> None:
    assert strip_launcher_options(arguments) == arguments


def test_a_command_runs_with_launcher_options(
    run_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = output_of(capsys, "validate", run_file, "seed=1")
    assert output_of(capsys, "--local_rank=0", "validate", run_file, "seed=1") == plain
    assert output_of(capsys, "validate", run_file, "--local-rank", "0", "seed=1") == plain


# --- what commands print ----------------------------------------------------------------------


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    text = output_of(capsys, "--help")
    assert [command for command in COMMANDS if f"\n  {command} " not in text] == []
    assert output_of(capsys, "-h") == text


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = output_of(capsys, command, "--help")
    assert f"bigner {command}" in text


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert output_of(capsys, "--version").strip() == __version__


def test_schema_is_a_json_schema_with_a_sentence_for_each_property(
    capsys: pytest.CaptureFixture[str],
) -> None:
    schema = json.loads(output_of(capsys, "schema"))
    sections = {"#": schema, **{f"#/$defs/{k}": v for k, v in schema["$defs"].items()}}
    assert {"run_dir", "model", "data", "strategy"} <= schema["properties"].keys()
    for path, section in sections.items():
        assert section["type"] == "object"
        assert section["additionalProperties"] is False, path
        assert section["description"]
        for name, node in section["properties"].items():
            described = node.get("description") or sections[node["$ref"]]["description"]
            assert described, f"{path} {name}"
    # Every reference leads somewhere.
    text = json.dumps(schema)
    for part in text.split('"$ref": "')[1:]:
        assert part.partition('"')[0] in sections


def test_validate_prints_the_plan(run_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = output_of(capsys, "validate", run_file)
    assert "fsdp (reshard_after_forward True, dp_replicate 1, reduce_dtype fp32)" in text
    assert "8 = 4 micro-batch x 2 accumulation x 1 ranks" in text
    assert "train 2" in text
    assert str(run_file.parent / "run" / "summary.json") in text


def test_validate_json(run_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = json.loads(output_of(capsys, "validate", run_file, "--json", "strategy={kind: zero}"))
    assert plan["strategy"] == {
        "kind": "zero",
        "stage": 3,
        "reduce_dtype": "fp32",
        "deepspeed_config": None,
    }
    assert plan["batch"] == {"global_batch_size": 8, "micro_batch_size": 4, "accumulation": 2}
    assert plan["texts"] == {"train": 2}
    assert plan["optimizer_steps"] == {"count": 3, "exact": False}
    assert plan["deepspeed"]["train_batch_size"] == 8


def test_validate_tells_where_each_tracker_writes(
    run_file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def told(*overrides: str) -> dict[str, str]:
        names = "tracking=[tensorboard,mlflow,wandb]"
        plan = json.loads(output_of(capsys, "validate", run_file, "--json", names, *overrides))
        return {name: plan["writes"][name] for name in ("tensorboard", "mlflow", "wandb")}

    for name in os.environ:
        if name.startswith(("WANDB_", "MLFLOW_")):
            monkeypatch.delenv(name)
    run = run_file.parent / "run"
    assert told() == {
        "tensorboard": f"{run}/tensorboard",
        "mlflow": "experiment bigner, MLflow's own place in the working directory",
        "wandb": f"project bigner, files in {run}/wandb",
    }
    config = "trackers={project: wnut17, mlflow_uri: 'sqlite:///runs.db'}"
    assert told(config)["mlflow"] == "experiment wnut17, sqlite:///runs.db"
    assert told(config)["wandb"] == f"project wnut17, files in {run}/wandb"
    # What the environment says, where the run file says nothing; and no password of it.
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://anna:secret@mlflow/base")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "letters")
    for name, value in {"PROJECT": "p", "ENTITY": "e", "MODE": "offline", "DIR": "/w"}.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    assert told()["mlflow"] == "experiment letters, https://***@mlflow/base"
    assert told()["wandb"] == "project e/p (offline), files in /w/wandb"
    assert "wandb" not in json.loads(output_of(capsys, "validate", run_file, "--json"))["writes"]


def test_validate_counts_documents_and_steps(
    run_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    overrides = ("data.unit=document", "training.max_steps=5", "checkpoint.every_steps=2")
    plan = json.loads(output_of(capsys, "validate", run_file, *overrides, "--json"))
    assert plan["texts"] == {"train": 1}
    assert plan["optimizer_steps"] == {"count": 5, "exact": True}
    assert "checkpoints" in plan["writes"]


def test_validate_for_another_world(
    run_file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = json.loads(output_of(capsys, "validate", run_file, "--json", "--world-size", "2"))
    assert (plan["world_size"], plan["batch"]["accumulation"]) == (2, 1)

    monkeypatch.setenv("WORLD_SIZE", "2")
    plan = json.loads(output_of(capsys, "validate", run_file, "--json"))
    assert (plan["world_size"], plan["batch"]["accumulation"]) == (2, 1)

    with pytest.raises(ConfigError, match=r"run\.yaml:4: training: .* world size 3 .* to 12"):
        run(["validate", str(run_file), "--world-size", "3"])
    overrides = ["strategy.kind=single", "strategy={kind: single}"]
    with pytest.raises(ConfigError, match="'single' runs in one process and the world is 2"):
        run(["validate", str(run_file), overrides[1]])


def test_validate_warns_of_what_large_encoders_collapse_on(
    run_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    large = ["model.name_or_path=xlm-roberta-large", "training.learning_rate=5e-5"]
    assert run(["validate", str(run_file), *large]) == 0
    told = capsys.readouterr()
    warnings = told.err.splitlines()
    assert warnings[0].startswith("warning: override 'training.learning_rate=5e-5': ")
    assert warnings[1].startswith(f"warning: {run_file}:4: training.global_batch_size: 8 is less")
    assert len(warnings) == 2
    assert "warning" not in told.out

    plan = json.loads(output_of(capsys, "validate", run_file, *large, "--json"))
    assert [f"warning: {warning}" for warning in plan["warnings"]] == warnings
    assert json.loads(output_of(capsys, "validate", run_file, "--json"))["warnings"] == []


def test_validate_writes_nothing(run_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(run_file.parent.rglob("*"))
    output_of(capsys, "validate", run_file)
    assert sorted(run_file.parent.rglob("*")) == before


# --- wrong use --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "phrase"),
    [
        (["vaildate", "run.yaml"], "validate"),
        (["validate"], "RUN.YAML"),
        (["validate", "run.yaml", "--world-sise", "2"], "--world-sise"),
        (["validate", "run.yaml", "--world-size", "0"], "--world-size"),
        (["validate", "run.yaml", "--world-size", "two"], "--world-size"),
        (["--frobnicate"], "--frobnicate"),
        (["evaluate", "run.yaml", "--model"], "--model"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_use_is_told_in_a_line_and_is_2(
    arguments: list[str], phrase: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments) == 2
    told = capsys.readouterr().err
    assert phrase in told
    assert "Traceback" not in told


def test_no_command_is_help_and_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([]) == 2
    assert "Before a run:" in capsys.readouterr().err


def test_one_rank_tells_of_wrong_use(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    assert run(["vaildate"]) == 2
    assert capsys.readouterr().err == ""


def test_ctrl_c_is_no_defect(
    run_file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("bigner.commands.validate.plan", interrupted)
    with pytest.raises(KeyboardInterrupt) as caught:
        run(["validate", str(run_file)])
    assert report(caught.value) == 130
    assert "stopped by Ctrl-C" in capsys.readouterr().err


def test_a_rank_that_outlives_the_others_says_which_it_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    error = ConfigError([])
    assert report(error) == 2
    assert capsys.readouterr().err.startswith("bigner: error:")
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr("bigner.__main__.SILENT_SECONDS", 0)
    assert report(error) == 2
    assert capsys.readouterr().err.startswith("bigner: rank 1: error:")
