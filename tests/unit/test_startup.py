"""What a command loads before it answers. Seconds are not asserted, only what takes them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from bigner.config.schema import DataConfig
from tests.finished_run import write_run
from tests.ranks.launch import environment
from tests.unit.helpers import SENTENCES, tiny_tokenizer, write_columns

# From a tenth of a second for numpy to three seconds for deepspeed.
HEAVY = {
    *("torch", "transformers", "tokenizers", "accelerate", "deepspeed", "tensorboard"),
    *("matplotlib", "mlflow", "wandb", "onnx", "onnxruntime"),
    *("numpy", "scipy", "sklearn", "seqeval", "pandas", "pyarrow", "datasets"),
}
OF_TRAINING = {"torch", "transformers", "tokenizers", "accelerate", "numpy", "scipy", "pyarrow"}
OF_SCORING = {"sklearn", "seqeval", "pandas"}

COMMAND = """
import sys
from bigner.cli import run
from bigner.errors import BignerError
try:
    run(sys.argv[1:])
except BignerError as error:
    print(error)
print("loaded", *sys.modules)
"""
MODULE = """
import importlib, sys
importlib.import_module(sys.argv[1])
print("loaded", *sys.modules)
"""
PREPARATION = """
import sys
from transformers import AutoTokenizer
from bigner.config.schema import DataConfig
from bigner.data.prepare import prepare
from bigner.data.subset import sample_of
data = DataConfig.model_validate_json(sys.argv[1])
for _ in range(2):
    train = prepare(data, AutoTokenizer.from_pretrained(sys.argv[2]), ["train"]).splits["train"]
    train.windows[0]
    train.label_counts(0, 7)
    sample_of(train, 1, 2)
print("loaded", *sys.modules)
"""


def loaded(code: str, *arguments: str | Path) -> set[str]:
    """The modules of a process that ran some code."""
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        env=environment(),
        check=True,
    )
    told, *modules = done.stdout.splitlines()[-1].split()
    assert told == "loaded"
    return set(modules)


@pytest.fixture
def run_file(tmp_path: Path) -> Path:
    (tmp_path / "train.conll").write_text("Anna B-PER\nsleeps O\n\nOslo B-LOC\n")
    (tmp_path / "damaged.conll").write_text("Anna B-PER\nsleeps\n")
    (tmp_path / "damaged.jsonl").write_text('{"text": "Anna sleeps"}\n{"text": 3}\n')
    (tmp_path / "zero.json").write_text('{"zero_optimization": {"reduce_bucket_size": 5e8}}')
    path = tmp_path / "run.yaml"
    path.write_text(
        f"run_dir: {tmp_path}/run\n"
        "model: {name_or_path: xlm-roberta-large}\n"
        f"data: {{train: {tmp_path}/train.conll}}\n"
        "training: {global_batch_size: 8, micro_batch_size: 4}\n"
        f"strategy: {{kind: zero, deepspeed_config: {tmp_path}/zero.json}}\n"
    )
    return path


@pytest.mark.parametrize(
    ("arguments", "needed"),
    [
        (["--help"], set()),
        (["--version"], set()),
        (["schema"], set()),
        (["validate", "RUN"], set()),
        (["validate", "RUN", "--json", "data.unit=document"], set()),
        (["plan", "RUN", "--gpus", "2"], set()),
        # Wrong input is told before anything is loaded that the run would want.
        (["train", "RUN", "data.test=nowhere"], set()),
        (["lint", "RUN", "data.train=FOLDER/damaged.conll"], set()),
        (["predict", "--model", "FOLDER", "FOLDER/nothing.txt", "-"], set()),
        (["predict", "--model", "FOLDER", "FOLDER/damaged.jsonl", "-"], set()),
        (["compare", "FOLDER"], {"numpy"}),
        (["report", "FOLDER"], {"numpy"}),
        (["card", "FOLDER"], set()),
        (["push", "FOLDER", "owner/name"], set()),
        (["onnx", "FOLDER", "FOLDER/graph"], set()),
        (["init", "FOLDER/project"], {"tokenizers"}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_commands(arguments: list[str], needed: set[str], run_file: Path) -> None:
    folder = str(run_file.parent)
    words = [word.replace("RUN", str(run_file)).replace("FOLDER", folder) for word in arguments]
    assert loaded(COMMAND, *words) & HEAVY == needed


@pytest.mark.parametrize(
    ("command", "needed"),
    [
        ("validate", set()),
        ("plan", set()),
        ("lint", set()),
        ("card", set()),
        ("push", set()),
        ("onnx", set()),
        ("doctor", set()),
        ("init", {"tokenizers"}),
        ("compare", {"numpy"}),
        ("report", {"numpy"}),
        ("evaluate", OF_TRAINING),
        ("export", OF_TRAINING - {"pyarrow"}),
        ("train", OF_TRAINING),
    ],
)
def test_modules(command: str, needed: set[str]) -> None:
    modules = loaded(MODULE, f"bigner.commands.{command}")
    # scipy and accelerate are loaded by transformers, where they are installed.
    assert modules & HEAVY - OF_SCORING <= needed
    assert {"torch", "numpy"} & needed <= modules
    assert modules & {f"bigner.strategies.{kind}" for kind in ("single", "fsdp", "zero")} == set()


def test_the_package_names_what_is_public_without_loading_it() -> None:
    assert loaded(MODULE, "bigner") & HEAVY == set()
    code = "import sys, bigner; bigner.load_config, bigner.train, bigner.evaluate, bigner.launch"
    assert loaded(f"{code}; print('loaded', *sys.modules)") & HEAVY == set()
    asked = loaded("import sys, bigner; bigner.Tagger; print('loaded', *sys.modules)")
    assert {"torch", "bigner.prediction.tagger"} <= asked
    assert asked & HEAVY <= OF_TRAINING
    assert asked & {f"bigner.strategies.{kind}" for kind in ("single", "fsdp", "zero")} == set()


@pytest.mark.parametrize("command", ["evaluate", "train"])
def test_what_scores_is_not_loaded_before_there_is_something_to_score(command: str) -> None:
    assert loaded(MODULE, f"bigner.commands.{command}") & OF_SCORING == set()


def test_data_is_prepared_and_read_without_datasets_and_pandas(tmp_path: Path) -> None:
    """Which pyarrow loads on its own for every array from or to numpy."""
    tiny_tokenizer().save_pretrained(tmp_path / "tokenizer")
    write_columns(tmp_path / "train", SENTENCES)
    data = DataConfig(
        train=str(tmp_path / "train"), max_length=16, stride=4, cache_dir=tmp_path / "cache"
    )
    modules = loaded(PREPARATION, data.model_dump_json(), tmp_path / "tokenizer")
    assert modules & {"datasets", "pandas"} == set()


def test_a_report_needs_nothing_of_training(tmp_path: Path) -> None:
    tags = [["B-PER", "O"]]
    folder = write_run(tmp_path / "run", [["Anna", "sleeps"]], tags, tags)
    modules = loaded(COMMAND, "report", folder, "--output", tmp_path / "report.html")
    assert (tmp_path / "report.html").exists()
    assert modules & HEAVY == {"matplotlib", "numpy"}
