"""The commands for a model that was trained: to predict with it, and to pass it on."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from bigner import collector
from bigner.cli.arguments import (
    NewFolder,
    TrustRemoteCode,
    model_folder,
    pick,
    require_place,
)
from bigner.cli.root import app
from bigner.config.schema import Decoding, Precision
from bigner.prediction.options import (
    Aggregation,
    InputFormat,
    OutputFormat,
    TaggerOptions,
    WordRule,
)
from bigner.terminal.completion import one_of
from bigner.terminal.help import GuideCommand
from bigner.terminal.quiet import Quiet


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
    trust_remote_code: TrustRemoteCode = False,
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
        precision=pick("--precision", precision, Precision),
        trust_remote_code=trust_remote_code,
    )
    chosen: OutputFormat = pick("--format", output_format, OutputFormat)
    _require_word_tags(chosen, aggregation)
    model_dir = model_folder(model)
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
    folder: NewFolder,
    _quiet: Quiet = False,
    dtype: Annotated[
        str,
        typer.Option(help="Of the weights: fp32, fp16 or bf16.", autocompletion=one_of(Precision)),
    ] = "fp32",
    samples: Annotated[
        int, typer.Option(min=0, help="Texts to compare the written model on; 0 compares nothing.")
    ] = 8,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Write a checkpoint's whole weights as a plain transformers folder."""
    chosen: Precision = pick("--dtype", dtype, Precision)
    with collector.loading():
        from bigner.commands.export import export as run  # noqa: PLC0415

    check = run(
        checkpoint, folder, dtype=chosen, samples=samples, trust_remote_code=trust_remote_code
    )
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
    folder: NewFolder,
    trust_remote_code: TrustRemoteCode = False,
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
    require_place(output, "OUTPUT")
    if texts.resolve() in (output.resolve(), *output.resolve().parents):
        raise UserError(f"OUTPUT {str(output)!r} lies in INPUT; name a file somewhere else")
