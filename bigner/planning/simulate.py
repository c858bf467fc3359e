"""A step of a sharded run, traced without the hardware: fake tensors, a fake group of all ranks.

The model, its units, the optimizer and the step are those of a run; FSDP2 goes through all its
collectives and torch's tracker notes every storage that comes and goes on one rank. What differs
between a GPU and this machine is taken as it is on a GPU: attention by the kernel for windows of
any length, dropout that keeps a mask of bytes.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed._tools.fsdp2_mem_tracker import FSDPMemTracker
from torch.testing._internal.distributed.fake_pg import FakeStore
from transformers import AutoConfig, AutoModelForTokenClassification, PreTrainedModel

from bigner.config.schema import FsdpStrategy, TrainingConfig
from bigner.distributed import World
from bigner.modeling import allocate, parameters_on_meta, units
from bigner.packing import PackedWindows, attend_as_on_gpus
from bigner.planning.hardware import GIB
from bigner.planning.job import Job
from bigner.planning.memory import memory_of
from bigner.planning.shapes import ModelShape
from bigner.strategies import shard_fake_model
from bigner.strategies.adamw import Stepper


def simulate(job: Job) -> dict[str, Any]:
    """The traced peak of a step, beside what the formulas say of it."""
    start = time.perf_counter()
    model = _build(job.shape)
    # The model's buffers alone are real.
    with _fake_group(job.ranks), FakeTensorMode(allow_non_fake_inputs=True), _quiet():
        peak = _trace(job, model)
    total = peak.pop("Total")
    formula = memory_of(job).step_peak.total
    return {
        "peak_gib": round(total / GIB, 3),
        "formula_gib": round(formula / GIB, 3),
        "parts_gib": {name.lower(): round(n / GIB, 3) for name, n in peak.items() if n},
        "seconds": round(time.perf_counter() - start, 1),
    }


@contextmanager
def _fake_group(ranks: int) -> Iterator[None]:
    """Rank 0 of a group of processes that are not there."""
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=ranks)
    try:
        yield
    finally:
        dist.destroy_process_group()


@contextmanager
def _quiet() -> Iterator[None]:
    """What FSDP2 warns of at every first forward, logits being changed in place, is not done."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")
        yield


def _trace(job: Job, model: PreTrainedModel) -> dict[str, int]:
    """Bytes at the fullest moment of a step, by what they are."""
    assert isinstance(job.strategy, FsdpStrategy)
    world = World(size=job.ranks)
    allocate(model, world.device)
    attend_as_on_gpus(model)
    training = TrainingConfig(gradient_checkpointing=job.checkpointing)
    stepper = shard_fake_model(model, job.strategy, training, job.precision, world)
    for module in model.modules():
        if type(module) is nn.Dropout:
            module.__class__ = _KeepsBytes
    model.train()
    tracker = FSDPMemTracker(model, stepper.optimizer)
    tracker.track_external(model, stepper.optimizer)
    # The fused AdamW updates in place: what it needs is there when the backward ends.
    with tracker:
        # Two are as good as many: from the second on, gradients are there already.
        for _ in range(min(2, job.accumulation)):
            _micro_batch(job, model, stepper)
            tracker.reset_mod_stats()
    peak: dict[str, int] = tracker.get_tracker_snapshot("peak")[torch.device("cpu")]
    return peak


class _KeepsBytes(nn.Dropout):
    """Dropout that keeps its mask as a GPU's does."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return torch.native_dropout(input, self.p, self.training)[0] if self.p else input


def _build(shape: ModelShape) -> PreTrainedModel:
    sizes = {name: value for name, value in shape.sizes.items() if name != "model_type"}
    for name in ("hidden_dropout_prob", "attention_probs_dropout_prob"):
        if shape.model_type != "modernbert":
            sizes[name] = shape.dropout
    config = AutoConfig.for_model(shape.model_type, **sizes)
    config.num_labels = shape.num_labels
    with parameters_on_meta():
        model = AutoModelForTokenClassification.from_config(config, dtype=torch.float32)
    frozen = [unit.is_trained for unit in (shape.embeddings, *shape.layers)]
    for unit, is_trained in zip(units(model), frozen, strict=True):
        unit.requires_grad_(is_trained)
    return model


def _micro_batch(job: Job, model: PreTrainedModel, stepper: Stepper) -> None:
    lengths = np.full(job.windows, job.window)
    lengths[-1] += job.tokens - lengths.sum()
    windows = PackedWindows(np.sort(lengths)[::-1], torch.device("cpu"))
    pieces = torch.empty(1, job.tokens, dtype=torch.long)
    logits = model(
        input_ids=pieces, attention_mask=None, position_ids=pieces, windows=windows
    ).logits
    stepper.backward(F.cross_entropy(logits.float().flatten(0, -2), pieces.flatten()))
