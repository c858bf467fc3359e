"""The quality of the models: bigner beside transformers.Trainer, from real pretrained encoders.

The same encoder, windows, number of steps and hyper-parameters on both sides, several seeds each.
Both are scored by bigner's scorer on test, with the weights of the last step and with those of the
best evaluation on validation (after each epoch). A *variant* is bigner with some fields changed, so
the script also measures what a choice is worth.

    pip install -e '.[bench]'
    python scripts/bench_quality.py FOLDER [--tasks wnut17-minilm,slovak-e5] [--seeds 1,2,3,4,5]
        [--variants trainer,bigner,pools_of_32] [--processes 2] [--json FILE]

Each run is a process on its share of the cores. A run that is done is not run again, so stop the
script and start it anew as you like. For each variant of a task the table gives

* the mean F1 and its standard deviation over seeds
* the difference to the baseline, which is the first variant, with an interval of 95 % and a p value
  from a bootstrap over test sentences and seeds together
* the seconds of training, and the time to quality: when the mean validation F1 first reaches what
  the baseline ends with
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from contestants import end_on_sigterm, machine, versions_of, windows_of
from pretrained import ENCODERS, MissingError, data_of

from bigner.evaluation.bootstrap import resampled_f1
from bigner.evaluation.counts import Counts, count
from bigner.predictions import read_predictions

RUN = Path(__file__).resolve().with_name("quality_run.py")
WEIGHTS = ("last", "best")
RESAMPLES = 10_000
_FAILED = "FAILED:"
DECODED = "+iob2"
"""Behind a variant's name: its runs again, scored under ``evaluation.decoding: iob2``."""


@dataclass(frozen=True, slots=True)
class Task:
    """A corpus and an encoder, with the hyper-parameters of both trainers."""

    corpus: str
    encoder: str
    learning_rate: float = 1e-4
    batch_size: int = 16
    epochs: int = 3


TASKS = {
    "wnut17-minilm": Task("wnut17", "minilm"),
    "wnut17-e5": Task("wnut17", "e5"),
    "slovak-e5": Task("slovak", "e5"),
    "hungarian-e5": Task("hungarian", "e5"),
}
TRAINER = "trainer"
# Rows that no window uses are never read, so leaving them out changes no score.
_COMMON = ("model.embedding_rows=used",)
VARIANTS: dict[str, tuple[str, ...]] = {
    "bigner": ("training.pool_batches=1",),
    "pools_of_4": ("training.pool_batches=4",),
    "pools_of_32": ("training.pool_batches=32",),
    "smoothing": ("loss.label_smoothing=0.1",),
    "o_half": ("loss.class_weights={O: 0.5}",),
    "effective_number": ("loss.class_weights=effective_number",),
    "focal": ("loss.focal_gamma=2.0",),
    "decay_0.9": ("training.layer_decay=0.9",),
    "head_1e-3": ("training.head_learning_rate=1e-3",),
    "frozen_embeddings": ("model.freeze={embeddings: true}",),
    "context": ("data.context=16",),
    "beta2_0.98": ("training.adam_beta2=0.98",),
    "average_0.99": ("training.average_decay=0.99",),
    "average_0.995": ("training.average_decay=0.995",),
    "no_decay": ("training.weight_decay=0.0",),
}


def main() -> None:
    """Make the runs that are not done, and print a table for each task."""
    end_on_sigterm()
    options = _options()
    options.folder.mkdir(parents=True, exist_ok=True)
    try:
        run_files = {name: _write_run(options, name) for name in options.tasks}
    except MissingError as error:
        print(f"bench_quality: {error}", file=sys.stderr)
        sys.exit(2)
    grid = [
        (task, variant, seed)
        for task in options.tasks
        for seed in options.seeds
        for variant in options.variants
        if not variant.endswith(DECODED)
    ]
    failed = False
    with ThreadPoolExecutor(options.processes) as pool:
        for line in pool.map(lambda one: _run(options, run_files[one[0]], *one), grid):
            print(line, file=sys.stderr, flush=True)
            failed |= line.startswith(_FAILED)
    if failed:
        sys.exit(1)
    report = {
        "machine": machine("cpu"),
        "tasks": {task: _report(options, task) for task in options.tasks},
    }
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")
    for task, rows in report["tasks"].items():
        print("\n".join(_table(task, rows)))
    print(f"{report['machine']['date']}, {versions_of(report['machine'])}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tasks", default=",".join(TASKS), help=f"of {', '.join(TASKS)}")
    parser.add_argument("--seeds", default="1,2,3,4,5")
    parser.add_argument(
        "--variants",
        default=f"{TRAINER},bigner",
        help=f"the first is the baseline; of {', '.join([TRAINER, *VARIANTS])},\n"
        f"or NAME:field=value;field=value; NAME{DECODED} scores the runs of NAME under IOB2",
    )
    parser.add_argument("--precision", default="bf16", choices=["fp32", "bf16"])
    parser.add_argument("--epochs", type=int, help="in place of the task's")
    parser.add_argument("--evaluations", type=int, default=1, help="in an epoch")
    parser.add_argument("--processes", type=int, default=2, help="at once")
    parser.add_argument("--json", type=Path, help="file for all figures")
    options = parser.parse_args()
    options.tasks = options.tasks.split(",")
    options.seeds = [int(seed) for seed in options.seeds.split(",")]
    options.variants = dict(_variant(parser, text) for text in options.variants.split(","))
    for name in options.tasks:
        if name not in TASKS:
            parser.error(f"--tasks: {name} is none of {', '.join(TASKS)}")
    options.folder = options.folder.resolve()
    return options


def _variant(parser: argparse.ArgumentParser, text: str) -> tuple[str, tuple[str, ...]]:
    name, given, fields = text.partition(":")
    if given:
        return name, tuple(fields.split(";"))
    known = name.removesuffix(DECODED)
    if known != TRAINER and known not in VARIANTS:
        parser.error(f"--variants: {name} is none of {', '.join([TRAINER, *VARIANTS])}")
    return name, VARIANTS.get(name, ())


# ------------------------------------------------------------ running


def _write_run(options: argparse.Namespace, name: str) -> Path:
    """The run file of a task, as both trainers read it."""
    task = TASKS[name]
    run: dict[str, Any] = {
        "run_dir": str(options.folder / name / "run"),
        "precision": options.precision,
        "model": {"name_or_path": str(ENCODERS[task.encoder](options.folder))},
        "data": {**data_of(task.corpus), "cache_dir": str(options.folder / "cache")},
        "training": {
            "global_batch_size": task.batch_size,
            "micro_batch_size": task.batch_size,
            "learning_rate": task.learning_rate,
        },
    }
    windows = windows_of(run).splits["train"].windows.num_rows
    an_epoch = -(-windows // task.batch_size)
    every = max(1, an_epoch // options.evaluations)
    run["training"] |= {
        "max_steps": an_epoch * (options.epochs or task.epochs),
        # A line for each evaluation, for its speed; the loss between is not looked at.
        "log_every": every,
    }
    # One size on both sides; it changes no score.
    run["evaluation"] = {"every": every, "batch_size": 32}
    path = options.folder / name / _group(options, name) / "run.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(run, sort_keys=False))
    return path


def _folder(options: argparse.Namespace, task: str, variant: str, seed: int) -> Path:
    group = options.folder / task / _group(options, task)
    return Path(group / variant.removesuffix(DECODED) / f"seed-{seed}")


def _group(options: argparse.Namespace, task: str) -> str:
    """Runs that may be compared."""
    epochs = options.epochs or TASKS[task].epochs
    return f"{options.precision}-{epochs}-epochs-{options.evaluations}"


def _decoding(variant: str) -> str:
    return "iob2" if variant.endswith(DECODED) else "argmax"


def _run(options: argparse.Namespace, run_file: Path, task: str, variant: str, seed: int) -> str:
    folder = _folder(options, task, variant, seed)
    fields = () if variant == TRAINER else (*_COMMON, *options.variants[variant])
    if not _is_done(folder, fields):
        folder.parent.mkdir(parents=True, exist_ok=True)
        contestant = "trainer" if variant == TRAINER else "bigner"
        command = [sys.executable, str(RUN), contestant, str(run_file), str(folder)]
        threads = max(1, (os.cpu_count() or 1) // options.processes)
        with folder.with_suffix(".log").open("w") as log:
            done = subprocess.run(
                [*command, *fields, f"seed={seed}"],
                env={
                    **os.environ,
                    "OMP_NUM_THREADS": str(threads),
                    "HF_HUB_OFFLINE": "1",
                    "TOKENIZERS_PARALLELISM": "false",
                },
                stdout=log,
                stderr=log,
                check=False,
            )
        if done.returncode:
            return f"{_FAILED} {folder} with {done.returncode}; see {folder.with_suffix('.log')}"
    result = json.loads((folder / "result.json").read_text())
    scores = ", ".join(f"{name} {test['f1']:.4f}" for name, test in result["test"].items())
    return f"{task}, {variant}, seed {seed}: test F1 {scores}; {result['curve'][-1]['seconds']} s"


def _is_done(folder: Path, fields: Sequence[str]) -> bool:
    """Whether a run with these fields was made; one of other fields is made anew."""
    try:
        done = json.loads((folder / "result.json").read_text())
    except OSError:
        return False
    return bool(done["overrides"][: len(fields)] == list(fields))


# ------------------------------------------------------------ telling


def _report(options: argparse.Namespace, task: str) -> dict[str, dict[str, Any]]:
    """Variant -> what its runs came to."""
    results = {
        variant: {
            seed: json.loads((_folder(options, task, variant, seed) / "result.json").read_text())
            for seed in options.seeds
        }
        for variant in options.variants
    }
    rows: dict[str, dict[str, Any]] = {variant: {} for variant in results}
    for which in WEIGHTS:
        counts = {
            variant: [
                _counts(_folder(options, task, variant, seed) / f"{which}-{_decoding(variant)}.tsv")
                for seed in runs
            ]
            for variant, runs in results.items()
        }
        base, baseline = next(iter(counts.items()))
        for variant, runs in counts.items():
            same_runs = variant.removesuffix(DECODED) == base.removesuffix(DECODED)
            f1 = [run.f1 for run in runs]
            rows[variant][which] = {
                "f1": f1,
                "mean": statistics.fmean(f1),
                "deviation": statistics.stdev(f1) if len(f1) > 1 else 0.0,
                "difference": (
                    None if runs is baseline else _difference(runs, baseline, same_runs=same_runs)
                ),
            }
    base_curve = _mean_curve(next(iter(results.values())))
    for variant, runs in results.items():
        curve = _mean_curve(runs)
        rows[variant]["seconds"] = curve[-1]["seconds"]
        rows[variant]["validation_f1"] = curve[-1]["f1"]
        wanted = base_curve[-1]["f1"]
        reached = (point["seconds"] for point in curve if point["f1"] >= wanted)
        rows[variant]["seconds_to_quality"] = next(reached, None)
    return rows


def _counts(path: Path) -> Counts:
    lines = read_predictions(path)
    return count(lines.gold, lines.predicted)


def _difference(here: list[Counts], there: list[Counts], *, same_runs: bool) -> dict[str, float]:
    """Of the mean F1; in a resample sentences are the same for all runs.

    Seeds are drawn for each side by itself. Where both sides are the same runs, decoded in two
    ways, they are drawn together.
    """
    resampled = resampled_f1([*here, *there], RESAMPLES)
    random = np.random.default_rng(0)
    drawn = random.integers(len(here), size=(RESAMPLES, len(here)))

    def means(runs: Any) -> Any:
        seeds = drawn if same_runs else random.integers(runs.shape[1], size=runs.shape)
        return np.take_along_axis(runs, seeds, axis=1).mean(axis=1)

    found = statistics.fmean(run.f1 for run in here) - statistics.fmean(run.f1 for run in there)
    differences = means(resampled[:, : len(here)]) - means(resampled[:, len(here) :])
    low, high = np.quantile(differences, [0.025, 0.975])
    as_far = np.count_nonzero(np.abs(differences - found) >= abs(found))
    return {
        "f1": found,
        "low": float(low),
        "high": float(high),
        "p_value": (1 + as_far) / (1 + RESAMPLES),
    }


def _mean_curve(runs: dict[int, dict[str, Any]]) -> list[dict[str, float]]:
    curves = [run["curve"] for run in runs.values()]
    return [
        {what: statistics.fmean(point[what] for point in points) for what in ("f1", "seconds")}
        for points in zip(*curves, strict=True)
    ]


def _table(task: str, rows: dict[str, dict[str, Any]]) -> list[str]:
    head = ["last weights", "difference (95 %, p)", "best weights", "difference (95 %, p)"]
    head += ["train, s", "to quality, s"]
    lines = ["", f"| {task} | " + " | ".join(head) + " |", "| --- " * (1 + len(head)) + "|"]
    for variant, row in rows.items():
        cells = []
        for which in WEIGHTS:
            found, difference = row[which], row[which]["difference"]
            cells.append(f"{found['mean']:.4f} ± {found['deviation']:.4f}")
            cells.append(
                ""
                if difference is None
                else f"{difference['f1']:+.4f} ({difference['low']:+.4f} to "
                f"{difference['high']:+.4f}, {difference['p_value']:.2g})"
            )
        to_quality = row["seconds_to_quality"]
        cells.append(f"{row['seconds']:.0f}")
        cells.append("not reached" if to_quality is None else f"{to_quality:.0f}")
        lines.append(f"| {variant} | " + " | ".join(cells) + " |")
    return [*lines, ""]


if __name__ == "__main__":
    main()
