"""What can be told of a run before torch is loaded: the files it names, the world it needs."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, get_args

from bigner.config.deepspeed import node_ranks, tuning_of
from bigner.config.schema import (
    DataConfig,
    FsdpStrategy,
    ModelConfig,
    RunConfig,
    ZeroStrategy,
)
from bigner.errors import LaunchError, ModelError, Problem, UserError

Where = Callable[[str], str]
"""From a dotted field to the place that sets it: ``file:line`` or an override."""

_OPTIONAL_TRACKERS = ("mlflow", "wandb")


def is_file(name: str | Path) -> bool:
    """Whether there is such a file; a name that no file can have is none, as is a hidden one."""
    # Unlike os.path, Path raises for names that are too long and folders that may not be read.
    return os.path.isfile(name)  # noqa: PTH113


def is_folder(name: str | Path) -> bool:
    """Whether there is such a folder, with the same care."""
    return os.path.isdir(name)  # noqa: PTH112


def missing_folder(name: str) -> bool:
    """Whether a model's name is a path that leads nowhere.

    Such a name would be looked up on the Hub, with a message about repositories.
    """
    looks_like_path = name.startswith((".", "/", "~")) or name.count("/") > 1
    return looks_like_path and not is_folder(name)


def hub_names(config: RunConfig) -> dict[str, str | None]:
    """What a run takes from the Hub: its pretrained ``model`` and its ``dataset``.

    Asked where the run is, for a name such as ``models/large`` is a folder there alone.
    """
    model, dataset = config.model, config.data.dataset
    pretrained = None if model.training_type == "from_scratch" else model.name_or_path
    return {"model": _unless_folder(pretrained), "dataset": _unless_folder(dataset)}


def _unless_folder(name: str | None) -> str | None:
    return None if name is None or is_folder(name) or missing_folder(name) else name


def require_new_folder(folder: Path) -> None:
    """Refuse a folder that is there already or has no place, before hours go into what it holds.

    Raises:
        UserError: it cannot be made.
    """
    if os.path.lexists(folder):
        raise UserError(f"{folder} is there already; name a new folder, nothing was changed")
    parent = next(above for above in folder.absolute().parents if os.path.lexists(above))
    if not is_folder(parent) or not os.access(parent, os.W_OK):
        raise UserError(f"{folder} cannot be made: {parent} is no folder that can be written to")


def require_choice(name: str, value: object, choices: Any) -> None:
    """Refuse what is none of a Literal's values.

    Raises:
        UserError: it is none of them.
    """
    if value not in get_args(choices):
        raise UserError(f"{name} must be {', '.join(get_args(choices))}; got {value!r}")


def require_model_folder(folder: Path, name: str) -> None:
    """Refuse what cannot be an exported model.

    Args:
        folder: of the model.
        name: of the option or argument that says which.

    Raises:
        ModelError: there is no such folder.
    """
    if not folder.is_dir():
        raise ModelError(f"there is no model folder {folder}; {name} names an exported model")


def require_place_for(file: Path, name: str) -> None:
    """Refuse a file that cannot be written, before hours are spent on what goes into it.

    Args:
        file: that is to be written.
        name: of the option or argument that says which.

    Raises:
        UserError: it is a folder, or in none that can be written to.
    """
    if is_folder(file):
        raise UserError(f"{name} must name a file, and {str(file)!r} is a folder")
    if not is_folder(file.parent) or not os.access(file.parent, os.W_OK):
        raise UserError(
            f"{name} {str(file)!r} cannot be written: there is no folder "
            f"{str(file.parent)!r} that can be written to"
        )


def launched_world_size() -> int:
    """Processes of this launch, as the launcher put it in the environment; 1 without one.

    Raises:
        LaunchError: the environment says something that is no number of processes.
    """
    text = os.environ.get("WORLD_SIZE", "1")
    if not (text.isdecimal() and int(text)):
        raise LaunchError(
            f"WORLD_SIZE in the environment must be a number of processes, and is {text!r}; launch "
            f"with torchrun or deepspeed, or unset it to run one process"
        )
    return int(text)


def model_problems(model: ModelConfig, where: Where) -> list[Problem]:
    """Folders of model and tokenizer that are not there."""
    return _missing_folders(
        {"model.name_or_path": model.name_or_path, "model.tokenizer": model.tokenizer}, where
    )


def dataset_problems(data: DataConfig, where: Where) -> list[Problem]:
    """The folder of a saved dataset, if it is not there."""
    return _missing_folders({"data.dataset": data.dataset}, where)


def _missing_folders(fields: dict[str, str | None], where: Where) -> list[Problem]:
    return [
        Problem(
            where(field),
            field,
            f"there is no folder {name!r} (paths are relative to the working directory, and a name "
            f"on the Hub has one slash at most)",
        )
        for field, name in fields.items()
        if name is not None and missing_folder(name)
    ]


def resume_problems(config: RunConfig, where: Where) -> list[Problem]:
    """A checkpoint folder that was named and is not there."""
    resume = config.checkpoint.resume
    if resume in ("auto", "none") or is_folder(resume):
        return []
    message = f"must be auto, none or the folder of a checkpoint; there is no folder {resume!r}"
    return [Problem(where("checkpoint.resume"), "checkpoint.resume", message)]


def tracking_problems(config: RunConfig, where: Where) -> list[Problem]:
    """Trackers that are not installed."""
    return [
        Problem(
            where(f"tracking.{position}"),
            f"tracking.{position}",
            f"{name} is not installed; pip install 'bigner[{name}]', or take it out",
        )
        for position, name in enumerate(config.tracking)
        if name in _OPTIONAL_TRACKERS and not is_installed(name)
    ]


def is_installed(package: str) -> bool:
    """Whether a package can be imported; nothing of it is."""
    found = find_spec(package)
    # A folder that merely has its name, as W&B makes one, is a package of no file.
    return found is not None and found.origin is not None


def strategy_problems(config: RunConfig, world_size: int, where: Where) -> list[Problem]:
    """A strategy for one process in a world of several, or copies that do not divide the world."""
    strategy = config.strategy
    if world_size > 1 and not strategy.needs_process_group:
        message = (
            f"'{strategy.kind}' runs in one process and the world is {world_size}; set it to "
            f"fsdp or zero, or start one process"
        )
        return [Problem(where("strategy.kind"), "strategy.kind", message)]
    if isinstance(strategy, FsdpStrategy) and world_size % strategy.dp_replicate:
        field = "strategy.dp_replicate"
        message = (
            f"{strategy.dp_replicate} copies of the model cannot share the world of {world_size} "
            f"evenly; set it to a divisor of {world_size}, or start a multiple of "
            f"{strategy.dp_replicate} processes"
        )
        return [Problem(where(field), field, message)]
    if isinstance(strategy, ZeroStrategy):
        ranks = node_ranks(tuning_of(strategy).get("zero_optimization", {}))
        if world_size % min(ranks, world_size):
            field = "strategy.deepspeed_config"
            message = (
                f"zero_hpz_partition_size {ranks} in {strategy.deepspeed_config} does not divide "
                f"the world of {world_size}; set it to the ranks of a node"
            )
            return [Problem(where(field), field, message)]
    return []


def batch_problems(config: RunConfig, world_size: int, where: Where) -> list[Problem]:
    """Batch sizes that cannot be dealt out over the world."""
    try:
        config.training.accumulation(world_size)
    except ValueError as error:
        return [Problem(where("training.global_batch_size"), "training", str(error))]
    return []
