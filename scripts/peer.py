"""What a run file says, done by transformers.Trainer: the other side of the benchmarks.

The same windows (bigner's own, prepared or found prepared), the same first weights of the encoder,
batch sizes, learning rates, clipping, precision and sharding; all else is the Trainer's own. The
first ``evaluation.every`` steps are warm-up, and with them the first evaluation; speeds are of the
steps behind them and of the last evaluation. Started by ``contestants.py``, under ``torchrun`` or
the ``deepspeed`` launcher where the run is sharded.

    python scripts/peer.py RUN.yaml RESULT.json [--best] [--device cuda] [--set field=value ...]

``--best`` turns on what makes the Trainer faster without changing what is learnt: batches grouped
by length in training and evaluation, and labels gathered in place of logits. Its AdamW is fused
already. Data loader workers and ``train_sampling_strategy=batch_rebalance`` were slower on a CPU;
``--set`` gives its ``TrainingArguments`` further fields to try.

Three things are set here, for the same work on both sides:

* FSDP2 reduces gradients in fp32, as bigner does. accelerate's own policy reduces in the low
  precision; ``FullyShardedDataParallelPlugin.mixed_precision_policy`` says otherwise
  (``reduce_dtype``). Masters and moments are fp32 already.
* On a machine without GPUs accelerate takes ``fsdp`` and ``deepspeed`` without a word and trains
  under DDP, or each process by itself. ``_shard_on_cpu`` lets it shard there as it would on GPUs,
  and what the model became is checked before the first step.
* The loss is the mean over the labels of the batch. The Trainer takes any model whose forward has
  ``**kwargs`` for one that divides by the ``num_items_in_batch`` it is given; BERT's and XLM-R's
  token classification does not, so N ranks would train with (and log) N times the loss.
  ``model_accepts_loss_kwargs`` says so.

Under ZeRO both are given the same DeepSpeed settings, those that bigner renders from the run file.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import yaml
from datasets import Dataset
from seqeval.metrics import accuracy_score, classification_report
from transformers import (
    AutoModelForTokenClassification,
    DataCollatorForTokenClassification,
    EvalPrediction,
    PreTrainedModel,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
    training_args,
)

from bigner.config.deepspeed import render
from bigner.config.load import load_config
from bigner.config.schema import FsdpStrategy, RunConfig, ZeroStrategy
from bigner.data.prepare import Prepared, prepare
from bigner.distributed import World
from bigner.memory import forget_peak, peak_memory_bytes
from bigner.modeling import load_model_config, load_tokenizer
from bigner.strategies.base import DTYPES
from bigner.strategies.zero import _import_deepspeed as import_deepspeed


def main() -> None:
    """Train and evaluate; rank 0 leaves the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run_file", type=Path)
    parser.add_argument("result", type=Path)
    parser.add_argument("--best", action="store_true", help="with the flags that make it faster")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE")
    options = parser.parse_args()
    config = load_config(options.run_file)
    on_cpu = options.device == "cpu"
    if on_cpu and config.strategy.kind != "single":
        _shard_on_cpu(config.strategy.kind)
    fields = {k: yaml.safe_load(v) for k, _, v in (one.partition("=") for one in options.set)}
    arguments = training_arguments(config, on_cpu=on_cpu, best=options.best, more=fields)
    if config.strategy.kind == "zero":
        # As bigner does it: with what DeepSpeed compiles found, and fp16 on any CPU.
        import_deepspeed(World(device=arguments.device))
    forget_peak(arguments.device)
    trainer = build(config, arguments, best=options.best)
    trainer.train()
    result = trainer.result()
    if arguments.process_index == 0:
        options.result.write_text(json.dumps(result, indent=2))
    if dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()
    # A gloo thread may still let go of tensors, which the interpreter's end does not survive.
    os._exit(0)


def training_arguments(
    config: RunConfig, *, on_cpu: bool, best: bool, more: dict[str, Any]
) -> TrainingArguments:
    """The run file in the Trainer's words."""
    training, world_size = config.training, int(os.environ.get("WORLD_SIZE", "1"))
    assert training.max_steps is not None
    fields = {
        "output_dir": str(config.run_dir),
        "seed": config.seed,
        "max_steps": training.max_steps,
        "per_device_train_batch_size": training.micro_batch_size,
        "gradient_accumulation_steps": training.accumulation(world_size),
        "per_device_eval_batch_size": config.evaluation.batch_size,
        "learning_rate": training.learning_rate,
        "lr_scheduler_type": training.schedule,
        "warmup_steps": training.warmup_steps(training.max_steps),
        "weight_decay": training.weight_decay,
        "adam_beta1": training.adam_beta1,
        "adam_beta2": training.adam_beta2,
        "adam_epsilon": training.adam_epsilon,
        "max_grad_norm": training.max_grad_norm or 0.0,
        "bf16": config.precision == "bf16",
        "fp16": config.precision == "fp16",
        "logging_steps": training.log_every,
        "eval_strategy": "steps",
        "eval_steps": config.evaluation.every,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        # DeepSpeed is not asked for where the CPU is.
        "use_cpu": on_cpu and config.strategy.kind != "zero",
    }
    if training.gradient_checkpointing and config.strategy.kind != "fsdp":
        fields["gradient_checkpointing"] = True
    if best:
        fields["train_sampling_strategy"] = "group_by_length"
    return TrainingArguments(**{**fields, **_sharding(config, world_size), **more})


def _sharding(config: RunConfig, world_size: int) -> dict[str, Any]:
    match config.strategy:
        case ZeroStrategy() as strategy:
            return {"deepspeed": render(config, strategy, world_size)}
        case FsdpStrategy() as strategy:
            wrap = {
                "version": 2,
                "auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
                "reshard_after_forward": strategy.reshard_after_forward,
                "activation_checkpointing": config.training.gradient_checkpointing,
            }
            return {"fsdp": True, "fsdp_config": wrap}
    return {}


def build(config: RunConfig, arguments: TrainingArguments, *, best: bool) -> Peer:
    """The Trainer with model and data."""
    tokenizer = load_tokenizer(config.model)
    prepared = prepare(config.data, tokenizer, config.data.splits())
    (head,) = prepared.heads
    set_seed(config.seed)
    model = _model(config, head.labels.tags, arguments.device)
    if arguments.fsdp:
        # Before the Trainer makes its plugin of them.
        arguments.fsdp_plugin_args |= _fsdp_plugin(model, config.precision)
    peer = Peer(
        model=model,
        args=arguments,
        train_dataset=_windows(prepared, "train"),
        eval_dataset=_windows(prepared, "validation"),
        processing_class=tokenizer,
        data_collator=DataCollatorForTokenClassification(tokenizer),
        compute_metrics=partial(score, tags=head.labels.tags),
        preprocess_logits_for_metrics=(lambda logits, _: logits.argmax(dim=-1)) if best else None,
    )
    peer.model_accepts_loss_kwargs = False
    peer.add_callback(_Clock(peer))
    peer.strategy, peer.warmup = config.strategy.kind, int(config.evaluation.every)
    return peer


def _fsdp_plugin(model: PreTrainedModel, precision: str) -> dict[str, Any]:
    """Cut at the layers, and fp32 reduction of gradients.

    Left to itself accelerate also wraps the embeddings as a whole where a model names them among
    its ``_no_split_modules``, as BERT does, and then fails to wrap the table inside them.
    """
    layer = next(module for module in model.modules() if isinstance(module, torch.nn.ModuleList))[0]
    plugin: dict[str, Any] = {"transformer_cls_names_to_wrap": [type(layer).__name__]}
    if precision != "fp32":
        low = DTYPES[precision]
        dtypes = {"param_dtype": low, "reduce_dtype": torch.float32, "output_dtype": low}
        plugin["mixed_precision_policy"] = dtypes
    return plugin


def _model(config: RunConfig, tags: tuple[str, ...], device: torch.device) -> PreTrainedModel:
    described = load_model_config(config.model)
    described.num_labels = len(tags)
    described.id2label = dict(enumerate(tags))
    described.label2id = {tag: i for i, tag in enumerate(tags)}
    if config.model.training_type == "from_scratch":
        # DeepSpeed has a place of its own for what it cuts up.
        with nullcontext() if config.strategy.kind == "zero" else device:
            return AutoModelForTokenClassification.from_config(described, dtype=torch.float32)
    return AutoModelForTokenClassification.from_pretrained(
        config.model.name_or_path, config=described, dtype=torch.float32
    )


def _windows(prepared: Prepared, split: Any) -> Dataset:
    columns = prepared.splits[split].windows.data.select(["input_ids", "labels_0", "length"])
    return Dataset(columns.rename_columns(["input_ids", "labels", "length"]))


def score(prediction: EvalPrediction, tags: tuple[str, ...]) -> dict[str, float]:
    """seqeval over the labelled pieces, as transformers' own example of NER has it."""
    predicted = np.asarray(prediction.predictions)
    ids = predicted.argmax(axis=-1) if predicted.ndim == 3 else predicted
    labels = np.asarray(prediction.label_ids)
    gold, found = [], []
    for row, said in zip(labels, ids, strict=True):
        gold.append([tags[one] for one in row if one != -100])
        found.append([tags[one] for label, one in zip(row, said, strict=True) if label != -100])
    report = classification_report(gold, found, output_dict=True, zero_division=0)
    total = report["micro avg"]
    return {
        "f1": float(total["f1-score"]),
        "precision": float(total["precision"]),
        "recall": float(total["recall"]),
        "accuracy": float(accuracy_score(gold, found)),
    }


class Peer(Trainer):
    """The Trainer, counting what it is given and taking the time."""

    strategy = "single"
    warmup = 0
    begun = ended = 0.0

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._counted: list[tuple[int, torch.Tensor]] = []
        self._scored: list[tuple[torch.Tensor, torch.Tensor]] = []

    def training_step(self, model: Any, inputs: Any, *rest: Any, **named: Any) -> torch.Tensor:
        if self.state.global_step >= self.warmup:
            self._counted.append((len(inputs["input_ids"]), inputs["attention_mask"].sum()))
        return super().training_step(model, inputs, *rest, **named)

    def prediction_step(self, *given: Any, **named: Any) -> Any:
        loss, logits, labels = super().prediction_step(*given, **named)
        self._scored.append((loss, labels.ne(-100).sum()))
        return loss, logits, labels

    def evaluate(self, *given: Any, **named: Any) -> dict[str, float]:
        self._scored = []
        return super().evaluate(*given, **named)

    def result(self) -> dict[str, Any]:
        """Counts and seconds of the measured steps, losses, and the last evaluation; collective."""
        samples = torch.tensor(sum(rows for rows, _ in self._counted), device=self.args.device)
        tokens = torch.stack([tokens for _, tokens in self._counted]).sum()
        # A mean over all labels, as bigner's; the Trainer's own is a mean of the means of batches.
        labels = torch.stack([count for _, count in self._scored]).sum().double()
        losses = torch.stack([loss.double() * count for loss, count in self._scored]).sum()
        peak = torch.tensor(peak_memory_bytes(self.args.device), device=self.args.device)
        if dist.is_initialized():
            samples, tokens, labels, losses = (
                count.to(self.args.device) for count in (samples, tokens, labels, losses)
            )
            for count in (samples, tokens, labels, losses):
                dist.all_reduce(count)
            dist.all_reduce(peak, dist.ReduceOp.MAX)
        evaluation_loss = float(losses / labels)
        history = self.state.log_history
        trained = [line for line in history if "loss" in line and line["step"] > self.warmup]
        evaluated = [line for line in history if "eval_runtime" in line][-1]
        return {
            "samples": int(samples),
            "tokens": int(tokens),
            "seconds": self.ended - self.begun,
            "losses": [line["loss"] for line in trained],
            "evaluation_seconds": evaluated["eval_runtime"],
            "evaluation_loss": evaluation_loss,
            "f1": evaluated["eval_f1"],
            "peak_memory_bytes": int(peak),
        }


class _Clock(TrainerCallback):
    """From the end of the first evaluation, as bigner counts, to the end of the last step."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        _check_sharded(self._peer)

    def on_evaluate(self, args: Any, state: Any, *_: Any, **__: Any) -> None:
        if state.global_step == self._peer.warmup:
            self._peer.begun = _now(args.device)

    def on_step_end(self, args: Any, state: Any, *_: Any, **__: Any) -> None:
        if state.global_step == args.max_steps:
            self._peer.ended = _now(args.device)


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _check_sharded(peer: Peer) -> None:
    """Whoever was asked to shard and does not would win by doing less."""
    if peer.strategy == "fsdp":
        from torch.distributed.fsdp import FSDPModule  # noqa: PLC0415

        assert isinstance(peer.model_wrapped, FSDPModule), type(peer.model_wrapped)
    if peer.strategy == "zero":
        assert peer.deepspeed.zero_optimization_partition_weights()
        assert peer.deepspeed.world_size == peer.args.world_size


def _shard_on_cpu(kind: str) -> None:
    """Let accelerate take ranks of a CPU for what it shards over; it has a list of GPUs alone."""
    from accelerate.state import PartialState  # noqa: PLC0415
    from accelerate.utils import DistributedType  # noqa: PLC0415

    os.environ["ACCELERATE_TORCH_DEVICE"] = "cpu"
    # The type stands for "ranks to shard over" until that of the strategy takes its place.
    PartialState._prepare_backend = lambda *_, **__: ("gloo", DistributedType.MULTI_GPU)
    if kind == "fsdp":
        dist.init_process_group("gloo")
    else:
        # Without ``use_cpu``, which would turn DeepSpeed off, bf16 is taken for a GPU's alone.
        training_args.is_torch_bf16_gpu_available = lambda: True


if __name__ == "__main__":
    main()
