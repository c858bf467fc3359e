"""A small project for tests: the sample of ``bigner init``, cut down to train in seconds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from bigner.commands.init import init_project
from tests.ranks import cases
from tests.ranks.launch import run_ranks

LETTERS = {"train": 24, "validation": 6, "test": 8}


def write_project(folder: Path) -> Path:
    """A corpus of some letters, a model of two narrow layers, and ``run.yaml``."""
    project = folder / "letters"
    init_project(project)
    for split, letters in LETTERS.items():
        path = project / "data" / f"{split}.conll"
        documents = path.read_text(encoding="utf-8").split("# newdoc")[1 : letters + 1]
        path.write_text("".join(f"# newdoc{text}" for text in documents), encoding="utf-8")
    path = project / "model" / "config.json"
    config = json.loads(path.read_text())
    config.update(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=50)
    path.write_text(json.dumps(config))
    run = {
        "run_dir": str(project / "run"),
        "model": {"name_or_path": str(project / "model"), "training_type": "from_scratch"},
        "data": {
            **{split: str(project / "data" / f"{split}.conll") for split in LETTERS},
            "columns": {"words": 0, "tags": 1},
            "max_length": 64,
            "stride": 8,
            "cache_dir": str(project / "cache"),
        },
    }
    (project / "run.yaml").write_text(yaml.safe_dump(run))
    return project


def train_everywhere(
    project: Path, kind: str, size: int, runs: dict[str, list[str]]
) -> dict[str, dict[str, Any]]:
    """Curves and summaries of runs of a project, in one launch; every rank has the same ones."""
    first, *others = run_ranks(
        size,
        cases.train_runs,
        project / f"launch-{kind}",
        run_file=str(project / "run.yaml"),
        runs=runs,
    )
    for other in others:
        assert other == first
    found: dict[str, dict[str, Any]] = first
    return found
