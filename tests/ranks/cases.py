"""What the ranks of a launch do; each function runs on every rank, under any strategy."""

from __future__ import annotations

import gc
import json
import math
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

from bigner.commands.evaluate import evaluate
from bigner.commands.train import train
from bigner.config.load import load_config
from bigner.config.schema import ModelConfig, RunConfig
from bigner.distributed import World
from bigner.evaluation.gather import gather_padded, gather_stretches
from bigner.modeling import build_model, lookup_table, units
from bigner.strategies import Shard, open_strategy
from bigner.weights import InitialWeights


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
    world: World,
    *,
    run_file: str,
    model: str,
    runs: dict[str, list[str]],
    scored_alone: Sequence[str] = (),
) -> dict[str, dict[str, Any]]:
    """Score one exported model once for each set of overrides; some write no predictions."""
    folder = Path(model).parent
    return {
        name: evaluate(
            load_config(run_file, overrides),
            world,
            model_dir=Path(model),
            split="test",
            predictions_file=(
                None if name in scored_alone else folder / f"{name}-{world.size}.tsv"
            ),
        )
        for name, overrides in runs.items()
    }


def weights_kept_within_nodes(
    world: World, *, run_file: str, overrides: list[str]
) -> dict[str, Any]:
    """The share of each parameter that ZeRO++ keeps within the ranks of a node, once it was met."""
    config = load_config(run_file, overrides)
    model = build_model(config.model, ("O", "B-X", "I-X"))
    strategy = open_strategy(config, world, model)
    pieces = torch.full((1, 8), 5)
    mask = torch.ones_like(pieces)
    logits = strategy.forward({"input_ids": pieces, "attention_mask": mask})
    kept = {
        name: parameter.ds_secondary_tensor.numel() / parameter.ds_numel
        for name, parameter in model.named_parameters()
        if parameter.ds_secondary_tensor is not None
    }
    strategy.backward(logits.sum(), last=True)
    strategy.step(0.0)
    strategy.close()
    return kept


def overflow_on_one_rank(world: World, *, run_file: str, overrides: list[str]) -> dict[str, Any]:
    """Three steps, in the second of which the last rank's loss is infinite."""
    config = load_config(run_file, overrides)
    model = build_model(config.model, ("O", "B-X", "I-X"))
    weights = InitialWeights(
        config.model, model, seed=config.seed, cache_root=config.data.cache_root()
    )
    strategy = open_strategy(config, world, model)
    weights.fill(strategy.shards())
    strategy.publish()
    inputs = {name: torch.ones(4, 8, dtype=torch.long) for name in ("input_ids", "attention_mask")}
    outcomes, moved = [], []
    for step in range(3):
        before = [shard.master.clone() for shard in strategy.shards()]
        loss = strategy.forward(inputs).float().square().mean() / world.size
        if step == 1 and world.rank == world.size - 1:
            loss = loss * float("inf")
        strategy.backward(loss, last=True)
        outcomes.append(strategy.step(1e-3).wait())
        after = [shard.master for shard in strategy.shards()]
        moved.append(any(not torch.equal(a, b) for a, b in zip(before, after, strict=True)))
    result = {
        "skipped": [outcome.skipped for outcome in outcomes],
        "loss_scale": [outcome.loss_scale for outcome in outcomes],
        "moved": moved,
        "optimizer_step": strategy.scalars()["optimizer_step"],
    }
    strategy.close()
    return result


def train_a_bare_table(world: World, *, model: str, run_file: str) -> list[float]:
    """Losses of a model whose embeddings are the table and nothing else, which XLM's are."""
    config = load_config(run_file, ["strategy={kind: fsdp}"])
    described = ModelConfig(name_or_path=model, training_type="from_scratch", dropout=0.0)
    network = build_model(described, ("O", "B-X", "I-X"))
    found = lookup_table(network)
    assert found is not None
    assert found[1] in units(network)
    weights = InitialWeights(
        described, network, seed=config.seed, cache_root=config.data.cache_root()
    )
    strategy = open_strategy(config, world, network)
    weights.fill(strategy.shards())
    strategy.publish()
    inputs = {name: torch.ones(4, 8, dtype=torch.long) for name in ("input_ids", "attention_mask")}
    losses = []
    for _ in range(3):
        loss = strategy.forward(inputs).float().square().mean()
        strategy.backward(loss / world.size, last=True)
        assert not strategy.step(1e-2).wait().skipped
        losses.append(float(loss.detach()))
    return losses


def gather_unequal(world: World) -> dict[str, list[Any]]:
    """Every rank brings a tensor of another shape; rank 1 brings nothing."""
    rows = 0 if world.rank == 1 else world.rank + 1
    mine = torch.full((rows, 2 + world.rank), world.rank, dtype=torch.int32)
    bytes_ = gather_stretches(mine.to(torch.uint8), world, 255, at_once=2)
    return {
        "whole": gather_padded(mine, world).tolist(),
        "stretches": [part.tolist() for part in gather_stretches(mine, world, at_once=2)],
        "bytes": [part.tolist() for part in bytes_],
        "nothing": list(gather_stretches(mine[:0], world)),
    }


def left_behind(
    world: World, *, run_file: str, runs: dict[str, list[str]]
) -> dict[str, dict[str, int]]:
    """Bytes that tensors of the process hold once a run is over, and of what size its model is."""
    found = {}
    for name, overrides in runs.items():
        config = load_config(run_file, overrides)
        summary = train(config, world)
        evaluate(config, world, model_dir=Path(summary["model"]), split="validation")
        gc.collect()
        storages = {
            tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes()
            for tensor in gc.get_objects()
            if isinstance(tensor, torch.Tensor)
        }
        model = build_model(config.model, ("O", "B-X", "I-X"))
        size = sum(4 * parameter.numel() for parameter in model.parameters())
        found[name] = {"left": sum(storages.values()), "model": size}
    return found


def logits_after_publish(
    world: World, *, run_file: str, runs: dict[str, list[str]]
) -> dict[str, dict[str, list[float]]]:
    """Logits of each set of overrides after other values were written into its shards.

    Values are written three times: after a training step, after a prediction, and into shards that
    were listed before a prediction. Then the model predicts, predicts again, and computes in
    training mode.
    """
    return {
        name: _logits_after_publish(world, load_config(run_file, overrides))
        for name, overrides in runs.items()
    }


def _logits_after_publish(world: World, config: RunConfig) -> dict[str, list[float]]:
    model = build_model(config.model, ("O", "B-X", "I-X"))
    strategy = open_strategy(config, world, model)
    inputs = {
        "input_ids": torch.arange(5, 21).view(2, 8),
        "attention_mask": torch.ones(2, 8, dtype=torch.long),
    }

    def train_step() -> torch.Tensor:
        logits = strategy.forward(inputs)
        strategy.backward(logits.float().square().mean() / world.size, last=True)
        assert not strategy.step(1e-2).wait().skipped
        return logits.detach()

    def write_values(shards: Iterable[Shard], seed: int) -> None:
        for shard in shards:
            whole = _values_of(shard.name, shard.shape, seed)
            shard.master.copy_(whole[shard.offset : shard.offset + shard.numel])
        strategy.publish()

    found = {}
    write_values(strategy.shards(), seed=0)
    # ZeRO-3 records the order of layers in the first steps and keeps parameters gathered later.
    for _ in range(3):
        train_step()
    write_values(strategy.shards(), seed=1)
    found["predict after a step"] = strategy.predict(inputs)
    write_values(strategy.shards(), seed=2)
    found["predict after predict"] = strategy.predict(inputs)
    found["predict again"] = strategy.predict(inputs)
    shards = list(strategy.shards())
    strategy.predict(inputs)
    write_values(shards, seed=3)
    found["predict, shards listed before"] = strategy.predict(inputs)
    write_values(strategy.shards(), seed=4)
    found["train after predict"] = train_step()
    write_values(strategy.shards(), seed=5)
    found["train after a step"] = train_step()
    strategy.close()
    return {name: logits.float().flatten().tolist() for name, logits in found.items()}


def _values_of(name: str, shape: Sequence[int], seed: int) -> torch.Tensor:
    """The flattened values of a parameter that follow from its name and a seed."""
    generator = torch.Generator().manual_seed(zlib.crc32(f"{name} {seed}".encode()))
    return torch.randn(math.prod(shape), generator=generator) * 0.2
