"""How windows are batched, packed and looked up changes speed and memory, and no result."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import XLMConfig

from bigner.checkpoint.manifest import read_manifest
from bigner.config.load import load_config
from bigner.errors import ConfigError
from tests.ranks import cases
from tests.ranks.launch import run_ranks
from tests.ranks.project import train_everywhere, write_project

STEPS = 8
COMMON = [
    f"training.max_steps={STEPS}",
    "training.global_batch_size=8",
    "training.micro_batch_size=4",
    "training.log_every=1",
    "training.learning_rate=1e-3",
    "training.weight_decay=0.1",
    "model.dropout=0.0",
    "evaluation.every=100",
]
WORLDS = {"single": 1, "fsdp": 2, "zero": 2}
WAYS = {
    "packed": [],
    "padded": ["model.packing=false", "evaluation.batch_size=5"],
    # One micro-batch in some steps and several in others.
    "tokens": [
        "training.batching=tokens",
        "training.micro_batch_tokens=80",
        "training.micro_batch_size=8",
        "evaluation.batch_tokens=100",
    ],
    "used": ["model.embedding_rows=used", "checkpoint.every_steps=4"],
}
TABLE = "roberta.embeddings.word_embeddings.weight"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_project(tmp_path_factory.mktemp("project"))


@pytest.fixture(scope="module")
def results(project: Path) -> dict[str, dict[str, Any]]:
    """Curves and scores of every way under every strategy, one launch each."""
    found: dict[str, dict[str, Any]] = {}
    for kind, size in WORLDS.items():
        runs = {
            f"{kind}-{way}": [
                *COMMON,
                *overrides,
                f"run_dir={project}/{kind}-{way}",
                f"strategy={{kind: {kind}}}",
            ]
            for way, overrides in WAYS.items()
        }
        if kind == "zero":
            runs["zero-resumed"] = [
                *COMMON,
                *WAYS["used"],
                f"run_dir={project}/zero-resumed",
                "strategy={kind: zero}",
                f"checkpoint.resume={project}/fsdp-used/checkpoints/step-00000004",
            ]
        found |= train_everywhere(project, kind, size, runs)
    return found


def scores(result: dict[str, Any]) -> dict[str, Any]:
    speed = ("seconds", "words_per_second")
    return {name: value for name, value in result["summary"]["test"].items() if name not in speed}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", WORLDS)
def test_every_way_trains_and_scores_alike(
    results: dict[str, dict[str, Any]], kind: str, way: str
) -> None:
    plain, found = results["single-packed"], results[f"{kind}-{way}"]
    assert len(plain["loss"]) == STEPS
    for number in ("loss", "grad_norm"):
        assert found[number] == pytest.approx(plain[number], abs=1e-5)
    assert scores(found) == scores(plain)


@pytest.mark.parametrize("name", ["single-used", "fsdp-used", "zero-used", "zero-resumed"])
def test_the_exported_table_is_whole(
    project: Path, results: dict[str, dict[str, Any]], name: str
) -> None:
    """Every row is what training the whole table makes of it, those never looked up too."""
    assert name in results
    whole = load_file(project / "single-packed" / "model" / "model.safetensors")
    found = load_file(project / name / "model" / "model.safetensors")
    assert found.keys() == whole.keys()
    (saved,) = [
        parameter
        for parameter_name, parameter in read_manifest(
            project / name / "checkpoints" / f"step-{STEPS:08d}"
        ).parameters.items()
        if parameter_name == TABLE
    ]
    # There were rows to leave out.
    assert saved.shape[0] < whole[TABLE].shape[0] - 50
    first = load_file(project / "single-used" / "table" / "table.safetensors")[TABLE]
    assert not torch.allclose(first, whole[TABLE], atol=1e-5), "weight decay moved nothing"
    torch.testing.assert_close(found[TABLE], whole[TABLE], atol=3e-5, rtol=1e-5)


def test_rows_in_use_resume_under_another_strategy(results: dict[str, dict[str, Any]]) -> None:
    tail = results["single-used"]["loss"][4:]
    assert results["zero-resumed"]["loss"] == pytest.approx(tail, abs=1e-5)
    assert scores(results["zero-resumed"]) == scores(results["single-used"])


def test_embeddings_that_are_the_table_alone_are_sharded_once(
    project: Path, tmp_path: Path
) -> None:
    XLMConfig(vocab_size=90, emb_dim=16, n_layers=2, n_heads=2).save_pretrained(tmp_path)
    first, *others = run_ranks(
        2,
        cases.train_a_bare_table,
        tmp_path / "launch",
        model=str(tmp_path),
        run_file=str(project / "run.yaml"),
    )
    assert others == [first]
    assert first[2] < first[0]


def test_other_data_cannot_go_on_from_these_rows(
    project: Path, results: dict[str, dict[str, Any]]
) -> None:
    from bigner.commands.train import train  # noqa: PLC0415
    from bigner.distributed import World  # noqa: PLC0415

    assert results
    other = project / "other.conll"
    other.write_text((project / "data" / "test.conll").read_text(encoding="utf-8"))
    checkpoint = f"checkpoint.resume={project}/single-used/checkpoints/step-00000004"
    runs = {
        "pieces are not those": [*WAYS["used"], f"data.train={other}", f"data.test={other}"],
        "set model.embedding_rows to used": ["model.embedding_rows=all"],
    }
    for number, (message, overrides) in enumerate(runs.items()):
        run_dir = f"run_dir={project}/refused-{number}"
        config = load_config(str(project / "run.yaml"), [*COMMON, *overrides, run_dir, checkpoint])
        with pytest.raises(ConfigError, match=message):
            train(config, World())
