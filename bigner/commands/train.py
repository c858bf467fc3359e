"""A training run, top to bottom."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from bigner import collector
from bigner.config.schema import RunConfig
from bigner.data.batches import TrainingPlan, TrainingStep, dealing, token_spread
from bigner.data.collate import Batch, Collator, ahead
from bigner.data.prepare import Prepared, prepare
from bigner.data.window_size import WindowSize
from bigner.distributed import World
from bigner.errors import DivergedError, LaunchError, Pruned
from bigner.log import MetricsLog, inform, show_scores, warn
from bigner.loss import TrainingLoss
from bigner.memory import forget_peak
from bigner.modeling import (
    build_model,
    check_fits,
    describe_heads,
    describe_windows,
    load_tokenizer,
)
from bigner.packing import can_pack, pack_attention, padding_note
from bigner.run_dir import RunDir
from bigner.stop import StopSignals
from bigner.strategies import PendingOutcome, StepOutcome, open_strategy
from bigner.strategies.precision import slow_precision_warning
from bigner.table import UsedRows, keep_rows
from bigner.tracking import Tracking, open_tracking
from bigner.tracking.base import About
from bigner.tracking.environment import environment
from bigner.training import GoesOn, TrainingRun, versions
from bigner.weights import InitialWeights


def train(config: RunConfig, world: World, *, goes_on: GoesOn | None = None) -> dict[str, Any]:
    """Run what the config says, from data to exported model; collective.

    Args:
        config: the run config.
        world: all ranks.
        goes_on: asked after each evaluation whether the run is worth going on.

    Returns:
        what ``summary.json`` holds; the same on every rank.

    Raises:
        BignerError: whatever a user can mend; see ``bigner.errors``.
        Pruned: ``goes_on`` said no.
    """
    _require_batches(config, world)
    run_dir = RunDir(config.run_dir)
    lock = run_dir.lock()
    try:
        world.main_first(lambda: run_dir.claim(config, lock))
        world.require_everywhere(
            run_dir.path.is_dir(),
            LaunchError(f"run_dir {run_dir.path} must be on storage that all nodes share"),
        )
        if (done := _finished(run_dir, world)) is not None:
            return done
        return _train(config, world, run_dir, goes_on)
    finally:
        # At once: where the process lives on, what failed may keep it in its traceback.
        lock.release()


def _train(
    config: RunConfig, world: World, run_dir: RunDir, goes_on: GoesOn | None
) -> dict[str, Any]:
    """A run that is not done yet, in its own folder."""
    forget_peak(world.device)
    with collector.paused():
        # A vocabulary is read by way of hundreds of thousands of lists.
        tokenizer = load_tokenizer(config.model)
    prepared = prepare(config.data, tokenizer, config.data.splits())
    model = build_model(config.model, prepared.heads.names_of_logits)
    describe_heads(model, prepared.heads)
    describe_windows(model, WindowSize(config.data.max_length, config.data.stride))
    check_fits(model, tokenizer, config.data.max_length)
    world.main_first(lambda: run_dir.make_ready(model, tokenizer))
    loss = _training_loss(config, prepared, world)
    plan = _training_plan(config, prepared, loss)
    total_steps = config.training.max_steps or plan.steps_per_epoch * config.training.num_epochs()
    if world.is_main:
        _tell_plan(config, world, prepared, model, total_steps)

    weights = InitialWeights(
        config.model, model, seed=config.seed, cache_root=config.data.cache_root()
    )
    packing = pack_attention(model, config.model.packing)
    rows = _used_rows(config, world, prepared, model)
    strategy = open_strategy(config, world, model)
    run = TrainingRun(
        config,
        world,
        run_dir,
        prepared,
        model,
        packing,
        rows,
        strategy,
        plan.steps_per_epoch,
        total_steps,
        goes_on,
    )
    if not run.resume():
        run.begin(weights)
    try:
        with StopSignals() as signals, run.naming_lost_ranks():
            summary = _train_steps(run, plan, loss, signals)
    except (Pruned, DivergedError):
        # Another run may follow in this process.
        strategy.close()
        raise
    strategy.close()
    return summary


def _train_steps(
    run: TrainingRun, plan: TrainingPlan, loss: TrainingLoss, signals: StopSignals
) -> dict[str, Any]:
    """The steps that are left, with all that is due between them, and the end of the run."""
    world, log_every = run.world, run.config.training.log_every
    speed = _Speed()
    with (
        _tracking(run) as tracking,
        MetricsLog(
            run.run_dir.path,
            enabled=world.is_main,
            first_step=run.step,
            total_steps=run.total_steps,
            also=tracking.log,
        ) as log,
    ):
        tracking.catch_up(log.lines)
        if run.evaluation_due():
            # The run was stopped after a step and before its evaluation.
            run.evaluate(log)
            run.heed_pruning(signals.received)
        for work in ahead(_work(run, plan)):
            if run.is_over:
                # Early, for want of a gain; a resumed run may find that it had come to this.
                break
            learning_rate = run.schedule.at(run.step)
            loss_share, outcome = _train_step(run, loss, work, learning_rate)
            run.note_step(loss_share, outcome)
            speed.add(work)
            metrics = None
            if run.step % log_every == 0 or run.is_over:
                mean_loss = float(world.sum(loss_share))
                metrics = _metrics(mean_loss, run.outcomes.settle(), learning_rate) | speed.so_far()
            log.step_done(run.step, metrics)
            run.heed(signals.received)
            if run.evaluation_due():
                run.evaluate(log)
                run.heed_pruning(signals.received)
                speed = _Speed()
            if run.save_due():
                run.save()
                speed = _Speed()
        # A signal that came while the last evaluation was made.
        run.heed(signals.received)
        return run.finish(log)


def _tracking(run: TrainingRun) -> Tracking:
    """The trackers of the config, on the rank that writes."""
    if not (run.world.is_main and run.config.tracking):
        return Tracking()
    facts = environment(run.world, versions())
    return open_tracking(About(run.config, run.run_dir, facts, run.step))


@dataclass(frozen=True, slots=True)
class _Work:
    """What a rank computes in one optimizer step."""

    step: TrainingStep
    micro_batches: list[Batch]
    token_spread: float


def _work(run: TrainingRun, plan: TrainingPlan) -> Iterator[_Work]:
    """This rank's part of the steps that are left."""
    world, windows = run.world, run.prepared.splits["train"]
    lengths = windows.column("length")
    collate = Collator(run.prepared, windows, world.device, run.packing, run.places)
    deal = dealing(run.config.training, lengths, world.size)
    for _, step in plan.steps(run.step, run.total_steps):
        micro_batches = deal(step.rows)
        yield _Work(
            step,
            [collate(ranks[world.rank]) for ranks in micro_batches],
            token_spread(micro_batches, lengths),
        )


def _require_batches(config: RunConfig, world: World) -> None:
    try:
        config.training.accumulation(world.size)
    except ValueError as error:
        raise LaunchError(str(error)) from None


def _used_rows(
    config: RunConfig, world: World, prepared: Prepared, model: PreTrainedModel
) -> UsedRows | None:
    """Leave the model with the rows of its embedding table that are in use, if that is wanted."""
    if config.model.embedding_rows == "all":
        return None
    rows = keep_rows(model, prepared.used_pieces(), prepared.pad_id) if can_pack(model) else None
    if world.is_main:
        if rows is None:
            inform("the whole embedding table is trained: its rows cannot be left out")
        else:
            inform(f"embedding rows in use: {len(rows.ids):,} of {rows.num_pieces:,}")
    return rows


def _finished(run_dir: RunDir, world: World) -> dict[str, Any] | None:
    """The summary of a run that is done already, told to rank 0's terminal."""
    summary = None
    if world.is_main and run_dir.summary.exists():
        summary = run_dir.read_summary()
        inform(f"{run_dir.path} is done already; checkpoint.resume=none would start it over")
        _show_scores(summary)
    shared: dict[str, Any] | None = world.share_object(summary)
    return shared


def _training_loss(config: RunConfig, prepared: Prepared, world: World) -> TrainingLoss:
    """The loss, with class weights from the whole training data, so alike on every rank."""
    train, heads = prepared.splits["train"], prepared.heads
    resolved = config.data.resolved_heads()
    return TrainingLoss(
        config.loss,
        heads,
        [resolved[head.name].weight for head in heads],
        [train.label_counts(i, len(head.labels)) for i, head in enumerate(heads)],
        world.device,
    )


def _training_plan(config: RunConfig, prepared: Prepared, loss: TrainingLoss) -> TrainingPlan:
    windows = prepared.splits["train"]
    return TrainingPlan(
        windows.column("length"),
        [windows.label_weights(i, weights) for i, weights in enumerate(loss.class_weights)],
        training=config.training,
        seed=config.seed,
    )


def _tell_plan(
    config: RunConfig,
    world: World,
    prepared: Prepared,
    model: PreTrainedModel,
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
    inform(
        f"{config.strategy.kind}, {config.precision}, {world.size} x {world.device.type}; "
        f"{parameters:,} parameters; windows: {windows}; {total_steps:,} steps of "
        f"{config.training.describe_batch(world.size)}"
    )
    if note := padding_note(model, config.model.packing):
        inform(note)


def _train_step(
    run: TrainingRun, loss: TrainingLoss, work: _Work, learning_rate: float
) -> tuple[torch.Tensor, PendingOutcome]:
    """One optimizer step; returns this rank's share of the mean loss, which ranks sum up."""
    # Dropout follows from (seed, step, rank), so a resumed run draws what an unbroken one would.
    world, strategy = run.world, run.strategy
    seed = np.random.SeedSequence((run.config.seed, run.step, world.rank))
    torch.manual_seed(int(seed.generate_state(1)[0]))
    loss_share = torch.zeros((), device=world.device)
    for i, batch in enumerate(work.micro_batches, start=1):
        logits = strategy.forward(batch.inputs).flatten(0, -2)
        share = loss.share(logits, batch.labels, work.step.label_weights)
        strategy.backward(share, last=i == len(work.micro_batches))
        loss_share += share.detach()
    return loss_share, strategy.step(learning_rate)


def _metrics(loss: float, outcome: StepOutcome, learning_rate: float) -> dict[str, Any]:
    """One line of metrics.jsonl; what is not finite is null, for JSON has no word for it."""
    return {
        "loss": loss if math.isfinite(loss) else None,
        "grad_norm": None if outcome.skipped else outcome.grad_norm,
        "learning_rate": learning_rate,
        "loss_scale": outcome.loss_scale,
        "skipped": outcome.skipped,
    }


class _Speed:
    """How fast the steps since the last evaluation or checkpoint were."""

    def __init__(self) -> None:
        self._tokens = 0
        self._spreads: list[float] = []
        self._start = time.perf_counter()

    def add(self, work: _Work) -> None:
        self._tokens += work.step.num_tokens
        self._spreads.append(work.token_spread)

    def so_far(self) -> dict[str, float]:
        """Real tokens a second, and by how much the ranks' shares of a step differ."""
        seconds = time.perf_counter() - self._start
        return {
            "tokens_per_second": round(self._tokens / seconds, 1),
            "token_spread": round(sum(self._spreads) / len(self._spreads), 4),
        }


def _show_scores(summary: dict[str, Any]) -> None:
    for split in ("validation", "test"):
        if summary.get(split):
            show_scores(split, summary[split])
