"""Training and evaluation in this process, or in every process of a script that was launched."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, cast

from bigner import collector
from bigner.api.going_on import going_on
from bigner.api.results import Scores, Summary
from bigner.commands.validate import require_sound, require_strategy
from bigner.config.advice import advice
from bigner.config.checks import require_choice, require_model_folder, require_place_for
from bigner.config.load import ConfigSource, load_with_source
from bigner.config.schema import RunConfig, Split
from bigner.errors import Stopped
from bigner.log import warn

if TYPE_CHECKING:
    from bigner.distributed import World


def train(config: ConfigSource) -> Summary:
    """Run what the config says, from data to exported model; collective where several processes
    were launched.

    A run that was stopped goes on, and a finished one only shows its scores, as on the command
    line. Ctrl-C, and a notebook's stop button, save and stop it.

    Args:
        config: of ``bigner.load_config``, or what that takes.

    Returns:
        what ``summary.json`` holds; the same on every rank.

    Raises:
        UserError: the config, the data, the model or the launch is wrong.
        Stopped: it was asked to stop, and saved; the message says how to go on.
        RunError: it failed.
    """
    resolved, source = load_with_source(config)
    require_sound(resolved, source.where)
    with collector.paused():
        from bigner.commands.train import train as run  # noqa: PLC0415

    with _world(resolved) as world:
        if world.is_main:
            for warning in advice(resolved, source.where):
                warn(str(warning))
        try:
            return cast(Summary, run(resolved, world))
        except Stopped as stopped:
            stopped.go_on = going_on("bigner.train", config, resolved)
            raise


def evaluate(
    config: ConfigSource,
    *,
    model: str | Path | None = None,
    split: Split = "test",
    predictions: str | Path | None = None,
) -> Scores:
    """Score an exported model, under any strategy; collective where several processes were
    launched.

    Args:
        config: of ``bigner.load_config``, or what that takes: the data, precision and strategy.
        model: folder of the exported model; the run's own, if not given.
        split: the split to score.
        predictions: a file for word, gold tag, predicted tag and confidence, if given.

    Returns:
        scores and speed; the same on every rank, but for the speed.

    Raises:
        UserError: an argument, the config, the data or the model is wrong.
        RunError: it failed.
    """
    resolved, source = load_with_source(config)
    require_strategy(resolved, source.where)
    require_choice("split", split, Split)
    model_dir = resolved.run_dir / "model" if model is None else Path(model)
    require_model_folder(model_dir, "model")
    file = None if predictions is None else Path(predictions)
    if file is not None:
        require_place_for(file, "predictions")
    with collector.paused():
        from bigner.commands.evaluate import evaluate as run  # noqa: PLC0415

    with _world(resolved) as world:
        scores = run(resolved, world, model_dir=model_dir, split=split, predictions_file=file)
    return cast(Scores, scores)


def _world(config: RunConfig) -> AbstractContextManager[World]:
    from bigner.distributed import opened  # noqa: PLC0415

    return opened(config)
