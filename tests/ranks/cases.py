"""What the ranks of a launch do; each function runs on every rank, under any strategy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from bigner.commands.evaluate import evaluate
from bigner.commands.train import train
from bigner.config.load import load_config
from bigner.distributed import World
from bigner.evaluation.gather import gather_padded


def train_runs(
    world: World, *, run_file: str, runs: dict[str, list[str]]
) -> dict[str, dict[str, Any]]:
    """Train once for each set of overrides; the curves and the summary of each run."""
    results = {}
    for name, overrides in runs.items():
        config = load_config(run_file, overrides)
        summary = train(config, world)
        lines = (config.run_dir / "metrics.jsonl").read_text().splitlines()
        steps = [record for line in lines if "split" not in (record := json.loads(line))]
        results[name] = {
            "loss": [record["loss"] for record in steps],
            "grad_norm": [record["grad_norm"] for record in steps],
            "summary": summary,
        }
    return results


def evaluate_runs(
    world: World, *, run_file: str, model: str, runs: dict[str, list[str]]
) -> dict[str, dict[str, Any]]:
    """Score one exported model once for each set of overrides."""
    return {
        name: evaluate(
            load_config(run_file, overrides),
            world,
            model_dir=Path(model),
            split="test",
            predictions_file=Path(model).parent / f"{name}-{world.size}.tsv",
        )
        for name, overrides in runs.items()
    }


def gather_unequal(world: World) -> list[Any]:
    """Every rank brings a tensor of another shape; rank 1 brings nothing."""
    rows = 0 if world.rank == 1 else world.rank + 1
    mine = torch.full((rows, 2 + world.rank), world.rank, dtype=torch.int32)
    return gather_padded(mine, world).tolist()
