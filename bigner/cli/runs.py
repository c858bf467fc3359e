"""The commands that train and score, and set finished runs side by side."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bigner import collector
from bigner.cli.arguments import (
    AsJson,
    HeadOfRuns,
    Overrides,
    RunFile,
    SplitOfRuns,
    dump,
    load,
    model_folder,
    pick,
    require_place,
    require_scored_split,
    warn_all,
)
from bigner.cli.root import app
from bigner.config.schema import RunConfig, Split
from bigner.terminal.completion import one_of
from bigner.terminal.help import GuideCommand
from bigner.terminal.quiet import Quiet

if TYPE_CHECKING:
    from bigner.comparison.scores import Comparison


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
    folds: Annotated[
        int | None,
        typer.Option(
            metavar="K",
            min=2,
            max=1000,
            help="Cross-validate: train K times, each in a folder fold-N in run_dir with another "
            "part of data.train held out, and score all parts together.",
        ),
    ] = None,
    _quiet: Quiet = False,
) -> None:
    """Train, score and export; alone or under torchrun or deepspeed."""
    from bigner.commands.validate import require_sound  # noqa: PLC0415

    config, source = load(run_file, overrides)
    configs = _runs_of(config, overrides or [], seeds, folds)
    require_sound(config, source.where)
    with collector.loading():
        from bigner.commands.train import train as run  # noqa: PLC0415
        from bigner.config.advice import advice  # noqa: PLC0415
        from bigner.distributed import start_for  # noqa: PLC0415
        from bigner.errors import Stopped  # noqa: PLC0415
        from bigner.log import inform  # noqa: PLC0415

    world = start_for(config)
    if world.is_main:
        warn_all([str(warning) for warning in advice(config, source.where)])
    try:
        for number, one in enumerate(configs, start=1):
            if world.is_main and (seeds or folds):
                what = f"seed {one.seed} ({number} of" if seeds else f"fold {number} (of"
                inform(f"{what} {len(configs)}), in {one.run_dir}")
            run(one, world)
    except Stopped as stopped:
        words = ["train", str(run_file), *(overrides or [])]
        for option, value in (("--seeds", seeds), ("--folds", folds)):
            words += [] if value is None else [option, str(value)]
        stopped.go_on = _going_on(words, config)
        raise
    if not world.is_main:
        return
    if folds is not None:
        _join(config, configs)
    elif seeds is not None and config.data.splits() != ("train",):
        _show_comparison([one.run_dir for one in configs])


def _runs_of(
    config: RunConfig, overrides: list[str], seeds: str | None, folds: int | None
) -> list[RunConfig]:
    """The config of each run that the command line asks for."""
    from bigner.config.folds import with_folds  # noqa: PLC0415
    from bigner.config.seeds import parse_seeds, with_seeds  # noqa: PLC0415
    from bigner.errors import UserError  # noqa: PLC0415

    if seeds is not None and folds is not None:
        raise UserError("--seeds and --folds are both given; take one of them")
    if seeds is not None:
        return with_seeds(config, parse_seeds(seeds, overrides))
    return [config] if folds is None else with_folds(config, folds)


def _join(config: RunConfig, folds: list[RunConfig]) -> None:
    """Score the folds of a cross-validation together, and show it."""
    from bigner.commands.folds import join_folds  # noqa: PLC0415
    from bigner.log import inform, show_scores  # noqa: PLC0415

    joined = join_folds(config, folds)
    show_scores(f"train, in {len(folds)} folds", joined["test"])
    inform(f"done: predictions of all folds in {joined['run_dir']}, for bigner report")


@app.command(cls=GuideCommand)
def search(
    run_file: RunFile,
    space: Annotated[
        Path,
        typer.Argument(metavar="SPACE.YAML", help="Fields, and the values that each may take."),
    ],
    overrides: Overrides = None,
    trials: Annotated[
        int,
        typer.Option(
            min=2, max=100_000, help="Total number of trials. A larger one continues a search."
        ),
    ] = 20,
    prune: Annotated[
        bool, typer.Option(help="End trials early whose validation score falls behind.")
    ] = True,
    _quiet: Quiet = False,
) -> None:
    """Search the values of some fields that give the best model."""
    from bigner.commands.validate import require_sound  # noqa: PLC0415
    from bigner.config.seeds import require_no_checkpoint  # noqa: PLC0415
    from bigner.errors import UserError  # noqa: PLC0415
    from bigner.search.space import read_space  # noqa: PLC0415

    config, source = load(run_file, overrides)
    if config.data.validation is None:
        raise UserError("a search compares trials on validation data; give data.validation")
    if config.data.fold is not None:
        raise UserError("a search looks at no test data, and data.fold is some; take it out")
    require_no_checkpoint(config, "bigner search")
    parameters = read_space(space, config, overrides or [])
    require_sound(config, source.where)
    with collector.loading():
        from bigner.commands.search import BEST  # noqa: PLC0415
        from bigner.commands.search import search as run  # noqa: PLC0415
        from bigner.commands.train import train as run_trial  # noqa: PLC0415
        from bigner.distributed import start_for  # noqa: PLC0415
        from bigner.errors import Stopped  # noqa: PLC0415
        from bigner.search.show import show_trials  # noqa: PLC0415

    world = start_for(config)
    try:
        ranked = run(config, parameters, world, train=run_trial, trials=trials, prune=prune)
    except Stopped as stopped:
        options = ["--trials", str(trials), *([] if prune else ["--no-prune"])]
        words = ["search", str(run_file), str(space), *(overrides or []), *options]
        stopped.go_on = _going_on(words, config)
        raise
    if not world.is_main:
        return
    show_trials(ranked, config.evaluation.metric)
    print(f"the best run file is {config.run_dir / BEST}; train it to score test")


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

    config, source = load(run_file, overrides)
    require_strategy(config, source.where)
    chosen: Split = pick("--split", split, Split)
    model_dir = model_folder(model or config.run_dir / "model")
    require_place(predictions, "--predictions")
    with collector.loading():
        from bigner.commands.evaluate import evaluate as run  # noqa: PLC0415
        from bigner.distributed import start_for  # noqa: PLC0415
        from bigner.log import show_scores  # noqa: PLC0415

    world = start_for(config)
    scores = run(config, world, model_dir=model_dir, split=chosen, predictions_file=predictions)
    if not world.is_main:
        return
    if as_json:
        print(dump(scores))
    else:
        show_scores(chosen, scores)


@app.command(cls=GuideCommand)
def compare(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN_DIR...", help="Folders of finished runs, or that hold such."),
    ],
    split: SplitOfRuns = None,
    head: HeadOfRuns = None,
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

    require_scored_split(split)
    require_kind(output)
    require_place(output, "--output")
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
    split: SplitOfRuns = None,
    head: HeadOfRuns = None,
    _quiet: Quiet = False,
    output: Annotated[
        Path, typer.Option(metavar="FILE", help="The page; an earlier one is replaced.")
    ] = Path("report.html"),
) -> None:
    """Write a finished run as one HTML page: scores and every error."""
    from bigner.commands.report import report as run  # noqa: PLC0415
    from bigner.commands.report import require_html  # noqa: PLC0415

    require_scored_split(split)
    require_html(output)
    require_place(output, "--output")
    folders = [run_dir] if other is None else [run_dir, other]
    warn_all(run(folders, output, split=split, head=head))
    print(f"{output} is the report; open it in a browser")


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
        print(dump(tables.as_json(comparison)))
    else:
        tables.show(comparison)


def _going_on(words: list[str], config: RunConfig) -> str:
    """The command that resumes a run that was stopped, and the runs after it."""
    arguments = list(words)
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
