"""The trials of a search in SQLite, by Optuna: proposed, pruned, and kept across a stop."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from bigner.config.schema import RunConfig
from bigner.errors import ConfigError, LaunchError, Problem
from bigner.search.space import Choices, Parameter, Range

try:
    import optuna
    from optuna.trial import TrialState
except ImportError:
    raise LaunchError("bigner search needs optuna: pip install 'bigner[search]'") from None

_Outcome = Literal["done", "pruned", "failed", "running"]
_OUTCOMES: dict[TrialState, _Outcome] = {
    TrialState.COMPLETE: "done",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "running",
}
_SPACE, _CONFIG = "space", "config"
# Of how many trials at random the others are told apart from.
_LEAST_AT_RANDOM = 4


@dataclass(frozen=True, slots=True)
class Trial:
    """One run of a search."""

    number: int
    values: dict[str, Any]
    """Field -> value."""
    outcome: _Outcome
    score: float | None
    """The best validation score so far; None before the first."""
    evaluations: int


class Study:
    """A search on disk; for one process at a time.

    Args:
        folder: of the search; it is there.
        config: what the search begins with.
        space: what it varies.
        trials: how many there will be.
        prune: whether trials that fall behind are ended early.

    Raises:
        ConfigError: the folder holds another search.
    """

    def __init__(
        self,
        folder: Path,
        config: RunConfig,
        space: Sequence[Parameter],
        *,
        trials: int,
        prune: bool,
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._space = space
        self._seed = config.seed
        self._trials = trials
        # A median of fewer says little.
        pruner = optuna.pruners.MedianPruner(n_startup_trials=_LEAST_AT_RANDOM)
        self._study = optuna.create_study(
            storage=f"sqlite:///{(folder / 'search.db').resolve()}",
            study_name="search",
            direction="minimize" if config.evaluation.metric == "loss" else "maximize",
            pruner=pruner if prune else optuna.pruners.NopPruner(),
            load_if_exists=True,
        )
        self._check_same(folder, config)

    def _check_same(self, folder: Path, config: RunConfig) -> None:
        """Begin the study with its config and space, or make sure that they are the same."""
        base = config.model_dump(mode="json", exclude={"run_dir"})
        known = self._study.user_attrs
        now = {_CONFIG: json.dumps(base), _SPACE: json.dumps([_described(p) for p in self._space])}
        if not known:
            for name, value in now.items():
                self._study.set_user_attr(name, value)
            self._enqueue_the_beginning(base)
            return
        for name, value in now.items():
            if known.get(name) != value:
                message = (
                    f"holds a search with another {'run file' if name == _CONFIG else name}; "
                    f"choose another run_dir"
                )
                raise ConfigError([Problem(str(folder), "run_dir", message)])

    def _enqueue_the_beginning(self, base: Mapping[str, Any]) -> None:
        """Have the first trial be the run file as it stands, if the space has its values."""
        values = {parameter.field: _value_of(base, parameter.field) for parameter in self._space}
        if all(_holds(parameter, values[parameter.field]) for parameter in self._space):
            self._study.enqueue_trial(
                {p.field: _as_stored(p, values[p.field]) for p in self._space}
            )

    def next(self) -> Trial | None:
        """The trial to run now: one that was interrupted, or a new one; None after the last."""
        trials = self._study.get_trials(deepcopy=False)
        interrupted = [trial for trial in trials if trial.state == TrialState.RUNNING]
        ended = [trial for trial in trials if trial.state.is_finished()]
        if interrupted:
            number = interrupted[0].number
            trial = optuna.trial.Trial(self._study, interrupted[0]._trial_id)
        elif len(ended) < self._trials:
            # The seed follows the trials: a search that was stopped proposes what it would have.
            self._study.sampler = optuna.samplers.TPESampler(
                seed=self._seed + len(ended),
                n_startup_trials=max(_LEAST_AT_RANDOM, self._trials // 3),
            )
            trial = self._study.ask()
            number = trial.number
        else:
            return None
        # Values that a trial has are given again, so an interrupted one gets its own.
        values = {parameter.field: _suggested(trial, parameter) for parameter in self._space}
        return Trial(number, values, "running", None, 0)

    def goes_on(self, trial: Trial, evaluation: int, score: float) -> bool:
        """Note a validation score of a running trial, and say whether it is worth going on.

        Args:
            trial: which.
            evaluation: its number within the trial, from 1.
            score: the metric of that evaluation.
        """
        frozen = self._study.get_trials(deepcopy=False)[trial.number]
        running = optuna.trial.Trial(self._study, frozen._trial_id)
        # A trial that was interrupted before its first checkpoint comes to its evaluations again.
        if evaluation not in frozen.intermediate_values:
            running.report(score, evaluation)
        return not running.should_prune()

    def end(self, trial: Trial, score: float | None, *, pruned: bool = False) -> None:
        """Note how a trial ended.

        Args:
            trial: which.
            score: its best validation score; None if it failed.
            pruned: whether it was ended early.
        """
        if pruned:
            self._study.tell(trial.number, state=TrialState.PRUNED)
        elif score is None:
            self._study.tell(trial.number, state=TrialState.FAIL)
        else:
            self._study.tell(trial.number, score)

    def trials(self) -> list[Trial]:
        """All trials so far, the best first, and those without a score last."""
        sign = -1.0 if self._study.direction == optuna.study.StudyDirection.MAXIMIZE else 1.0
        found = [self._trial(frozen) for frozen in self._study.get_trials(deepcopy=False)]
        return sorted(
            found,
            key=lambda trial: (
                trial.outcome != "done",
                trial.score is None,
                sign * (trial.score or 0.0),
                trial.number,
            ),
        )

    def _trial(self, frozen: optuna.trial.FrozenTrial) -> Trial:
        outcome = _OUTCOMES[frozen.state]
        # A pruned trial has the value that it was pruned at.
        scores = list(frozen.intermediate_values.values())
        return Trial(
            frozen.number,
            {
                parameter.field: _as_given(parameter, frozen.params[parameter.field])
                for parameter in self._space
                if parameter.field in frozen.params
            },
            outcome,
            frozen.value if outcome in ("done", "pruned") else None,
            len(scores),
        )


def _described(parameter: Parameter) -> list[Any]:
    if isinstance(parameter, Choices):
        return [parameter.field, list(parameter.values)]
    return [parameter.field, parameter.low, parameter.high, parameter.log, parameter.step]


def _suggested(trial: optuna.trial.Trial, parameter: Parameter) -> Any:
    if isinstance(parameter, Choices):
        stored: Any = trial.suggest_categorical(
            parameter.field, [json.dumps(value) for value in parameter.values]
        )
    elif parameter.is_whole:
        stored = trial.suggest_int(
            parameter.field,
            int(parameter.low),
            int(parameter.high),
            step=int(parameter.step or 1),
            log=parameter.log,
        )
    else:
        stored = trial.suggest_float(
            parameter.field, parameter.low, parameter.high, step=parameter.step, log=parameter.log
        )
    return _as_given(parameter, stored)


def _as_given(parameter: Parameter, stored: Any) -> Any:
    # Optuna knows numbers and texts as choices, and a field may have a section.
    return json.loads(stored) if isinstance(parameter, Choices) else stored


def _as_stored(parameter: Parameter, value: Any) -> Any:
    return json.dumps(value) if isinstance(parameter, Choices) else value


def _value_of(values: Mapping[str, Any], field: str) -> Any:
    """What a config has at a dotted field; None where there is nothing."""
    found: Any = values
    for part in field.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found


def _holds(parameter: Parameter, value: Any) -> bool:
    if isinstance(parameter, Choices):
        return value in parameter.values
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and _in_range(parameter, value)


def _in_range(parameter: Range, value: float) -> bool:
    if not parameter.low <= value <= parameter.high:
        return False
    step = parameter.step or (1 if parameter.is_whole else None)
    if step is None:
        return True
    steps = (value - parameter.low) / step
    return abs(steps - round(steps)) < 1e-9
