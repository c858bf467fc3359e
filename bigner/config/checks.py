"""What can be told of a run before torch is loaded: the files it names, the world it needs."""

from __future__ import annotations

from pathlib import Path

from bigner.config.schema import ModelConfig, RunConfig
from bigner.errors import Problem


def missing_folder(name: str) -> bool:
    """Whether a model's name is a path that leads nowhere.

    Such a name would be looked up on the Hub, with a message about repositories.
    """
    looks_like_path = name.startswith((".", "/", "~")) or name.count("/") > 1
    return looks_like_path and not Path(name).is_dir()


def model_problems(model: ModelConfig, where: str) -> list[Problem]:
    """Folders of model and tokenizer that are not there."""
    fields = {"name_or_path": model.name_or_path, "tokenizer": model.tokenizer}
    return [
        Problem(where, f"model.{field}", f"there is no folder {name!r}")
        for field, name in fields.items()
        if name is not None and missing_folder(name)
    ]


def world_problems(config: RunConfig, world_size: int, where: str) -> list[Problem]:
    """What does not fit the number of processes."""
    problems = []
    if world_size > 1 and not config.strategy.needs_process_group:
        message = (
            f"'{config.strategy.kind}' runs in one process and the world is {world_size}; set it "
            f"to fsdp or zero"
        )
        problems.append(Problem(where, "strategy.kind", message))
    try:
        config.training.accumulation(world_size)
    except ValueError as error:
        problems.append(Problem(where, "training", str(error)))
    return problems
