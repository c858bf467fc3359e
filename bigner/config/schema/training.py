"""``training`` and ``loss``: how long and how fast the model learns, and from what."""

from __future__ import annotations

from fractions import Fraction
from typing import Annotated, Literal

from pydantic import Field, model_validator

from bigner.config.schema.base import Section, is_given

Schedule = Literal["linear", "cosine", "constant", "reduce_on_plateau"]
ClassWeighting = Literal["none", "inverse_frequency", "effective_number"]


class LossConfig(Section):
    """What a wrong label costs. The mean is over the weights of all labels of the global batch."""

    class_weights: ClassWeighting | dict[str, Annotated[float, Field(gt=0.0)]] = "none"
    """What a label counts: all the same, more the rarer it is among the training labels
    (`inverse_frequency`, or `effective_number`, which is milder), or a map from tags (`O`,
    `B-PER`), entity types or classes to numbers, 1 for what it leaves out."""

    effective_number_beta: float | None = Field(default=None, gt=0.0, lt=1.0)
    """For `effective_number`: the nearer to 1, the more rare labels count; 0.9999 if absent."""

    focal_gamma: float = Field(default=0.0, ge=0.0)
    """Focal loss: a label that the model gives probability p counts (1 - p) to this power; 0 is
    cross-entropy."""

    label_smoothing: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Share of the target that is spread over all labels."""

    def beta(self) -> float:
        """`effective_number_beta`, or its default."""
        return 0.9999 if self.effective_number_beta is None else self.effective_number_beta

    @model_validator(mode="after")
    def _beta_has_its_weighting(self) -> LossConfig:
        if self.effective_number_beta is not None and self.class_weights != "effective_number":
            raise ValueError(
                f"loss.effective_number_beta {self.effective_number_beta} is for "
                f"loss.class_weights effective_number; set that or take it out"
            )
        return self


class TrainingConfig(Section):
    """How long and how fast the model learns."""

    epochs: int | None = Field(default=None, ge=1)
    """Passes over the training data; 3 where neither this nor `max_steps` is given."""

    max_steps: int | None = Field(default=None, ge=1)
    """Optimizer steps, instead of `epochs`."""

    global_batch_size: int = Field(default=32, ge=1)
    """Samples (windows) in one optimizer step, over all ranks."""

    batching: Literal["samples", "tokens"] = "samples"
    """What one rank computes at once: `micro_batch_size` samples, however long, or as many as have
    `micro_batch_tokens` pieces, with the ranks' shares balanced."""

    micro_batch_size: int = Field(default=8, ge=1)
    """Samples that one rank computes at once; accumulation follows from the world size."""

    micro_batch_tokens: int = Field(default=4096, ge=8)
    """For `batching: tokens`: pieces that one rank computes at once; accumulation follows, step by
    step, from the lengths of the samples."""

    global_batch_tokens: int | None = Field(default=None, ge=16)
    """For `batching: tokens`: pieces in one optimizer step, over all ranks, instead of
    `global_batch_size` samples; a little less, so that all steps of an epoch are alike."""

    pool_batches: int = Field(default=1, ge=1)
    """1 draws global batches at random. With more, samples are sorted by length within pools of so
    many global batches: less padding where windows are padded and more equal ranks, but the model
    is worse (by about 0.02 F1 on WNUT-17 with 32)."""

    learning_rate: float = Field(default=1e-5, gt=0.0, le=1.0)
    """Peak learning rate of AdamW."""

    head_learning_rate: float | None = Field(default=None, gt=0.0, le=1.0)
    """Peak learning rate of the head, where it is another; it follows the same schedule."""

    layer_decay: float = Field(default=1.0, gt=0.0, le=1.0)
    """What the learning rate is multiplied with at each step down: the k-th layer from the top
    learns at `learning_rate` times `layer_decay` to the power k, the embeddings are below the last
    one. The log tells `learning_rate` itself."""

    schedule: Schedule = "linear"
    """How the learning rate goes on after warm-up."""

    warmup_ratio: float = Field(default=0.1, ge=0.0, lt=1.0)
    """Share of all optimizer steps over which the learning rate rises from zero."""

    weight_decay: float = Field(default=0.01, ge=0.0, le=1.0)
    """Decoupled decay of AdamW, on matrices alone (biases and norms have none)."""

    adam_beta1: float = Field(default=0.9, ge=0.0, lt=1.0)
    """Decay of AdamW's first moment."""

    adam_beta2: float = Field(default=0.999, ge=0.0, lt=1.0)
    """Decay of AdamW's second moment."""

    adam_epsilon: float = Field(default=1e-8, gt=0.0)
    """AdamW's epsilon."""

    max_grad_norm: float | None = Field(default=1.0, gt=0.0)
    """Gradients are scaled down to this global norm; null leaves them as they are."""

    plateau_factor: float = Field(default=0.5, gt=0.0, lt=1.0)
    """For `reduce_on_plateau`: what the learning rate is multiplied with."""

    plateau_patience: int = Field(default=2, ge=0)
    """For `reduce_on_plateau`: evaluations without a gain that are waited for."""

    average_decay: float | None = Field(default=None, gt=0.0, lt=1.0)
    """Keep a moving average of the weights, which keeps this share of itself in a step: 0.99 is
    about the last hundred steps. Evaluation, test scores and the exported model are those of the
    average; the steps go on from the weights themselves. It takes 4 bytes for each trained
    parameter. None if absent."""

    gradient_checkpointing: bool | Literal["selective"] = False
    """Recompute activations in the backward pass: less memory, about a third more time.
    `selective` keeps what matrix products and attention gave and recomputes the rest, which takes
    little time."""

    compile: bool = False
    """Compile each layer with torch.compile, which takes a while at the start; not under `zero`,
    whose hooks stand between the parts of a layer."""

    log_every: int = Field(default=10, ge=1)
    """Optimizer steps between two lines of metrics.jsonl."""

    max_skipped_steps: int = Field(default=10, ge=1)
    """Under bf16 and fp32: stop after so many steps in a row whose gradient is not finite; each is
    skipped. Under fp16 the loss scale falls with each, and its minimum is the end."""

    stop_after: int | None = Field(default=None, ge=1)
    """Save and stop once so many steps of the run are done, as a preemption would; the same
    command without it goes on."""

    @model_validator(mode="after")
    def _one_measure_of_length(self) -> TrainingConfig:
        if self.epochs is not None and self.max_steps is not None:
            raise ValueError(
                f"training.epochs {self.epochs} and training.max_steps {self.max_steps} are both "
                f"given; keep one of them"
            )
        return self

    @model_validator(mode="after")
    def _batching_has_its_sizes(self) -> TrainingConfig:
        sizes = {
            "samples": ("micro_batch_tokens", "global_batch_tokens"),
            "tokens": ("micro_batch_size",),
        }
        if self.global_batch_tokens is not None:
            sizes["tokens"] += ("global_batch_size",)
        for name in sizes[self.batching]:
            if is_given(self, name):
                raise ValueError(
                    f"training.{name} {getattr(self, name)} has no effect under "
                    f"{self._how_batches_are_measured()}; take it out"
                )
        return self

    def _how_batches_are_measured(self) -> str:
        if self.global_batch_tokens is None or self.batching == "samples":
            return f"training.batching {self.batching}"
        return f"training.global_batch_tokens {self.global_batch_tokens}"

    @model_validator(mode="after")
    def _micro_batch_fits_global_batch(self) -> TrainingConfig:
        if self.batching == "samples" and self.global_batch_size % self.micro_batch_size:
            raise ValueError(
                f"training.global_batch_size {self.global_batch_size} is not a multiple of "
                f"training.micro_batch_size {self.micro_batch_size}; {self._batch_advice(1)} "
                f"(global batch = micro batch x accumulation x world size)"
            )
        return self

    def warmup_steps(self, total_steps: int) -> int:
        """Steps over which the learning rate rises."""
        # The last step is never part of warm-up: a linear schedule would end in it, at zero.
        return min(round(self.warmup_ratio * total_steps), total_steps - 1)

    def num_epochs(self) -> int:
        """Epochs of a run that is measured in epochs."""
        return self.epochs or 3

    def accumulation(self, world_size: int) -> int | None:
        """Micro-batches a rank computes for one optimizer step; None if that varies from step to
        step, with the lengths of the samples.

        Raises:
            ValueError: the global batch cannot be dealt out evenly; the message names the sizes
                that would do.
        """
        if self.batching == "tokens":
            return None
        samples_at_once = self.micro_batch_size * world_size
        steps, rest = divmod(self.global_batch_size, samples_at_once)
        if rest or not steps:
            raise ValueError(
                f"global_batch_size {self.global_batch_size} is not micro_batch_size "
                f"{self.micro_batch_size} x accumulation x world size {world_size} for any whole "
                f"accumulation; {self._batch_advice(world_size)}"
            )
        return steps

    def batch(self, world_size: int) -> dict[str, int | None]:
        """The sizes of a global batch and of what a rank computes at once, in samples or pieces."""
        sizes: dict[str, int | None] = (
            {"global_batch_size": self.global_batch_size}
            if self.global_batch_tokens is None
            else {"global_batch_tokens": self.global_batch_tokens}
        )
        if self.batching == "tokens":
            return {**sizes, "micro_batch_tokens": self.micro_batch_tokens}
        accumulation = self.accumulation(world_size)
        return {**sizes, "micro_batch_size": self.micro_batch_size, "accumulation": accumulation}

    def describe_batch(self, world_size: int) -> str:
        """The same in words."""
        if self.batching == "samples":
            return (
                f"{self.global_batch_size} = {self.micro_batch_size} micro-batch x "
                f"{self.accumulation(world_size)} accumulation x {world_size} ranks"
            )
        whole = (
            f"{self.global_batch_size} samples"
            if self.global_batch_tokens is None
            else f"{self.global_batch_tokens:,} pieces"
        )
        return f"{whole}, {self.micro_batch_tokens:,} pieces at once on each of {world_size} ranks"

    def _batch_advice(self, world_size: int) -> str:
        at_once = self.micro_batch_size * world_size
        nearest = max(1, round(Fraction(self.global_batch_size, at_once))) * at_once
        advice = f"set training.global_batch_size to {nearest}"
        share, rest = divmod(self.global_batch_size, world_size)
        if not rest:
            largest = min(share, self.micro_batch_size)
            # Absurd sizes are not gone through one by one.
            sizes = range(largest, max(largest - 10_000, 0), -1)
            fitting = next((size for size in sizes if share % size == 0), 1)
            advice += f", or training.micro_batch_size to {fitting}"
        return advice
