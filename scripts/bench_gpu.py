"""Large encoders on GPUs: real tokens a second, model FLOPs utilisation, peak memory.

XLM-RoBERTa-large's shape (24 layers, 1024 wide, 559 million parameters) and XLM-R-XL's (36 layers,
2560 wide, 3.5 billion), random weights, under the strategies, beside transformers.Trainer with its
best flags (``peer.py`` says what was set); ``peer_default`` is the Trainer without them. Windows
are as long as those of WNUT-17 (under XLM-R's tokenizer) or all full (512 pieces); one epoch over
them and an evaluation are warm-up, the next are measured. Tokens are those of the windows, without
padding; the last step of an epoch is the one that is logged.

    python scripts/bench_gpu.py [--cases large-bf16-full-single,xl-fp16-full-zero] [--ranks 1]
        [--contestants bigner,peer,peer_default]
        [--steps 10] [--seconds 480] [--set training.micro_batch_size=64] [--json FILE]
    python scripts/bench_gpu.py --device cpu --shape tiny      # the same code at a toy shape

A case is SHAPE-PRECISION-LENGTHS-STRATEGY, out of large, xl, narrow (as many layers as large, next
to nothing to compute in them), tiny; fp32, bf16, fp16; wnut, full;
single, fsdp, zero. Ranks are processes of this machine, each with a GPU and a batch of its own.
What runs out of memory or fails leaves its row empty with the reason, and so does what would begin
after ``--seconds``. Exit code 2 where there is no GPU. TMPDIR should have room for two exported
models (28 GB for XL; /dev/shm saves the time of writing them).

Model FLOPs utilisation (MFU) is the FLOPs that the model needs for the measured windows, over their
seconds, over the matrix rate of all ranks: what products of square matrices reach in that dtype on
this device, measured in the same run (best of five series; 8192 wide on a GPU, 128 on a CPU).
The model needs, after PaLM (Chowdhery et al. 2022, appendix B, without its halving for causality),

    training      6 * N * T + 12 * layers * hidden * S
    evaluation    2 * N * T +  4 * layers * hidden * S

where N counts the parameters outside the embeddings (head included), T is the number of tokens and
S the sum of the squares of the windows' lengths. Padding, recomputation under gradient
checkpointing, norms and softmax do not count.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
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
)
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from bigner.sample.tokenizer import save_tokenizer

SCRIPT = Path(__file__).resolve()
ROOT = SCRIPT.parents[1]
DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
KINDS = ("single", "fsdp", "zero")
TITLES = {"bigner": "bigner", "peer": "Trainer, best flags", "peer_default": "Trainer"}
EVALUATION_BATCHES = 4
LEAST_SECONDS = 20
"""With less left nothing is begun."""

# 64 quantiles of the lengths of WNUT-17's training sentences under XLM-R's tokenizer, special
# tokens included: their mean is 32.5 as there, and so is the sum of squares within a thousandth.
# fmt: off
WNUT_LENGTHS = (
    7, 9, 11, 13, 14, 15, 16, 17, 18, 18, 19, 20, 21, 21, 22, 23, 23, 24, 25, 25, 26, 26, 27, 28,
    28, 29, 29, 30, 31, 31, 32, 32, 33, 34, 34, 35, 35, 36, 37, 37, 38, 38, 39, 40, 40, 41, 41, 42,
    42, 43, 44, 44, 45, 45, 46, 47, 48, 48, 49, 51, 52, 53, 56, 60,
)
# fmt: on


@dataclass(frozen=True, slots=True)
class Shape:
    """An encoder, and how it is trained."""

    config: dict[str, Any]
    full: int
    """Pieces in a full window."""
    batch: dict[str, int]
    """Lengths -> windows that a rank computes at once."""
    checkpointing: bool = False


def _shape(kind: str, layers: int, hidden: int, heads: int, inner: int) -> dict[str, Any]:
    name = {"xlm-roberta": "XLMRoberta", "xlm-roberta-xl": "XLMRobertaXL"}[kind]
    return {
        "architectures": [f"{name}ForTokenClassification"],
        "model_type": kind,
        "num_hidden_layers": layers,
        "hidden_size": hidden,
        "num_attention_heads": heads,
        "intermediate_size": inner,
        "vocab_size": 250_002,
        "max_position_embeddings": 514,
        "type_vocab_size": 1,
        "layer_norm_eps": 1e-5,
        "bos_token_id": 0,
        "pad_token_id": 1,
        "eos_token_id": 2,
    }


SHAPES = {
    "large": Shape(_shape("xlm-roberta", 24, 1024, 16, 4096), 512, {"wnut": 256, "full": 64}),
    "xl": Shape(
        _shape("xlm-roberta-xl", 36, 2560, 32, 10_240), 512, {"wnut": 128, "full": 16}, True
    ),
    "narrow": Shape(
        _shape("xlm-roberta", 24, 32, 2, 64) | {"vocab_size": 1000}, 64, {"wnut": 8, "full": 4}
    ),
    "tiny": Shape(
        _shape("xlm-roberta", 2, 32, 2, 64) | {"vocab_size": 1000}, 64, {"wnut": 8, "full": 4}
    ),
}
FOR_PROCESSORS = ("tiny", "narrow")
DEFAULT_CASES = (
    *("large-bf16-full-single", "large-bf16-wnut-single", "large-fp16-full-fsdp"),
    *("large-fp16-full-zero", "xl-bf16-full-fsdp", "xl-fp16-full-zero"),
    *("tiny-bf16-wnut-single", "tiny-bf16-full-fsdp", "tiny-bf16-full-zero"),
)


@dataclass(frozen=True, slots=True)
class Case:
    """What one row is about."""

    shape: str
    precision: str
    lengths: str
    kind: str

    @classmethod
    def parse(cls, name: str) -> Case:
        """The case of a name such as ``large-bf16-full-single``.

        Raises:
            ValueError: it names something that there is not.
        """
        parts = name.split("-")
        known = (tuple(SHAPES), tuple(DTYPES), ("wnut", "full"), KINDS)
        for part, names in zip(parts, known, strict=False):
            if part not in names:
                raise ValueError(f"case {name!r}: {part!r} is none of {', '.join(names)}")
        if len(parts) != len(known):
            raise ValueError(f"case {name!r} is not SHAPE-PRECISION-LENGTHS-STRATEGY")
        return cls(*parts)


@dataclass(frozen=True, slots=True)
class Row:
    """A contestant's figures in a case, or why there are none."""

    case: Case
    contestant: str
    outcome: Outcome | None
    reason: str = ""
    mfu: float | None = None
    evaluation_mfu: float | None = None


def main() -> None:
    """Measure the matrix rate, then the cases, and print the table."""
    end_on_sigterm()
    options = _options()
    if options.matrix_rate:
        print(json.dumps(matrix_rates(options.device)))
        return
    rates = _matrix_rates_apart(options.device)
    with tempfile.TemporaryDirectory() as scratch:
        rows: list[Row] = []
        settings = {name: getattr(options, name) for name in ("ranks", "steps", "set", "peer_set")}
        report = {
            "machine": machine(options.device),
            "settings": settings,
            "matrix_flops_per_second": rates,
        }
        for row in measure(options, rates, (options.keep or Path(scratch)).resolve()):
            rows.append(row)
            if options.json:
                # What was measured is not lost with what comes after it.
                report["rows"] = [asdict(row) for row in rows]
                options.json.write_text(json.dumps(report, indent=2) + "\n")
    print("\n".join(table(rows, report)))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "--cases",
        help=f"SHAPE-PRECISION-LENGTHS-STRATEGY, ...; by default\n"
        f"{', '.join(DEFAULT_CASES)}, as far as the device and --shape allow",
    )
    parser.add_argument(
        "--shape", choices=["large", "xl", "tiny"], help="of the default cases those of it"
    )
    parser.add_argument("--contestants", default="bigner,peer")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--ranks", type=int, default=1, help="processes, but for single")
    parser.add_argument("--threads", type=int, help="of a rank; all cores shared out if absent")
    parser.add_argument("--steps", type=int, default=10, help="measured, and as many before them")
    parser.add_argument("--seconds", type=float, default=480.0, help="in all")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="bigner")
    parser.add_argument("--peer-set", action="append", default=[], metavar="FIELD=VALUE")
    parser.add_argument("--json", type=Path, help="file for all figures")
    parser.add_argument("--keep", type=Path, help="folder to work in, kept afterwards")
    parser.add_argument("--matrix-rate", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.ranks < 1 or options.steps < 1:
        parser.error("--ranks and --steps are 1 or more")
    options.contestants = options.contestants.split(",")
    if unknown := set(options.contestants) - set(TITLES):
        parser.error(f"--contestants: {', '.join(unknown)} is none of {', '.join(TITLES)}")
    try:
        options.cases = [Case.parse(name) for name in _case_names(options)]
    except ValueError as error:
        parser.error(str(error))
    _check_device(parser, options)
    return options


def _case_names(options: argparse.Namespace) -> list[str]:
    if options.cases:
        return options.cases.split(",")
    shapes = [options.shape] if options.shape else ["large", "xl"]
    return [name for name in DEFAULT_CASES if name.split("-")[0] in shapes]


def _check_device(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    import torch  # noqa: PLC0415

    if options.device == "cuda":
        found = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if not found:
            parser.exit(
                2, "bench_gpu: no GPU here; `--device cpu --shape tiny` runs a toy shape instead\n"
            )
        if options.ranks > found:
            parser.exit(2, f"bench_gpu: --ranks {options.ranks}, and there are {found} GPUs\n")
    elif any(case.shape not in FOR_PROCESSORS for case in options.cases):
        parser.exit(2, f"bench_gpu: --device cpu is for the shapes {', '.join(FOR_PROCESSORS)}\n")


# ------------------------------------------------------------ what the device can do


def matrix_rates(device: str) -> dict[str, float]:
    """FLOPs a second that products of square matrices reach, by precision."""
    import torch  # noqa: PLC0415

    width, repeats = (8192, 20) if device == "cuda" else (128, 20)
    rates = {}
    for precision, name in DTYPES.items():
        left = torch.randn(width, width, device=device).to(getattr(torch, name))
        right = torch.randn(width, width, device=device).to(getattr(torch, name))
        seconds = []
        for _ in range(6):
            _wait(torch, device)
            start = time.perf_counter()
            for _ in range(repeats):
                left @ right
            _wait(torch, device)
            seconds.append((time.perf_counter() - start) / repeats)
        # The first series sets things up.
        rates[precision] = 2 * width**3 / min(seconds[1:])
    return rates


def _wait(torch: Any, device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def _matrix_rates_apart(device: str) -> dict[str, float]:
    """In a process of its own, which gives the device's memory back."""
    command = [sys.executable, str(SCRIPT), "--matrix-rate", "--device", device, "--shape", "tiny"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    rates: dict[str, float] = json.loads(done.stdout)
    return rates


# ------------------------------------------------------------ running


def measure(options: argparse.Namespace, rates: dict[str, float], work: Path) -> Iterator[Row]:
    """A row for each contestant in each case; nothing that happens in one keeps the next back."""
    deadline = time.monotonic() + options.seconds
    for case in options.cases:
        ranks = 1 if case.kind == "single" else options.ranks
        run_file = write_run(work, case, options.steps, ranks)
        flops = flops_per_token(yaml.safe_load(run_file.read_text()), lengths_of(case))
        for contestant in options.contestants:
            row = _measure_one(options, case, contestant, run_file, deadline - time.monotonic())
            if row.outcome is not None:
                possible = rates[case.precision] * ranks
                row = Row(
                    case,
                    contestant,
                    row.outcome,
                    mfu=row.outcome.train * flops / possible,
                    evaluation_mfu=row.outcome.evaluate * flops / 3 / possible,
                )
            print("\t".join(_cells(row)), file=sys.stderr, flush=True)
            yield row


def _measure_one(
    options: argparse.Namespace, case: Case, contestant: str, run_file: Path, left: float
) -> Row:
    if left < LEAST_SECONDS:
        return Row(case, contestant, None, f"no time left of {options.seconds:.0f} s")
    ranks = 1 if case.kind == "single" else options.ranks
    place = Place(options.device, ranks, timeout=left, threads=options.threads)
    try:
        if contestant == "bigner":
            return Row(case, contestant, run_bigner(run_file, options.set, place))
        if find_spec("accelerate") is None:
            return Row(case, contestant, None, "accelerate is not installed")
        best = contestant == "peer"
        return Row(case, contestant, run_peer(run_file, options.peer_set, place, best=best))
    except RunFailedError as error:
        print(error, file=sys.stderr)
        return Row(case, contestant, None, reason_of(str(error)))


def reason_of(said: str) -> str:
    """Why a run failed, in a line of a table."""
    if "out of memory" in said or "OutOfMemoryError" in said:
        return "out of memory"
    lines = [re.sub(r"^\[rank\d+\]: *", "", line) for line in said.splitlines()]
    errors = [line for line in lines if re.match(r"[\w.]+Error: |bigner: .*error: ", line)]
    return (errors or lines)[0].replace("|", "/")[:160]


def write_run(work: Path, case: Case, steps: int, ranks: int) -> Path:
    """A folder with model, data and run file of a case; returns the run file."""
    shape, lengths = SHAPES[case.shape], lengths_of(case)
    batch = shape.batch[case.lengths]
    folder = work / f"{case.shape}-{case.lengths}-{ranks}"
    if not folder.exists():
        (folder / "model").mkdir(parents=True)
        (folder / "model" / "config.json").write_text(json.dumps(shape.config))
        words = _save_tokenizer(folder / "model")
        draw = random.Random(0)
        for split, windows in (
            ("train", steps * batch * ranks),
            ("validation", EVALUATION_BATCHES * batch * ranks),
        ):
            _write_corpus(folder / f"{split}.conll", windows, lengths, words, draw)
    run = _run(folder, case, steps, ranks)
    run_file = folder / "run.yaml"
    run_file.write_text(yaml.safe_dump(run, sort_keys=False))
    return run_file


def lengths_of(case: Case) -> tuple[int, ...]:
    """Lengths that the windows of a case have in turn."""
    return (SHAPES[case.shape].full,) if case.lengths == "full" else WNUT_LENGTHS


def _run(folder: Path, case: Case, steps: int, ranks: int) -> dict[str, Any]:
    shape = SHAPES[case.shape]
    batch = shape.batch[case.lengths]
    strategy = {"kind": case.kind}
    if case.kind == "zero":
        strategy["deepspeed_config"] = str(ROOT / "ds_configs" / "zero3.json")
    return {
        "run_dir": str(folder / "run"),
        "precision": case.precision,
        "model": {"name_or_path": str(folder / "model"), "training_type": "from_scratch"},
        "data": {
            "train": str(folder / "train.conll"),
            "validation": str(folder / "validation.conll"),
            "max_length": max(shape.full, *WNUT_LENGTHS),
            "cache_dir": str(folder / "cache"),
        },
        "training": {
            "max_steps": 2 * steps,
            "global_batch_size": batch * ranks,
            "micro_batch_size": batch,
            "learning_rate": 1e-5,
            "gradient_checkpointing": shape.checkpointing,
            # Neither contestant waits for the GPU but at the end.
            "log_every": steps,
        },
        "strategy": strategy,
        "evaluation": {"every": steps, "batch_size": batch},
    }


def _save_tokenizer(folder: Path) -> list[str]:
    """A tokenizer that has one piece for each of its words; returns those."""
    words = ["0123456789", *(f"w{i}" for i in range(900))]
    special = ("<s>", "<pad>", "</s>", "<unk>")
    vocabulary = {piece: i for i, piece in enumerate((*special, *words, "<mask>"))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    tokenizer.add_special_tokens(["<mask>"])
    save_tokenizer(tokenizer, folder)
    return words


def _write_corpus(
    path: Path, windows: int, lengths: tuple[int, ...], words: list[str], draw: random.Random
) -> None:
    """Sentences of one piece a word, so that windows are exactly as long as wished."""
    with path.open("w", encoding="utf-8") as stream:
        for i in range(windows):
            # Spread over the lengths, however few windows there are.
            length = (
                lengths[i * len(lengths) // windows]
                if windows < len(lengths)
                else (lengths[i % len(lengths)])
            )
            for word in draw.choices(words, k=length - 2):
                tag = draw.choice(("B-PER", "B-LOC")) if draw.random() < 0.05 else "O"
                stream.write(f"{word} {tag}\n")
            stream.write("\n")


def flops_per_token(run: dict[str, Any], lengths: tuple[int, ...]) -> float:
    """FLOPs that training needs for a token, a mean over windows of these lengths; evaluation
    needs a third. See the formula at the top.
    """
    from bigner.config.schema import ModelConfig  # noqa: PLC0415
    from bigner.modeling import anatomy, build_model  # noqa: PLC0415

    model = build_model(ModelConfig.model_validate(run["model"]), ("O", "B", "I"))
    embeddings = anatomy(model).embeddings
    parameters = sum(p.numel() for name, p in model.named_parameters() if name not in embeddings)
    config = model.config
    squares = sum(length**2 for length in lengths) / sum(lengths)
    return float(6 * parameters + 12 * config.num_hidden_layers * config.hidden_size * squares)


# ------------------------------------------------------------ telling


def table(rows: list[Row], report: dict[str, Any]) -> Iterator[str]:
    """The lines of a markdown table."""
    titles = [
        *("shape", "precision", "lengths", "strategy", "", "training, tokens/s", "MFU"),
        *("peak GiB", "evaluation, tokens/s", "MFU", "why not"),
    ]
    yield "| " + " | ".join(titles) + " |"
    yield "| --- " * len(titles) + "|"
    for row in rows:
        yield "| " + " | ".join(_cells(row)) + " |"
    yield ""
    about, settings = report["machine"], report["settings"]
    rates = report["matrix_flops_per_second"]
    matrices = ", ".join(f"{name} {rate / 1e12:.3g}" for name, rate in rates.items())
    yield (
        f"{about['date']}, {about['device']}; {versions_of(about)}; {settings['ranks']} ranks; "
        f"{settings['steps']} steps after as many of warm-up; matrix products of {matrices} "
        f"TFLOP/s."
    )


def _cells(row: Row) -> list[str]:
    case, found = row.case, row.outcome
    cells = [case.shape, case.precision, case.lengths, case.kind, TITLES[row.contestant]]
    if found is None:
        return [*cells, "", "", "", "", "", row.reason]
    return [
        *cells,
        f"{found.train:,.0f}",
        f"{row.mfu:.1%}",
        f"{found.peak_memory_bytes / 2**30:.1f}",
        f"{found.evaluate:,.0f}",
        f"{row.evaluation_mfu:.1%}",
        "",
    ]


if __name__ == "__main__":
    main()
