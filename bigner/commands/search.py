"""A search, top to bottom: trials that are ordinary runs, the best of which becomes a run file."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

from filelock import FileLock, Timeout
from pydantic import ValidationError

from bigner.config.load import load_config
from bigner.config.schema import RunConfig
from bigner.config.yaml_file import as_yaml
from bigner.distributed import World
from bigner.errors import (
    ConfigError,
    DivergedError,
    LaunchError,
    Pruned,
    RunError,
    UserError,
)
from bigner.log import inform, warn
from bigner.run_dir import RunDir, write_json, write_text
from bigner.search.space import Parameter
from bigner.search.study import Study, Trial
from bigner.training import GoesOn
from bigner.training.history import History

BEST = "best.yaml"
TRIALS = "trials.json"

Answer = TypeVar("Answer")


class Train(Protocol):
    """``commands.train.train``."""

    def __call__(
        self, config: RunConfig, world: World, *, goes_on: GoesOn | None = None
    ) -> dict[str, Any]: ...


def search(
    config: RunConfig,
    space: Sequence[Parameter],
    world: World,
    *,
    train: Train,
    trials: int,
    prune: bool,
) -> list[Trial]:
    """Run trials until there are so many, and write the best one's run file; collective.

    A search that was stopped is gone on with, and so is the trial that was running.

    Args:
        config: what the search begins with; ``run_dir`` is the folder of the search.
        space: what it varies.
        world: all ranks.
        train: trains one run.
        trials: how many in all, pruned and failed ones included.
        prune: whether trials that fall behind are ended early.

    Returns:
        all trials, the best first; the same on every rank.

    Raises:
        ConfigError: the folder holds another search.
        LaunchError: another process is at this search, or the folder cannot be written to.
        RunError: no trial came to its end, or the study cannot be read or written.
        Stopped: after the running trial was saved.
    """
    folder = config.run_dir
    lock = RunDir(folder).lock()
    studies: list[Study] = []

    def open_study() -> None:
        _claim(folder, lock)
        studies.append(Study(folder, config, space, trials=trials, prune=prune))

    def ask(question: Callable[[Study], Answer]) -> Answer:
        """What rank 0's study answers; its errors are raised on every rank."""
        answers: list[Answer] = []
        world.main_first(lambda: answers.append(question(studies[0])))
        shared: Answer = world.share_object(answers[0] if answers else None)
        return shared

    try:
        world.main_first(open_study)
        while (trial := ask(Study.next)) is not None:
            _run(config, trial, world, ask, train)
            ask(lambda study: _keep_the_best(folder, study.trials()))
        ranked = ask(Study.trials)
        world.main_first(lambda: _write(config, ranked))
        return ranked
    finally:
        lock.release()


def _claim(folder: Path, lock: FileLock) -> None:
    """Make the folder this search's own; for rank 0."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise LaunchError(f"another process is searching in {folder}; wait for it") from None
    except (OSError, NotImplementedError) as error:
        # The second: a file system without locks.
        reason = getattr(error, "strerror", None) or error
        raise LaunchError(f"run_dir {folder} cannot be used: {reason}") from None
    if RunDir(folder).config.exists():
        raise LaunchError(f"run_dir {folder} holds a run; choose another one for the search")


def trial_config(config: RunConfig, trial: Trial) -> RunConfig:
    """The run of a trial: test data is not looked at."""
    varied = load_config(config, trial.values)
    return varied.model_copy(
        update={
            "run_dir": config.run_dir / f"trial-{trial.number:03}",
            "data": varied.data.model_copy(update={"test": None}),
        }
    )


def _run(
    config: RunConfig,
    trial: Trial,
    world: World,
    ask: Callable[[Callable[[Study], Any]], Any],
    train: Train,
) -> None:
    """One trial, until it ends, is pruned or fails; how, the study notes."""
    history = History(config.evaluation)

    def goes_on(evaluation: int, scores: dict[str, Any]) -> bool:
        score = history.metric(scores)
        return bool(ask(lambda study: study.goes_on(trial, evaluation, score)))

    def fail(reason: object) -> None:
        ask(lambda study: study.end(trial, None))
        if world.is_main:
            warn(f"trial {trial.number} failed: {reason}")

    try:
        one = trial_config(config, trial)
        one.training.accumulation(world.size)
    except (ConfigError, ValueError) as error:
        # Each value is possible, and all of them together are not.
        fail(error)
        return
    if world.is_main:
        shown = ", ".join(f"{field}={value}" for field, value in trial.values.items())
        inform(f"trial {trial.number}: {shown}; in {one.run_dir}")
    try:
        scores = train(one, world, goes_on=goes_on)["validation"]
    except Pruned:
        ask(lambda study: study.end(trial, None, pruned=True))
        if world.is_main:
            inform(f"trial {trial.number} is pruned: it is behind the median of the others")
    except DivergedError as error:
        fail(error)
    except UserError:
        # It would fail again, and the search could never go beyond it.
        ask(lambda study: study.end(trial, None))
        raise
    else:
        metric = config.evaluation.metric
        score = scores["strict"]["f1"] if metric == "strict_f1" else scores[metric]
        # What is no number is null in a summary.
        if score is None:
            fail(f"its {metric} is no number")
        else:
            ask(lambda study: study.end(trial, float(score)))


def _keep_the_best(folder: Path, ranked: Sequence[Trial]) -> None:
    """Delete the weights and checkpoints of all ended trials but the best."""
    best = ranked[0].number if ranked[0].outcome == "done" else None
    for trial in ranked:
        run_dir = RunDir(folder / f"trial-{trial.number:03}")
        if trial.outcome == "running":
            continue
        unwanted = [run_dir.checkpoints]
        if trial.number != best:
            unwanted += [run_dir.model, run_dir.table]
        for path in unwanted:
            shutil.rmtree(path, ignore_errors=True)


def _write(config: RunConfig, ranked: Sequence[Trial]) -> None:
    """The trials as JSON, and the run file of the best one.

    Raises:
        RunError: there is none, or the folder cannot be written to.
    """
    folder = config.run_dir
    if ranked[0].outcome != "done":
        raise RunError(f"no trial in {folder} came to its end: all were pruned or failed")
    try:
        listed = [
            {
                "number": trial.number,
                "outcome": trial.outcome,
                config.evaluation.metric: trial.score,
                "evaluations": trial.evaluations,
                "values": trial.values,
            }
            for trial in ranked
        ]
        write_json(folder / TRIALS, {"trials": listed})
        best = load_config(config, {**ranked[0].values, "run_dir": str(folder / "best")})
        write_text(folder / BEST, as_yaml(_shortest(best)))
    except OSError as error:
        raise RunError(f"{folder} cannot be written to: {error}") from None


def _shortest(config: RunConfig) -> dict[str, Any]:
    """What a run file has to say to mean this config."""
    short = config.model_dump(mode="json", exclude_defaults=True)
    try:
        is_whole = RunConfig.model_validate(short) == config
    except ValidationError:
        is_whole = False
    return short if is_whole else config.model_dump(mode="json")
