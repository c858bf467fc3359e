"""WNUT-17 with XLM-R's tokenizer through the commands a user types, and what they leave behind."""

from __future__ import annotations

import json
import math
import shutil
import socket
import sys
from pathlib import Path
from typing import Any

import pytest
import transformers
import yaml

from bigner.commands.train import train
from bigner.config.load import load_config
from bigner.distributed import World
from tests.ranks.launch import run_command

pytestmark = pytest.mark.data

# XLM-R's shape in everything but width and depth; its vocabulary is the real one.
MODEL = {
    "model_type": "xlm-roberta",
    "architectures": ["XLMRobertaForTokenClassification"],
    "vocab_size": 250_002,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 514,
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "type_vocab_size": 1,
}
STEPS = 3


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, shared_data: Path) -> Path:
    """A folder as a user would have it: a model, and a run file for each engine."""
    folder = tmp_path_factory.mktemp("wnut17")
    shutil.copytree(shared_data / "xlmr-tokenizer", folder / "model")
    (folder / "model" / "config.json").write_text(json.dumps(MODEL))
    corpus = shared_data / "wnut17"
    for engine in ("zero", "fsdp"):
        run = {
            "run_dir": f"runs/{engine}",
            "precision": "fp16",
            "model": {"name_or_path": "./model", "training_type": "from_scratch"},
            "data": {
                "train": str(corpus / "wnut17train.conll"),
                "validation": str(corpus / "emerging.dev.conll"),
                "test": str(corpus / "emerging.test.annotated"),
                "columns": {"words": 0, "tags": 1},
                "cache_dir": str(folder / "cache"),
            },
            "training": {
                "max_steps": STEPS,
                "global_batch_size": 16,
                "micro_batch_size": 4,
                "learning_rate": 1e-3,
                "log_every": 1,
            },
            "strategy": {"kind": engine},
            "evaluation": {"batch_size": 64},
            "tracking": ["tensorboard"],
        }
        (folder / f"{engine}.yaml").write_text(yaml.safe_dump(run))
    return folder


def _free_port() -> str:
    with socket.socket() as free:
        free.bind(("", 0))
        return str(free.getsockname()[1])


def _launcher(engine: str) -> list[str]:
    if engine == "zero":
        deepspeed = str(Path(sys.executable).with_name("deepspeed"))
        return [deepspeed, "--num_accelerators", "2", "--master_port", _free_port(), "--module"]
    torchrun = str(Path(sys.executable).with_name("torchrun"))
    return [torchrun, "--standalone", "--nproc-per-node", "2", "-m"]


@pytest.fixture(scope="module", params=["zero", "fsdp"])
def run_dir(request: pytest.FixtureRequest, project: Path) -> Path:
    """What training with an engine's own launcher left behind."""
    engine = request.param
    done = run_command([*_launcher(engine), "bigner", "train", f"{engine}.yaml"], project)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return project / "runs" / engine


def test_standard_output_is_what_was_asked_for(run_dir: Path, project: Path) -> None:
    # DeepSpeed's launcher writes its own log there.
    torchrun = [*_launcher("fsdp"), "bigner"]
    words = ["evaluate", f"{run_dir.name}.yaml", "--split", "validation", "--json"]
    done = run_command([*torchrun, *words], project)
    assert done.returncode == 0, done.stderr
    summary = json.loads((run_dir / "summary.json").read_text())
    assert json.loads(done.stdout)["f1"] == summary["validation"]["f1"]


def test_the_summary_has_the_scores(run_dir: Path) -> None:
    summary = json.loads((run_dir / "summary.json").read_text())
    assert summary["steps"] == STEPS
    assert summary["world_size"] == 2
    assert summary["precision"] == "fp16"
    counts = {"validation": (1009, 15733, 836), "test": (1287, 23394, 1079)}
    for split, (sentences, words, entities) in counts.items():
        scores = summary[split]
        assert (scores["sentences"], scores["words"]) == (sentences, words)
        assert sum(values["support"] for values in scores["per_type"].values()) == entities
        assert {"f1", "precision", "recall", "accuracy", "loss", "per_type"} <= set(scores)


def test_each_step_is_logged(run_dir: Path) -> None:
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if "split" not in line]
    assert [line["step"] for line in steps] == [1, 2, 3]
    for line in steps:
        assert math.isfinite(line["loss"])
        assert line["loss_scale"] > 1
        assert line["learning_rate"] > 0
        assert line["tokens_per_second"] > 0
    # Of rank 0 alone.
    assert len(list((run_dir / "tensorboard").iterdir())) == 1


def test_the_resolved_config_is_saved(run_dir: Path) -> None:
    config = load_config(run_dir / "config.yaml")
    assert config.training.max_steps == STEPS
    assert config.training.weight_decay == 0.01


# transformers hands its own tokenizer settings to a deprecated parameter.
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_the_export_loads_in_a_pipeline(run_dir: Path) -> None:
    tagger = transformers.pipeline("token-classification", str(run_dir / "model"))
    labels = tagger.model.config.id2label.values()
    assert {"O", "B-person", "I-person"} <= set(labels)
    found = tagger("Hello world")
    assert {piece["entity"] for piece in found} <= set(labels)


def test_a_finished_run_only_shows_its_scores(run_dir: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(run_dir.parents[1])
    before = (run_dir / "summary.json").stat().st_mtime_ns
    config = load_config(f"{run_dir.name}.yaml", ["strategy={kind: single}"])
    summary = train(config, World())
    assert summary == json.loads((run_dir / "summary.json").read_text())
    assert (run_dir / "summary.json").stat().st_mtime_ns == before
