"""The state of a training run: the best so far; to score, save, resume and finish it."""

from __future__ import annotations

import math
import platform
import shutil
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from importlib import metadata
from pathlib import Path
from signal import Signals
from typing import Any, NoReturn

import torch
from transformers import PreTrainedModel

from bigner import __version__
from bigner.card import try_to_write_card
from bigner.card.facts import of_run
from bigner.checkpoint import folders
from bigner.checkpoint.load import damage, load
from bigner.checkpoint.manifest import Manifest, config_of, read_manifest
from bigner.checkpoint.save import FAILED, IDLE, Saver
from bigner.config.checks import hub_names
from bigner.config.deepspeed import MIN_LOSS_SCALE
from bigner.config.schema import RunConfig
from bigner.data.arrays import Ints
from bigner.data.prepare import Prepared, SplitData
from bigner.data.subset import sample_of
from bigner.distributed import World
from bigner.errors import CheckpointError, ConfigError, Problem, RunError, Stopped
from bigner.evaluation.evaluator import Predictions, ShardedEvaluator, timed_run
from bigner.export import export_model, load_weights
from bigner.log import MetricsLog, inform, plain, progress, show_scores, warn
from bigner.memory import peak_memory_bytes
from bigner.optim import LearningRate
from bigner.packing import Packing
from bigner.predictions import write_predictions
from bigner.run_dir import RunDir, differences, write_json
from bigner.stop import StopSignals
from bigner.strategies import PendingOutcome, StepOutcome, Strategy
from bigner.table import TableFolder, UsedRows
from bigner.weights import InitialWeights

_LOSSES_TOLD = 5


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
    step: int = 0
    skipped_steps: int = 0
    skipped_in_a_row: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    """The validation scores so far, each with its step."""
    started: float = field(default_factory=time.perf_counter)

    def __post_init__(self) -> None:
        self.schedule = LearningRate(
            self.config.training, self.total_steps, lower_is_better=self._lower_is_better
        )
        self._saver = Saver(
            self.run_dir.checkpoints,
            self.strategy,
            self.world,
            background=self.config.checkpoint.background,
        )
        self._saved_step = 0
        self._predicted_step = 0
        self._losses: deque[torch.Tensor] = deque(maxlen=_LOSSES_TOLD)
        self._pending: list[tuple[torch.Tensor, PendingOutcome]] = []
        self._last_step = StepOutcome(grad_norm=0.0, skipped=False, loss_scale=1.0)

    @property
    def _lower_is_better(self) -> bool:
        return self.config.evaluation.metric == "loss"

    def _metric(self, scores: dict[str, Any]) -> float:
        name = self.config.evaluation.metric
        return float(scores["strict"]["f1"] if name == "strict_f1" else scores[name])

    @property
    def is_over(self) -> bool:
        """Whether the last step is done, or all that will be."""
        return self.step == self.total_steps or self.stops_early()

    def stops_early(self) -> bool:
        """Whether validation gained nothing for as long as the config waits for it."""
        patience, min_gain = self.config.evaluation.patience, self.config.evaluation.min_gain
        if patience is None:
            return False
        best, waited = -math.inf, 0
        for scores in self.history:
            value = self._gain(scores)
            waited = 0 if value > best + min_gain else waited + 1
            best = value if not waited else best
        return waited >= patience

    # ------------------------------------------------------------ numbers

    def note_step(self, loss_share: torch.Tensor, outcome: PendingOutcome) -> None:
        """Count a step that was made.

        On a GPU what it came to is asked for later, for several steps at once: the host would wait
        for the device in each.
        """
        self.step += 1
        self._pending.append((loss_share, outcome))
        if self.world.device.type == "cpu":
            self.settle()

    def settle(self) -> StepOutcome:
        """Wait for what the steps so far came to; returns that of the last one."""
        for loss_share, pending in self._pending:
            outcome = self._last_step = pending.wait()
            self.skipped_steps += outcome.skipped
            self.skipped_in_a_row = self.skipped_in_a_row + 1 if outcome.skipped else 0
            if not outcome.skipped:
                self._losses.append(loss_share)
        self._pending.clear()
        return self._last_step

    def _check_numbers(self) -> None:
        """Stop, saved, where steps go on being skipped and there is nothing left to lower."""
        outcome = self._last_step
        if not outcome.skipped:
            return
        if self.config.precision == "fp16":
            if outcome.loss_scale <= MIN_LOSS_SCALE:
                self._give_up(
                    f"gradients overflow fp16 at loss scale {outcome.loss_scale:g}, the smallest "
                    f"there is",
                    "lower training.learning_rate, raise training.warmup_ratio, or set precision "
                    "to bf16 or fp32",
                )
        elif self.skipped_in_a_row >= self.config.training.max_skipped_steps:
            self._give_up(
                f"the gradient was not finite {self.skipped_in_a_row} times in a row",
                "lower training.learning_rate or raise training.warmup_ratio",
            )

    def _give_up(self, what: str, advice: str) -> NoReturn:
        """Save, and end the run with what a user needs to mend it."""
        losses = ", ".join(f"{float(self.world.sum(loss)):.4g}" for loss in self._losses)
        self.save_now()
        raise RunError(
            f"step {self.step}: {what}, so the model diverged; last losses before steps were "
            f"skipped: {losses or 'none'}; {advice}, in another "
            f"run_dir, and go on from a checkpoint before it with "
            f"checkpoint.resume={self.run_dir.checkpoints}/step-..., or start over"
        )

    # ------------------------------------------------------------ evaluation

    def _gain(self, scores: dict[str, Any]) -> float:
        """The score that makes weights the best, such that more is better."""
        return _or_worst(-self._metric(scores) if self._lower_is_better else self._metric(scores))

    def best(self) -> dict[str, Any] | None:
        """The entry of the history with the best score; of equals the one of the least loss."""
        return max(
            self.history,
            key=lambda scores: (self._gain(scores), _or_worst(-float(scores["loss"]))),
            default=None,
        )

    def evaluation_due(self) -> bool:
        """Whether this step's evaluation is still to be made."""
        every = self.config.evaluation.every
        interval = self.steps_per_epoch if every == "epoch" else every
        done = self.history[-1]["step"] if self.history else 0
        due = self.step % interval == 0 or self.is_over
        return "validation" in self.prepared.splits and due and self.step > done

    def evaluate(self, log: MetricsLog) -> None:
        """Score validation; export the weights if they are the best so far.

        Raises:
            RunError: the model collapsed, and the config says to stop then.
        """
        if self.config.evaluation.train_sample is not None:
            self._score("train_sample", self._train_sample, log, confidences=False)
        validation = self.prepared.splits["validation"]
        scores, evaluator, predictions = self._score("validation", validation, log)
        self.history.append({"step": self.step, **scores})
        self.schedule.scored(self._metric(scores))
        if self.best() is self.history[-1]:
            self._export()
            self._write_predictions(validation, evaluator, predictions)
            self._predicted_step = self.step
        only_tag = evaluator.only_tag(predictions)
        if only_tag is not None and self.step >= self.schedule.warmup_steps:
            self._collapsed(only_tag)
        if self.world.is_main and self.stops_early():
            inform(
                f"step {self.step}: no gain in {self.config.evaluation.patience} evaluations; "
                f"stopping early"
            )

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
            folder = folders.folder_of(self.run_dir.checkpoints, self.step)
            raise RunError(f"{what}; stopped, saved in {folder}")
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
        self.finish_saving()
        self.settle()
        if self.step == self._saved_step:
            return
        links = {folders.PLAIN: self.run_dir.plain}
        best = self.best()
        if best is not None:
            links[folders.BEST] = self.run_dir.model
        if self.rows is not None:
            links[folders.TABLE] = self.run_dir.table
        state = {
            "epoch": round(self.step / self.steps_per_epoch, 4),
            "skipped_steps": self.skipped_steps,
            "skipped_in_a_row": self.skipped_in_a_row,
            "history": list(self.history),
            "best": best and {"step": best["step"], "value": self._metric(best)},
            "labels": self.prepared.heads.names_of_logits,
            "config": self.config.model_dump(mode="json"),
            "world_size": self.world.size,
            "versions": versions(),
        }
        self._saver.begin(self.step, state, links)
        self._saved_step = self.step
        if not self.config.checkpoint.background:
            self.finish_saving()

    def save_now(self) -> None:
        """Write a checkpoint of this step and wait until it is whole."""
        self.save()
        self.finish_saving()

    def finish_saving(self) -> None:
        """Make the checkpoint that was begun whole, if there is one."""
        if not self._saver.unfinished:
            return
        saved = self._saver.commit()
        if self.world.is_main:
            self._keep_last()
            inform(
                f"checkpoint of step {saved.step}: {saved.num_bytes / 1e6:,.1f} MB in "
                f"{saved.seconds:.2f} s ({saved.num_bytes / 1e6 / saved.seconds:,.0f} MB/s), "
                f"training paused for {saved.pause:.3f} s"
            )

    def _keep_last(self) -> None:
        try:
            folders.keep_last(self.run_dir.checkpoints, self.config.checkpoint.keep_last)
        except OSError as error:
            # Too many are no reason to end a run.
            warn(f"an old checkpoint cannot be deleted: {error}")

    def heed(self, signal_received: int) -> None:
        """What a run may have to stop for between two steps: a write, its numbers, a signal.

        Raises:
            CheckpointError: the checkpoint that was being written could not be.
            RunError: steps go on being skipped; after saving.
            Stopped: after saving.
        """
        number, writer = self.world.agree_on_max(signal_received, self._saver.status)
        if writer in (IDLE, FAILED):
            self.finish_saving()
        self._check_numbers()
        if number:
            self._stop(Signals(number).name, 128 + number)
        self._heed_stop_after()

    def _heed_stop_after(self) -> None:
        last = self.config.training.stop_after
        if last is not None and last <= self.step < self.total_steps:
            self._stop("training.stop_after", 0)

    def _stop(self, by: str, exit_code: int) -> NoReturn:
        self.save_now()
        folder = folders.folder_of(self.run_dir.checkpoints, self.step)
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

    # ------------------------------------------------------------ resuming

    def resume(self) -> bool:
        """Go on from the checkpoint that ``checkpoint.resume`` means, if it means one.

        Raises:
            ConfigError: it is not one this run can go on from.
            CheckpointError: it is damaged, and so is every other that could take its place.
            Stopped: it is where the run is to stop.
        """
        folder = self._sound_checkpoint()
        if folder is None:
            return False
        manifest = read_manifest(folder)
        self.world.main_first(lambda: self._tell_resume(folder, manifest))
        load(folder, manifest, self.strategy)
        self.step = self._saved_step = manifest.step
        self.skipped_steps = manifest.skipped_steps
        self.skipped_in_a_row = manifest.skipped_in_a_row
        for scores in manifest.history:
            self.history.append(scores)
            self.schedule.scored(self._metric(scores))
        self.world.main_first(lambda: folders.restore_best(folder, self.run_dir.model))
        self._heed_stop_after()
        return True

    def _sound_checkpoint(self) -> Path | None:
        """The checkpoint to go on from: under ``auto`` the newest that is not damaged."""
        resume, checkpoints = self.config.checkpoint.resume, self.run_dir.checkpoints
        found: list[Path] = []
        self.world.main_first(lambda: found.extend(folders.candidates(resume, checkpoints)))
        problems: list[tuple[Path, str]] = []
        for folder in self.world.share_object(found):
            if not (problem := damage(folder, self.world)):
                self.world.main_first(lambda: self._set_damaged_aside(problems))
                return Path(folder)
            problems.append((folder, problem))
        if problems:
            advice = "checkpoint.resume=none starts over" if resume == "auto" else "name another"
            raise CheckpointError(f"{problems[0][1]}; no sound checkpoint is left: {advice}")
        return None

    def _set_damaged_aside(self, problems: list[tuple[Path, str]]) -> None:
        for folder, problem in problems:
            warn(f"{problem}; going back to the checkpoint before")
            inform(f"the damaged checkpoint is now {folders.set_aside(folder, 'damaged')}")

    def _tell_resume(self, folder: Path, manifest: Manifest) -> None:
        """Make sure that the run can go on from a checkpoint, and tell of it; for rank 0."""
        checkpoints = self.run_dir.checkpoints
        folders.check_fits(folder, manifest, self.prepared.heads.names_of_logits, self.total_steps)
        self._take_table(folder)
        for name, before, now in differences(config_of(folder, manifest), self.config):
            warn(f"{name} was {before!r} when {folder} was written and is {now!r} now")
        for aside in folders.set_newer_aside(checkpoints, manifest.step):
            inform(f"goes beyond the step that is gone back to: now {aside}")
        inform(f"going on from step {manifest.step} ({folder})")

    def _take_table(self, folder: Path) -> None:
        """Make sure that a checkpoint trained the same rows of the embedding table; for rank 0."""
        there = folder / folders.TABLE
        if message := TableFolder(there).why_not(self.rows):
            raise ConfigError([Problem(str(folder), "", message)])
        if self.rows is not None:
            shutil.rmtree(self.run_dir.table, ignore_errors=True)
            folders.link_folder(there, self.run_dir.table)

    # ------------------------------------------------------------ the end

    def finish(self, log: MetricsLog) -> dict[str, Any]:
        """Score test with the best weights, leave them exported, and write the summary."""
        self.finish_saving()
        self.settle()
        best = self.best()
        if best is None:
            self._export()
        elif best is not self.history[-1]:
            load_weights(self.run_dir.model, self.strategy, self.rows)
        if best is not None and best["step"] != self._predicted_step:
            # The best evaluation was made before the run was resumed.
            validation = self.prepared.splits["validation"]
            evaluator = self._evaluator(validation)
            predictions = evaluator.predict(self.strategy, confidences=True)
            self._write_predictions(validation, evaluator, predictions)
        test = None
        if (split := self.prepared.splits.get("test")) is not None:
            test, evaluator, predictions = self._score("test", split, log)
            self._write_predictions(split, evaluator, predictions)
        peak = torch.tensor(peak_memory_bytes(self.world.device))
        summary: dict[str, Any] = {
            "steps": self.step,
            "stopped_early": self.step < self.total_steps,
            "skipped_steps": self.skipped_steps,
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

    def _write_summary(self, summary: dict[str, Any]) -> None:
        try:
            write_json(self.run_dir.summary, summary)
        except OSError as error:
            raise RunError(f"{self.run_dir.summary} cannot be written: {error}") from None


def _or_worst(value: float) -> float:
    """What compares with every number, as nan does not."""
    return -math.inf if math.isnan(value) else value


def device_name(device: torch.device) -> str:
    """What a rank computes on, as its maker calls it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.machine()


def versions() -> dict[str, str]:
    """The versions that a result depends on."""
    names = ("torch", "transformers", "deepspeed", "seqeval")
    found = {"bigner": __version__}
    for name in names:
        # A run under fsdp needs no deepspeed.
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found
