"""What several commands are given, how it is checked before anything heavy is loaded, and how they
answer.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from bigner.config.schema import RunConfig
from bigner.terminal.completion import one_of, overrides_of, run_files

if TYPE_CHECKING:
    from bigner.config.load import Source

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
ScoredSplit = Literal["test", "validation"]
"""The splits that a run keeps predictions of."""
SplitOfRuns = Annotated[
    str | None,
    typer.Option(
        help="test or validation; test where it was scored, if not given.",
        autocompletion=one_of(ScoredSplit),
    ),
]
HeadOfRuns = Annotated[
    str | None, typer.Option(metavar="NAME", help="The tag head, where runs have several.")
]
NewFolder = Annotated[Path, typer.Argument(metavar="DIR", help="A folder that is not there yet.")]
TrustRemoteCode = Annotated[
    bool, typer.Option("--trust-remote-code", help="Run Python code that lies with the model.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on standard output.")]


def load(run_file: Path, overrides: list[str] | None) -> tuple[RunConfig, Source]:
    """The config of a run file with its overrides, and where in the file each field stands."""
    from bigner.config.load import load_with_source  # noqa: PLC0415

    return load_with_source(run_file, overrides or [])


def warn_all(warnings: list[str]) -> None:
    """Warn on standard error."""
    if warnings:
        # rich takes longer to load than a run file takes to check.
        from bigner.log import warn  # noqa: PLC0415

        for warning in warnings:
            warn(warning)


def require_scored_split(name: str | None) -> None:
    """Refuse what no run keeps predictions of."""
    if name is not None:
        pick("--split", name, ScoredSplit)


def pick(option: str, value: str, choices: Any) -> Any:
    """The value of an option that is one of a Literal's."""
    from bigner.config.checks import require_choice  # noqa: PLC0415

    require_choice(option, value, choices)
    return value


def model_folder(folder: Path) -> Path:
    """The folder of ``--model``, if an exported model lies there."""
    from bigner.config.checks import require_model_folder  # noqa: PLC0415

    require_model_folder(folder, "--model")
    return folder


def require_place(file: Path | None, option: str) -> None:
    """Refuse a file that cannot be written, before hours are spent on what goes into it."""
    from bigner.config.checks import require_place_for  # noqa: PLC0415

    if file is not None:
        require_place_for(file, option)


def dump(values: Any) -> str:
    """JSON for standard output."""
    return json.dumps(values, indent=2, ensure_ascii=False)
