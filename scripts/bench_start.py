"""How soon a command answers, how fast data is prepared, how soon a run takes its first step.

Everything is measured in processes of its own, started ROUNDS times in turn; shown are the medians.

- commands: seconds to import what each needs, and those of whole commands from start to end.
- preparation: words a second of the training data of WNUT-17, of the same sixteen times over (a
  million words), and of NerKor, in which every fourth word is a new one; with XLM-R's tokenizer,
  out of an empty cache; with the tokenizer's threads and without. Loading the tokenizer is a figure
  of its own.
- first step: seconds from the start of `bigner train` until its first optimizer step is logged, all
  data prepared: the sample of `bigner init`, and WNUT-17 with XLM-R's tokenizer and 250,002
  embeddings; each with a small encoder, in one process.

    python scripts/bench_start.py [--rounds 5] [--data FOLDER] [--strategies single,fsdp] [--json]

Needs both corpora and the tokenizer in FOLDER, which $BIGNER_TEST_DATA names if it is not given
(default ../shared/data).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
MODULES = ("validate", "lint", "init", "compare", "export", "evaluate", "train")
COPIES = 16
FIRST_STEP_SECONDS = 300

IMPORT = """
import sys, time
started = time.perf_counter()
__import__(sys.argv[1])
print(time.perf_counter() - started)
"""
PREPARE = """
import sys, time
from bigner.config.schema import DataConfig, ModelConfig
from bigner.data.prepare import prepare
from bigner.modeling import load_tokenizer
columns = {"columns": {"words": "FORM", "tags": "CONLL:NER"}} if "nerkor" in sys.argv[1] else {}
data = DataConfig(train=sys.argv[1], cache_dir=sys.argv[2], **columns)
loading = time.perf_counter()
tokenizer = load_tokenizer(ModelConfig(name_or_path=sys.argv[3]))
started = time.perf_counter()
train = prepare(data, tokenizer, ["train"]).splits["train"]
seconds = time.perf_counter() - started
print(started - loading, int(train.column("num_words").sum()) / seconds)
"""
SMALL = {
    "architectures": ["XLMRobertaForTokenClassification"],
    "model_type": "xlm-roberta",
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 128,
    "max_position_embeddings": 258,
    "type_vocab_size": 1,
    "vocab_size": 250_002,
    "bos_token_id": 0,
    "pad_token_id": 1,
    "eos_token_id": 2,
}
SHORT = [
    *("precision=fp32", "training.epochs=null", "training.max_steps=1000"),
    *("training.log_every=1", "training.global_batch_size=32", "training.micro_batch_size=32"),
]

# What is measured -> its unit and its figures.
Figures = dict[str, tuple[str, list[float]]]


def main() -> None:
    """Measure, and print a table or JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--strategies", default="single,fsdp")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    data = arguments.data or ROOT / os.environ.get("BIGNER_TEST_DATA", "../shared/data")
    figures: Figures = {}
    with tempfile.TemporaryDirectory() as scratch:
        # Of all children: nothing that others prepared is found, nothing looked up on the Hub.
        os.environ.update(BIGNER_CACHE=f"{scratch}/prepared", HF_HUB_OFFLINE="1")
        measures = _measures(Path(scratch), data.resolve(), arguments.strategies.split(","))
        # In turn, so that what else the machine does befalls all alike.
        for _ in range(arguments.rounds):
            for measure in measures:
                for name, unit, figure in measure():
                    figures.setdefault(name, (unit, []))[1].append(figure)
    if arguments.json:
        described = {
            name: {"unit": unit, "median": statistics.median(values), "all": values}
            for name, (unit, values) in figures.items()
        }
        print(json.dumps(described, indent=2))
        return
    print(f"{'':58} {'median':>10}  {'best':>10}")
    for name, (unit, values) in figures.items():
        best = max(values) if unit == "words/s" else min(values)
        print(f"{name:58} {_shown(statistics.median(values))}  {_shown(best)} {unit}")


def _shown(figure: float) -> str:
    return f"{figure:10,.0f}" if figure > 100 else f"{figure:10.2f}"


Measure = Callable[[], list[tuple[str, str, float]]]


def _measures(scratch: Path, data: Path, strategies: list[str]) -> list[Measure]:
    _bigner("init", str(scratch / "project"))
    sample, wnut = scratch / "project" / "run_fsdp.yaml", _wnut_project(scratch / "wnut", data)
    corpus = data / "wnut17" / "wnut17train.conll"
    large = scratch / "large.conll"
    large.write_text((corpus.read_text("utf-8").rstrip("\n") + "\n\n") * COPIES, "utf-8")
    measures: list[Measure] = [
        *(lambda name=name: _import(name) for name in MODULES),
        lambda: _command("--help"),
        lambda: _command("validate", str(sample)),
        lambda: _command("lint", str(sample)),
    ]
    hungarian = data / "nerkor-hu" / "data" / "train"
    corpora = {"wnut17": corpus, f"wnut17 x {COPIES}": large, "nerkor": hungarian}
    for name, file in corpora.items():
        for threads in ("true", "false"):
            measures.append(
                lambda name=name, file=file, threads=threads: _preparation(
                    name, file, threads, data / "xlmr-tokenizer", scratch / "cache"
                )
            )
    for title, run_file in (("sample", sample), ("wnut17 with XLM-R's tokenizer", wnut)):
        for kind in strategies:
            _first_step(title, run_file, kind)  # Prepares what is to be found prepared.
            measures.append(
                lambda title=title, run_file=run_file, kind=kind: _first_step(title, run_file, kind)
            )
    return measures


def _import(command: str) -> list[tuple[str, str, float]]:
    seconds = float(_python("-c", IMPORT, f"bigner.commands.{command}"))
    return [(f"import bigner.commands.{command}", "s", seconds)]


def _command(*arguments: str) -> list[tuple[str, str, float]]:
    started = time.perf_counter()
    _bigner(*arguments)
    return [(f"bigner {arguments[0]}", "s", time.perf_counter() - started)]


def _preparation(
    name: str, file: Path, threads: str, tokenizer: Path, cache: Path
) -> list[tuple[str, str, float]]:
    shutil.rmtree(cache, ignore_errors=True)
    words = [PREPARE, str(file), str(cache), str(tokenizer)]
    loading, speed = map(float, _python("-c", *words, TOKENIZERS_PARALLELISM=threads).split())
    how = "parallel" if threads == "true" else "serial"
    return [
        ("load XLM-R's tokenizer", "s", loading),
        (f"prepare {name}, {how}", "words/s", speed),
    ]


def _first_step(title: str, run_file: Path, kind: str) -> list[tuple[str, str, float]]:
    run_dir = run_file.parent / "run"
    shutil.rmtree(run_dir, ignore_errors=True)
    overrides = [*SHORT, f"strategy={{kind: {kind}}}", f"run_dir={run_dir}"]
    started = time.perf_counter()
    command = [sys.executable, "-m", "bigner", "train", str(run_file), *overrides]
    with subprocess.Popen(
        command,
        cwd=run_file.parent,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        seconds = _until_logged(run_dir / "metrics.jsonl", process, started)
        process.kill()
    return [(f"first step, {title}, {kind}", "s", seconds)]


def _until_logged(file: Path, process: subprocess.Popen[bytes], started: float) -> float:
    while not (file.exists() and file.stat().st_size):
        seconds = time.perf_counter() - started
        if process.poll() is not None or seconds > FIRST_STEP_SECONDS:
            process.kill()
            raise SystemExit(f"no step was logged in {file}")
        time.sleep(0.005)
    return time.perf_counter() - started


def _wnut_project(folder: Path, data: Path) -> Path:
    """A small model with XLM-R's tokenizer, and a run file; JSON is YAML."""
    shutil.copytree(data / "xlmr-tokenizer", folder / "model")
    (folder / "model").chmod(0o755)
    (folder / "model" / "config.json").write_text(json.dumps(SMALL))
    run_file = folder / "run.yaml"
    run: dict[str, Any] = {
        "run_dir": "run",
        "model": {"name_or_path": "model", "training_type": "from_scratch"},
        "data": {
            "train": str(data / "wnut17" / "wnut17train.conll"),
            "test": str(data / "wnut17" / "emerging.test.annotated"),
            "max_length": 128,
        },
        "training": {"epochs": 1, "global_batch_size": 32, "micro_batch_size": 32},
    }
    run_file.write_text(json.dumps(run))
    return run_file


def _bigner(*arguments: str) -> str:
    folder = Path(arguments[-1]).parent
    return _python("-m", "bigner", *arguments, folder=folder if folder.is_dir() else None)


def _python(*arguments: str, folder: Path | None = None, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        check=True,
    )
    return done.stdout


if __name__ == "__main__":
    main()
