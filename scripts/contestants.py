"""One run file, trained by bigner and by transformers.Trainer: each started as a user would start
it, and what came of it in the same words.

Both train for an epoch and evaluate, which is warm-up, and then train for another, on the same
windows in another order, and evaluate again: that is measured. ``evaluation.every`` is an epoch's
number of steps, ``training.max_steps`` twice that.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

PEER = Path(__file__).resolve().with_name("peer.py")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one contestant came to in one run."""

    train: float
    """Real tokens a second (no padding) over the measured steps."""
    evaluate: float
    """Real tokens a second in the last evaluation, gathering and scoring included."""
    samples: int
    """Windows trained on in the measured steps."""
    tokens: int
    """Their pieces."""
    loss: float
    """Mean of the training losses logged in the measured steps; a line of bigner's is of its step,
    one of the Trainer's of all since the line before."""
    evaluation_loss: float
    f1: float
    peak_memory_bytes: int
    """Of the process that held most."""


class RunFailedError(Exception):
    """A contestant did not come to its end; the text is the end of what it said."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a run is made."""

    device: str
    """``cpu`` or ``cuda``."""
    ranks: int = 1
    timeout: float = 3600.0
    """Seconds after which it has failed."""
    threads: int | None = None
    """Of each rank; the cores shared out if None, though no more than 4 beside a GPU."""


def run_bigner(run_file: Path, overrides: list[str], place: Place) -> Outcome:
    """Train a run file with bigner, by its command line.

    Raises:
        RunFailedError: it ended with another code than 0, or did not end in time.
    """
    run = yaml.safe_load(run_file.read_text())
    run_dir = run_file.parent / "bigner"
    shutil.rmtree(run_dir, ignore_errors=True)
    engine = run["strategy"]["kind"]
    launcher = _launcher(engine, place.ranks, module="bigner")
    command = [*launcher, "train", str(run_file), f"run_dir={run_dir}", *overrides]
    _run(command, place)
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    summary = json.loads((run_dir / "summary.json").read_text())
    used = yaml.safe_load((run_dir / "config.yaml").read_text())
    warmup = used["evaluation"]["every"]
    steps = [line for line in lines if "split" not in line and line["step"] > warmup]
    scores = [line for line in lines if line.get("split") == "validation"][-1]
    prepared = windows_of(used)
    shutil.rmtree(run_dir)
    return Outcome(
        # The last line counts from the evaluation before the measured steps.
        train=steps[-1]["tokens_per_second"],
        evaluate=_tokens(prepared, "validation") / scores["seconds"],
        samples=(steps[-1]["step"] - warmup) * used["training"]["global_batch_size"],
        tokens=_tokens(prepared, "train"),
        loss=_mean(line["loss"] for line in steps),
        evaluation_loss=scores["loss"],
        f1=scores["f1"],
        peak_memory_bytes=summary["peak_memory_bytes"],
    )


def run_peer(run_file: Path, more: list[str], place: Place, *, best: bool) -> Outcome:
    """Train a run file with transformers.Trainer.

    Raises:
        RunFailedError: it ended with another code than 0, or did not end in time.
    """
    run = yaml.safe_load(run_file.read_text())
    result = run_file.parent / "peer.json"
    result.unlink(missing_ok=True)
    launcher = _launcher(run["strategy"]["kind"], place.ranks, script=PEER)
    flags = [*(["--best"] if best else []), *(word for one in more for word in ("--set", one))]
    _run([*launcher, str(run_file), str(result), "--device", place.device, *flags], place)
    found = json.loads(result.read_text())
    return Outcome(
        train=found["tokens"] / found["seconds"],
        evaluate=_tokens(windows_of(run), "validation") / found["evaluation_seconds"],
        samples=found["samples"],
        tokens=found["tokens"],
        loss=_mean(found["losses"]),
        evaluation_loss=found["evaluation_loss"],
        f1=found["f1"],
        peak_memory_bytes=found["peak_memory_bytes"],
    )


def windows_of(run: dict[str, Any]) -> Any:
    """The prepared data of a run file's content."""
    from bigner.config.schema import RunConfig  # noqa: PLC0415
    from bigner.data.prepare import prepare  # noqa: PLC0415
    from bigner.modeling import load_tokenizer  # noqa: PLC0415

    config = RunConfig.model_validate(run)
    return prepare(config.data, load_tokenizer(config.model), config.data.splits())


def _mean(losses: Iterable[float | None]) -> float:
    finite = [loss for loss in losses if loss is not None]
    return statistics.mean(finite) if finite else math.nan


def _tokens(prepared: Any, split: str) -> int:
    return int(prepared.splits[split].column("length").sum())


def _launcher(
    engine: str, ranks: int, *, module: str | None = None, script: Path | None = None
) -> list[str]:
    """The command that starts a module or script as a user of that engine would."""
    target = ["-m", module] if module else [str(script)]
    if engine == "single":
        return [sys.executable, *target]
    if engine == "fsdp":
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        return [*torchrun, "--nproc-per-node", str(ranks), *target]
    with socket.socket() as free:
        free.bind(("", 0))
        port = str(free.getsockname()[1])
    deepspeed = [sys.executable, "-m", "deepspeed.launcher.runner", "--master_port", port]
    target = ["--module", module] if module else ["--no_local_rank", str(script)]
    return [*deepspeed, "--num_accelerators", str(ranks), *target]


def _run(command: list[str], place: Place) -> None:
    with subprocess.Popen(
        command,
        env=_environment(place),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            said, _ = process.communicate(timeout=place.timeout)
        except subprocess.TimeoutExpired:
            end_launcher(process)
            raise RunFailedError(f"it did not end within {place.timeout:.0f} s") from None
        except BaseException:
            end_launcher(process)
            raise
    if process.returncode:
        end = "\n".join(said.splitlines()[-60:])
        raise RunFailedError(f"{' '.join(command)}\nended with {process.returncode}:\n{end}")


def _environment(place: Place) -> dict[str, str]:
    """Threads as the place says, and no GPU in sight but those to be used."""
    on_cpu = place.device == "cpu"
    seen = "" if on_cpu else ",".join(map(str, range(place.ranks)))
    cores = max(1, (os.cpu_count() or 1) // place.ranks)
    threads = place.threads or (cores if on_cpu else min(4, cores))
    return {
        **({} if on_cpu else {"CUDA_VISIBLE_DEVICES": seen}),
        **os.environ,
        **({"CUDA_VISIBLE_DEVICES": seen} if on_cpu else {}),
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
        "OMP_NUM_THREADS": str(threads),
        "DS_ACCELERATOR": place.device,
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }


def end_launcher(process: subprocess.Popen[str]) -> None:
    """End a launcher, which ends its ranks; killed outright it would leave them behind."""
    process.terminate()
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()


def end_on_sigterm() -> None:
    """Let SIGTERM end what was launched too, as Ctrl-C does."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))


def versions_of(about: dict[str, Any]) -> str:
    """The versions that ``machine`` found, in a line."""
    return ", ".join(f"{name} {version}" for name, version in about["versions"].items())


def machine(device: str) -> dict[str, Any]:
    """What a table of figures has to say beside them."""
    from importlib import metadata  # noqa: PLC0415

    names = ("bigner", "torch", "transformers", "accelerate", "deepspeed")
    versions = {}
    for name in names:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    import torch  # noqa: PLC0415

    from bigner import __version__  # noqa: PLC0415
    from bigner.training.machine import device_name  # noqa: PLC0415

    versions["bigner"] = __version__
    return {
        "date": time.strftime("%Y-%m-%d"),
        "device": device_name(torch.device(device)),
        "cores": os.cpu_count(),
        "versions": versions,
    }
