"""The command line: one command per verb, each importing its verb when it is called."""

from __future__ import annotations

import json
import os
import shlex
import sys
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import typer

from bigner import __version__, collector
from bigner.config.schema import Decoding, Precision, RunConfig, Split
from bigner.planning.hardware import GPUS
from bigner.prediction.options import (
    Aggregation,
    InputFormat,
    OutputFormat,
    TaggerOptions,
    WordRule,
)
from bigner.terminal.completion import one_of, overrides_of, run_files, use_bash_script
from bigner.terminal.help import GuideCommand, GuideGroup
from bigner.terminal.quiet import Quiet

if TYPE_CHECKING:
    from bigner.comparison.scores import Comparison
    from bigner.config.load import Source

ScoredSplit = Literal["test", "validation"]

use_bash_script()
app = typer.Typer(
    name="bigner",
    cls=GuideGroup,
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Fine-tune large token-classification models for named-entity recognition, sharded with "
    "DeepSpeed ZeRO or PyTorch FSDP2, and score them exactly.",
)

RunFile = Annotated[
    Path, typer.Argument(metavar="RUN.YAML", help="The run file.", autocompletion=run_files)
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[KEY=VALUE]...",
        help="Overrides of the run file: training.learning_rate=1e-5, strategy='{kind: fsdp}'.",
        autocompletion=overrides_of,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on standard output.")]


@app.command(cls=GuideCommand)
def validate(
    run_file: RunFile,
    overrides: Overrides = None,
    world_size: Annotated[
        int | None,
        typer.Option(min=1, help="Processes the run is meant for; those launched, if not given."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check a run file and print its plan, before anything is paid for."""
    from bigner.commands.validate import describe, plan  # noqa: PLC0415

    config, source = _load(run_file, overrides)
    resolved = plan(config, world_size, source.where)
    _warn(resolved["warnings"])
    print(_dump(resolved) if as_json else describe(resolved))


@app.command(cls=GuideCommand)
def plan(  # noqa: PLR0913, PLR0917
    run_file: RunFile,
    overrides: Overrides = None,
    gpus: Annotated[int, typer.Option(min=1, max=1024, help="GPUs of each node.")] = 1,
    nodes: Annotated[int, typer.Option(min=1, max=1024, help="Nodes.")] = 1,
    gpu: Annotated[
        str,
        typer.Option(
            help="The card: h200-141gb, a100-80gb, ...; a wrong name lists all.",
            autocompletion=one_of(GPUS),
        ),
    ] = "h100-80gb",
    memory_gib: Annotated[
        float | None, typer.Option(min=0.1, help="Memory of a card, in place of the card's own.")
    ] = None,
    link: Annotated[
        str | None,
        typer.Option(
            help="Within a node: nvlink, pcie, or GB/s one way for each GPU; the best that the "
            "card has, if not given."
        ),
    ] = None,
    network: Annotated[
        float,
        typer.Option(
            min=0.001, help="Between nodes: GB/s one way for each GPU; 50 is a 400 Gb/s port."
        ),
    ] = 50.0,
    model_config: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A config.json, where the model's is not at hand."),
    ] = None,
    embedding_rows: Annotated[
        int | None,
        typer.Option(min=1, help="Rows in use, for model.embedding_rows used; a run tells them."),
    ] = None,
    simulate: Annotated[
        bool,
        typer.Option("--simulate", help="Trace a step on fake tensors too (fsdp; a minute)."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Tell memory, traffic and time of a run on GPUs not at hand."""
    from bigner.commands.plan import PlanOptions  # noqa: PLC0415
    from bigner.commands.plan import plan as run  # noqa: PLC0415

    config, source = _load(run_file, overrides)
    options = PlanOptions(
        gpus=gpus,
        nodes=nodes,
        gpu=gpu,
        memory_gib=memory_gib,
        link=link,
        network_gbps=network,
        model_config=model_config,
        embedding_rows=embedding_rows,
        simulate=simulate,
    )
    planned = run(config, options, source.where)
    if as_json:
        print(_dump(planned))
    else:
        from bigner.planning.show import show  # noqa: PLC0415

        show(planned)


@app.command(cls=GuideCommand)
def lint(
    run_file: RunFile,
    overrides: Overrides = None,
    as_json: AsJson = False,
    _quiet: Quiet = False,
) -> None:
    """Check the data: labels, tag scheme, repeats, characters, lengths.

    Warnings are data that can be trained with, and leave 0. Failures are data that training
    refuses, or that would make its scores meaningless (a split without entities to learn from, a
    split to score that is mostly another's sentences), and leave 2.
    """
    from bigner.commands.lint import lint as run  # noqa: PLC0415

    config, _ = _load(run_file, overrides)
    with collector.paused():
        report = run(config)
    if as_json:
        print(_dump(report.as_json()))
    else:
        report.show()
    report.require_no_failure()


@app.command(cls=GuideCommand)
def schema() -> None:
    """Print the JSON Schema of a run file, for an editor."""
    print(_dump(RunConfig.model_json_schema()))


@app.command(cls=GuideCommand)
def train(
    run_file: RunFile,
    overrides: Overrides = None,
    seeds: Annotated[
        str | None,
        typer.Option(
            metavar="N,N,...",
            help="Train once for each of these seeds instead of the run file's, each in a folder "
            "seed-N in run_dir, and compare.",
        ),
    ] = None,
    _quiet: Quiet = False,
) -> None:
    """Train, score and export; alone or under torchrun or deepspeed."""
    from bigner.commands.validate import require_sound  # noqa: PLC0415
    from bigner.config.seeds import parse_seeds, with_seeds  # noqa: PLC0415

    config, source = _load(run_file, overrides)
    configs = [config]
    if seeds is not None:
        configs = with_seeds(config, parse_seeds(seeds, overrides or []))
    require_sound(config, source.where)
    with collector.loading():
        from bigner.commands.train import train as run  # noqa: PLC0415
        from bigner.config.advice import advice  # noqa: PLC0415
        from bigner.errors import Stopped  # noqa: PLC0415
        from bigner.log import inform  # noqa: PLC0415

    world = _start(config)
    if world.is_main:
        _warn([str(warning) for warning in advice(config, source.where)])
    try:
        for number, one in enumerate(configs, start=1):
            if world.is_main and seeds is not None:
                inform(f"seed {one.seed} ({number} of {len(configs)}), in {one.run_dir}")
            run(one, world)
    except Stopped as stopped:
        stopped.go_on = _going_on(run_file, overrides or [], config, seeds)
        raise
    if world.is_main and seeds is not None and config.data.splits() != ("train",):
        _show_comparison([one.run_dir for one in configs])


@app.command(cls=GuideCommand)
def compare(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN_DIR...", help="Folders of finished runs, or that hold such."),
    ],
    split: Annotated[
        str | None,
        typer.Option(
            help="test or validation; test where it was scored, if not given.",
            autocompletion=one_of(ScoredSplit),
        ),
    ] = None,
    head: Annotated[
        str | None, typer.Option(metavar="NAME", help="The tag head, where runs have several.")
    ] = None,
    baseline: Annotated[
        Path | None,
        typer.Option(metavar="RUN_DIR", help="What to compare with; the first, if not given."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the tables too: FILE.md, .json or .csv."),
    ] = None,
    _quiet: Quiet = False,
    resamples: Annotated[
        int, typer.Option(min=100, max=1_000_000, help="Resamples of the paired bootstrap.")
    ] = 10_000,
    as_json: AsJson = False,
) -> None:
    """Compare finished runs: means, speed, and what may be chance."""
    from bigner.commands.compare import compare as run  # noqa: PLC0415
    from bigner.commands.compare import require_kind, write  # noqa: PLC0415

    _require_scored_split(split)
    require_kind(output)
    _require_place_for(output, "--output")
    comparison = run(runs, split=split, head=head, baseline=baseline, resamples=resamples)
    if output is not None:
        write(comparison, output)
    _show(comparison, as_json=as_json)


@app.command(cls=GuideCommand)
def report(
    run_dir: Annotated[
        Path, typer.Argument(metavar="RUN_DIR", help="The folder of a finished run.")
    ],
    other: Annotated[
        Path | None,
        typer.Argument(
            metavar="[OTHER_RUN_DIR]", help="A second one to show beside it: what did it change?"
        ),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(
            help="test or validation; test where it was scored, if not given.",
            autocompletion=one_of(ScoredSplit),
        ),
    ] = None,
    head: Annotated[
        str | None, typer.Option(metavar="NAME", help="The tag head, where runs have several.")
    ] = None,
    _quiet: Quiet = False,
    output: Annotated[
        Path, typer.Option(metavar="FILE", help="The page; an earlier one is replaced.")
    ] = Path("report.html"),
) -> None:
    """Write a finished run as one HTML page: scores and every error."""
    from bigner.commands.report import report as run  # noqa: PLC0415
    from bigner.commands.report import require_html  # noqa: PLC0415

    _require_scored_split(split)
    require_html(output)
    _require_place_for(output, "--output")
    folders = [run_dir] if other is None else [run_dir, other]
    _warn(run(folders, output, split=split, head=head))
    print(f"{output} is the report; open it in a browser")


@app.command(cls=GuideCommand)
def evaluate(
    run_file: RunFile,
    overrides: Overrides = None,
    model: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="An exported model; the run's own, if not given."),
    ] = None,
    split: Annotated[
        str, typer.Option(help="train, validation or test.", autocompletion=one_of(Split))
    ] = "test",
    predictions: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Write word, gold tag, predicted tag and confidence as columns."
        ),
    ] = None,
    as_json: AsJson = False,
    _quiet: Quiet = False,
) -> None:
    """Score an exported model under any strategy and world size."""
    from bigner.commands.validate import require_strategy  # noqa: PLC0415

    config, source = _load(run_file, overrides)
    require_strategy(config, source.where)
    chosen: Split = _chosen("--split", split, Split)
    model_dir = _model_folder(model or config.run_dir / "model")
    _require_place_for(predictions, "--predictions")
    with collector.loading():
        from bigner.commands.evaluate import evaluate as run  # noqa: PLC0415
        from bigner.log import show_scores  # noqa: PLC0415

    world = _start(config)
    scores = run(config, world, model_dir=model_dir, split=chosen, predictions_file=predictions)
    if not world.is_main:
        return
    if as_json:
        print(_dump(scores))
    else:
        show_scores(chosen, scores)


@app.command(cls=GuideCommand)
def predict(  # noqa: PLR0913, PLR0917
    texts: Annotated[
        Path,
        typer.Argument(
            metavar="INPUT",
            help="A text file, JSON lines with a field text, a column file, a folder of these, or "
            "- for text on standard input.",
        ),
    ],
    output: Annotated[
        Path,
        typer.Argument(
            metavar="OUTPUT",
            help="A file that is not there yet, or is half done by the same command; - for "
            "standard output.",
        ),
    ],
    model: Annotated[Path, typer.Option(metavar="DIR", help="An exported model.")],
    output_format: Annotated[
        str,
        typer.Option(
            "--format",
            help="Of the output: jsonl, columns or html.",
            autocompletion=one_of(OutputFormat),
        ),
    ] = "jsonl",
    aggregation: Annotated[
        str,
        typer.Option(
            help="word: the first piece of a word decides, as in training; simple, first, average "
            "or max: as in transformers' pipeline.",
            autocompletion=one_of(Aggregation),
        ),
    ] = "word",
    decoding: Annotated[
        str,
        typer.Option(
            help="argmax: the best tag of each word; iob2: the best sequence that IOB2 allows. As "
            "evaluation.decoding was when the model was scored.",
            autocompletion=one_of(Decoding),
        ),
    ] = "argmax",
    head: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The head; the first that tells tags, if not given."),
    ] = None,
    words: Annotated[
        str,
        typer.Option(
            help="What separates words in running text: punctuation (and white space), or "
            "whitespace alone.",
            autocompletion=one_of(WordRule),
        ),
    ] = "punctuation",
    _quiet: Quiet = False,
    input_format: Annotated[
        str | None,
        typer.Option(
            help="Of the input: text, jsonl or columns; by its suffix, if not given.",
            autocompletion=one_of(InputFormat),
        ),
    ] = None,
    lines: Annotated[
        bool, typer.Option("--lines", help="Each line of a text file is a text of its own.")
    ] = False,
    column: Annotated[
        str,
        typer.Option(help="Of the words in column files: a number from 0, or a header's name."),
    ] = "0",
    max_length: Annotated[
        int | None,
        typer.Option(help="Pieces in a window; as in training, if not given."),
    ] = None,
    stride: Annotated[
        int | None,
        typer.Option(help="Words that neighbouring windows share; as in training, if not given."),
    ] = None,
    batch_tokens: Annotated[
        int, typer.Option(help="Pieces that a process computes at once.")
    ] = 8192,
    precision: Annotated[
        str, typer.Option(help="fp32, bf16 or fp16.", autocompletion=one_of(Precision))
    ] = "fp32",
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Run Python code that lies with the model.")
    ] = False,
) -> None:
    """Find entities in texts of any length; alone or under torchrun."""
    from bigner.prediction.sources import source_of  # noqa: PLC0415

    options = TaggerOptions(
        head=head,
        aggregation=cast(Any, aggregation),
        decoding=cast(Any, decoding),
        words=cast(Any, words),
        max_length=max_length,
        stride=stride,
        batch_tokens=batch_tokens,
        precision=_chosen("--precision", precision, Precision),
        trust_remote_code=trust_remote_code,
    )
    chosen: OutputFormat = _chosen("--format", output_format, OutputFormat)
    _require_word_tags(chosen, aggregation)
    model_dir = _model_folder(model)
    source = source_of(texts, input_format, lines=lines, column=column)
    _require_place_beside(output, texts)
    survey = None
    if os.environ.get("RANK", "0") == "0":
        # Before torch is loaded, and before others wait for what is wrong.
        source = source.with_standard_input()
        survey = source.surveyed()
    with collector.loading():
        from bigner.commands.predict import predict as run  # noqa: PLC0415
        from bigner.config.checks import launched_world_size  # noqa: PLC0415
        from bigner.distributed import start  # noqa: PLC0415

    # Ranks meet once a chunk, and a chunk may take long on a processor.
    world = start(sharded=launched_world_size() > 1, timeout=timedelta(hours=1))
    run(
        source,
        output,
        world,
        model_dir=model_dir,
        options=options,
        output_format=chosen,
        survey=survey,
    )


@app.command(cls=GuideCommand)
def export(
    checkpoint: Annotated[
        Path, typer.Argument(metavar="CHECKPOINT", help="RUN_DIR/checkpoints/step-00000500")
    ],
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A folder that is not there yet.")],
    _quiet: Quiet = False,
    dtype: Annotated[
        str,
        typer.Option(help="Of the weights: fp32, fp16 or bf16.", autocompletion=one_of(Precision)),
    ] = "fp32",
    samples: Annotated[
        int, typer.Option(min=0, help="Texts to compare the written model on; 0 compares nothing.")
    ] = 8,
) -> None:
    """Write a checkpoint's whole weights as a plain transformers folder."""
    chosen: Precision = _chosen("--dtype", dtype, Precision)
    with collector.loading():
        from bigner.commands.export import export as run  # noqa: PLC0415

    check = run(checkpoint, folder, dtype=chosen, samples=samples)
    print(f"{folder} holds the weights of {checkpoint} in {dtype}")
    if check is not None:
        print(
            f"loaded by transformers: {check.pieces - check.differing} of {check.pieces} pieces of "
            f"{check.texts} texts get the checkpoint's labels, logits differ by "
            f"{check.largest_difference:.1e} at most"
        )


@app.command(cls=GuideCommand)
def onnx(
    model: Annotated[
        Path,
        typer.Argument(metavar="MODEL", help="An exported model, or the folder of a finished run."),
    ],
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A folder that is not there yet.")],
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Run Python code that lies with the model.")
    ] = False,
) -> None:
    """Write an exported model as an ONNX graph, compared in onnxruntime.

    It needs the extra onnx: pip install 'bigner[onnx]'.
    """
    from bigner.commands.onnx import onnx as run  # noqa: PLC0415

    check = run(model, folder, trust_remote_code=trust_remote_code)
    print(
        f"{folder} holds the graph of {model} in fp32, with config and tokenizer\n"
        f"computed by onnxruntime: all {check.pieces:,} pieces of {check.windows} windows "
        f"({check.shortest} to {check.longest} pieces, {check.batches} batches) get torch's "
        f"labels, logits differ by {check.largest_difference:.1e} at most"
    )


@app.command(cls=GuideCommand)
def card(
    run_dir: Annotated[Path, typer.Argument(metavar="RUN_DIR", help="Folder of a finished run.")],
) -> None:
    """Write the model card of a finished run again.

    It is README.md beside the weights, in RUN_DIR/model.
    """
    from bigner.commands.card import card as run  # noqa: PLC0415

    print(f"{run(run_dir)} is written")


@app.command(cls=GuideCommand)
def push(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="RUN_DIR_OR_MODEL", help="Folder of a finished run, or an exported model."
        ),
    ],
    repo: Annotated[str, typer.Argument(metavar="REPO", help="OWNER/NAME on the Hub.")],
    private: Annotated[
        bool, typer.Option("--private", help="Make the repository private, if it is new.")
    ] = False,
) -> None:
    """Upload a model with its card to the Hub.

    The token is taken from HF_TOKEN alone.
    """
    from bigner.commands.push import push as run  # noqa: PLC0415

    print(f"{folder} is at {run(folder, repo, private=private)}")


@app.command(cls=GuideCommand)
def doctor(as_json: AsJson = False) -> None:
    """Tell what this machine can do and what is missing.

    Each line is ok, a warning or missing, with what it costs and how to get it. Leaves 0 where a
    run is possible, 2 where something that every run needs is missing.
    """
    from bigner.commands.doctor import doctor as run  # noqa: PLC0415

    report = run()
    if as_json:
        print(_dump(report.as_json()))
    else:
        report.show()
    report.require_possible()


@app.command(cls=GuideCommand)
def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A folder that is not there yet.")],
) -> None:
    """Write a ready project: letters, a small model, two run files."""
    from bigner.commands.init import init_project  # noqa: PLC0415

    init_project(folder)
    print(
        f"{folder} is ready; next:\n  cd {folder}\n  bigner train run_fsdp.yaml precision=bf16"
        f"    # fp16, as written in it, is for GPUs"
    )


def _print_version(wanted: bool) -> None:
    if wanted:
        print(__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    pass


def _load(run_file: Path, overrides: list[str] | None) -> tuple[RunConfig, Source]:
    from bigner.config.load import load_with_source  # noqa: PLC0415

    return load_with_source(run_file, overrides or [])


def _warn(warnings: list[str]) -> None:
    if warnings:
        # rich takes longer to load than a run file takes to check.
        from bigner.log import warn  # noqa: PLC0415

        for warning in warnings:
            warn(warning)


def _require_scored_split(name: str | None) -> None:
    """Refuse what no run keeps predictions of."""
    if name is not None:
        _chosen("--split", name, ScoredSplit)


def _chosen(option: str, value: str, choices: Any) -> Any:
    """The value of an option that is one of a Literal's."""
    from bigner.config.checks import require_choice  # noqa: PLC0415

    require_choice(option, value, choices)
    return value


def _require_word_tags(output_format: str, aggregation: str) -> None:
    from bigner.errors import UserError  # noqa: PLC0415

    if output_format == "columns" and aggregation == "simple":
        raise UserError(
            "--format columns gives each word a tag, and --aggregation simple each of its pieces; "
            "choose word, first, average or max"
        )


def _require_place_beside(output: Path, texts: Path) -> None:
    """Refuse an output without a place, or one that the next attempt would take for input."""
    from bigner.errors import UserError  # noqa: PLC0415

    if output == Path("-"):
        return
    _require_place_for(output, "OUTPUT")
    if texts.resolve() in (output.resolve(), *output.resolve().parents):
        raise UserError(f"OUTPUT {str(output)!r} lies in INPUT; name a file somewhere else")


def _model_folder(folder: Path) -> Path:
    from bigner.config.checks import require_model_folder  # noqa: PLC0415

    require_model_folder(folder, "--model")
    return folder


def _require_place_for(file: Path | None, option: str) -> None:
    """Refuse a file that cannot be written, before hours are spent on what goes into it."""
    from bigner.config.checks import require_place_for  # noqa: PLC0415

    if file is not None:
        require_place_for(file, option)


def _start(config: RunConfig) -> Any:
    from bigner.distributed import start_for  # noqa: PLC0415

    return start_for(config)


def _show_comparison(folders: list[Path]) -> None:
    from bigner.commands.compare import compare as run  # noqa: PLC0415

    _show(run(folders), as_json=False)


def _show(comparison: Comparison, *, as_json: bool) -> None:
    """Print a comparison, with its warnings where they do not disturb it."""
    from bigner.comparison import tables  # noqa: PLC0415
    from bigner.log import warn  # noqa: PLC0415

    for warning in comparison.warnings:
        warn(warning)
    if as_json:
        print(_dump(tables.as_json(comparison)))
    else:
        tables.show(comparison)


def _going_on(run_file: Path, overrides: list[str], config: RunConfig, seeds: str | None) -> str:
    """The command that resumes a run that was stopped, and the runs after it."""
    arguments = ["train", str(run_file), *overrides]
    if seeds is not None:
        arguments += ["--seeds", seeds]
    # What the run was started with may say to start elsewhere, or to stop again.
    if config.checkpoint.resume != "auto":
        arguments.append("checkpoint.resume=auto")
    if config.training.stop_after is not None:
        arguments.append("training.stop_after=null")
    launcher = "bigner"
    if "TORCHELASTIC_RUN_ID" in os.environ:
        processes = os.environ.get("LOCAL_WORLD_SIZE", "1")
        launcher = f"torchrun --nproc-per-node {processes} -m bigner"
    elif "RANK" in os.environ:
        launcher = f"deepspeed --num_gpus {os.environ.get('LOCAL_SIZE', '1')} --module bigner"
    return f"{launcher} {shlex.join(arguments)}"


def _dump(values: Any) -> str:
    return json.dumps(values, indent=2, ensure_ascii=False)


def strip_launcher_options(arguments: list[str]) -> list[str]:
    """The arguments without ``--local_rank=N`` in any spelling, which launchers put in.

    The environment says which rank this is.
    """
    kept = []
    skip = False
    for argument in arguments:
        if skip:
            skip = False
        elif argument in ("--local_rank", "--local-rank"):
            skip = True
        elif not argument.startswith(("--local_rank=", "--local-rank=")):
            kept.append(argument)
    return kept


# What a wrong command line raises; some versions of typer bring a click of their own.
_WRONG_USE: Any = typer.BadParameter.__mro__[2]
# What typer makes of Ctrl-C, where it does not raise Abort.
_STOPPED = 130


def run(arguments: list[str] | None = None) -> int:
    """Run one command; returns its exit code, after telling of a wrong command line.

    Raises:
        BignerError: whatever the command raises; see ``bigner.__main__``.
        KeyboardInterrupt: Ctrl-C.
    """
    if arguments is None:
        arguments = sys.argv[1:]
    command = typer.main.get_command(app)
    try:
        outcome = command.main(
            strip_launcher_options(arguments), prog_name="bigner", standalone_mode=False
        )
    except typer.Abort:
        outcome = _STOPPED
    except _WRONG_USE as error:
        if os.environ.get("RANK", "0") == "0":
            error.show()
        return int(error.exit_code)
    if outcome == _STOPPED:
        raise KeyboardInterrupt
    return outcome if isinstance(outcome, int) else 0
