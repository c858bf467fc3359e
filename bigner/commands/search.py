"""A search, top to bottom: trials that are ordinary runs, the best of which becomes a run file."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from filelock import Timeout
from pydantic import ValidationError

from bigner.config.load import load_config
from bigner.config.schema import RunConfig
from bigner.config.yaml_file import as_yaml
from bigner.distributed import World
from bigner.errors import CheckpointError, GatherError, LaunchError, LostRankError, RunError
from bigner.log import inform, warn
from bigner.run_dir import RunDir, write_json, write_text
from bigner.search.space import Parameter
from bigner.search.study import Study, Trial
from bigner.training import GoesOn, Pruned
from bigner.training.history import History

BEST = "best.yaml"
TRIALS = "trials.json"
# Not of one trial, so no other would fare better.
_OF_THE_MACHINE = (LostRankError, GatherError, CheckpointError)


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
    """
    folder = config.run_dir
    lock = RunDir(folder).lock()
    studies: list[Study] = []

    def open_study() -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        except Timeout:
            raise LaunchError(f"another process is searching in {folder}; wait for it") from None
        except OSError as error:
            raise LaunchError(f"run_dir {folder} cannot be used: {error.strerror}") from None
        if RunDir(folder).config.exists():
            raise LaunchError(f"run_dir {folder} holds a run; choose another one for the search")
        studies.append(Study(folder, config, space, trials=trials, prune=prune))

    try:
        world.main_first(open_study)
        study = studies[0] if studies else None
        while (trial := world.share_object(study.next() if study else None)) is not None:
            _run(config, trial, world, study, train)
            if study is not None:
                _keep_the_best(folder, study.trials())
        ranked: list[Trial] = world.share_object(study.trials() if study else None)
        world.main_first(lambda: _write(config, ranked))
        return ranked
    finally:
        lock.release()


def trial_config(config: RunConfig, trial: Trial) -> RunConfig:
    """The run of a trial: test data is not looked at."""
    varied = load_config(config, trial.values)
    return varied.model_copy(
        update={
            "run_dir": config.run_dir / f"trial-{trial.number:03}",
            "data": varied.data.model_copy(update={"test": None}),
        }
    )


def _run(config: RunConfig, trial: Trial, world: World, study: Study | None, train: Train) -> None:
    """One trial, to its end or until it is pruned."""
    one = trial_config(config, trial)
    if world.is_main:
        shown = ", ".join(f"{field}={value}" for field, value in trial.values.items())
        inform(f"trial {trial.number}: {shown}; in {one.run_dir}")
    history = History(one.evaluation)
    failure = ""
    pruned = False

    def goes_on(evaluation: int, scores: dict[str, Any]) -> bool:
        worth = study is None or study.goes_on(trial, evaluation, history.metric(scores))
        return bool(world.share_object(worth))

    summary: dict[str, Any] | None = None
    try:
        summary = train(one, world, goes_on=goes_on)
    except Pruned:
        pruned = True
    except RunError as error:
        if isinstance(error, _OF_THE_MACHINE):
            raise
        failure = str(error)
    if study is None:
        return
    if failure:
        warn(f"trial {trial.number} failed: {failure}")
    if pruned:
        inform(f"trial {trial.number} is pruned: others were ahead at its last evaluation")
    score = None if summary is None else history.metric(summary["validation"])
    study.end(trial, score, pruned=pruned)


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
    """The trials as JSON, and the run file of the best one."""
    folder = config.run_dir
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
        if ranked[0].outcome == "done":
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
