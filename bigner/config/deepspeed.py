"""What a ds_configs file may say, and the final dict that DeepSpeed is given.

A ds_configs file tunes ZeRO: buckets, prefetch, persistence, offload. Batch sizes, precision,
optimizer and clipping have one owner, the run config; DeepSpeed itself lets unknown names pass at
the top level and falls back to a default without a word, so the keys are checked here.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from bigner.config.schema import RunConfig, ZeroStrategy
from bigner.config.text_file import read_text
from bigner.errors import MOST_PROBLEMS, ConfigError, Problem

KeyPath = tuple[str, ...]

INITIAL_LOSS_SCALE_POWER = 12
"""The dynamic fp16 loss scale begins at 2**12, under every strategy.

DeepSpeed and torch begin at 2**16, where the gradients of a fresh head overflow or not by a hair,
in one strategy and not in another.
"""
LOSS_SCALE_WINDOW = 1000
"""Steps without overflow after which the loss scale doubles, under every strategy."""
MIN_LOSS_SCALE = 1
"""An overflow at this loss scale ends a run."""


@dataclass(frozen=True, slots=True)
class Rule:
    """What JSON may give a key; as DeepSpeed's own config has it, or narrower."""

    text: str
    """The rule as the words after "must be"."""
    allows: Callable[[Any], bool]


def _is_whole(value: Any) -> bool:
    # Sizes are commonly written 5e8, a float to JSON.
    return not isinstance(value, bool) and isinstance(value, int | float) and value % 1 == 0


FLAG = Rule("true or false", lambda value: isinstance(value, bool))
COUNT = Rule("a whole number, 0 or more", lambda value: _is_whole(value) and value >= 0)
SIZE = Rule("a whole number, 1 or more", lambda value: _is_whole(value) and value >= 1)
SECTION = Rule("an object", lambda value: isinstance(value, dict))
NAMES = Rule(
    "a list of names",
    lambda value: isinstance(value, list) and all(isinstance(name, str) for name in value),
)
# Shards on NVMe cannot be read from and written to in place.
DEVICE = Rule('"cpu" or "none"', lambda value: value in ("cpu", "none"))

# Section -> its keys. DeepSpeed's own classes are not asked: they load torch, which takes seconds.
# A test compares.
TUNING_KEYS: dict[str, dict[str, Rule]] = {
    "": {
        "zero_optimization": SECTION,
        "comms_logger": SECTION,
        "memory_breakdown": FLAG,
        "wall_clock_breakdown": FLAG,
    },
    "zero_optimization": {
        "allgather_bucket_size": SIZE,
        "allgather_partitions": FLAG,
        "contiguous_gradients": FLAG,
        "offload_optimizer": SECTION,
        "offload_param": SECTION,
        "overlap_comm": FLAG,
        "reduce_bucket_size": SIZE,
        "reduce_scatter": FLAG,
        "stage3_allgather_sequential": FLAG,
        "stage3_max_live_parameters": COUNT,
        "stage3_max_reuse_distance": COUNT,
        "stage3_model_persistence_threshold": COUNT,
        "stage3_module_granularity_threshold": COUNT,
        "stage3_param_persistence_threshold": COUNT,
        "stage3_prefetch_bucket_size": COUNT,
        "stage3_use_all_reduce_for_fetch_params": FLAG,
        "sub_group_size": SIZE,
        "use_multi_rank_bucket_allreduce": FLAG,
        "zero_hpz_partition_size": SIZE,
    },
    "zero_optimization.offload_param": {"device": DEVICE, "max_in_cpu": COUNT, "pin_memory": FLAG},
    "zero_optimization.offload_optimizer": {"device": DEVICE, "pin_memory": FLAG},
    "comms_logger": {
        "enabled": FLAG,
        "prof_all": FLAG,
        "prof_ops": NAMES,
        "verbose": FLAG,
        "debug": FLAG,
    },
}
OWNED_KEYS: dict[str, dict[str, str]] = {
    "": {
        "train_batch_size": "training.global_batch_size",
        "train_micro_batch_size_per_gpu": "training.micro_batch_size",
        "gradient_accumulation_steps": (
            "training.global_batch_size and training.micro_batch_size, which accumulation follows "
            "from"
        ),
        "gradient_clipping": "training.max_grad_norm",
        "optimizer": "training.learning_rate and the other fields of training",
        "scheduler": "training.schedule",
        "fp16": "precision",
        "bf16": "precision",
        "bfloat16": "precision",
        "amp": "precision",
        "torch_autocast": "precision",
        "data_types": "precision",
        "communication_data_type": "precision",
        "activation_checkpointing": "training.gradient_checkpointing",
        "steps_per_print": "training.log_every",
        "tensorboard": "tracking",
        "wandb": "tracking",
        "csv_monitor": "tracking",
        "checkpoint": "checkpoint",
    },
    "zero_optimization": {"stage": "strategy.stage"},
}
"""Section -> key -> the field of the run config that says it."""

_EXPORTS_WHOLE = "bigner exports whole weights whatever this says"
_NO_NVME = "bigner offloads to the CPU alone"
REFUSED_KEYS: dict[str, dict[str, str]] = {
    "": {
        "aio": _NO_NVME,
        "zero_allow_untested_optimizer": "bigner sets it",
        "zero_force_ds_cpu_optimizer": "bigner sets it",
    },
    "zero_optimization": {
        "stage3_gather_16bit_weights_on_model_save": _EXPORTS_WHOLE,
        "stage3_gather_fp16_weights_on_model_save": _EXPORTS_WHOLE,
        "round_robin_gradients": "it deals masters out in an order that is not known outside",
        "cpu_offload": "it is DeepSpeed's old name for offload_optimizer",
        "cpu_offload_param": "it is DeepSpeed's old name for offload_param",
        **dict.fromkeys(
            (
                "zero_quantized_weights",
                "zero_quantized_nontrainable_weights",
                "zero_quantized_gradients",
            ),
            "it rounds weights or gradients to 8 or 4 bits on their way, and results would differ",
        ),
    },
    "zero_optimization.offload_param": dict.fromkeys(
        ("nvme_path", "buffer_count", "buffer_size"), _NO_NVME
    ),
    "zero_optimization.offload_optimizer": dict.fromkeys(
        ("nvme_path", "buffer_count", "pipeline_read", "pipeline_write", "fast_init"), _NO_NVME
    ),
}
"""Section -> key that DeepSpeed has -> why it has no place in a ds_configs file."""


_OF_STAGE_3 = ("offload_param", "zero_hpz_partition_size")


def tuning_of(strategy: ZeroStrategy) -> dict[str, Any]:
    """What the strategy's ds_configs file says; nothing where there is none.

    Raises:
        ConfigError: the file is wrong.
    """
    path = strategy.deepspeed_config
    if path is None:
        return {}
    if problems := check_tuning_file(path, strategy.stage):
        raise ConfigError(problems)
    tuning: dict[str, Any] = json.loads(path.read_text(encoding="utf-8-sig"))
    return tuning


def node_ranks(zero_optimization: Mapping[str, Any]) -> int:
    """Ranks of a node, among which ZeRO++ keeps weights; 1 for no such thing."""
    return int(zero_optimization.get("zero_hpz_partition_size", 1))


def check_tuning_file(path: Path, stage: int = 3) -> list[Problem]:
    """Every problem of a ds_configs file; empty if it only tunes ZeRO with names that exist.

    Args:
        path: the file.
        stage: the stage it is to tune; 1 and 2 have nothing for the keys of stage 3.
    """
    try:
        text = read_text(path, "ds_configs file")
        tuning = json.loads(text, parse_constant=_no_constant)
        lines = _lines_of_keys(text)
    except ConfigError as error:
        return list(error.problems)
    except json.JSONDecodeError as error:
        return [Problem(f"{path}:{error.lineno}", "", f"not valid JSON: {error.msg}")]
    except (ValueError, RecursionError) as error:
        return [Problem(str(path), "", f"not valid JSON: {error}")]
    if not isinstance(tuning, dict):
        return [Problem(f"{path}:1", "", "must be a JSON object with zero_optimization in it")]
    repeated = [
        Problem(
            f"{path}:{numbers[-1]}",
            ".".join(place),
            f"given twice, first on line {numbers[0]}; keep one of them",
        )
        for place, numbers in lines.items()
        if len(numbers) > 1
    ]
    wrong = [
        Problem(f"{path}:{lines[place][-1]}", ".".join(place), message)
        for place, message in islice(_wrong_keys(tuning, ()), MOST_PROBLEMS + 1)
    ]
    useless = [
        Problem(
            f"{path}:{lines[place][-1]}",
            ".".join(place),
            f"has no effect under strategy.stage {stage}; take it out, or set stage to 3",
        )
        for place in lines
        if stage < 3
        and place[0] == "zero_optimization"
        and len(place) == 2
        and (place[1].startswith("stage3_") or place[1] in _OF_STAGE_3)
    ]
    problems = repeated + wrong + useless
    if len(problems) <= MOST_PROBLEMS:
        return problems
    return [*problems[:MOST_PROBLEMS], Problem(str(path), "", "and more; correct these first")]


def _wrong_keys(values: dict[str, Any], place: KeyPath) -> Iterator[tuple[KeyPath, str]]:
    """Keys that the run config owns, that have no place here or a wrong value, with the reason."""
    section = ".".join(place)
    rules = TUNING_KEYS[section]
    for key, value in values.items():
        inside = (*place, key)
        if owner := OWNED_KEYS.get(section, {}).get(key):
            yield inside, f"is set by the run config ({owner}); take it out of here"
        elif reason := REFUSED_KEYS.get(section, {}).get(key):
            yield inside, f"has no place here: {reason}; take it out"
        elif key not in rules:
            yield inside, _unknown(key, section)
        elif not rules[key].allows(value):
            yield inside, f"must be {rules[key].text}; got {json.dumps(value)[:60]}"
        elif rules[key] is SECTION:
            yield from _wrong_keys(value, inside)


def _unknown(key: str, section: str) -> str:
    known = TUNING_KEYS[section]
    for other, keys in TUNING_KEYS.items():
        if key in keys:
            return f"has its place in {other or 'the top level'}; move it there"
    if near := difflib.get_close_matches(key, known, n=1, cutoff=0.6):
        return f"is not a key of DeepSpeed's tuning; did you mean {near[0]}?"
    return f"is not a key of DeepSpeed's tuning; what may stand here: {', '.join(known)}"


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number")


_TOKEN = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{},:\n]')
_MAX_DEPTH = 32


def _lines_of_keys(text: str) -> dict[KeyPath, list[int]]:
    """Lines, counted from 1, that each key of a valid JSON text stands on; several if repeated.

    Raises:
        RecursionError: the text is nested deeper than its values could be shown in a message.
    """
    lines: dict[KeyPath, list[int]] = {}
    line, last, last_line = 1, "", 1
    # Names of the open objects and lists. One inside a list has no key: it is called by a number
    # that none before it had, so that equal keys of two of them are no repetition.
    inside: list[str] = []
    key: str | None = None
    for token in _TOKEN.findall(text):
        if token == "\n":
            line += 1
        elif token in "{[":
            inside.append(f"[{len(lines)}]" if key is None else key)
            key = None
            if len(inside) > _MAX_DEPTH:
                raise RecursionError(f"more than {_MAX_DEPTH} levels deep")
        elif token in "}]":
            inside.pop()
        elif token == ":":
            key = json.loads(last)
            lines.setdefault((*inside[1:], key), []).append(last_line)
        elif token == ",":
            key = None
        else:
            last, last_line = token, line
    return lines


def render(
    config: RunConfig, strategy: ZeroStrategy, world_size: int, *, training: bool = True
) -> dict[str, Any]:
    """The dict that DeepSpeed is given: the run config's values and the file's tuning.

    Args:
        training: without it there is no optimizer, so stages that shard nothing but its state and
            gradients are stage 0, and batch sizes have no meaning.

    Raises:
        ConfigError: the ds_configs file is wrong.
        ValueError: the batch sizes do not fit the world size.
    """
    tuning = tuning_of(strategy)
    zero = {**tuning.get("zero_optimization", {}), "stage": strategy.stage}
    if not training:
        zero["stage"] = 3 if strategy.stage == 3 else 0
        zero.pop("offload_optimizer", None)
    micro_batch, accumulation = config.training.micro_batch_size, 1
    if training:
        # Where it varies from step to step, any number above 1 prepares DeepSpeed for several.
        accumulation = config.training.accumulation(world_size) or 2
    return {
        **tuning,
        "zero_optimization": zero,
        "train_batch_size": micro_batch * accumulation * world_size,
        "train_micro_batch_size_per_gpu": micro_batch,
        "gradient_accumulation_steps": accumulation,
        "gradient_clipping": config.training.max_grad_norm or 0.0,
        "fp16": {
            "enabled": config.precision == "fp16",
            "initial_scale_power": INITIAL_LOSS_SCALE_POWER,
            "loss_scale_window": LOSS_SCALE_WINDOW,
            # One overflow halves the scale, as torch's GradScaler does.
            "hysteresis": 1,
            "min_loss_scale": MIN_LOSS_SCALE,
        },
        "bf16": {"enabled": config.precision == "bf16"},
        # Gradients are added up in fp32 over ranks, as under FSDP, unless the config wants less.
        "communication_data_type": (
            "fp32" if strategy.reduce_dtype == "fp32" else config.precision
        ),
        **_accumulation_dtype(config, strategy, accumulation),
        # The optimizer is torch's AdamW under every strategy, so that results agree.
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        # DeepSpeed's own progress lines are not wanted; bigner logs.
        "steps_per_print": 2**31,
    }


def _accumulation_dtype(
    config: RunConfig, strategy: ZeroStrategy, accumulation: int
) -> dict[str, Any]:
    """fp32 for the gradients of several micro-batches, wherever DeepSpeed's engine can."""
    if accumulation == 1:
        # Nothing is added up; 16 bits are enough to hold what one backward gave.
        return {}
    if strategy.stage == 1 and config.precision == "bf16":
        # Would be given to another optimizer of DeepSpeed's, without shards to read.
        return {}
    return {"data_types": {"grad_accum_dtype": "fp32"}}
