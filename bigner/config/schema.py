"""The schema of a run: what a run file may say, with a sentence under each field.

The sentences become the descriptions in the JSON Schema that ``bigner schema`` prints. Nothing in
here changes what a user wrote: validators accept or refuse, and derived numbers are methods.
"""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, Strict, model_validator

from bigner.errors import hide_users

Precision = Literal["fp32", "bf16", "fp16"]
Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")

TagScheme = Literal["auto", "iob2", "iob1", "bioes", "io"]
Schedule = Literal["linear", "cosine", "constant", "reduce_on_plateau"]
Metric = Literal["f1", "precision", "recall", "accuracy", "loss", "strict_f1"]
Decoding = Literal["argmax", "iob2"]
HeadName = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,63}$")]
TagName = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_.-]{0,63}$")]
Tracker = Literal["tensorboard", "mlflow", "wandb"]
ClassWeighting = Literal["none", "inverse_frequency", "effective_number"]

ONLY_HEAD = "tags"
"""Name of the head where the config names none."""


def _possible_path(value: object) -> object:
    # Path("") is the working directory, which nobody means by an empty string.
    if value == "":
        raise ValueError("must be a path and is empty")
    if isinstance(value, str):
        try:
            possible = b"\0" not in os.fsencode(value)
        except UnicodeEncodeError:
            possible = False
        if not possible:
            raise ValueError("must be a path, and has a character that no path can have")
    return value


FilePath = Annotated[Path, Strict(False), BeforeValidator(_possible_path)]


def default_cache_root() -> Path:
    """Where what was prepared is kept, unless a run file says otherwise."""
    return Path(os.environ.get("BIGNER_CACHE") or Path.home() / ".cache" / "bigner")


class Section(BaseModel):
    """A part of the run config: frozen, typed strictly, closed to unknown keys."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        use_attribute_docstrings=True,
        allow_inf_nan=False,
        validate_default=True,
        protected_namespaces=(),
    )


def _is_given(section: Section, field: str) -> bool:
    """Whether a field says something of its own; a resolved config, which writes all, says no more
    than the file it was made from.
    """
    value: object = getattr(section, field)
    return bool(value != type(section).model_fields[field].default)


class Freeze(Section):
    """Parts of a pretrained body that stay as they are: no gradients, no optimizer state."""

    embeddings: bool = False
    """Keep the embeddings, with whatever lies between them and the first layer."""

    layers: int = Field(default=0, ge=0)
    """Keep so many layers, counted from the embeddings."""


class ModelConfig(Section):
    """Which encoder is trained and how much of it."""

    name_or_path: str = Field(min_length=1)
    """The model on the Hub, or a folder that transformers can load."""

    tokenizer: str | None = Field(default=None, min_length=1)
    """Name or folder of the tokenizer where it does not lie with the model."""

    revision: str | None = None
    """Branch, tag or commit of the model on the Hub."""

    trust_remote_code: bool = False
    """Run the Python code that lies with the model, where transformers does not know its kind."""

    training_type: Literal["fine_tuning", "transfer_learning", "from_scratch"] = "fine_tuning"
    """`fine_tuning` moves every weight, `transfer_learning` only the head, `from_scratch` takes
    the architecture and no weights."""

    freeze: Freeze = Freeze()
    """Parts of a pretrained body that stay as they are: no gradients, no optimizer state."""

    packing: bool = True
    """Lay the windows of a batch end to end, so that no padding is computed; a family of models
    that is not known to allow it is padded, and the run says so."""

    embedding_rows: Literal["all", "used"] = "all"
    """`used` trains the rows of the embedding table that the run's data has pieces for; all others,
    which only weight decay would change, are put back on export. The result is the same, with less
    to gather, reduce, update and save."""

    dropout: float | None = Field(default=None, ge=0.0, lt=1.0)
    """Hidden, attention and classifier dropout; left as the model's own config has it if absent."""

    @model_validator(mode="after")
    def _what_is_frozen_was_learnt(self) -> ModelConfig:
        if self.freeze == Freeze():
            return self
        if self.training_type == "transfer_learning":
            raise ValueError(
                "training_type transfer_learning freezes the whole body, and model.freeze parts of "
                "it; take model.freeze out, or set model.training_type to fine_tuning"
            )
        if self.training_type == "from_scratch":
            # Embeddings and layers of noise, which nothing above them could make up for.
            raise ValueError(
                "training_type from_scratch draws every weight, and model.freeze would keep some "
                "as drawn; take model.freeze out, or set model.training_type to fine_tuning"
            )
        return self


class Columns(Section):
    """Where the words and the tags stand."""

    words: int | str
    """Column of the words: a number from 0 (negative from the end), or a name."""

    tags: int | str | None = None
    """Column of the tags, in the same form; left out where `data.heads` names the columns."""


class HeadConfig(Section):
    """One thing that is told of every word: a linear layer of its own on the shared encoder."""

    column: int | str
    """Column of its labels: a number from 0 (negative from the end), or a name."""

    kind: Literal["tags", "classes"] = "tags"
    """`tags` for entities in a tag scheme, scored as spans; `classes` for one class a word, such
    as parts of speech, scored by accuracy and macro F1."""

    weight: float = Field(default=1.0, gt=0.0)
    """What its mean loss is multiplied with in the sum over all heads."""

    scheme: TagScheme = "auto"
    """For `tags`: tag scheme of the files."""

    labels: tuple[str, ...] | None = Field(default=None, min_length=1, strict=False)
    """Entity types or classes, in the order of their ids; by default all of all splits: types
    sorted, classes by how often they occur."""

    @model_validator(mode="after")
    def _labels_suit_the_kind(self) -> HeadConfig:
        _check_labels(self.labels, "labels", self.kind)
        if self.kind == "classes" and self.scheme != "auto":
            raise ValueError(f"classes have no tag scheme; take out scheme {self.scheme!r}")
        return self


def _check_labels(labels: tuple[str, ...] | None, field: str, kind: str) -> None:
    for label in labels or ():
        if not label:
            raise ValueError(f"{field} has an empty name; take it out")
        if kind == "tags" and (label == "O" or label[:2] in _TAG_PREFIXES):
            raise ValueError(
                f"{field} lists entity types such as PER, and got {label!r}; leave out O and the "
                f"prefixes"
            )
    if labels and len(set(labels)) != len(labels):
        raise ValueError(f"{field} names one twice; list each once")


_TAG_PREFIXES = ("B-", "I-", "E-", "S-", "L-", "U-")
_DEFAULT_COLUMNS: dict[str, tuple[int | str, int | str]] = {
    "columns": (0, -1),
    "jsonl": ("words", "tags"),
    "hub": ("tokens", "ner_tags"),
    "spans": ("text", "entities"),
}


class DataConfig(Section):
    """Which corpus is read, and how its sentences become windows of sub-words."""

    format: Literal["columns", "jsonl", "spans", "hub"] = "columns"
    """`columns` as CoNLL files, `jsonl` with words and tags, `spans` for JSON lines with text and
    character spans, `hub` for a dataset of the Hub or one saved to disk by `datasets`."""

    dataset: str | None = Field(default=None, min_length=1)
    """For `hub` alone: name of the dataset on the Hub, or the folder it was saved to."""

    subset: str | None = None
    """For `hub` alone: name of the dataset's configuration."""

    train: str = Field(min_length=1)
    """Training data: a file, a folder or a glob; for `hub` the name of a split."""

    validation: str | None = Field(default=None, min_length=1)
    """Validation data, in the same form; it chooses the best weights."""

    test: str | None = Field(default=None, min_length=1)
    """Test data, in the same form; scored once, with the best weights."""

    columns: Columns | None = None
    """Columns of words and tags; by default first and last (`columns`), `words` and `tags`
    (`jsonl`), `tokens` and `ner_tags` (`hub`)."""

    separator: Literal["auto", "tab", "whitespace"] = "auto"
    """What separates columns; `auto` splits a line at its TABs where it has any, else at spaces."""

    heads: dict[HeadName, HeadConfig] | None = Field(default=None, min_length=1)
    """Several things to tell of every word, by name, such as `ner` and `upos`: one encoder, a
    linear layer for each. Without it there is one head, for `columns.tags`."""

    scheme: TagScheme = "auto"
    """Tag scheme of the files, where `heads` are not given; inside bigner everything is IOB2."""

    labels: tuple[str, ...] | None = Field(default=None, min_length=1, strict=False)
    """Entity types, in the order of their ids, where `heads` are not given; by default all types
    of all splits, sorted."""

    unit: Literal["sentence", "document"] = "sentence"
    """What one text is: a sentence by itself, or a whole document cut into windows."""

    context: int = Field(default=0, ge=0)
    """Words of the same document that are read on each side of a sentence, as far as the window
    has room; nothing is learnt or predicted there. For `unit: sentence`."""

    max_length: int = Field(default=256, ge=8)
    """Sub-word pieces in a window, special tokens included."""

    stride: int = Field(default=32, ge=0)
    """Words of context that neighbouring windows of a long text share."""

    alignment: Literal["first", "all"] = "first"
    """Which pieces of a word carry its label in training: the first, or all of them."""

    cache_dir: FilePath | None = None
    """Where prepared data is kept; `~/.cache/bigner` if absent, or $BIGNER_CACHE."""

    def cache_root(self) -> Path:
        """`cache_dir`, or its default."""
        return self.cache_dir or default_cache_root()

    def source(self, split: Split) -> str | None:
        """What the config names as the data of ``split``, if anything."""
        return {"train": self.train, "validation": self.validation, "test": self.test}[split]

    def splits(self) -> tuple[Split, ...]:
        """The splits that are given, in the order train, validation, test."""
        return tuple(split for split in SPLITS if self.source(split) is not None)

    def words_column(self) -> int | str:
        """Column of the words as given, or the format's own (``spans`` has none)."""
        return self.columns.words if self.columns else _DEFAULT_COLUMNS[self.format][0]

    def resolved_heads(self) -> dict[str, HeadConfig]:
        """The heads as given, or the one that the other fields describe."""
        if self.heads is not None:
            return self.heads
        column = self.columns.tags if self.columns else None
        if column is None:
            column = _DEFAULT_COLUMNS[self.format][1]
        return {ONLY_HEAD: HeadConfig(column=column, scheme=self.scheme, labels=self.labels)}

    def tag_fields(self) -> dict[str, tuple[str, int | str]]:
        """Head -> the dotted field that names its column, and the column."""
        return {
            name: (self.head_field(name, "column"), head.column)
            for name, head in self.resolved_heads().items()
        }

    def head_field(self, head: str, field: Literal["column", "scheme", "labels"]) -> str:
        """The dotted field in which a run file says this of a head."""
        if self.heads is not None:
            return f"data.heads.{head}.{field}"
        return "data.columns.tags" if field == "column" else f"data.{field}"

    @model_validator(mode="after")
    def _hub_names_its_dataset(self) -> DataConfig:
        if self.format == "hub" and self.dataset is None:
            raise ValueError("format 'hub' needs data.dataset, a Hub name or a folder")
        if self.format != "hub" and (self.dataset is not None or self.subset is not None):
            raise ValueError(
                f"data.dataset and data.subset belong to format 'hub', and format is "
                f"{self.format!r}; take them out or set data.format to hub"
            )
        return self

    @model_validator(mode="after")
    def _heads_stand_alone(self) -> DataConfig:
        if self.heads is None:
            return self
        if self.format == "spans":
            raise ValueError("format 'spans' has one kind of entities; take data.heads out")
        instead = {
            "data.columns.tags": self.columns is not None and self.columns.tags is not None,
            "data.labels": self.labels is not None,
            "data.scheme": self.scheme != "auto",
        }
        for field, given in instead.items():
            if given:
                raise ValueError(
                    f"{field} and data.heads are both given; with heads, say it in each of them"
                )
        return self

    @model_validator(mode="after")
    def _columns_suit_the_format(self) -> DataConfig:
        if self.format == "spans":
            if self.columns is not None:
                raise ValueError("format 'spans' has no columns; take data.columns out")
            return self
        seen: dict[int | str, str] = {}
        columns = {"data.columns.words": self.words_column(), **dict(self.tag_fields().values())}
        for field, value in columns.items():
            if self.format in ("jsonl", "hub") and isinstance(value, int):
                raise ValueError(
                    f"format {self.format!r} has fields by name, and {field} is the number "
                    f"{value}; give the field's name"
                )
            if value in seen:
                raise ValueError(
                    f"{seen[value]} and {field} are both {value!r}; they must be two columns"
                )
            seen[value] = field
        return self

    @model_validator(mode="after")
    def _context_is_for_sentences(self) -> DataConfig:
        if self.context and self.unit != "sentence":
            raise ValueError(
                f"data.context {self.context} is for data.unit sentence, and unit is "
                f"{self.unit!r}, where a window is full of text anyway; take one of them out"
            )
        return self

    @model_validator(mode="after")
    def _stride_leaves_room(self) -> DataConfig:
        if self.stride > self.max_length // 2:
            raise ValueError(
                f"data.stride {self.stride} is more than half of data.max_length "
                f"{self.max_length}; set stride to {self.max_length // 2} or less"
            )
        return self

    @model_validator(mode="after")
    def _labels_are_types(self) -> DataConfig:
        _check_labels(self.labels, "data.labels", "tags")
        return self


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

    pool_batches: int = Field(default=32, ge=1)
    """Global batches within which samples are sorted by length before they are cut: ranks have
    equal work, and batches are alike in length; 1 is plain shuffling."""

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
            if _is_given(self, name):
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


class SingleStrategy(Section):
    """One process, nothing sharded: the reference for the others."""

    needs_process_group: ClassVar[bool] = False
    can_be_traced: ClassVar[bool] = False

    kind: Literal["single"] = "single"
    """Tells the strategies apart."""


_ReduceDtype = Literal["fp32", "precision"]


class FsdpStrategy(Section):
    """PyTorch FSDP2: `fully_shard` on every layer, the embeddings and the root."""

    needs_process_group: ClassVar[bool] = True
    can_be_traced: ClassVar[bool] = True

    kind: Literal["fsdp"]
    """Tells the strategies apart."""

    reshard_after_forward: bool = True
    """Free a layer's gathered weights after its forward: less memory, one more all-gather."""

    dp_replicate: int = Field(default=1, ge=1)
    """Copies of the sharded model, each spread over its share of neighbouring ranks. With one copy
    on each node, weights are gathered within nodes and only gradients go between them, for as many
    times the memory."""

    reduce_dtype: _ReduceDtype = "fp32"
    """Number format in which gradients are added up over ranks: `fp32`, or that of `precision`,
    with half the traffic and the rounding of sixteen bits."""


class ZeroStrategy(Section):
    """DeepSpeed ZeRO."""

    needs_process_group: ClassVar[bool] = True
    can_be_traced: ClassVar[bool] = False

    kind: Literal["zero"]
    """Tells the strategies apart."""

    stage: Literal[1, 2, 3] = 3
    """What is sharded: 1 optimizer state, 2 and gradients, 3 and parameters."""

    reduce_dtype: _ReduceDtype = "fp32"
    """Number format in which gradients are added up over ranks: `fp32`, or that of `precision`,
    with half the traffic and the rounding of sixteen bits."""

    deepspeed_config: FilePath | None = None
    """A ds_configs file that tunes ZeRO: buckets, prefetch, persistence, offload; nothing else."""


StrategyConfig = Annotated[
    SingleStrategy | FsdpStrategy | ZeroStrategy, Field(discriminator="kind")
]


class EvaluationConfig(Section):
    """When and how predictions are scored."""

    every: Literal["epoch"] | Annotated[int, Field(ge=1)] = "epoch"
    """Evaluate on validation after each `epoch`, or every so many optimizer steps."""

    batch_tokens: int = Field(default=8192, ge=8)
    """Pieces that one rank predicts at once, padding included; a longer sample goes by itself."""

    batch_size: int | None = Field(default=None, ge=1)
    """Instead of `batch_tokens`: samples (windows) that one rank predicts at once."""

    metric: Metric = "f1"
    """The validation score that makes weights the best; `loss` is plain cross-entropy there,
    whatever is trained by."""

    head: str | None = None
    """The head whose score that is; the first of `data.heads` if absent."""

    patience: int | None = Field(default=None, ge=1)
    """Stop early after so many evaluations in a row without a gain; never if absent."""

    min_gain: float = Field(default=0.0, ge=0.0)
    """For `patience`: what the score must gain on the last one that counted as a gain."""

    train_sample: int | None = Field(default=None, ge=1)
    """Score so many windows of the training data along with validation, to see what is learnt by
    heart; none if absent."""

    decoding: Decoding = "argmax"
    """`argmax` takes the best tag of each word; `iob2` the best sequence of tags in which no I-
    stands where it continues nothing."""

    scorer: Literal["vectorised", "seqeval"] = "vectorised"
    """`vectorised` counts entities for all words at once; `seqeval` has seqeval, and for heads of
    classes scikit-learn, compute the same numbers to the last digit, far more slowly."""

    on_collapse: Literal["warn", "stop"] = "warn"
    """What to do when, after warm-up, every word of validation gets the same tag: `warn`, or save
    and `stop`."""

    @model_validator(mode="after")
    def _one_measure_of_a_batch(self) -> EvaluationConfig:
        if self.batch_size is not None and _is_given(self, "batch_tokens"):
            raise ValueError(
                f"evaluation.batch_size {self.batch_size} and evaluation.batch_tokens "
                f"{self.batch_tokens} are both given; keep one of them"
            )
        return self


class CheckpointConfig(Section):
    """What is saved so that a run can go on."""

    every_steps: int | None = Field(default=None, ge=1)
    """Save a checkpoint every so many optimizer steps; none if absent."""

    keep_last: int = Field(default=2, ge=1)
    """Checkpoints to keep; older ones are deleted after a newer one is whole."""

    background: bool = True
    """Write while training goes on, from a copy in host memory: 12 bytes for each parameter that a
    rank owns. Without it training waits for the disk."""

    resume: str = Field(default="auto", min_length=1)
    """`auto` goes on from the last checkpoint in run_dir, `none` starts anew, anything else is
    the folder of a checkpoint."""


class TrackersConfig(Section):
    """What `mlflow` and `wandb` call the run."""

    project: str | None = Field(default=None, min_length=1)
    """MLflow's experiment and the project of W&B; if not given, what `MLFLOW_EXPERIMENT_NAME` and
    `WANDB_PROJECT` say, or else `bigner`."""

    name: str | None = Field(default=None, min_length=1)
    """Name of the run; run_dir, if not given."""

    tags: dict[TagName, str] = {}
    """Tags of the run, such as `{corpus: wnut17}`; in W&B `corpus:wnut17`."""

    mlflow_uri: str | None = Field(default=None, min_length=1)
    """MLflow's server or database, such as `http://mlflow:5000` or `sqlite:///mlflow.db`; if not
    given, what `MLFLOW_TRACKING_URI` says."""

    @model_validator(mode="after")
    def _uri_holds_no_password(self) -> TrackersConfig:
        if self.mlflow_uri is not None and hide_users(self.mlflow_uri) != self.mlflow_uri:
            raise ValueError(
                "mlflow_uri holds a user or a password, and run files are kept and shared; take it "
                "out and set MLFLOW_TRACKING_URI, or MLFLOW_TRACKING_USERNAME and "
                "MLFLOW_TRACKING_PASSWORD, in the environment"
            )
        return self


class RunConfig(Section):
    """One run: everything that decides its result stands in here."""

    run_dir: FilePath
    """Folder of the run; metrics, checkpoints, scores and the exported model go into it."""

    seed: int = Field(default=42, ge=0, lt=2**32)
    """Seeds the new weights, dropout and the order of the data."""

    collective_timeout: float = Field(default=600.0, gt=0.0, le=86_400.0)
    """Seconds that a rank waits for the others before it gives up: longer than the slowest thing
    that one rank does alone."""

    precision: Precision = "fp32"
    """Number format of the forward and backward computation; master weights are always fp32."""

    model: ModelConfig
    """Which encoder is trained and how much of it."""

    data: DataConfig
    """Which corpus is read, and how its sentences become windows of sub-words."""

    training: TrainingConfig = TrainingConfig()
    """How long and how fast the model learns."""

    loss: LossConfig = LossConfig()
    """What a wrong label costs."""

    strategy: StrategyConfig = SingleStrategy()
    """How the model is spread over processes: `single`, `fsdp` or `zero`, told apart by `kind`."""

    evaluation: EvaluationConfig = EvaluationConfig()
    """When and how predictions are scored."""

    checkpoint: CheckpointConfig = CheckpointConfig()
    """What is saved so that a run can go on."""

    tracking: tuple[Tracker, ...] = Field(default=(), strict=False)
    """Where the curves go besides metrics.jsonl: `tensorboard`, `mlflow`, `wandb`."""

    trackers: TrackersConfig = TrackersConfig()
    """What `mlflow` and `wandb` call the run."""

    @model_validator(mode="after")
    def _plateau_needs_validation(self) -> RunConfig:
        if self.training.schedule == "reduce_on_plateau" and self.data.validation is None:
            raise ValueError(
                "training.schedule reduce_on_plateau follows the validation score; "
                "give data.validation or take another schedule"
            )
        return self

    @model_validator(mode="after")
    def _layer_decay_needs_a_body_that_moves(self) -> RunConfig:
        if self.training.layer_decay != 1.0 and self.model.training_type == "transfer_learning":
            raise ValueError(
                f"training.layer_decay {self.training.layer_decay} is for the layers of the body, "
                f"which model.training_type transfer_learning freezes; take it out, or set "
                f"model.training_type to fine_tuning"
            )
        return self

    @model_validator(mode="after")
    def _zero_is_not_compiled(self) -> RunConfig:
        if self.training.compile and self.strategy.kind == "zero":
            raise ValueError(
                "training.compile is for strategies single and fsdp: DeepSpeed gathers weights in "
                "hooks within each layer; take it out or set strategy.kind to fsdp"
            )
        return self

    @model_validator(mode="after")
    def _windows_fit_token_budgets(self) -> RunConfig:
        training, longest = self.training, self.data.max_length
        if training.batching == "tokens" and training.micro_batch_tokens < longest:
            raise ValueError(
                f"training.micro_batch_tokens {training.micro_batch_tokens} is less than one "
                f"window of data.max_length {longest}; set it to {longest} or more"
            )
        if training.global_batch_tokens is not None and training.global_batch_tokens < 2 * longest:
            # Steps of equal size would be cut within a window.
            raise ValueError(
                f"training.global_batch_tokens {training.global_batch_tokens} is less than two "
                f"windows of data.max_length {longest}; set it to {2 * longest} or more"
            )
        return self

    @model_validator(mode="after")
    def _evaluation_needs_validation(self) -> RunConfig:
        evaluation = self.evaluation
        wanted = {"patience": evaluation.patience, "train_sample": evaluation.train_sample}
        for name, value in wanted.items():
            if value is not None and self.data.validation is None:
                raise ValueError(
                    f"evaluation.{name} {value} goes with the scoring of validation, which is not "
                    f"given; give data.validation or take {name} out"
                )
        if evaluation.min_gain and evaluation.patience is None:
            raise ValueError(
                f"evaluation.min_gain {evaluation.min_gain} is for evaluation.patience, which is "
                f"not given; give it or take min_gain out"
            )
        return self

    @model_validator(mode="after")
    def _head_is_one_of_the_heads(self) -> RunConfig:
        heads = self.data.resolved_heads()
        name = self.evaluation.head
        if name is not None and name not in heads:
            raise ValueError(
                f"evaluation.head {name!r} is none of the heads of the data: {', '.join(heads)}"
            )
        if self.evaluation.decoding == "iob2" and all(
            head.kind == "classes" for head in heads.values()
        ):
            raise ValueError(
                "evaluation.decoding iob2 is for tags, and every head has classes; take it out"
            )
        if self.evaluation.metric == "strict_f1" and heads[self.chosen_head()].kind == "classes":
            raise ValueError(
                f"evaluation.metric strict_f1 is of entities, and the head "
                f"{self.chosen_head()!r} has classes; take f1 (which is macro F1 there)"
            )
        return self

    def chosen_head(self) -> str:
        """The head whose score makes weights the best."""
        return self.evaluation.head or next(iter(self.data.resolved_heads()))
