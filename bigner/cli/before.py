"""The commands for before a run: a project, a run file, its data, its machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bigner import collector
from bigner.cli.arguments import (
    AsJson,
    NewFolder,
    Overrides,
    RunFile,
    dump,
    load,
    warn_all,
)
from bigner.cli.root import app
from bigner.config.schema import RunConfig
from bigner.planning.hardware import GPUS
from bigner.terminal.completion import one_of
from bigner.terminal.help import GuideCommand
from bigner.terminal.quiet import Quiet


@app.command(cls=GuideCommand)
def init(
    folder: NewFolder,
) -> None:
    """Write a ready project: letters, a small model, two run files."""
    from bigner.commands.init import init_project  # noqa: PLC0415

    init_project(folder)
    print(
        f"{folder} is ready; next:\n  cd {folder}\n  bigner train run_fsdp.yaml precision=bf16"
        f"    # fp16, as written in it, is for GPUs"
    )


@app.command(cls=GuideCommand)
def doctor(as_json: AsJson = False) -> None:
    """Tell what this machine can do and what is missing.

    Each line is ok, a warning or missing, with what it costs and how to get it. Leaves 0 where a
    run is possible, 2 where something that every run needs is missing.
    """
    from bigner.commands.doctor import doctor as run  # noqa: PLC0415

    report = run()
    if as_json:
        print(dump(report.as_json()))
    else:
        report.show()
    report.require_possible()


@app.command(cls=GuideCommand)
def schema() -> None:
    """Print the JSON Schema of a run file, for an editor."""
    print(dump(RunConfig.model_json_schema()))


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

    config, source = load(run_file, overrides)
    resolved = plan(config, world_size, source.where)
    warn_all(resolved["warnings"])
    print(dump(resolved) if as_json else describe(resolved))


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

    config, source = load(run_file, overrides)
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
        print(dump(planned))
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

    config, _ = load(run_file, overrides)
    with collector.paused():
        report = run(config)
    if as_json:
        print(dump(report.as_json()))
    else:
        report.show()
    report.require_no_failure()
