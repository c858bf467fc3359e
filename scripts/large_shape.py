"""XLM-RoBERTa-large's real shape, sharded over 2 processes on this machine, under both engines.

560 million random weights, fp16: one optimizer step, one evaluation and one export each, with the
peak memory of all processes together. Takes minutes and about 20 GB; no part of the tests.

    python scripts/large_shape.py [zero] [fsdp] [--keep FOLDER]
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

from bigner.commands.init import init_project

LARGE = {
    "vocab_size": 250_002,
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
    "max_position_embeddings": 514,
}
LETTERS = {"train": 4, "validation": 1, "test": 1}


def main() -> None:
    """Run the engines asked for and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("engines", nargs="*", default=["zero", "fsdp"])
    parser.add_argument("--precision", default="fp16")
    parser.add_argument("--keep", type=Path, help="folder to work in, kept afterwards")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        project = (options.keep or Path(scratch)) / "large"
        write_project(project, options.precision)
        for engine in options.engines:
            print(json.dumps(measure(project, engine)), flush=True)


def write_project(project: Path, precision: str) -> None:
    """The sample's letters and tokenizer with a model config of the real shape."""
    write_sample(project, LARGE, LETTERS)
    run = {
        "run_dir": "runs/none",
        "precision": precision,
        "model": {"name_or_path": "./model", "training_type": "from_scratch"},
        "data": {
            **{split: f"data/{split}.conll" for split in LETTERS},
            "unit": "document",
            "max_length": 64,
            "stride": 8,
        },
        "training": {
            "max_steps": 1,
            "global_batch_size": 4,
            "micro_batch_size": 2,
            "log_every": 1,
        },
        "evaluation": {"batch_size": 4},
    }
    (project / "run.yaml").write_text(yaml.safe_dump(run))


def write_sample(project: Path, shape: dict[str, int], letters: dict[str, int]) -> None:
    """The sample of ``bigner init`` with another shape of model and some of its letters."""
    init_project(project)
    config = project / "model" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), **shape}))
    for split, count in letters.items():
        path = project / "data" / f"{split}.conll"
        kept = path.read_text(encoding="utf-8").split("# newdoc")[1 : count + 1]
        path.write_text("".join(f"# newdoc{text}" for text in kept), encoding="utf-8")


def measure(project: Path, engine: str) -> dict[str, object]:
    """Train one step under an engine; what it took and the most memory it held."""
    command = [*_launcher(engine), "train", "run.yaml", f"run_dir=runs/{engine}"]
    command.append(f"strategy={{kind: {engine}}}")
    start = time.perf_counter()
    process = subprocess.Popen(command, cwd=project, env={**os.environ, "DS_ACCELERATOR": "cpu"})
    peak = 0
    while process.poll() is None:
        peak = max(peak, _resident_bytes(process.pid))
        time.sleep(0.25)
    if process.returncode:
        sys.exit(f"{engine} failed with exit code {process.returncode}")
    summary = json.loads((project / "runs" / engine / "summary.json").read_text())
    first_line = (project / "runs" / engine / "metrics.jsonl").read_text().splitlines()[0]
    return {
        "engine": engine,
        "seconds": round(time.perf_counter() - start),
        "peak_gib_all_processes": round(peak / 2**30, 2),
        "loss": json.loads(first_line)["loss"],
        "grad_norm": json.loads(first_line)["grad_norm"],
        "validation_words_per_second": summary["validation"]["words_per_second"],
    }


def _launcher(engine: str) -> list[str]:
    if engine == "fsdp":
        launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        return [*launcher, "--nproc-per-node", "2", "-m", "bigner"]
    with socket.socket() as free:
        free.bind(("", 0))
        port = str(free.getsockname()[1])
    launcher = [sys.executable, "-m", "deepspeed.launcher.runner", "--num_accelerators", "2"]
    return [*launcher, "--master_port", port, "--module", "bigner"]


def _resident_bytes(launcher: int) -> int:
    """Resident memory of a process and all below it; shared pages are counted in each."""
    parents, pages = {}, {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        parents[int(status.parent.name)], pages[int(status.parent.name)] = (
            int(fields[1]),
            int(fields[21]),
        )
    family = {launcher}
    while more := {child for child, parent in parents.items() if parent in family} - family:
        family |= more
    return sum(pages.get(member, 0) for member in family) * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    main()
