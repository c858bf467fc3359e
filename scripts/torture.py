"""Kill tiny runs over and over, resume them, and hold what they come to against unbroken runs.

A round is one SIGKILL: of a random rank at a random moment, also while a checkpoint is saved or a
model exported. A chain is one run folder carried from its first step to its last through as many
rounds as it takes. Every other chain keeps its strategy and world size, and must end bit for bit
as a run that nobody killed; the others go on under another strategy and world size each time, and
their losses must be within 1e-6 of those of one process. No round may lose a checkpoint that was
committed, and each leg must go on from the newest. Takes about ten seconds a round.

    python scripts/torture.py --rounds 200 [--seed S] [--keep FOLDER]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml
from large_shape import write_sample

LETTERS = {"train": 8, "validation": 3, "test": 3}
NARROW = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
}
STEPS = 12
TOLERANCE = 1e-6
"""How far a loss may be from the one of a single process; absolute, the losses being about 2."""

SPEED_FIELDS = ("seconds", "words_per_second")
MARK = "BIGNER_TORTURE_LEG"
"""In the environment of a leg's processes alone, and of all of them: they inherit it."""

HALF_WRITTEN = re.compile(r"\.step-\d+\.tmp|\.model\.tmp")

POLL_SECONDS = 0.001
SCAN_SECONDS = 0.05
GRACE_SECONDS = 10
LEG_SECONDS = 600

Moment = Literal["start", "step", "save", "export"]
MOMENTS: dict[Moment, tuple[int, int, float]] = {
    "start": (10, 1, 3.0),
    "step": (30, 5, 0.2),
    "save": (35, 3, 0.03),
    "export": (25, 2, 0.01),
}
"""For each moment: how often it is drawn, how many may pass first, the longest wait (seconds)."""


class ViolationError(Exception):
    """What must never happen."""


@dataclass(frozen=True, slots=True)
class Layout:
    """A strategy and a world size."""

    kind: str
    size: int

    def __str__(self) -> str:
        return f"{self.kind} x{self.size}"


LAYOUTS = [
    Layout("single", 1),
    Layout("fsdp", 2),
    Layout("zero", 2),
    Layout("fsdp", 3),
    Layout("zero", 3),
]
SINGLE = LAYOUTS[0]


@dataclass(frozen=True, slots=True)
class Plan:
    """What is drawn for a leg: how it is launched, and when which rank is killed."""

    layout: Layout
    by_deepspeed: bool
    moment: Moment
    count: int
    """Which one since the leg began: the second save, the fourth step."""

    wait: float
    """Seconds from there to the kill."""

    victim: int

    @classmethod
    def draw(cls, draws: random.Random, layout: Layout | None) -> Plan:
        """A plan, under ``layout`` if one is given."""
        # Each process takes seconds to import what it needs: the fewer, the more often.
        likely = [1 / possible.size for possible in LAYOUTS]
        layout = layout or draws.choices(LAYOUTS, likely)[0]
        weights = [weight for weight, _, _ in MOMENTS.values()]
        moment = draws.choices(list(MOMENTS), weights)[0]
        _, most, longest = MOMENTS[moment]
        return cls(
            layout=layout,
            by_deepspeed=layout.kind == "zero" and draws.random() < 0.2,
            moment=moment,
            count=draws.randint(1, most),
            wait=draws.uniform(0, longest),
            victim=draws.randrange(layout.size),
        )

    def __str__(self) -> str:
        launcher = " by deepspeed" if self.by_deepspeed else ""
        when = f"{self.moment} {self.count} + {self.wait * 1000:.0f} ms"
        return f"{f'{self.layout}{launcher}':<20}  {when:<18}  rank {self.victim}"


class RunFolder:
    """A run's folder seen from outside: its log, and every checkpoint that was ever committed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints = path / "checkpoints"
        self.committed: dict[str, tuple[Any, ...]] = {}

    def note_committed(self) -> None:
        """Remember what each checkpoint is like that was not there before."""
        for name in _names(self.checkpoints):
            if name.startswith("step-") and name not in self.committed:
                with suppress(FileNotFoundError):
                    self.committed[name] = _contents(self.checkpoints / name)

    def check_committed(self) -> None:
        """Every checkpoint that was ever committed is still there as it was.

        Raises:
            ViolationError: one is not.
        """
        for name, before in self.committed.items():
            try:
                now = _contents(self.checkpoints / name)
            except FileNotFoundError:
                raise ViolationError(
                    f"{self.checkpoints / name} was committed and is gone"
                ) from None
            if now != before:
                raise ViolationError(f"{self.checkpoints / name} was committed and has changed")

    def newest(self) -> int | None:
        """The step of the newest committed checkpoint, if there is one."""
        return max((int(name.removeprefix("step-")) for name in self.committed), default=None)

    def half_written(self) -> set[tuple[str, int]]:
        """The temporary folders of checkpoints and models, each with its time of change."""
        found = set()
        for folder in (self.path, self.checkpoints):
            for name in _names(folder):
                if HALF_WRITTEN.fullmatch(name):
                    with suppress(FileNotFoundError):
                        found.add((name, (folder / name).stat().st_mtime_ns))
        return found

    @property
    def metrics(self) -> Path:
        """The file of the lines below."""
        return self.path / "metrics.jsonl"

    def lines(self) -> list[dict[str, Any]]:
        """The whole lines of metrics.jsonl."""
        try:
            text = self.metrics.read_text(encoding="utf-8")
        except FileNotFoundError:
            return []
        whole = (line for line in text.splitlines(keepends=True) if line.endswith("\n"))
        return [json.loads(line) for line in whole]

    def summary(self) -> dict[str, Any] | None:
        """What summary.json holds, once the run is done."""
        path = self.path / "summary.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def _names(folder: Path) -> list[str]:
    try:
        return [path.name for path in folder.iterdir()]
    except FileNotFoundError:
        return []


def _contents(checkpoint: Path) -> tuple[Any, ...]:
    """What must not change in a checkpoint: its manifest, and the names and sizes of its files."""
    manifest = hashlib.sha256((checkpoint / "manifest.json").read_bytes()).hexdigest()
    files = sorted(
        (str(path.relative_to(checkpoint)), path.stat().st_size)
        for path in checkpoint.rglob("*")
        if path.is_file()
    )
    return (manifest, *files)


class Leg:
    """One launch of a run, its processes, and what they print.

    Its processes are known by the mark in their environment, and not as children of children: who
    loses its parent is adopted by another and must be found all the same.
    """

    def __init__(self, project: Path, run: RunFolder, plan: Plan, output: Path) -> None:
        self.run = run
        self.plan = plan
        self.output = output
        self.resumes_at = run.newest()
        self._mark = uuid.uuid4().hex
        self._started = time.monotonic()
        with output.open("w") as stream:
            self._launcher = subprocess.Popen(
                [*_launcher(plan), "train", "run.yaml", *_overrides(run, plan)],
                cwd=project,
                env={**_environment(), MARK: self._mark},
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
            )

    def goes_on(self) -> bool:
        """Whether it has not ended yet.

        Raises:
            ViolationError: it takes so long that it must hang.
        """
        if time.monotonic() - self._started > LEG_SECONDS:
            raise ViolationError(f"a leg hangs, see {self.output}")
        return self._launcher.poll() is None

    def find(self, rank: int) -> int | None:
        """The process of a rank, once there is one."""
        if self.plan.layout == SINGLE:
            return self._launcher.pid
        # A rank is older than the compilers and the like that it may have started.
        ranks = {pid for pid, env in self._processes() if f"RANK={rank}" in env}
        return min(ranks, default=None)

    def end(self, grace: float) -> int:
        """See to it that no process is left; returns the launcher's exit code.

        Args:
            grace: seconds for the launcher to end the ranks and itself.
        """
        with suppress(subprocess.TimeoutExpired):
            self._launcher.wait(grace)
        while left := [pid for pid, _ in self._processes()]:
            for pid in left:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self._launcher.poll()
            time.sleep(0.01)
        return self._launcher.wait()

    def resumed_at(self) -> set[int]:
        """The steps it says it went on from."""
        text = self.output.read_text(encoding="utf-8", errors="replace")
        return {int(step) for step in re.findall(r"going on from step (\d+)", text)}

    def _processes(self) -> Iterator[tuple[int, list[str]]]:
        """Its living processes, each with its environment."""
        for process in Path("/proc").iterdir():
            if process.name.isdecimal():
                with suppress(OSError):
                    variables = (process / "environ").read_bytes().decode(errors="replace")
                    if f"{MARK}={self._mark}" in (environment := variables.split("\0")):
                        yield int(process.name), environment


@contextmanager
def launched(project: Path, run: RunFolder, plan: Plan, output: Path) -> Iterator[Leg]:
    """A leg of which nothing outlives the block, however the block is left."""
    leg = Leg(project, run, plan, output)
    try:
        yield leg
    finally:
        leg.end(grace=0)


def _launcher(plan: Plan) -> list[str]:
    if plan.layout == SINGLE:
        return [sys.executable, "-m", "bigner"]
    size = str(plan.layout.size)
    if plan.by_deepspeed:
        with socket.socket() as free:
            free.bind(("", 0))
            port = str(free.getsockname()[1])
        launcher = [sys.executable, "-m", "deepspeed.launcher.runner", "--num_accelerators", size]
        return [*launcher, "--master_port", port, "--module", "bigner"]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    return [*launcher, "--nproc-per-node", size, "-m", "bigner"]


def _overrides(run: RunFolder, plan: Plan) -> list[str]:
    return [f"run_dir={run.path}", f"strategy={{kind: {plan.layout.kind}}}"]


def _environment() -> dict[str, str]:
    """The environment of a leg: one thread a rank, no GPU, nothing of an outer launch."""
    outer = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
    kept = {name: value for name, value in os.environ.items() if name not in outer}
    return {
        **kept,
        # DeepSpeed looks for ninja there.
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), kept.get("PATH", "")]),
        "OMP_NUM_THREADS": "1",
        "DS_ACCELERATOR": "cpu",
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }


class Countdown:
    """How many of a plan's moments a leg has come to."""

    def __init__(self, run: RunFolder, moment: Moment) -> None:
        self._run = run
        self._moment: Moment = moment
        self._first = run.newest() or 0
        # A killed leg leaves lines and half-written folders behind, which are none of this one's.
        self._lines_seen = _stamp(run.metrics)
        self._steps = 0
        self._old_folders = run.half_written()
        self._seen: set[str] = set()
        self._passed = 0

    def passed(self) -> int:
        """To be asked again and again: what comes and goes between two calls is missed."""
        self._count_steps()
        if self._moment == "step" or not self._steps:
            return self._steps
        found = self._run.half_written() - self._old_folders
        start = ".step-" if self._moment == "save" else ".model"
        now = {name for name, _ in found if name.startswith(start)}
        self._passed += len(now - self._seen)
        self._seen = now
        return self._passed

    def _count_steps(self) -> None:
        """Count the steps that were logged since the leg began."""
        stamp = _stamp(self._run.metrics)
        if stamp != self._lines_seen:
            self._lines_seen = stamp
            last = max((line["step"] for line in self._run.lines()), default=0)
            self._steps = max(0, last - self._first)


def _stamp(path: Path) -> tuple[int, int] | None:
    """Changes whenever the file does."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_mtime_ns, status.st_size


def kill_at_its_moment(leg: Leg) -> bool:
    """Wait for the moment and kill the victim; false if the leg ended before it came."""
    plan, victim = leg.plan, None
    countdown = Countdown(leg.run, plan.moment)
    next_scan = 0.0
    while leg.goes_on():
        leg.run.note_committed()
        if victim is None and time.monotonic() >= next_scan:
            victim = leg.find(plan.victim)
            next_scan = time.monotonic() + SCAN_SECONDS
        if victim is not None and (plan.moment == "start" or countdown.passed() >= plan.count):
            return _kill_after(leg, victim)
        time.sleep(POLL_SECONDS)
    return False


def _kill_after(leg: Leg, victim: int) -> bool:
    moment = time.monotonic() + leg.plan.wait
    while (left := moment - time.monotonic()) > 0:
        leg.run.note_committed()
        time.sleep(min(left, POLL_SECONDS))
    if leg.goes_on():
        with suppress(ProcessLookupError):
            os.kill(victim, signal.SIGKILL)
            return True
    return False


@dataclass
class Torture:
    """All rounds, and what came of them."""

    project: Path
    rounds: int
    seed: int
    clean: bool
    """Delete the run of a chain that held."""

    kills: int = 0
    halves: int = 0
    """Kills that left half a checkpoint or half a model behind."""

    same: int = 0
    """Chains under one layout throughout."""

    mixed: int = 0
    largest_difference: float = 0.0
    _unbroken: dict[Layout, RunFolder] = field(default_factory=dict)

    def carry_out(self) -> None:
        """Chain after chain until all rounds were made; the last one to its end.

        Raises:
            ViolationError: a round or a chain did not hold.
        """
        chain = 0
        while self.kills < self.rounds:
            kept = LAYOUTS[chain // 2 % len(LAYOUTS)] if chain % 2 == 0 else None
            chain += 1
            run = self._carry_to_its_end(chain, kept)
            if kept:
                self.same += 1
                check_same(run, self._unbroken_run(kept))
            else:
                self.mixed += 1
                difference = check_alike(run, self._unbroken_run(SINGLE))
                self.largest_difference = max(self.largest_difference, difference)
            if self.clean:
                shutil.rmtree(run.path)

    def result(self) -> str:
        """What held, in one line."""
        return (
            f"{self.kills} rounds ({self.halves} of them left half a checkpoint or model), "
            f"{self.same + self.mixed} chains, {self.same} of them under one strategy throughout "
            f"(bit for bit), {self.mixed} mixed (largest loss difference "
            f"{self.largest_difference:.1e}); no committed checkpoint was lost"
        )

    def _carry_to_its_end(self, chain: int, kept: Layout | None) -> RunFolder:
        run = RunFolder(self.project / "runs" / f"chain-{chain}")
        leg = 0
        while run.summary() is None:
            leg += 1
            plan = Plan.draw(random.Random(f"{self.seed}/{chain}/{leg}"), kept)
            output = self.project / f"chain-{chain}-leg-{leg}.log"
            before = run.half_written()
            if self._run_leg(run, plan, output, kill=self.kills < self.rounds):
                self.kills += 1
                left = sorted(name for name, _ in run.half_written() - before)
                self.halves += bool(left)
                parts = [f"round {self.kills:>3}", f"chain {chain:>2}", str(plan)]
                print(*parts, f"committed {len(run.committed):>2}", *left, sep="  ", flush=True)
        return run

    def _run_leg(self, run: RunFolder, plan: Plan, output: Path, *, kill: bool) -> bool:
        """One leg to its kill or its end; returns whether it was killed.

        Raises:
            ViolationError: it failed without being killed, lost a checkpoint, or did not go on
                from the newest.
        """
        with launched(self.project, run, plan, output) as leg:
            hit = kill and kill_at_its_moment(leg)
            code = leg.end(GRACE_SECONDS if hit else LEG_SECONDS)
        run.note_committed()
        run.check_committed()
        if code and not hit:
            raise ViolationError(f"a leg ended with {code} by itself, see {output}")
        if not code and run.summary() is None:
            raise ViolationError(f"a leg ended with 0 before the run was done, see {output}")
        wanted = set() if leg.resumes_at is None else {leg.resumes_at}
        resumed = leg.resumed_at()
        # Killed while it started, it may not have come so far as to say it.
        if resumed != wanted and (resumed or not (code and plan.moment == "start")):
            raise ViolationError(f"went on from {resumed}, expected {wanted}, see {output}")
        return code != 0

    def _unbroken_run(self, layout: Layout) -> RunFolder:
        """A run that nobody killed; made when it is first asked for."""
        if layout not in self._unbroken:
            name = f"unbroken-{layout.kind}-{layout.size}"
            run = RunFolder(self.project / "runs" / name)
            plan = Plan(layout, by_deepspeed=False, moment="step", count=0, wait=0, victim=0)
            self._run_leg(run, plan, self.project / f"{name}.log", kill=False)
            self._unbroken[layout] = run
        return self._unbroken[layout]


def check_same(run: RunFolder, unbroken: RunFolder) -> None:
    """The run came bit for bit to what the unbroken one did.

    Raises:
        ViolationError: it did not.
    """
    check_course(run, unbroken)
    for name in ("loss", "grad_norm"):
        for step, (here, there) in enumerate(zip(*_both(run, unbroken, name), strict=True), 1):
            if here != there:
                raise ViolationError(f"{run.path}: {name} of step {step} is {here}, not {there}")
    for name, here in _results(run).items():
        if here != (there := _results(unbroken)[name]):
            raise ViolationError(f"{run.path}: {name} came to {here}, not {there}")


def check_alike(run: RunFolder, unbroken: RunFolder) -> float:
    """The run's losses are those of the unbroken one but for rounding; returns how far from them.

    Raises:
        ViolationError: they are not.
    """
    check_course(run, unbroken)
    pairs = zip(*_both(run, unbroken, "loss"), strict=True)
    difference = max((abs(here - there) for here, there in pairs), default=0.0)
    if not difference <= TOLERANCE:
        raise ViolationError(f"{run.path}: a loss is {difference:.1e} from that of {SINGLE}")
    return difference


def check_course(run: RunFolder, unbroken: RunFolder) -> None:
    """The run is done, and every step and evaluation stands in its log once and in order.

    Raises:
        ViolationError: it is not so.
    """
    if (steps := (run.summary() or {}).get("steps")) != STEPS:
        raise ViolationError(f"{run.path}: ended after {steps} steps, not {STEPS}")
    here, there = (
        [(line["step"], line.get("split")) for line in each.lines()] for each in (run, unbroken)
    )
    if here != there:
        raise ViolationError(f"{run.metrics} holds the steps {here}, not {there}")


def _both(run: RunFolder, unbroken: RunFolder, name: str) -> list[list[float]]:
    """A value of each training step, of both runs."""
    return [
        [line[name] for line in each.lines() if "split" not in line] for each in (run, unbroken)
    ]


def _results(run: RunFolder) -> dict[str, Any]:
    """What a run came to, as far as it does not depend on the time it took."""
    summary = run.summary()
    assert summary is not None
    weights = (run.path / "model" / "model.safetensors").read_bytes()
    scores = {
        split: {name: value for name, value in summary[split].items() if name not in SPEED_FIELDS}
        for split in ("validation", "test")
    }
    return {
        "best_step": summary["best_step"],
        **scores,
        "model.safetensors": hashlib.sha256(weights).hexdigest(),
    }


def write_project(project: Path) -> None:
    """Some letters of the sample, a model of two narrow layers, and ``run.yaml``."""
    write_sample(project, NARROW, LETTERS)
    run = {
        "run_dir": "runs/none",
        "precision": "fp32",
        "model": {"name_or_path": "./model", "training_type": "from_scratch", "dropout": 0.0},
        "data": {
            **{split: f"data/{split}.conll" for split in LETTERS},
            "columns": {"words": 0, "tags": 1},
            "max_length": 64,
            "stride": 8,
            "cache_dir": "cache",
        },
        "training": {
            "max_steps": STEPS,
            "global_batch_size": 12,
            "micro_batch_size": 2,
            "learning_rate": 1e-3,
            "log_every": 1,
        },
        # The loss falls from one evaluation to the next, so each exports a model.
        "evaluation": {"every": 2, "metric": "loss"},
        "checkpoint": {"every_steps": 1, "keep_last": 1000},
    }
    (project / "run.yaml").write_text(yaml.safe_dump(run))


def main() -> None:
    """Make the rounds asked for, and say what held or what did not."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, required=True, help="how often a run is killed")
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn at random")
    parser.add_argument("--keep", type=Path, help="folder to work in, kept afterwards")
    options = parser.parse_args()
    keep = options.keep is not None
    folder = options.keep or Path(tempfile.mkdtemp(prefix="torture-"))
    project = folder.resolve() / "project"
    # Ended from outside, it ends what it launched.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("torture: stopped"))
    try:
        write_project(project)
        torture = Torture(project, options.rounds, options.seed, clean=not keep)
        torture.carry_out()
    except ViolationError as error:
        keep = True
        sys.exit(f"torture: {error}; all of it is kept in {project}")
    finally:
        if not keep:
            shutil.rmtree(folder)
    print(torture.result())


if __name__ == "__main__":
    main()
