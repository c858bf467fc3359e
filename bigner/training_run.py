"""The state of a training run: the best so far; to score, save, resume and finish it."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerFast

from bigner import __version__, checkpoint
from bigner.config.schema import RunConfig
from bigner.data.prepare import Prepared
from bigner.distributed import World
from bigner.errors import RunError
from bigner.evaluation.evaluator import ShardedEvaluator, as_json, timed_run
from bigner.export import export_model, load_weights
from bigner.log import MetricsLog, inform, show_scores, warn
from bigner.optim import LearningRate
from bigner.run_dir import RunDir, differences, write_json
from bigner.strategies import StepOutcome, Strategy

MAX_SKIPPED_IN_A_ROW = 10


@dataclass
class TrainingRun:
    """What a run has come to so far, and what is done with it at intervals."""

    config: RunConfig
    world: World
    run_dir: RunDir
    prepared: Prepared
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerFast
    strategy: Strategy
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

    @property
    def _lower_is_better(self) -> bool:
        return self.config.evaluation.metric == "loss"

    def _metric(self, scores: dict[str, Any]) -> float:
        name = self.config.evaluation.metric
        return float(scores["strict"]["f1"] if name == "strict_f1" else scores[name])

    def note_skipped(self, outcome: StepOutcome) -> None:
        """Count skipped steps; under fp16 the loss scale halves with each and has its own end.

        Raises:
            RunError: without a loss scale to lower, steps go on being skipped.
        """
        self.skipped_steps += outcome.skipped
        self.skipped_in_a_row = self.skipped_in_a_row + 1 if outcome.skipped else 0
        if self.config.precision != "fp16" and self.skipped_in_a_row >= MAX_SKIPPED_IN_A_ROW:
            raise RunError(
                f"step {self.step}: the gradient was not finite {self.skipped_in_a_row} times in a "
                f"row, so the model diverged; lower training.learning_rate or raise "
                f"training.warmup_ratio"
            )

    def best(self) -> dict[str, Any] | None:
        """The entry of the history with the best score; of equals the one of the least loss."""
        sign = -1 if self._lower_is_better else 1
        return max(
            self.history,
            key=lambda scores: (sign * self._metric(scores), -scores["loss"]),
            default=None,
        )

    def evaluate(self, log: MetricsLog) -> None:
        """Score validation; export the weights if they are the best so far."""
        scores = self._score("validation", log)
        self.history.append({"step": self.step, **scores})
        self.schedule.scored(self._metric(scores))
        if self.best() is self.history[-1]:
            self._export()

    def _score(self, split: Any, log: MetricsLog) -> dict[str, Any]:
        evaluator = ShardedEvaluator(
            self.prepared,
            self.prepared.splits[split],
            self.prepared.labels,
            self.world,
            batch_size=self.config.evaluation.batch_size,
        )
        timed, _ = timed_run(evaluator, self.strategy)
        scores = as_json(timed)
        log.evaluated(self.step, split, scores)
        if self.world.is_main:
            show_scores(f"{split}, step {self.step}", scores)
        return scores

    def _export(self) -> None:
        export_model(self.run_dir.model, self.strategy, self.world, self.model, self.tokenizer)

    def save(self) -> None:
        """Write a checkpoint of this step and drop those too old to keep."""
        folder = checkpoint.folder_of(self.run_dir.checkpoints, self.step)
        state = {
            "step": self.step,
            "skipped_steps": self.skipped_steps,
            "history": self.history,
            "labels": self.prepared.labels.tags,
            "config": self.config.model_dump(mode="json"),
            "world_size": self.world.size,
            "versions": versions(),
        }
        best_model = self.run_dir.model if self.history else None
        checkpoint.save(folder, self.strategy, self.world, state, best_model)
        if self.world.is_main:
            checkpoint.keep_last(self.run_dir.checkpoints, self.config.checkpoint.keep_last)

    def resume(self) -> None:
        """Go on from the checkpoint that ``checkpoint.resume`` means, if it means one."""
        found: list[Path | None] = [None]
        self.world.main_first(lambda: found.append(self._find_checkpoint()))
        folder = self.world.share_object(found[-1])
        if folder is None:
            return
        manifest = checkpoint.load(folder, self.strategy, self.world)
        self.step = manifest["step"]
        self.skipped_steps = manifest["skipped_steps"]
        for scores in manifest["history"]:
            self.history.append(scores)
            self.schedule.scored(self._metric(scores))
        self.world.main_first(lambda: checkpoint.restore_best(folder, self.run_dir.model))
        if self.world.is_main:
            inform(f"going on from step {self.step} ({folder})")

    def _find_checkpoint(self) -> Path | None:
        """The checkpoint to go on from, made sure of and told about; for rank 0."""
        folder = checkpoint.find(self.config.checkpoint.resume, self.run_dir.checkpoints)
        if folder is None:
            return None
        manifest = checkpoint.read_manifest(folder)
        checkpoint.check_fits(folder, manifest, self.prepared.labels.tags, self.total_steps)
        for name, before, now in differences(checkpoint.config_of(folder, manifest), self.config):
            warn(f"{name} was {before!r} when {folder} was written and is {now!r} now")
        for aside in checkpoint.set_newer_aside(self.run_dir.checkpoints, manifest["step"]):
            inform(f"goes beyond the step that is gone back to: now {aside}")
        return folder

    def finish(self, log: MetricsLog) -> dict[str, Any]:
        """Score test with the best weights, leave them exported, and write the summary."""
        best = self.best()
        if best is None:
            self._export()
        elif self.world.is_main and best["f1"] == 0 and best["strict"]["support"]:
            warn(
                "no entity of validation was ever found: the model may have collapsed to O; large "
                "encoders want a learning rate of 1e-5, warm-up, and a global batch of 16 or more"
            )
        if best is not None and best is not self.history[-1]:
            load_weights(self.run_dir.model, self.strategy)
        test = self._score("test", log) if "test" in self.prepared.splits else None
        summary: dict[str, Any] = {
            "steps": self.step,
            "skipped_steps": self.skipped_steps,
            "best_step": best["step"] if best else self.step,
            "validation": best,
            "test": test,
            "model": str(self.run_dir.model),
            "labels": self.prepared.labels.tags,
            "strategy": self.config.strategy.kind,
            "precision": self.config.precision,
            "world_size": self.world.size,
            "seconds": round(time.perf_counter() - self.started, 1),
            "versions": versions(),
        }
        # Ranks differ in what they took; rank 0's times are the run's.
        summary = self.world.share_object(summary)
        self.world.main_first(lambda: write_json(self.run_dir.summary, summary))
        if self.world.is_main:
            inform(f"done: model in {self.run_dir.model}, scores in {self.run_dir.summary}")
        return summary


def versions() -> dict[str, str]:
    """The versions that a result depends on."""
    names = ("torch", "transformers", "deepspeed", "seqeval")
    found = {"bigner": __version__}
    for name in names:
        # A run under fsdp needs no deepspeed.
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found
