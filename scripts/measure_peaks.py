"""The real peak of a rank's memory over some steps, beside what the plan says of it.

Each case is a run of its own: a model of random weights under a strategy, two steps of two
micro-batches whose windows are all of full length. On a GPU the peak is that of torch's allocator.
On processors it is resident memory less what the interpreter and its libraries had before there was
a model, which counts differently from the plan: attention with dropout writes its weights out
there, and masks of dropout are wider; so dropout is off unless asked for.

    python scripts/measure_peaks.py [--models xlm-roberta-base] [--strategies single,fsdp,zero]
        [--ranks 1,2] [--lengths 128,512] [--checkpointing false,true] [--precision fp32]
        [--windows 4] [--dropout 0.0] [--json FILE]

`--models` are names the plan knows, or config.json files. Figures go to standard output as a
markdown table.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bigner.config.schema import RunConfig
from bigner.distributed import World, leave_group, start
from bigner.loss import token_losses
from bigner.memory import forget_peak, peak_memory_bytes
from bigner.modeling import build_model
from bigner.packing import PackedWindows, pack_attention
from bigner.planning.hardware import GIB
from bigner.planning.job import job_of
from bigner.planning.known import known_config
from bigner.planning.memory import memory_of
from bigner.planning.model_config import find_shape
from bigner.strategies import open_strategy

GIVES_BACK = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_MMAP_MAX_": "1000000"}
"""Lets the C library give memory back to the system as soon as it is freed."""
STEPS = 2
ACCUMULATION = 2
LABELS = ("PER", "LOC", "ORG", "MISC")


@dataclass(frozen=True, slots=True)
class Case:
    """One row of the table."""

    model: str
    strategy: str
    ranks: int
    windows: int
    length: int
    checkpointing: bool | str
    precision: str
    dropout: float

    def run_config(self, model_folder: Path) -> RunConfig:
        """The run file of it, but for data, which is made up."""
        strategy: dict[str, Any] = {"kind": self.strategy}
        if self.strategy == "zero":
            tuning = Path(__file__).resolve().parents[1] / "ds_configs" / "zero3.json"
            strategy["deepspeed_config"] = str(tuning)
        return RunConfig.model_validate(
            {
                "run_dir": "unused",
                "precision": self.precision,
                "model": {
                    "name_or_path": str(model_folder),
                    "training_type": "from_scratch",
                    "dropout": self.dropout,
                },
                "data": {"train": "unused", "max_length": self.length, "labels": LABELS},
                "training": {
                    "global_batch_size": self.windows * self.ranks * ACCUMULATION,
                    "micro_batch_size": self.windows,
                    "gradient_checkpointing": self.checkpointing,
                },
                "strategy": strategy,
            }
        )


def main() -> None:
    """Measure the cases one after the other; or be a rank of one of them."""
    options = _options()
    if options.worker is not None:
        _be_a_rank(options.worker)
        return
    rows = []
    for case in _cases(options):
        rows.append(measure(case))
        print(rows[-1], file=sys.stderr, flush=True)
    if options.json is not None:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")
    print("\n".join(table(rows)))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--models", default="xlm-roberta-base")
    parser.add_argument("--strategies", default="single,fsdp,zero")
    parser.add_argument("--ranks", default="1,2", help="single takes 1 of them alone")
    parser.add_argument("--lengths", default="128,512")
    parser.add_argument("--checkpointing", default="false,true", help="of false, selective, true")
    parser.add_argument("--precision", default="fp32", choices=["fp32", "bf16", "fp16"])
    parser.add_argument("--windows", type=int, default=4, help="in a micro-batch")
    parser.add_argument("--dropout", type=float, default=0.0)
    parser.add_argument("--json", type=Path, help="file for all figures")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def _cases(options: argparse.Namespace) -> Iterator[Case]:
    flags: dict[str, bool | str] = {"false": False, "true": True, "selective": "selective"}
    for model, strategy, ranks, length, checkpointing in product(
        options.models.split(","),
        options.strategies.split(","),
        map(int, options.ranks.split(",")),
        map(int, options.lengths.split(",")),
        options.checkpointing.split(","),
    ):
        if strategy != "single" or ranks == 1:
            yield Case(
                model,
                strategy,
                ranks,
                options.windows,
                length,
                flags[checkpointing],
                options.precision,
                options.dropout,
            )


def measure(case: Case) -> dict[str, Any]:
    """Run a case in processes of its own; the fullest rank's peak, and the plan's."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        sizes = known_config(case.model) or json.loads(Path(case.model).read_text())
        (folder / "config.json").write_text(json.dumps(sizes))
        (folder / "case.json").write_text(json.dumps(asdict(case)))
        launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        subprocess.run(
            [*launcher, f"--nproc-per-node={case.ranks}", __file__, "--worker", str(folder)],
            check=True,
            stdout=sys.stderr,
            env={**os.environ, **GIVES_BACK},
        )
        config = case.run_config(folder)
        found = [json.loads(path.read_text()) for path in folder.glob("rank-*.json")]
        job = job_of(config, find_shape(config), case.ranks)
        planned = memory_of(job).step_peak.total / GIB
    measured = max(rank["peak"] for rank in found) / GIB
    return {
        **asdict(case),
        "device": found[0]["device"],
        "measured_gib": round(measured, 3),
        "planned_gib": round(planned, 3),
        "planned_by_measured": round(planned / measured, 3),
    }


def _be_a_rank(folder: Path) -> None:
    case = Case(**json.loads((folder / "case.json").read_text()))
    config = case.run_config(folder)
    world = start(sharded=config.strategy.needs_process_group)
    if case.strategy == "zero":
        # Its import is none of the model's memory.
        import deepspeed  # noqa: F401, PLC0415
    forget_peak(world.device)
    before = 0 if world.device.type == "cuda" else peak_memory_bytes(world.device)
    _train(case, config, world)
    peak = peak_memory_bytes(world.device) - before
    name = torch.cuda.get_device_name() if world.device.type == "cuda" else "cpu"
    result = {"peak": peak, "device": name}
    (folder / f"rank-{world.rank}.json").write_text(json.dumps(result))
    leave_group(0)


def _train(case: Case, config: RunConfig, world: World) -> None:
    labels = ["O", *(f"{prefix}-{label}" for label in LABELS for prefix in "BI")]
    model = build_model(config.model, tuple(labels))
    packing = pack_attention(model, wanted=True)
    assert packing is not None, f"{case.model} cannot be packed"
    strategy = open_strategy(config, world, model)
    for shard in strategy.shards():
        shard.master.normal_(std=0.02)
    strategy.publish()
    generator = np.random.default_rng(world.rank)
    for _ in range(STEPS):
        for i in range(ACCUMULATION):
            windows = PackedWindows(np.full(case.windows, case.length), world.device)
            numbers = generator.integers(5, 1000, (1, case.windows * case.length))
            pieces = torch.from_numpy(numbers).to(world.device)
            inputs = {
                "input_ids": pieces,
                "position_ids": windows.position_ids(packing.first_position).to(world.device),
                "windows": windows,
            }
            logits = strategy.forward(inputs)
            losses = token_losses(logits, pieces % len(labels))
            share = losses.mean() / world.size / ACCUMULATION
            strategy.backward(share, last=i + 1 == ACCUMULATION)
        strategy.step(1e-5).wait()


def table(rows: list[dict[str, Any]]) -> Iterator[str]:
    """The lines of a markdown table."""
    names = ("model", "strategy", "ranks", "window", "checkpointing", "measured GiB", "planned GiB")
    yield f"| {' | '.join(names)} | ratio |"
    yield "| --- " * 8 + "|"
    for row in rows:
        yield (
            f"| {Path(row['model']).name} | {row['strategy']} | {row['ranks']} | {row['length']} | "
            f"{str(row['checkpointing']).lower()} | {row['measured_gib']:.2f} | "
            f"{row['planned_gib']:.2f} | {row['planned_by_measured']:.2f} |"
        )
    yield ""
    first = rows[0]
    yield (
        f"{datetime.now(UTC).date()}, {first['device']}, torch {torch.__version__}; "
        f"{first['precision']}, micro-batches of {first['windows']} windows, {ACCUMULATION} in a "
        f"step, dropout {first['dropout']:g}."
    )


if __name__ == "__main__":
    main()
