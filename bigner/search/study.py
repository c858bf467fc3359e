"""The trials of a search in SQLite, by Optuna: proposed, pruned, and kept across a stop."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

from bigner.config.schema import RunConfig
from bigner.errors import ConfigError, LaunchError, Problem, RunError, one_line
from bigner.run_dir import differences
from bigner.search.space import Choices, Parameter, Range

try:
    import optuna
    from optuna.trial import TrialState
    from sqlalchemy.exc import SQLAlchemyError
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
_SPACE, _CONFIG, _STARTS = "space", "config", "starts"
# Random trials before TPE proposes any, and before any is pruned.
_LEAST_AT_RANDOM = 4
# A trial that was interrupted so often is not begun again.
_MOST_STARTS = 5


@dataclass(frozen=True, slots=True)
class Trial:
    """One run of a search."""

    number: int
    values: dict[str, Any]
    """Field -> value."""
    outcome: _Outcome
    score: float | None
    """The best on validation; of a pruned trial the last; None of one that runs or failed."""
    evaluations: int


Method = TypeVar("Method", bound=Callable[..., Any])


def _told(method: Method) -> Method:
    """Turn what the database raises into a message."""

    @wraps(method)
    def telling(study: Study, *given: Any, **named: Any) -> Any:
        try:
            return method(study, *given, **named)
        except (SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
            reason = str(error).strip().partition("\n")[0]
            raise RunError(one_line(f"{study.path} cannot be used", reason)) from None

    return cast(Method, telling)


class Study:
    """A search on disk; for one process at a time.

    Args:
        folder: of the search; it is there.
        config: what the search begins with.
        space: what it varies.
        trials: how many there will be.
        prune: whether trials that fall behind are ended early.

    Every method raises RunError where the database cannot be read or written.

    Raises:
        ConfigError: the folder holds another search.
    """

    @_told
    def __init__(
        self,
        folder: Path,
        config: RunConfig,
        space: Sequence[Parameter],
        *,
        trials: int,
        prune: bool,
    ) -> None:
        self.path = folder / "search.db"
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._space = space
        self._seed = config.seed
        self._trials = trials
        pruner = optuna.pruners.MedianPruner(n_startup_trials=_LEAST_AT_RANDOM)
        self._study = optuna.create_study(
            storage=f"sqlite:///{self.path.resolve()}",
            study_name="search",
            direction="minimize" if config.evaluation.metric == "loss" else "maximize",
            pruner=pruner if prune else optuna.pruners.NopPruner(),
            load_if_exists=True,
        )
        self._check_same(folder, config)

    def _check_same(self, folder: Path, config: RunConfig) -> None:
        """Begin the study with its config and space, or make sure that they are the same."""
        base = config.model_dump(mode="json")
        space = [_described(parameter) for parameter in self._space]
        known = self._study.user_attrs
        if _SPACE not in known:
            self._study.set_user_attr(_CONFIG, base)
            self._study.set_user_attr(_SPACE, space)
            self._enqueue_the_beginning(base)
            return
        advice = "choose another run_dir"
        problems = [
            Problem(str(folder), name, f"was {before!r} in this search and is {now!r}; {advice}")
            for name, before, now in differences(RunConfig.model_validate(known[_CONFIG]), config)
        ]
        if known[_SPACE] != space:
            problems.append(Problem(str(folder), "", f"holds a search of another space; {advice}"))
        if problems:
            raise ConfigError(problems)

    def _enqueue_the_beginning(self, base: Mapping[str, Any]) -> None:
        """Have the first trial be the run file as it stands, if the space has its values."""
        values = {p.field: _in_space(p, _value_of(base, p.field)) for p in self._space}
        if None not in values.values():
            self._study.enqueue_trial(values)

    @_told
    def next(self) -> Trial | None:
        """The trial to run now: one that was interrupted, or a new one; None after the last."""
        trials = self._study.get_trials(deepcopy=False)
        interrupted = [trial for trial in trials if trial.state == TrialState.RUNNING]
        ended = [trial for trial in trials if trial.state.is_finished()]
        # The seed follows the trials: a search that was stopped proposes what it would have.
        self._study.sampler = optuna.samplers.TPESampler(
            seed=self._seed + len(ended), n_startup_trials=_LEAST_AT_RANDOM
        )
        if interrupted:
            trial = self._trial_of(interrupted[0])
        elif len(ended) < self._trials:
            trial = self._study.ask()
        else:
            return None
        starts = trial.user_attrs.get(_STARTS, 0) + 1
        if starts > _MOST_STARTS:
            # It may be what ends the process: too large for the memory, say.
            self._study.tell(trial.number, state=TrialState.FAIL)
            return self.next()
        trial.set_user_attr(_STARTS, starts)
        # Values that a trial has are given again, so an interrupted one gets its own.
        values = {parameter.field: _suggested(trial, parameter) for parameter in self._space}
        return Trial(trial.number, values, "running", None, 0)

    @_told
    def goes_on(self, trial: Trial, evaluation: int, score: float) -> bool:
        """Note a validation score of a running trial, and say whether it is worth going on.

        Args:
            trial: which.
            evaluation: its number within the trial, from 1.
            score: the metric of that evaluation.
        """
        frozen = self._study.get_trials(deepcopy=False)[trial.number]
        running = self._trial_of(frozen)
        # A trial that was interrupted before its first checkpoint comes to its evaluations again.
        if evaluation not in frozen.intermediate_values:
            running.report(score, evaluation)
        return not running.should_prune()

    @_told
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

    def _trial_of(self, frozen: optuna.trial.FrozenTrial) -> optuna.trial.Trial:
        """A trial that is running, to be told of."""
        return optuna.trial.Trial(self._study, frozen._trial_id)

    @_told
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
        return Trial(
            frozen.number,
            {
                parameter.field: _as_given(parameter, frozen.params[parameter.field])
                for parameter in self._space
                if parameter.field in frozen.params
            },
            outcome,
            frozen.value if outcome in ("done", "pruned") else None,
            len(frozen.intermediate_values),
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


def _value_of(values: Mapping[str, Any], field: str) -> Any:
    """What a config has at a dotted field; None where there is nothing."""
    found: Any = values
    for part in field.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found


def _in_space(parameter: Parameter, value: Any) -> Any:
    """A value as the study stores it; None where it is none of the parameter's."""
    if isinstance(parameter, Choices):
        # 0 is 0.0, and True is not 1.
        same = (
            one for one in parameter.values if one == value and _is_bool(one) == _is_bool(value)
        )
        return next((json.dumps(one) for one in same), None)
    is_number = isinstance(value, int | float) and not _is_bool(value)
    return value if is_number and _in_range(parameter, value) else None


def _is_bool(value: Any) -> bool:
    return isinstance(value, bool)


def _in_range(parameter: Range, value: float) -> bool:
    if not parameter.low <= value <= parameter.high:
        return False
    step = parameter.step or (1 if parameter.is_whole else None)
    if step is None:
        return True
    steps = (value - parameter.low) / step
    return abs(steps - round(steps)) < 1e-9
