"""What a ds_configs file may say, and the final dict that DeepSpeed is given.

A ds_configs file tunes ZeRO: buckets, prefetch, persistence, offload. Batch sizes, precision,
optimizer and clipping have one owner, the run config; DeepSpeed itself lets unknown names pass at
the top level and falls back to a default without a word, so the keys are checked here.
"""

from __future__ import annotations

import difflib
import importlib.util
import json
from pathlib import Path
from typing import Any

from bigner.config.schema import RunConfig, ZeroStrategy
from bigner.errors import ConfigError, Problem

INITIAL_LOSS_SCALE_POWER = 12
"""The dynamic fp16 loss scale begins at 2**12, under every strategy.

DeepSpeed and torch begin at 2**16, where the gradients of a fresh head overflow or not by a hair,
in one strategy and not in another.
"""
LOSS_SCALE_WINDOW = 1000
"""Steps without overflow after which the loss scale doubles, under every strategy."""

# Key -> the Python types that JSON may give it; checked without importing deepspeed.
_NUMBER = (int, float)
ZERO_KEYS: dict[str, tuple[type, ...]] = {
    "allgather_bucket_size": _NUMBER,
    "allgather_partitions": (bool,),
    "contiguous_gradients": (bool,),
    "offload_optimizer": (dict,),
    "offload_param": (dict,),
    "overlap_comm": (bool,),
    "reduce_bucket_size": _NUMBER,
    "reduce_scatter": (bool,),
    "round_robin_gradients": (bool,),
    "stage3_allgather_sequential": (bool,),
    "stage3_max_live_parameters": _NUMBER,
    "stage3_max_reuse_distance": _NUMBER,
    "stage3_model_persistence_threshold": _NUMBER,
    "stage3_module_granularity_threshold": _NUMBER,
    "stage3_param_persistence_threshold": _NUMBER,
    "stage3_prefetch_bucket_size": _NUMBER,
    "stage3_use_all_reduce_for_fetch_params": (bool,),
    "sub_group_size": _NUMBER,
    "use_multi_rank_bucket_allreduce": (bool,),
}
OFFLOAD_KEYS: dict[str, dict[str, tuple[type, ...]]] = {
    "offload_param": {
        "device": (str,),
        "max_in_cpu": _NUMBER,
        "pin_memory": (bool,),
    },
    "offload_optimizer": {
        "device": (str,),
        "pin_memory": (bool,),
    },
}
OFFLOAD_DEVICES = ("cpu", "none")
TOP_KEYS: dict[str, tuple[type, ...]] = {
    "zero_optimization": (dict,),
    "aio": (dict,),
    "comms_logger": (dict,),
    "memory_breakdown": (bool,),
    "wall_clock_breakdown": (bool,),
}
OWNED_KEYS = {
    "train_batch_size": "training.global_batch_size",
    "train_micro_batch_size_per_gpu": "training.micro_batch_size",
    "gradient_accumulation_steps": (
        "training.global_batch_size and training.micro_batch_size (accumulation follows from them)"
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
    "zero_allow_untested_optimizer": "no field: bigner sets it",
    "zero_force_ds_cpu_optimizer": "no field: bigner sets it",
    "steps_per_print": "training.log_every",
    "tensorboard": "tracking",
    "wandb": "tracking",
    "csv_monitor": "tracking",
    "checkpoint": "checkpoint",
}
OWNED_ZERO_KEYS = {"stage": "strategy.stage"}


def check_tuning_file(path: Path) -> list[Problem]:
    """Every problem of a ds_configs file; empty if it only tunes ZeRO with names that exist."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        return [Problem(str(path), "", f"cannot be read: {error}")]
    try:
        tuning = json.loads(text, object_pairs_hook=_no_repeats)
    except json.JSONDecodeError as error:
        return [Problem(f"{path}:{error.lineno}", "", f"not valid JSON: {error.msg}")]
    except (ValueError, RecursionError) as error:
        return [Problem(str(path), "", f"not valid JSON: {error}")]
    if not isinstance(tuning, dict):
        return [Problem(str(path), "", "must be a JSON object with zero_optimization in it")]
    checker = _Checker(path, text)
    checker.keys(tuning, "", TOP_KEYS, OWNED_KEYS)
    zero = tuning.get("zero_optimization")
    if isinstance(zero, dict):
        checker.keys(zero, "zero_optimization", ZERO_KEYS, OWNED_ZERO_KEYS)
        for name, keys in OFFLOAD_KEYS.items():
            if isinstance(zero.get(name), dict):
                checker.keys(zero[name], f"zero_optimization.{name}", keys, {})
                checker.offload_device(zero[name], f"zero_optimization.{name}")
        if not checker.problems:
            checker.values(zero)
    return checker.problems


def _no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice!r} is given twice")
    return result


class _Checker:
    """Collects the problems of one file, each with the line its key stands on."""

    def __init__(self, path: Path, text: str) -> None:
        self.path = path
        self.lines = text.splitlines()
        self.problems: list[Problem] = []

    def add(self, key: str, section: str, message: str) -> None:
        """Note a problem; the line is that of the key's first appearance after its section."""
        wanted = [*section.split("."), key] if section else [key]
        line = 0
        for name in wanted:
            rest = range(line, len(self.lines))
            line = next((i for i in rest if f'"{name}"' in self.lines[i]), line)
        field = f"{section}.{key}" if section else key
        self.problems.append(Problem(f"{self.path}:{line + 1}", field, message))

    def keys(
        self,
        values: dict[str, Any],
        section: str,
        known: dict[str, tuple[type, ...]],
        owned: dict[str, str],
    ) -> None:
        """Refuse keys that the run config owns, keys that do not exist, and wrong types."""
        for key, value in values.items():
            if key in owned:
                owner = owned[key]
                self.add(key, section, f"is set by the run config ({owner}); take it out of here")
            elif key not in known:
                self.add(key, section, _unknown(key, known))
            elif not _has_type(value, known[key]):
                wanted = " or ".join(_TYPE_NAMES[kind] for kind in known[key])
                self.add(key, section, f"must be {wanted}, got {json.dumps(value)[:60]}")

    def offload_device(self, offload: dict[str, Any], section: str) -> None:
        """Refuse devices that shards cannot be read from and written to in place."""
        device = offload.get("device", "none")
        if device not in OFFLOAD_DEVICES:
            allowed = " or ".join(OFFLOAD_DEVICES)
            self.add("device", section, f"must be {allowed}, got {json.dumps(device)}")

    def values(self, zero: dict[str, Any]) -> None:
        """Bounds and combinations, by DeepSpeed's own config class where it is installed."""
        if importlib.util.find_spec("deepspeed") is None:
            return
        from deepspeed.runtime.zero.config import DeepSpeedZeroConfig  # noqa: PLC0415
        from pydantic import ValidationError  # noqa: PLC0415

        try:
            DeepSpeedZeroConfig(**{**zero, "stage": 3})
        except ValidationError as error:
            for detail in error.errors(include_url=False):
                *section, key = ("zero_optimization", *(str(part) for part in detail["loc"]))
                self.add(key, ".".join(section), f"{detail['msg']}; got {detail['input']!r}")


_TYPE_NAMES = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    dict: "an object",
}


def _has_type(value: Any, kinds: tuple[type, ...]) -> bool:
    if isinstance(value, bool):
        return bool in kinds
    return isinstance(value, kinds)


def _unknown(key: str, known: dict[str, tuple[type, ...]]) -> str:
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.6)
    advice = f"did you mean {near[0]}?" if near else f"what may stand here: {', '.join(known)}"
    return f"is not a key DeepSpeed's tuning has; {advice}"


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
    tuning: dict[str, Any] = {}
    if strategy.deepspeed_config is not None:
        if problems := check_tuning_file(strategy.deepspeed_config):
            raise ConfigError(problems)
        tuning = json.loads(strategy.deepspeed_config.read_text(encoding="utf-8-sig"))
    stage = strategy.stage if training or strategy.stage == 3 else 0
    micro_batch = config.training.micro_batch_size
    accumulation = config.training.accumulation(world_size) if training else 1
    return {
        **tuning,
        "zero_optimization": {**tuning.get("zero_optimization", {}), "stage": stage},
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
            "min_loss_scale": 1,
        },
        "bf16": {"enabled": config.precision == "bf16"},
        # The optimizer is torch's AdamW under every strategy, so that results agree.
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        # DeepSpeed's own progress lines are not wanted; bigner logs.
        "steps_per_print": 2**31,
    }
