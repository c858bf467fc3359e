"""A training run, top to bottom."""

from __future__ import annotations

import math
import time
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from bigner import __version__, checkpoint
from bigner.config.schema import RunConfig
from bigner.data.batches import TrainingPlan, TrainingStep
from bigner.data.collate import Collator
from bigner.data.prepare import Prepared, prepare
from bigner.distributed import World
from bigner.errors import LaunchError, RunError
from bigner.evaluation.evaluator import ShardedEvaluator, as_json, timed_run
from bigner.export import export_model, load_weights
from bigner.log import MetricsLog, inform, show_scores, warn
from bigner.modeling import build_model, check_fits, load_tokenizer
from bigner.optim import LearningRate, token_losses
from bigner.run_dir import RunDir, differences, write_json
from bigner.strategies import StepOutcome, Strategy, open_strategy
from bigner.strategies.precision import slow_precision_warning

MAX_SKIPPED_IN_A_ROW = 10


def train(config: RunConfig, world: World) -> dict[str, Any]:
    """Run what the config says, from data to exported model; collective.

    Returns:
        what ``summary.json`` holds; the same on every rank.

    Raises:
        BignerError: whatever a user can mend; see ``bigner.errors``.
    """
    accumulation = _accumulation(config, world)
    run_dir = RunDir(config.run_dir)
    lock = run_dir.lock()
    world.main_first(lambda: run_dir.claim(config, lock))
    world.require_everywhere(
        run_dir.path.is_dir(),
        LaunchError(f"run_dir {run_dir.path} must be on storage that all nodes share"),
    )
    if (done := _finished(run_dir, world)) is not None:
        return done

    tokenizer = load_tokenizer(config.model)
    prepared = prepare(config.data, tokenizer, config.data.splits())
    model = build_model(config.model, prepared.labels.tags, config.seed)
    check_fits(model, tokenizer, config.data.max_length)
    plan = _training_plan(config, prepared)
    total_steps = config.training.max_steps or plan.steps_per_epoch * config.training.num_epochs()
    if world.is_main:
        _tell_plan(config, world, prepared, model, accumulation, total_steps)

    strategy = open_strategy(config, world, model)
    run = _Run(config, world, run_dir, prepared, model, tokenizer, strategy, total_steps)
    run.resume()
    collate = Collator(prepared, prepared.splits["train"], world.device)
    every = config.evaluation.every
    evaluate_every = plan.steps_per_epoch if every == "epoch" else every
    log_every, save_every = config.training.log_every, config.checkpoint.every_steps
    speed = _Speed()

    with MetricsLog(
        run_dir.path,
        enabled=world.is_main,
        first_step=run.step,
        total_steps=total_steps,
        trackers=config.tracking,
    ) as log:
        for step, batch in plan.steps(run.step, total_steps):
            learning_rate = run.schedule.at(step)
            loss_share, outcome = _train_step(run, collate, step, batch, learning_rate)
            run.step = step + 1
            run.note_skipped(outcome)
            speed.add(batch.num_tokens)
            last = run.step == total_steps
            metrics = None
            if run.step % log_every == 0 or last:
                loss = float(world.sum(loss_share))
                metrics = _metrics(loss, outcome, learning_rate, speed.tokens_per_second())
            log.step_done(run.step, metrics)
            if "validation" in prepared.splits and (run.step % evaluate_every == 0 or last):
                run.evaluate(log)
                speed = _Speed()
            if save_every and (run.step % save_every == 0 or last):
                run.save()
                speed = _Speed()
        summary = run.finish(log)
    strategy.close()
    return summary


def _accumulation(config: RunConfig, world: World) -> int:
    try:
        return config.training.accumulation(world.size)
    except ValueError as error:
        raise LaunchError(str(error)) from None


def _finished(run_dir: RunDir, world: World) -> dict[str, Any] | None:
    """The summary of a run that is done already, told to rank 0's terminal."""
    summary = None
    if world.is_main and run_dir.summary.exists():
        summary = run_dir.read_summary()
        inform(f"{run_dir.path} is done already; checkpoint.resume=none would start it over")
        _show_scores(summary)
    shared: dict[str, Any] | None = world.share_object(summary)
    return shared


def _training_plan(config: RunConfig, prepared: Prepared) -> TrainingPlan:
    windows = prepared.splits["train"]
    return TrainingPlan(
        windows.column("length"),
        windows.column("num_labels"),
        global_batch_size=config.training.global_batch_size,
        seed=config.seed,
    )


def _tell_plan(
    config: RunConfig,
    world: World,
    prepared: Prepared,
    model: PreTrainedModel,
    accumulation: int,
    total_steps: int,
) -> None:
    for warning in (*prepared.warnings, slow_precision_warning(config.precision, world.device)):
        if warning is not None:
            warn(warning)
    for split in prepared.splits.values():
        if split.words_cut:
            warn(f"{split.split}: {split.words_cut} words have more pieces than a window holds")
    parameters = sum(p.numel() for p in model.parameters())
    windows = ", ".join(
        f"{split.windows.num_rows:,} {name}" for name, split in prepared.splits.items()
    )
    training = config.training
    inform(
        f"{config.strategy.kind}, {config.precision}, {world.size} x {world.device.type}; "
        f"{parameters:,} parameters; windows: {windows}; {total_steps:,} steps of "
        f"{training.global_batch_size} = {training.micro_batch_size} x {accumulation} "
        f"accumulation x {world.size} ranks"
    )


def _train_step(
    run: _Run, collate: Collator, step: int, batch: TrainingStep, learning_rate: float
) -> tuple[torch.Tensor, StepOutcome]:
    """One optimizer step; returns this rank's share of the mean loss, which ranks sum up."""
    # Dropout follows from (seed, step, rank), so a resumed run draws what an unbroken one would.
    config, world, strategy = run.config, run.world, run.strategy
    seed = np.random.SeedSequence((config.seed, step, world.rank))
    torch.manual_seed(int(seed.generate_state(1)[0]))
    loss_share = torch.zeros((), device=world.device)
    micro_batches = batch.micro_batches(config.training.micro_batch_size, world.rank, world.size)
    for i, rows in enumerate(micro_batches):
        micro_batch = collate(rows)
        logits = strategy.forward(micro_batch.inputs)
        share = token_losses(logits, micro_batch.labels).sum() / max(1, batch.num_labels)
        strategy.backward(share, last=i == len(micro_batches) - 1)
        loss_share += share.detach()
    return loss_share, strategy.step(learning_rate)


def _metrics(
    loss: float, outcome: StepOutcome, learning_rate: float, tokens_per_second: float
) -> dict[str, Any]:
    """One line of metrics.jsonl; what is not finite is null, for JSON has no word for it."""
    return {
        "loss": loss if math.isfinite(loss) else None,
        "grad_norm": None if outcome.skipped else outcome.grad_norm,
        "learning_rate": learning_rate,
        "loss_scale": outcome.loss_scale,
        "skipped": outcome.skipped,
        "tokens_per_second": round(tokens_per_second, 1),
    }


class _Speed:
    """Real tokens a second over the steps since the last evaluation or checkpoint."""

    def __init__(self) -> None:
        self._tokens = 0
        self._start = time.perf_counter()

    def add(self, tokens: int) -> None:
        self._tokens += tokens

    def tokens_per_second(self) -> float:
        return self._tokens / (time.perf_counter() - self._start)


@dataclass
class _Run:
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


def _show_scores(summary: dict[str, Any]) -> None:
    for split in ("validation", "test"):
        if summary.get(split):
            show_scores(split, summary[split])


def versions() -> dict[str, str]:
    """The versions that a result depends on."""
    names = ("torch", "transformers", "deepspeed", "seqeval")
    found = {"bigner": __version__}
    for name in names:
        # A run under fsdp needs no deepspeed.
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found
