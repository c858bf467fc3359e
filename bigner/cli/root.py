"""The command ``bigner`` itself, to which the others are added."""

from __future__ import annotations

from typing import Annotated

import typer

from bigner import __version__
from bigner.terminal.completion import use_bash_script
from bigner.terminal.help import GuideGroup

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
