"""What tunes a strategy, tried side by side: ZeRO-3's buckets, FSDP2's options, compilation.

Every setting trains the same windows as scripts/bench_gpu.py's case; settings take turns, medians
of the rounds, real tokens a second and peak memory, the fastest first. What is found for a class of
models is written into ds_configs by hand.

    python scripts/tune.py zero --case large-fp16-full-zero --ranks 8
    python scripts/tune.py fsdp --case large-bf16-wnut-fsdp --ranks 8
    python scripts/tune.py compile --case large-bf16-full-single
    python scripts/tune.py zero --case tiny-bf16-wnut-zero --device cpu --ranks 2   # without a GPU
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

from bench_gpu import Case, reason_of, write_run
from contestants import (
    Outcome,
    Place,
    RunFailedError,
    end_on_sigterm,
    machine,
    run_bigner,
    versions_of,
)

ROOT = Path(__file__).resolve().parents[1]
BUCKETS = (10_000_000, 50_000_000, 200_000_000, 500_000_000)
PREFETCHED = (0, 25_000_000, 100_000_000)
PERSISTENT = (10_000, 1_000_000)

Settings = dict[str, list[str]]
"""What a setting is called -> the overrides that make it."""


def main() -> None:
    """Try each setting, and print a markdown table."""
    end_on_sigterm()
    options = _options()
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        settings = _settings(options.what, work)
        run_file = write_run(work, options.case, options.steps, options.ranks)
        found = measure(options, run_file, settings)
    print("\n".join(table(options, found)))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("what", choices=["zero", "fsdp", "compile"])
    parser.add_argument("--case", type=Case.parse, required=True, help="as bench_gpu.py's")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--ranks", type=int, default=1)
    parser.add_argument("--threads", type=int, help="of a rank; all cores shared out if absent")
    parser.add_argument("--steps", type=int, default=10, help="measured, and as many before them")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    if options.what in ("zero", "fsdp") and options.case.kind != options.what:
        parser.error(f"{options.what} is tuned in a case of it, and this is {options.case.kind}")
    return options


def _settings(what: str, work: Path) -> Settings:
    if what == "compile":
        return {"as it is": [], "compiled": ["training.compile=true"]}
    if what == "fsdp":
        return {
            f"reshard {reshard}, reduce in {dtype}": [
                f"strategy.reshard_after_forward={str(reshard).lower()}",
                f"strategy.reduce_dtype={dtype}",
            ]
            for reshard, dtype in product((True, False), ("fp32", "precision"))
        }
    return {name: [f"strategy.deepspeed_config={path}"] for name, path in _zero_files(work)}


def _zero_files(work: Path) -> Iterator[tuple[str, Path]]:
    """The shipped file, and that file with other sizes."""
    shipped = ROOT / "ds_configs" / "zero3.json"
    yield "as shipped", shipped
    for bucket, prefetched, persistent in product(BUCKETS, PREFETCHED, PERSISTENT):
        tuning: dict[str, Any] = json.loads(shipped.read_text())
        tuning["zero_optimization"] |= {
            "reduce_bucket_size": bucket,
            "stage3_prefetch_bucket_size": prefetched,
            "stage3_param_persistence_threshold": persistent,
        }
        name = f"reduce {bucket:.0e}, prefetch {prefetched:.0e}, persistent {persistent:.0e}"
        path = work / f"{bucket}-{prefetched}-{persistent}.json"
        path.write_text(json.dumps(tuning))
        yield name, path


def measure(
    options: argparse.Namespace, run_file: Path, settings: Settings
) -> dict[str, list[Outcome] | str]:
    """The outcomes of each setting, or why there are none."""
    found: dict[str, list[Outcome] | str] = {name: [] for name in settings}
    place = Place(options.device, options.ranks, threads=options.threads)
    for _ in range(options.rounds):
        for name, overrides in settings.items():
            outcomes = found[name]
            if isinstance(outcomes, str):
                continue
            try:
                outcomes.append(run_bigner(run_file, overrides, place))
            except RunFailedError as error:
                found[name] = reason_of(str(error))
                print(f"{name}: {found[name]}", file=sys.stderr, flush=True)
                continue
            print(f"{name}: {outcomes[-1].train:,.0f}", file=sys.stderr, flush=True)
    return found


def table(options: argparse.Namespace, found: dict[str, list[Outcome] | str]) -> Iterator[str]:
    """The lines of a markdown table, the fastest setting first, those that failed last."""
    rates = {
        name: statistics.median(outcome.train for outcome in outcomes)
        for name, outcomes in found.items()
        if not isinstance(outcomes, str)
    }
    yield "| setting | training, tokens/s | lowest to highest | peak GiB | loss |"
    yield "| --- " * 5 + "|"
    for name in sorted(rates, key=lambda name: -rates[name]):
        outcomes = found[name]
        assert not isinstance(outcomes, str)
        speeds = [outcome.train for outcome in outcomes]
        peak = max(outcome.peak_memory_bytes for outcome in outcomes) / 2**30
        yield (
            f"| {name} | {rates[name]:,.0f} | {min(speeds):,.0f} to {max(speeds):,.0f} | "
            f"{peak:.2f} | {outcomes[0].loss:.4f} |"
        )
    for name, reason in found.items():
        if isinstance(reason, str):
            yield f"| {name} | {reason} | | | |"
    yield ""
    about = machine(options.device)
    case = options.case
    yield (
        f"{about['date']}, {about['device']}; {versions_of(about)}; {case.shape}, "
        f"{case.precision}, {case.lengths}, {case.kind}, {options.ranks} ranks; medians of "
        f"{options.rounds} rounds of {options.steps} steps."
    )


if __name__ == "__main__":
    main()
