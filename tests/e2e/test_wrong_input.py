"""Wrong run files, overrides, ds_configs files, data files and model folders, by the real command.

Each is one clear message on standard error, which says where and what to change, and exit code 2.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.e2e.conftest import CHARACTERS, RUN_FILE, main, write_tokenizer
from tests.ranks.launch import environment


@dataclass(frozen=True)
class Case:
    """A wrong input and what the user is told of it."""

    name: str
    told: tuple[str, ...]
    """The place, a key phrase of the rule and one of the remedy."""
    command: str = "validate"
    words: tuple[str, ...] = ()
    """Overrides and options after the run file."""
    files: dict[str, str | bytes] = field(default_factory=dict)
    """Written over those of a sound project."""
    edits: tuple[tuple[str, str], ...] = ()
    """Replacements in the run file."""
    environment: dict[str, str] = field(default_factory=dict)
    prepare: Callable[[Path], object] | None = None
    """Does more to the folder of the project."""


def zero(tuning: str = "zero.json") -> str:
    return f"strategy={{kind: zero, deepspeed_config: {tuning}}}"


def tuning(text: str) -> dict[str, str | bytes]:
    return {"zero.json": text}


def rows(text: str) -> dict[str, str | bytes]:
    return {"train.conll": text}


def begin_run(folder: Path) -> None:
    """A run that has the seed 42 and one line of metrics."""
    assert main(["train", "run.yaml", "run_dir=run"]) == 0
    assert (folder / "run" / "metrics.jsonl").stat().st_size
    (folder / "run" / "summary.json").unlink()


RUN_FILES = [
    Case(
        "unknown section",
        ("run.yaml:15: trainning", "did you mean training?"),
        edits=(("  micro_batch_size: 2\n", "  micro_batch_size: 2\ntrainning: {}\n"),),
    ),
    Case(
        "unknown field",
        ("run.yaml:12: training.max_step:", "did you mean max_steps?"),
        edits=(("max_steps", "max_step"),),
    ),
    Case(
        "field of another section",
        ("training.precision", "is not a field here"),
        words=("training.precision=fp16",),
    ),
    Case(
        "missing section",
        ("run.yaml:1: data: is needed", "Which corpus is read"),
        edits=((RUN_FILE[RUN_FILE.index("data:") : RUN_FILE.index("training:")], ""),),
    ),
    Case(
        "wrong type",
        ("run.yaml:12: training.max_steps: must be a whole number", "'many'"),
        edits=(("max_steps: 1", "max_steps: many"),),
    ),
    Case(
        "out of bounds",
        ("run.yaml:15: training.learning_rate", "less than or equal to 1", "got 3"),
        edits=(("  micro_batch_size: 2\n", "  micro_batch_size: 2\n  learning_rate: 3\n"),),
    ),
    Case(
        "YAML 1.1 octal",
        ("run.yaml:12: training.max_steps", "whole number; got the text '010'"),
        edits=(("max_steps: 1", "max_steps: 010"),),
    ),
    Case(
        "key given twice",
        ("run.yaml:13: training.max_steps", "given twice, first on line 12"),
        edits=(("  max_steps: 1\n", "  max_steps: 1\n  max_steps: 2\n"),),
    ),
    Case(
        "tab",
        ("run.yaml:12: not valid YAML", "indent with spaces"),
        edits=(("  max_steps", "\tmax_steps"),),
    ),
    Case(
        "open bracket",
        ("run.yaml:7: not valid YAML", "while parsing a flow"),
        edits=(("train.conll", "[train.conll"),),
    ),
    Case(
        "not UTF-8",
        ("run.yaml: not UTF-8 text", "save the file as UTF-8"),
        files={"run.yaml": "run_dir: größe\n".encode("latin-1")},
    ),
    Case(
        "empty",
        ("run.yaml:1: a run file is a mapping of sections", "bigner init"),
        files={"run.yaml": ""},
    ),
    Case("a list", ("run.yaml:1: a run file is a mapping",), files={"run.yaml": "- run_dir: x\n"}),
    Case(
        "python object",
        ("run.yaml:1: run_dir: the tag", "no place in a run file"),
        files={"run.yaml": "run_dir: !!python/object/apply:os.system [id]\n"},
    ),
    Case(
        "no such run file",
        ("run.yaml: there is no such run file",),
        prepare=lambda folder: (folder / "run.yaml").unlink(),
    ),
    Case(
        "two lengths",
        ("run.yaml:11: training: ", "max_steps 1 are both given; keep one"),
        edits=(("  max_steps: 1\n", "  max_steps: 1\n  epochs: 2\n"),),
    ),
    Case(
        "stride",
        ("run.yaml:5: data: data.stride 9", "set stride to 8 or less"),
        edits=(("stride: 4", "stride: 9"),),
    ),
    Case(
        "batch sizes",
        ("run.yaml:11: training: ", "not a multiple", "micro_batch_size to 1"),
        edits=(("global_batch_size: 2", "global_batch_size: 3"),),
    ),
    Case(
        "world size",
        ("run.yaml:13: training: ", "world size 3", "set training.global_batch_size to 6"),
        words=("strategy={kind: fsdp}", "--world-size", "3"),
    ),
    Case(
        "single in a world",
        ("override 'strategy={kind: single}': strategy.kind", "fsdp or zero"),
        words=("strategy={kind: single}", "--world-size", "2"),
    ),
    Case(
        "model folder",
        ("run.yaml:3: model.name_or_path: there is no folder './models/baer'",),
        edits=(("models/bare", "./models/baer"),),
    ),
    Case(
        "resume folder",
        ("override 'checkpoint.resume=run/step-9'", "auto, none or the folder"),
        words=("checkpoint.resume=run/step-9",),
    ),
    Case(
        "plateau",
        ("give data.validation or take another schedule",),
        words=("training.schedule=reduce_on_plateau", "data.validation=null"),
    ),
    Case(
        "WORLD_SIZE",
        ("WORLD_SIZE in the environment", "'two'", "unset it"),
        environment={"WORLD_SIZE": "two"},
    ),
]

OVERRIDES = [
    Case(
        "no equals sign",
        ("override 'training.epochs': an override is written field=value",),
        words=("training.epochs",),
    ),
    Case(
        "misspelt",
        ("override 'training.learning_rat=1': training.learning_rat", "learning_rate?"),
        words=("training.learning_rat=1",),
    ),
    Case(
        "no YAML",
        ("override 'strategy={kind: zero': strategy: not valid YAML",),
        words=("strategy={kind: zero",),
    ),
    Case(
        "into a value",
        ("override 'data.train.x=1': data.train: is not a section",),
        words=("data.train.x=1",),
    ),
    Case(
        "unknown strategy",
        ("strategy: must have a kind: 'single', 'fsdp' or 'zero'", "'ddp'"),
        words=("strategy={kind: ddp}",),
    ),
    Case(
        "several",
        ("override 'seed=x': seed", "override 'a=1': a", "override 'b': an override"),
        words=("seed=x", "a=1", "b"),
    ),
]

DS_CONFIGS = [
    Case(
        "owned",
        ("zero.json:1: train_batch_size", "training.global_batch_size", "take it out"),
        words=(zero(),),
        files=tuning('{"train_batch_size": 8}'),
    ),
    Case(
        "misspelt key",
        ("zero.json:3: zero_optimization.overlap_com", "did you mean overlap_comm?"),
        words=(zero(),),
        files=tuning('{\n"zero_optimization": {\n"overlap_com": true}}'),
    ),
    Case(
        "wrong value",
        ("zero.json:1: zero_optimization.reduce_bucket_size", '1 or more; got "auto"'),
        words=(zero(),),
        files=tuning('{"zero_optimization": {"reduce_bucket_size": "auto"}}'),
    ),
    Case(
        "nvme",
        ("zero.json:1: zero_optimization.offload_param.device", '"cpu" or "none"'),
        words=(zero(),),
        files=tuning('{"zero_optimization": {"offload_param": {"device": "nvme"}}}'),
    ),
    Case("no JSON", ("zero.json:2: not valid JSON",), words=(zero(),), files=tuning("{\n'a': 1}")),
    Case(
        "not there",
        ("strategy.deepspeed_config: there is no file 'z.json'", "working directory"),
        words=(zero("z.json"),),
    ),
    Case(
        "of no use to fsdp",
        ("strategy.deepspeed_config: is not a field here",),
        words=("strategy={kind: fsdp, deepspeed_config: zero.json}",),
    ),
]

DATA_FILES = [
    Case(
        "missing tag",
        ("run.yaml:6: data.train: train.conll:2: 1 column", "2 expected"),
        files=rows("Anna B-PER\nsleeps\n"),
    ),
    Case(
        "space for TAB",
        ("train.conll:2: 1 column", "is there a space where a TAB should be?"),
        words=("data.separator=tab",),
        files=rows("Anna\tB-PER\nsleeps O\n"),
    ),
    Case(
        "no such column",
        ("train.conll:1: data.columns.tags is 3", "0 to 1"),
        words=("data.columns={words: 0, tags: 3}",),
    ),
    Case(
        "no header",
        ("train.conll:1: data.columns.words is the name 'FORM'", "give a number"),
        words=("data.columns={words: FORM, tags: 1}",),
    ),
    Case(
        "not UTF-8 data",
        ("train.conll:2: byte 0xe9 is not UTF-8", "iconv"),
        files={"train.conll": b"Anna B-PER\nAndr\xe9 O\n"},
    ),
    Case("empty data", ("run.yaml:6: data.train: train.conll: the file is empty",), files=rows("")),
    Case(
        "blank data", ("run.yaml:6: data.train: no sentence in 'train.conll'",), files=rows("\n\n")
    ),
    Case(
        "no data",
        ("run.yaml:7: data.validation: nothing at 'dev.conll'",),
        prepare=lambda folder: (folder / "dev.conll").unlink(),
    ),
    Case(
        "impossible name",
        ("override", "data.test: cannot be read: File name too long"),
        words=(f"data.test={'x' * 300}",),
    ),
    Case(
        "no dataset folder",
        ("data.dataset: there is no folder './nope'", "working directory"),
        words=("data={format: hub, dataset: ./nope, train: train}",),
    ),
    Case(
        "not JSON lines",
        ("train.conll:1: not JSON", "one whole JSON object a line"),
        words=("data.format=jsonl",),
    ),
    Case(
        "words and tags",
        ("train.conll:2: 2 words and 1 tags; each word needs one tag",),
        words=("data.format=jsonl",),
        files=rows('{"words": ["a"], "tags": ["O"]}\n{"words": ["a", "b"], "tags": ["O"]}\n'),
    ),
    Case(
        "no field",
        ("train.conll:1: no field 'words'; did you mean 'word'?", "set data.columns.words"),
        words=("data.format=jsonl",),
        files=rows('{"word": ["a"], "tags": ["O"]}\n'),
    ),
    Case(
        "overlap",
        ("train.conll:1: ", "overlap", "keep one of them"),
        words=("data.format=spans",),
        files=rows(
            '{"text": "Anna Lee", "entities": [{"start": 0, "end": 4, "label": "A"}, '
            '{"start": 2, "end": 8, "label": "B"}]}\n'
        ),
    ),
]

# What only shows once the corpus, the tokenizer or the model is loaded.
RUNS = [
    Case(
        "train: data is checked first",
        ("run.yaml:6: data.train: nothing at 'train.conll'",),
        "train",
        prepare=lambda folder: (folder / "train.conll").unlink(),
    ),
    Case(
        "train: no tag",
        ("train.conll:2: 'NN' is not a tag", "see data.columns.tags and data.scheme"),
        "train",
        files=rows("Anna B-PER\nsleeps NN\n"),
    ),
    Case(
        "train: no entity",
        ("no entity in train, validation", "data.columns.tags"),
        "train",
        words=("data.validation=train.conll",),
        files=rows("Anna O\nsleeps O\n"),
    ),
    Case(
        "train: labels",
        ("data.labels does not list: PER (2 in train, 2 in validation)", "add them"),
        "train",
        words=("data.labels=[LOC]",),
    ),
    Case(
        "train: tokenizer missing",
        ("the tokenizer of 'models/bare' has no vocabulary", "set model.tokenizer"),
        "train",
        prepare=lambda folder: [
            (folder / "models/bare" / name).unlink()
            for name in ("tokenizer.json", "tokenizer_config.json")
        ],
    ),
    Case(
        "train: tokenizer damaged",
        ("no tokenizer can be loaded from 'models/bare'",),
        "train",
        files={"models/bare/tokenizer.json": "{"},
    ),
    Case(
        "train: no weights", ("'models/bare'",), "train", words=("model.training_type=fine_tuning",)
    ),
    Case(
        "train: more layers frozen than there are",
        ("model.freeze.layers 3 is more than the 2 layers of 'models/trained'", "to 2 or less"),
        "train",
        words=("model={name_or_path: models/trained, freeze: {layers: 3}}",),
    ),
    Case(
        "train: no model config",
        ("no model config can be loaded from 'models/bare'",),
        "train",
        prepare=lambda folder: (folder / "models/bare/config.json").unlink(),
    ),
    Case(
        "train: model config damaged",
        ("'models/bare/config.json' is not a valid JSON file",),
        "train",
        files={"models/bare/config.json": "{"},
    ),
    Case(
        "train: unknown model type",
        ("no model config can be loaded from 'models/bare'",),
        "train",
        files={"models/bare/config.json": '{"model_type": "xlm-robertina"}'},
    ),
    Case(
        "train: no token classification",
        ("cannot be built for token classification",),
        "train",
        files={"models/bare/config.json": '{"model_type": "clip"}'},
    ),
    Case(
        "train: weights damaged",
        ("no weights can be loaded from 'models/trained'",),
        "train",
        words=("model={name_or_path: models/trained}",),
        files={"models/trained/model.safetensors": b"not weights"},
    ),
    Case(
        "train: positions",
        ("data.max_length 64", "32 pieces", "set data.max_length to 32 or less"),
        "train",
        words=("data.max_length=64",),
    ),
    Case(
        "train: tokenizer of another model",
        ("has 43 pieces and the model embeddings for 33",),
        "train",
        prepare=lambda folder: write_tokenizer(folder / "models/bare", CHARACTERS + "0123456789"),
    ),
    Case(
        "train: two processes for single",
        ("run.yaml:1: strategy.kind: 'single' runs in one", "zero"),
        "train",
        environment={"WORLD_SIZE": "2", "RANK": "0"},
    ),
    Case(
        "train: run_dir of another run",
        ("config.yaml: seed: was 42", "is 7 now", "another run_dir"),
        "train",
        words=("seed=7",),
        prepare=begin_run,
    ),
    Case(
        "train: run_dir of something else",
        ("run_dir: 'run' holds files", "choose another"),
        "train",
        files={"run/thesis.tex": "x"},
    ),
    Case(
        "train: run_dir damaged",
        ("config.yaml: cannot be read", "choose another run_dir"),
        "train",
        files={"run/config.yaml": "a: [", "run/metrics.jsonl": ""},
    ),
    Case(
        "train: no checkpoint",
        ("checkpoint.resume: ", "no whole checkpoint", "step-00000500"),
        "train",
        words=("checkpoint.resume=models",),
    ),
    Case(
        "train: cache",
        ("prepared data cannot be written to train.conll", "set data.cache_dir"),
        "train",
        words=("data.cache_dir=train.conll",),
    ),
    Case(
        "train: checkpoint of an earlier format",
        ("checkpoint.resume: ", "format 1, and this bigner reads 2", "give a folder such as"),
        "train",
        words=("checkpoint.resume=models",),
        files={"models/manifest.json": '{"format_version": 1, "step": 3}'},
    ),
    Case(
        "train: checkpoint in part",
        ("checkpoint.resume: ", "manifest.json cannot be used: step: Field required"),
        "train",
        words=("checkpoint.resume=models",),
        files={"models/manifest.json": '{"format_version": 2}'},
    ),
    Case(
        "train: checkpoint cut off",
        ("checkpoint.resume: ", "manifest.json cannot be used: Invalid JSON"),
        "train",
        words=("checkpoint.resume=models",),
        files={"models/manifest.json": '{"format_version": 2, "step'},
    ),
    Case(
        "train: index of weights",
        ("no weights can be loaded from 'models/bare'", "names '../trained/model.safetensors'"),
        "train",
        words=("model.training_type=fine_tuning",),
        files={
            "models/bare/model.safetensors.index.json": (
                '{"weight_map": {"classifier.bias": "../trained/model.safetensors"}}'
            )
        },
    ),
    Case(
        "train: pickled weights",
        ("no weights can be loaded from 'models/bare'", "does not unpickle to tensors"),
        "train",
        words=("model.training_type=fine_tuning",),
        files={"models/bare/pytorch_model.bin": b"cos\nsystem\n(S'false'\ntR."},
    ),
    Case(
        "train: impossible run_dir",
        ("run_dir: must be a path, and has a character that no path can have",),
        "train",
        words=('run_dir="\\ud800"',),
    ),
    Case(
        "evaluate: no folder for predictions",
        ("--predictions 'no/such.txt' cannot be written", "no folder 'no'"),
        "evaluate",
        words=(
            "--model",
            "models/trained",
            "--split",
            "validation",
            "--predictions",
            "no/such.txt",
        ),
    ),
    Case(
        "evaluate: predictions into a folder",
        ("--predictions must name a file, and 'models' is a folder",),
        "evaluate",
        words=("--model", "models/trained", "--split", "validation", "--predictions", "models"),
    ),
    Case(
        "evaluate: split not given",
        ("the run config names no data.test to score",),
        "evaluate",
        words=("--model", "models/trained"),
    ),
    Case(
        "evaluate: no such split",
        ("--split must be train, validation, test; got 'dev'",),
        "evaluate",
        words=("--model", "models/trained", "--split", "dev"),
    ),
    Case(
        "evaluate: no such model",
        ("there is no model folder nowhere", "--model names an exported"),
        "evaluate",
        words=("--model", "nowhere", "--split", "validation"),
    ),
    Case(
        "evaluate: run not done",
        ("there is no model folder run/model",),
        "evaluate",
        words=("--split", "validation"),
    ),
    Case(
        "evaluate: label names",
        ("label 'LABEL_0' is neither O nor B-TYPE", "IOB2 labels"),
        "evaluate",
        words=("--model", "models/trained", "--split", "validation"),
        prepare=lambda folder: label(folder, {str(i): f"LABEL_{i}" for i in range(5)}),
    ),
    Case(
        "evaluate: no label names",
        ("models/trained: no config.json that names its labels",),
        "evaluate",
        words=("--model", "models/trained", "--split", "validation"),
        prepare=lambda folder: label(folder, None),
    ),
    Case(
        "evaluate: two processes for single",
        ("strategy.kind: 'single' runs in one process",),
        "evaluate",
        words=("--model", "models/trained", "--split", "validation"),
        environment={"WORLD_SIZE": "2", "RANK": "0"},
    ),
]


def label(folder: Path, id2label: dict[str, str] | None) -> None:
    path = folder / "models" / "trained" / "config.json"
    config = json.loads(path.read_text())
    config["id2label"] = id2label
    path.write_text(json.dumps(config))


def arrange(case: Case, project: Path) -> list[str]:
    """Make the project wrong; returns the arguments of the command."""
    text = RUN_FILE
    for old, new in case.edits:
        assert old in text
        text = text.replace(old, new)
    (project / "run.yaml").write_text(text)
    for name, content in case.files.items():
        path = project / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    if case.prepare:
        case.prepare(project)
    return [case.command, "run.yaml", *case.words]


def require_clear(case: Case, code: int, told: str) -> None:
    assert code == 2, told
    assert "Traceback" not in told
    assert told.count("bigner: error: ") == 1, told
    assert [phrase for phrase in case.told if phrase not in told] == [], told
    # A message, not a page.
    assert len(told) < 1500, told


CASES = [*RUN_FILES, *OVERRIDES, *DS_CONFIGS, *DATA_FILES, *RUNS]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_wrong_input(
    case: Case,
    project: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    arguments = arrange(case, project)
    for name, value in case.environment.items():
        monkeypatch.setenv(name, value)
    capsys.readouterr()
    code = main(arguments)
    output = capsys.readouterr()
    require_clear(case, code, output.err)
    assert output.out == ""
    assert not (project / "run" / "summary.json").exists()


@pytest.mark.parametrize("case", [*RUN_FILES[:8], *DATA_FILES[:4]], ids=lambda case: case.name)
def test_train_refuses_a_wrong_file_as_validate_does(
    case: Case, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, *arguments = arrange(case, project)
    capsys.readouterr()
    assert main(["train", *arguments]) == 2
    told = capsys.readouterr().err
    assert "Traceback" not in told
    # Content of data files is read later than by `validate`, and is then its own place.
    assert case.told[0].removeprefix("run.yaml:6: data.train: ") in told


def test_the_sound_project_trains_and_scores(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["validate", "run.yaml"]) == 0
    assert main(["train", "run.yaml"]) == 0
    assert main(["evaluate", "run.yaml", "--split", "validation", "--json"]) == 0
    assert (project / "run" / "summary.json").is_file()


def test_a_corrected_second_attempt_goes_through(project: Path) -> None:
    assert main(["train", "run.yaml", "data.max_length=64"]) == 2
    assert main(["train", "run.yaml", "data.max_length=32"]) == 0


IN_A_PROCESS = [
    case
    for case in CASES
    if case.name
    in {
        "unknown field",
        "misspelt key",
        "missing tag",
        "train: no weights",
        "evaluate: label names",
        "no such run file",
    }
]


@pytest.mark.parametrize("case", IN_A_PROCESS, ids=lambda case: case.name)
def test_wrong_input_in_a_process_of_its_own(case: Case, project: Path) -> None:
    arguments = arrange(case, project)
    done = command(*arguments)
    require_clear(case, done.returncode, done.stderr)
    assert done.stdout == ""


def test_a_model_that_the_hub_does_not_have(project: Path) -> None:
    done = command("train", "run.yaml", "model.name_or_path=bigner/no-such-model")
    assert done.returncode == 2, done.stderr
    assert "bigner: error: " in done.stderr
    assert "'bigner/no-such-model'" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_wrong_command_line_in_a_process_of_its_own(project: Path) -> None:
    done = command("vaildate", "run.yaml")
    assert done.returncode == 2
    assert "vaildate" in done.stderr
    assert "Traceback" not in done.stderr


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bigner", *arguments],
        capture_output=True,
        text=True,
        env={**environment(), "PYTHONPATH": os.environ.get("PYTHONPATH", "")},
        check=False,
        timeout=120,
    )
