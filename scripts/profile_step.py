"""What a training step on a GPU spends its time on: by kind of kernel, and the gaps between them.

A case is one of bench_gpu.py's, its windows made up of random pieces: no data, no tokenizer, no
evaluation, so that a case takes seconds. In one launch, for each case some steps to warm up, some
that are timed together, and two under torch's profiler.

    python scripts/profile_step.py [--cases large-fp16-full-single,large-fp16-full-fsdp] [--ranks 1]
        [--windows 32,96] [--set training.compile=true]... [--steps 10] [--json FILE]

Each argument of ``--set``, which may hold several settings parted by spaces, is tried in each case
beside the case as it is. The time of a kind is that of its kernels; those of several streams that
run at once are each counted, so kinds may come to more than a step. How long the GPU is busy is
seen in the profiled steps, which the profiler slows down on the host: where that share of their
time is well below that of ``ms a step``, the host is what holds a step up. ``host`` tells what it
takes to start a step's kernels, each step begun when the GPU has nothing to do: of many windows
it waits for room in the queue, so that ``--windows 1`` tells its own time. MFU is as in
bench_gpu.py.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bench_gpu import SHAPES, Case, flops_per_token, lengths_of, matrix_rates, reason_of, write_run
from contestants import end_launcher, end_on_sigterm, machine, versions_of

from bigner.config.load import load_config
from bigner.config.schema import RunConfig
from bigner.data.arrays import Ints
from bigner.distributed import World, leave_group, start
from bigner.loss import token_losses
from bigner.memory import forget_peak, peak_memory_bytes
from bigner.modeling import build_model
from bigner.packing import PackedWindows, pack_attention
from bigner.planning.hardware import GIB
from bigner.planning.job import job_of
from bigner.planning.memory import memory_of
from bigner.planning.model_config import find_shape
from bigner.strategies import open_strategy

LABELS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")
WARMUP = 4
PHASES = ("forward", "backward", "update")
PROFILED = 2
KINDS = {
    "attention": ("flash", "fmha", "attention"),
    "matrices": ("gemm", "nvjet", "cutlass", "xmma", "splitk", "cublas"),
    "collectives": ("nccl",),
    "optimizer": ("adam", "multi_tensor", "lpnorm"),
    "norms": ("layer_norm", "layernorm", "gammabeta"),
    "dropout": ("dropout",),
    "look-ups": ("embedding", "index", "gather", "scatter"),
    "copies": ("memcpy", "memset", "copy", "cat", "fill"),
    "sums": ("reduce",),
}
"""Kinds of kernels -> what their names hold, the first that fits; others are "compiled" where the
compiler named them, or else "element by element"."""

_Step = Callable[..., int]
"""Makes a step and returns the number of its pieces; adds to a counter the host's seconds."""


def main() -> None:
    """Profile the cases one after the other; or be a rank of that."""
    end_on_sigterm()
    options = _options()
    if options.worker is not None:
        _be_a_rank(options)
        return
    with tempfile.TemporaryDirectory() as scratch:
        figures = options.json or Path(scratch) / "figures.json"
        launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        ranks = f"--nproc-per-node={options.ranks}"
        command = [*launcher, ranks, __file__, *sys.argv[1:], "--worker", scratch]
        with subprocess.Popen([*command, "--json", str(figures)]) as process:
            try:
                failed = process.wait()
            except BaseException:
                end_launcher(process)
                raise
        if failed:
            sys.exit(failed)
        rows = json.loads(figures.read_text())
    print("\n".join(table(rows, machine(options.device), options.ranks)))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--cases", default="large-fp16-full-single,large-fp16-full-fsdp")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--ranks", type=int, default=1)
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE ...")
    parser.add_argument("--windows", help="that a rank computes at once, or several such numbers")
    parser.add_argument("--steps", type=int, default=10, help="timed")
    parser.add_argument("--json", type=Path, help="file for all figures, by kernel too")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    try:
        options.cases = [Case.parse(name) for name in options.cases.split(",")]
    except ValueError as error:
        parser.error(str(error))
    if any(case.kind == "single" for case in options.cases) and options.ranks > 1:
        parser.error("single is for --ranks 1")
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.exit(
            2, "profile_step: no GPU here; `--device cpu --cases tiny-...` tries the code\n"
        )
    return options


# ------------------------------------------------------------ a rank


def _be_a_rank(options: argparse.Namespace) -> None:
    world = start(sharded=True)
    rates = matrix_rates(world.device.type)
    rows = []
    for case, windows, settings in product(
        options.cases, _numbers(options.windows), ["", *options.set]
    ):
        row: dict[str, Any] = {**asdict(case), "settings": settings}
        row["windows"] = windows or SHAPES[case.shape].batch[case.lengths]
        try:
            row |= _measure(options, case, row, world)
            row["mfu"] = row["flops_per_second"] / rates[case.precision] / world.size
        except torch.OutOfMemoryError as error:
            if world.size > 1:
                # The others wait for this rank in the midst of a step.
                raise
            row["reason"] = reason_of(str(error))
        rows.append(row)
        if world.is_main:
            print(_cells(row), file=sys.stderr, flush=True)
            options.json.write_text(json.dumps(rows, indent=2) + "\n")
    leave_group(0)


def _numbers(given: str | None) -> list[int | None]:
    return [int(number) for number in given.split(",")] if given else [None]


def _measure(
    options: argparse.Namespace, case: Case, row: dict[str, Any], world: World
) -> dict[str, Any]:
    """Seconds of a step, what it held, and its profile."""
    forget_peak(world.device)
    run_file = write_run(options.worker / str(world.rank), case, 1, world.size)
    batch = (
        f"training.global_batch_size={row['windows'] * world.size}",
        f"training.micro_batch_size={row['windows']}",
    )
    config = load_config(run_file, [*batch, *row["settings"].split()])
    with _stepping(config, world, lengths_of(case), row["windows"]) as step:
        return _timed(options, case, config, world, step)


def _timed(
    options: argparse.Namespace,
    case: Case,
    config: RunConfig,
    world: World,
    step: _Step,
) -> dict[str, Any]:
    for _ in range(WARMUP):
        step()
    _wait(world.device)
    begun, tokens = time.perf_counter(), 0
    for _ in range(options.steps):
        tokens += step()
    _wait(world.device)
    seconds = time.perf_counter() - begun
    host: Counter[str] = Counter()
    for _ in range(options.steps):
        step(host)
        _wait(world.device)
    flops = flops_per_token(config.model_dump(), lengths_of(case))
    return {
        "seconds": seconds / options.steps,
        "tokens_per_second": tokens / seconds * world.size,
        "flops_per_second": tokens / seconds * world.size * flops,
        "peak_gib": peak_memory_bytes(world.device) / GIB,
        # A plan is of full windows.
        "planned_gib": _planned(config, world) / GIB if case.lengths == "full" else None,
        "host_seconds": {phase: host[phase] / options.steps for phase in PHASES},
        **_profiled(step, world.device),
    }


def _planned(config: RunConfig, world: World) -> int:
    return memory_of(job_of(config, find_shape(config), world.size)).step_peak.total


@contextmanager
def _stepping(
    config: RunConfig, world: World, lengths: tuple[int, ...], count: int
) -> Iterator[_Step]:
    """One optimizer step over windows of random pieces, others each time."""
    model = build_model(config.model, LABELS)
    packing = pack_attention(model, config.model.packing)
    assert packing is not None, "only packed windows are profiled"
    vocabulary = min(1000, model.config.vocab_size)
    strategy = open_strategy(config, world, model)
    for shard in strategy.shards():
        shard.master.normal_(std=0.02)
    strategy.publish()
    generator = np.random.default_rng(world.rank)
    batches = _batches(lengths, count)

    def step(host: Counter[str] | None = None) -> int:
        windows = PackedWindows(next(batches), world.device)
        if world.device.type == "cuda":
            windows.boundaries()
        numbers = generator.integers(5, vocabulary, (1, windows.lengths.sum()))
        pieces = torch.from_numpy(numbers).to(world.device)
        inputs = {
            "input_ids": pieces,
            "position_ids": windows.position_ids(packing.first_position).to(world.device),
            "windows": windows,
        }
        begun = [time.perf_counter()]
        losses = token_losses(strategy.forward(inputs), pieces % len(LABELS))
        begun.append(time.perf_counter())
        strategy.backward(losses.mean() / world.size, last=True)
        begun.append(time.perf_counter())
        strategy.step(1e-5)
        begun.append(time.perf_counter())
        if host is not None:
            for phase, (start, stop) in zip(PHASES, pairwise(begun), strict=True):
                host[phase] += stop - start
        return pieces.numel()

    try:
        yield step
    finally:
        strategy.close()


def _batches(lengths: tuple[int, ...], count: int) -> Iterator[Ints]:
    """Lengths of so many windows, the longest first, without an end."""
    first = 0
    while True:
        chosen = [lengths[(first + i) % len(lengths)] for i in range(count)]
        yield np.array(sorted(chosen, reverse=True))
        first += count


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


# ------------------------------------------------------------ the profile


def _profiled(step: _Step, device: torch.device) -> dict[str, Any]:
    """Milliseconds a step by kind of kernel, those of the dearest kernels, and the busy time."""
    on_gpu = device.type == "cuda"
    activity = (
        torch.profiler.ProfilerActivity.CUDA if on_gpu else torch.profiler.ProfilerActivity.CPU
    )
    wanted = torch.autograd.DeviceType.CUDA if on_gpu else torch.autograd.DeviceType.CPU
    with torch.profiler.profile(activities=[activity]) as profile:
        for _ in range(PROFILED):
            step()
        _wait(device)
    events = [event for event in profile.events() if event.device_type == wanted]
    kinds: Counter[str] = Counter()
    kernels: Counter[str] = Counter()
    for event in events:
        milliseconds = (event.time_range.end - event.time_range.start) / 1e3 / PROFILED
        kinds[kind_of(event.name)] += milliseconds
        kernels[event.name[:160]] += milliseconds
    spans = ((event.time_range.start, event.time_range.end) for event in events)
    return {
        "busy_seconds": union(spans) / 1e6 / PROFILED,
        "kernels_per_step": len(events) / PROFILED,
        "kinds": {name: round(value, 3) for name, value in kinds.most_common()},
        "kernels": {name: round(value, 3) for name, value in kernels.most_common(40)},
    }


def kind_of(kernel: str) -> str:
    """What a kernel is for, by its name."""
    name = kernel.lower()
    if name.startswith("triton"):
        return "compiled"
    for kind, parts in KINDS.items():
        if any(part in name for part in parts):
            return kind
    return "element by element"


def union(spans: Iterable[tuple[float, float]]) -> float:
    """The time that is in at least one of the spans."""
    total, reached = 0.0, float("-inf")
    for begin, end in sorted(spans):
        total += max(0.0, end - max(begin, reached))
        reached = max(reached, end)
    return total


# ------------------------------------------------------------ telling


def table(rows: list[dict[str, Any]], about: dict[str, Any], ranks: int) -> Iterator[str]:
    """The lines of a markdown table, the time of a step by kind of kernel in milliseconds."""
    found = Counter[str]()
    for row in rows:
        found.update(row.get("kinds", {}))
    kinds = [name for name, _ in found.most_common()]
    titles = ["case", "windows", "settings", "ms a step", "GPU busy", "tokens/s", "MFU"]
    titles += [*(f"host: {phase}" for phase in PHASES), "peak GiB", "planned", *kinds]
    yield f"| {' | '.join(titles)} |"
    yield "| --- " * len(titles) + "|"
    for row in rows:
        yield f"| {_cells(row, kinds)} |"
    yield ""
    yield f"{about['date']}, {about['device']}; {versions_of(about)}; {ranks} ranks."


def _cells(row: dict[str, Any], kinds: Iterable[str] = ()) -> str:
    case = "-".join(row[part] for part in ("shape", "precision", "lengths", "kind"))
    cells = [case, str(row["windows"]), row["settings"]]
    if "reason" in row:
        return " | ".join([*cells, row["reason"]])
    cells += [f"{row['seconds'] * 1e3:.1f}", f"{row['busy_seconds'] * 1e3:.1f}"]
    cells += [f"{row['tokens_per_second']:,.0f}", f"{row['mfu']:.1%}"]
    cells += [f"{row['host_seconds'][phase] * 1e3:.1f}" for phase in PHASES]
    cells.append(f"{row['peak_gib']:.2f}")
    cells.append(f"{row['planned_gib']:.2f}" if row["planned_gib"] else "")
    return " | ".join([*cells, *(f"{row['kinds'].get(kind, 0):.1f}" for kind in kinds)])


if __name__ == "__main__":
    main()
