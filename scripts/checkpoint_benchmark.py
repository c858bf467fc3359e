"""XLM-RoBERTa-large's shape over 2 processes: load, save and export, with time and peak memory.

Pretrained weights of 2.2 GB are written once, then each engine, under fp16, streams them into its
shards, saves a checkpoint in the background and one in the foreground, loads it, and exports the
whole model. No step is trained. Takes minutes and about 25 GB of disk; no part of the tests.

    python scripts/checkpoint_benchmark.py [zero] [fsdp] [--keep FOLDER]
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from large_shape import write_project

from bigner.checkpoint.load import damage, load
from bigner.checkpoint.manifest import read_manifest
from bigner.checkpoint.save import Saver
from bigner.config.load import load_config
from bigner.distributed import World, leave_group, start
from bigner.export import export_model
from bigner.modeling import build_model, load_tokenizer
from bigner.run_dir import RunDir
from bigner.strategies import open_strategy
from bigner.tensor_files import TensorEntry, write_tensors
from bigner.weights import InitialWeights

RANKS = 2
SCRIPT = Path(__file__).resolve()
TAGS = ("O", "B-X", "I-X")
STATE: dict[str, Any] = {
    "epoch": 0.0,
    "skipped_steps": 0,
    "skipped_in_a_row": 0,
    "history": [],
    "best": None,
    "labels": TAGS,
    "config": {},
    "world_size": RANKS,
    "versions": {},
}


def main() -> None:
    """Make the weights, run the engines asked for, and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("engines", nargs="*", default=["fsdp", "zero"])
    parser.add_argument("--keep", type=Path, help="folder to work in, kept afterwards")
    parser.add_argument("--rank-of", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.rank_of:
        measure(options.rank_of, options.engines[0])
        return
    with tempfile.TemporaryDirectory() as scratch:
        project = (options.keep or Path(scratch)).resolve() / "large"
        if not project.exists():
            write_project(project, "fp16")
            write_weights(project)
        for engine in options.engines:
            launch(project, engine)


def write_weights(project: Path) -> None:
    """Random weights of the model in the project, tensor by tensor."""
    os.chdir(project)
    config = load_config(project / "run.yaml", [])
    model = build_model(config.model, TAGS)
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
    entries = [TensorEntry(name, torch.float32, shape) for name, shape in shapes.items()]
    torch.manual_seed(0)
    values = (torch.empty(entry.shape).normal_(std=0.02) for entry in entries)
    write_tensors(project / "model" / "model.safetensors", entries, values, {"format": "pt"})


def launch(project: Path, engine: str) -> None:
    """Run one engine's ranks to their end."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    worker = [str(SCRIPT), engine, "--rank-of", str(project)]
    command = [*launcher, f"--nproc-per-node={RANKS}", *worker]
    environment = {**os.environ, "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"}
    subprocess.run(command, check=True, env=environment)


def measure(project: Path, engine: str) -> None:
    """What one rank does; rank 0 prints what all of them took."""
    world = start(sharded=True)
    os.chdir(project)
    overrides = [f"run_dir={project}/runs/{engine}", f"strategy={{kind: {engine}}}"]
    overrides.append("model.training_type=fine_tuning")
    config = load_config(project / "run.yaml", overrides)
    phases: dict[str, dict[str, float]] = {}

    with _measured(world, phases, "weights into shards"):
        model = build_model(config.model, TAGS)
        weights = InitialWeights(config.model, model, seed=0, cache_root=project / "cache")
        shapes = [p.numel() for p in model.parameters()]
        strategy = open_strategy(config, world, model)
        weights.fill(strategy.shards())
        strategy.publish()
    run_dir = RunDir(config.run_dir)
    tokenizer = load_tokenizer(config.model)
    if world.is_main:
        shutil.rmtree(run_dir.path, ignore_errors=True)
        run_dir.path.mkdir(parents=True)
        run_dir.make_ready(model, tokenizer)
    for step, background in ((1, True), (2, True), (3, False)):
        name = f"save {step} ({'background' if background else 'foreground'})"
        # The first save in the background makes the copies that later ones use again.
        if step != 2:
            saver = Saver(run_dir.checkpoints, strategy, world, background=background)
        with _measured(world, phases, name):
            begin = time.perf_counter()
            saver.begin(step, STATE, {})
            pause = time.perf_counter() - begin
            done = saver.commit()
        phases[name] |= {
            "pause_seconds": round(pause, 2),
            "write_seconds": round(done.seconds, 2),
            "gigabytes": round(done.num_bytes / 1e9, 2),
            "mb_per_s": round(done.num_bytes / 1e6 / done.seconds),
        }
        saver = saver if background else None
    with _measured(world, phases, "check checksums"):
        assert not damage(done.folder, world)
    with _measured(world, phases, "load"):
        load(done.folder, read_manifest(done.folder), strategy)
    with _measured(world, phases, "export"):
        export_model(run_dir.model, run_dir.plain, strategy, world, model)
    if world.is_main:
        allowed = 6 * sum(shapes) / world.size + 4 * max(shapes) + 1.5e9
        report = {"engine": engine, "allowed_gb": round(allowed / 1e9, 2), **phases}
        print(json.dumps(report, indent=1), flush=True)
    strategy.close()
    leave_group(0)


@contextmanager
def _measured(world: World, phases: dict[str, dict[str, float]], name: str) -> Iterator[None]:
    """Seconds of the slowest rank, and the most memory that a rank held meanwhile."""
    # Resets the peak that the kernel keeps of this process.
    Path("/proc/self/clear_refs").write_text("5")
    begin = time.perf_counter()
    yield
    took = torch.tensor([time.perf_counter() - begin, _peak_bytes() / 1e9])
    seconds, peak = world.max(took).tolist()
    phases[name] = {"seconds": round(seconds, 1), "peak_gb_of_a_rank": round(peak, 2)}


def _peak_bytes() -> int:
    status = Path("/proc/self/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    main()
