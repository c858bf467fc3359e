"""The state of a training run: the best so far; to score, save, stop, resume and finish it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from signal import Signals
from typing import Any, NoReturn

import torch
from transformers import PreTrainedModel

from bigner.card import try_to_write_card
from bigner.card.facts import of_run
from bigner.checkpoint.folders import folder_of
from bigner.config.checks import hub_names
from bigner.config.schema import RunConfig
from bigner.data.arrays import Ints
from bigner.data.prepare import Prepared, SplitData
from bigner.data.subset import sample_of
from bigner.distributed import World
from bigner.errors import DivergedError, Pruned, RunError, Stopped
from bigner.evaluation.evaluator import Predictions, ShardedEvaluator, timed_run
from bigner.export import export_model, load_weights
from bigner.log import MetricsLog, inform, plain, progress, show_scores, warn
from bigner.memory import peak_memory_bytes
from bigner.optim import LearningRate
from bigner.packing import Packing
from bigner.predictions import write_predictions
from bigner.run_dir import RunDir, write_json
from bigner.stop import StopSignals
from bigner.strategies import PendingOutcome, Strategy
from bigner.table import TableFolder, UsedRows
from bigner.training.checkpoints import Checkpoints
from bigner.training.history import History
from bigner.training.machine import device_name, versions
from bigner.training.outcomes import Outcomes
from bigner.weights import InitialWeights

GoesOn = Callable[[int, dict[str, Any]], bool]
"""From the number of an evaluation, counted from 1, and its scores on validation to whether the run
is worth going on; collective."""


@dataclass
class TrainingRun:
    """What a run has come to so far, and what is done with it at intervals."""

    config: RunConfig
    world: World
    run_dir: RunDir
    prepared: Prepared
    model: PreTrainedModel
    packing: Packing | None
    rows: UsedRows | None
    """The rows of the embedding table that are trained, if not all are."""
    strategy: Strategy
    steps_per_epoch: int
    total_steps: int
    goes_on: GoesOn | None = None
    """Asked after each evaluation on validation."""
    step: int = 0
    started: float = field(default_factory=time.perf_counter)

    def __post_init__(self) -> None:
        self.history = History(self.config.evaluation)
        self.schedule = LearningRate(
            self.config.training, self.total_steps, lower_is_better=self.history.lower_is_better
        )
        self.outcomes = Outcomes(self.config, self.world)
        self._checkpoints = Checkpoints(
            self.config,
            self.world,
            self.run_dir,
            self.strategy,
            self.rows,
            self.prepared.heads.names_of_logits,
            self.total_steps,
        )
        self._predicted_step = 0
        self._is_pruned = False

    @property
    def is_over(self) -> bool:
        """Whether the last step is done, or all that will be."""
        return self.step == self.total_steps or self.history.stops_early()

    def note_step(self, loss_share: torch.Tensor, outcome: PendingOutcome) -> None:
        """Count a step that was made."""
        self.step += 1
        self.outcomes.note(loss_share, outcome)

    # ------------------------------------------------------------ evaluation

    def evaluation_due(self) -> bool:
        """Whether this step's evaluation is still to be made."""
        every = self.config.evaluation.every
        interval = self.steps_per_epoch if every == "epoch" else every
        due = self.step % interval == 0 or self.is_over
        is_done = self.step <= self.history.last_step
        return "validation" in self.prepared.splits and due and not is_done

    def evaluate(self, log: MetricsLog) -> None:
        """Score validation; export the weights if they are the best so far.

        Raises:
            DivergedError: the model collapsed, and the config says to stop then.
        """
        validation = self.prepared.splits["validation"]
        with self.strategy.averaged():
            if self.config.evaluation.train_sample is not None:
                self._score("train_sample", self._train_sample, log, confidences=False)
            scores, evaluator, predictions = self._score("validation", validation, log)
            self._note_scores({"step": self.step, **scores})
            if self.history.best() is self.history.entries[-1]:
                self._export()
                self._write_predictions(validation, evaluator, predictions)
                self._predicted_step = self.step
        only_tag = evaluator.only_tag(predictions)
        if only_tag is not None and self.step >= self.schedule.warmup_steps:
            self._collapsed(only_tag)
        if self.goes_on is not None:
            self._is_pruned = not self.goes_on(len(self.history.entries), scores)
        if self.world.is_main and self.history.stops_early():
            inform(
                f"step {self.step}: no gain in {self.config.evaluation.patience} evaluations; "
                f"stopping early"
            )

    def _note_scores(self, scores: dict[str, Any]) -> None:
        self.history.entries.append(scores)
        self.schedule.scored(self.history.metric(scores))

    @cached_property
    def _train_sample(self) -> SplitData:
        """Windows of the training data that are scored at times, always the same."""
        count = self.config.evaluation.train_sample
        assert count is not None
        return sample_of(self.prepared.splits["train"], len(self.prepared.heads), count)

    def _collapsed(self, tag: str) -> None:
        what = (
            f"step {self.step}: every word of validation is tagged {tag}, so the model collapsed; "
            f"large encoders want a training.learning_rate of 1e-5, a training.warmup_ratio of "
            f"0.1, and a training.global_batch_size of 16 or more"
        )
        if self.config.evaluation.on_collapse == "stop":
            self.save_now()
            folder = folder_of(self.run_dir.checkpoints, self.step)
            raise DivergedError(f"{what}; stopped, saved in {folder}")
        if self.world.is_main:
            warn(what)

    def _evaluator(self, split: SplitData) -> ShardedEvaluator:
        return ShardedEvaluator(
            self.prepared,
            split,
            self.prepared.heads,
            self.world,
            evaluation=self.config.evaluation,
            packing=self.packing,
            places=self.places,
        )

    def _score(
        self, name: str, split: SplitData, log: MetricsLog, *, confidences: bool = True
    ) -> tuple[dict[str, Any], ShardedEvaluator, Predictions]:
        """Scores and predictions, told and logged."""
        evaluator = self._evaluator(split)
        timed, predictions = timed_run(evaluator, self.strategy, confidences=confidences)
        scores = timed.as_json(self.config.chosen_head())
        log.evaluated(self.step, name, scores)
        if self.world.is_main:
            show_scores(f"{name.replace('_', ' ')}, step {self.step}", scores)
        return scores, evaluator, predictions

    def _write_predictions(
        self, split: SplitData, evaluator: ShardedEvaluator, predictions: Predictions
    ) -> None:
        """Keep what the best weights say of a split."""
        path = self.run_dir.predictions(split.split)
        self.world.main_first(
            lambda: write_predictions(path, split.words, evaluator.columns_of_heads(predictions))
        )

    def _export(self) -> None:
        export_model(
            self.run_dir.model,
            self.run_dir.plain,
            self.strategy,
            self.world,
            self.model,
            table=TableFolder(self.run_dir.table) if self.rows else None,
        )

    # ------------------------------------------------------------ saving

    def save_due(self) -> bool:
        """Whether the config wants a checkpoint of this step."""
        every = self.config.checkpoint.every_steps
        return every is not None and (self.step % every == 0 or self.is_over)

    def save(self) -> None:
        """Begin a checkpoint of this step, and wait for the one before."""
        self._checkpoints.finish()
        self.outcomes.settle()
        if self.step == self._checkpoints.saved_step:
            return
        best = self.history.best()
        state = {
            "epoch": round(self.step / self.steps_per_epoch, 4),
            "skipped_steps": self.outcomes.skipped,
            "skipped_in_a_row": self.outcomes.skipped_in_a_row,
            "history": list(self.history.entries),
            "best": best and {"step": best["step"], "value": self.history.metric(best)},
            "labels": self.prepared.heads.names_of_logits,
            "config": self.config.model_dump(mode="json"),
            "world_size": self.world.size,
            "versions": versions(),
        }
        self._checkpoints.begin(self.step, state, with_best=best is not None)

    def save_now(self) -> None:
        """Write a checkpoint of this step and wait until it is whole."""
        self.save()
        self._checkpoints.finish()

    # ------------------------------------------------------------ stopping

    def heed(self, signal_received: int) -> None:
        """What a run may have to stop for between two steps: a write, its numbers, a signal.

        Raises:
            CheckpointError: the checkpoint that was being written could not be.
            DivergedError: steps go on being skipped; after saving.
            Stopped: after saving.
        """
        number, writer = self.world.agree_on_max(signal_received, self._checkpoints.writer)
        self._checkpoints.finish_if_written(writer)
        self._heed_divergence()
        if number:
            self._stop(Signals(number).name, 128 + number)
        self._heed_stop_after()

    def heed_pruning(self, signal_received: int) -> None:
        """Leave a run that was said not to be worth going on; a signal comes first.

        Raises:
            Pruned: it was.
        """
        if self._is_pruned and not self.is_over:
            self.heed(signal_received)
            self._checkpoints.finish()
            raise Pruned(f"pruned after step {self.step}", 0)

    def _heed_divergence(self) -> None:
        """Save and end a run that diverged, and tell how to mend it."""
        found = self.outcomes.divergence()
        if found is None:
            return
        what, advice = found
        losses = self.outcomes.last_losses()
        self.save_now()
        raise DivergedError(
            f"step {self.step}: {what}, so the model diverged; last losses before steps were "
            f"skipped: {losses}; {advice}, in another run_dir, and go on from a checkpoint before "
            f"it with checkpoint.resume={self.run_dir.checkpoints}/step-..., or start over"
        )

    def _heed_stop_after(self) -> None:
        last = self.config.training.stop_after
        if last is not None and last <= self.step < self.total_steps:
            self._stop("training.stop_after", 0)

    def _stop(self, by: str, exit_code: int) -> NoReturn:
        self.save_now()
        folder = folder_of(self.run_dir.checkpoints, self.step)
        raise Stopped(f"stopped by {by} after step {self.step}, saved in {folder}", exit_code)

    @contextmanager
    def naming_lost_ranks(self) -> Iterator[None]:
        """Turn a collective's failure into an error that names the step and the rank."""
        try:
            yield
        except RuntimeError as error:
            # The launcher ends the ranks that are left, and what happened is to be told first.
            with StopSignals(tell=False):
                lost = self.world.lost_rank(error, self.step)
            if lost is None:
                raise
            raise lost from None

    # ------------------------------------------------------------ beginning

    @cached_property
    def places(self) -> Ints | None:
        """``[pieces]``, what the model calls each piece, where it does not have all of them."""
        return None if self.rows is None else self.rows.places()

    def begin(self, weights: InitialWeights) -> None:
        """Fill the shards with the first values of the model.

        Raises:
            ModelError: a file changed meanwhile, or a weight cannot be drawn.
            CheckpointError: the whole embedding table cannot be written.
        """
        table, rows = TableFolder(self.run_dir.table), self.rows
        if rows is not None:
            self.world.main_first(lambda: table.write(rows, weights.whole(rows.parameter)))
        for shard in progress(list(self.strategy.shards()), "the first weights"):
            if rows is not None and shard.name == rows.parameter:
                table.fill(rows, shard)
            else:
                weights.fill([shard])
        self.strategy.publish()
        if self.world.is_main:
            inform(weights.report)

    def resume(self) -> bool:
        """Go on from the checkpoint that ``checkpoint.resume`` means, if it means one.

        Raises:
            ConfigError: it is not one this run can go on from.
            CheckpointError: it is damaged, and so is every other that could take its place.
            Stopped: it is where the run is to stop.
        """
        manifest = self._checkpoints.go_on()
        if manifest is None:
            return False
        self.step = manifest.step
        self.outcomes.skipped = manifest.skipped_steps
        self.outcomes.skipped_in_a_row = manifest.skipped_in_a_row
        for scores in manifest.history:
            self._note_scores(scores)
        self._heed_stop_after()
        return True

    # ------------------------------------------------------------ the end

    def finish(self, log: MetricsLog) -> dict[str, Any]:
        """Score test with the best weights, leave them exported, and write the summary."""
        self._checkpoints.finish()
        self.outcomes.settle()
        best = self.history.best()
        with self.strategy.averaged():
            test = self._score_best(best, log)
        peak = torch.tensor(peak_memory_bytes(self.world.device))
        summary: dict[str, Any] = {
            "steps": self.step,
            "stopped_early": self.step < self.total_steps,
            "skipped_steps": self.outcomes.skipped,
            "best_step": best["step"] if best else self.step,
            "validation": best,
            "test": test,
            "model": str(self.run_dir.model),
            "hub": hub_names(self.config),
            "data": {name: split.sizes() for name, split in self.prepared.splits.items()},
            "labels": self.prepared.heads.names_of_logits,
            "strategy": self.config.strategy.kind,
            "precision": self.config.precision,
            "world_size": self.world.size,
            "seconds": round(time.perf_counter() - self.started, 1),
            "tokens_per_second": log.median("tokens_per_second"),
            "peak_memory_bytes": int(self.world.max(peak)),
            "hardware": device_name(self.world.device),
            "versions": versions(),
        }
        # Ranks differ in what they took; rank 0's times are the run's.
        summary = self.world.share_object(plain(summary))
        self.world.main_first(lambda: self._write_summary(summary))
        if self.world.is_main:
            try_to_write_card(self.run_dir.model, lambda: of_run(self.run_dir, self.config))
            inform(f"done: model in {self.run_dir.model}, scores in {self.run_dir.summary}")
        return summary

    def _score_best(self, best: dict[str, Any] | None, log: MetricsLog) -> dict[str, Any] | None:
        """Scores on test, if there is one, of the best weights, which are exported; the last ones
        where no evaluation chose.
        """
        if best is None:
            self._export()
        elif best is not self.history.entries[-1]:
            load_weights(self.run_dir.model, self.strategy, self.rows)
        if best is not None and best["step"] != self._predicted_step:
            # The best evaluation was made before the run was resumed.
            validation = self.prepared.splits["validation"]
            evaluator = self._evaluator(validation)
            predictions = evaluator.predict(self.strategy, confidences=True)
            self._write_predictions(validation, evaluator, predictions)
        if (split := self.prepared.splits.get("test")) is None:
            return None
        test, evaluator, predictions = self._score("test", split, log)
        self._write_predictions(split, evaluator, predictions)
        return test

    def _write_summary(self, summary: dict[str, Any]) -> None:
        try:
            write_json(self.run_dir.summary, summary)
        except OSError as error:
            raise RunError(f"{self.run_dir.summary} cannot be written: {error}") from None
