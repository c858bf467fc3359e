"""The plan of a run, resolved without torch and without touching anything."""

from __future__ import annotations

from typing import Any

from bigner.config.advice import advice
from bigner.config.checks import (
    Where,
    batch_problems,
    dataset_problems,
    launched_world_size,
    model_problems,
    resume_problems,
    strategy_problems,
    tracking_problems,
)
from bigner.config.deepspeed import render
from bigner.config.schema import RunConfig, Split, ZeroStrategy
from bigner.config.trackers import destinations
from bigner.data.formats import read_sentences, source_files
from bigner.errors import ConfigError, DataError, ModelError, Problem
from bigner.planning.job import job_of
from bigner.planning.model_config import find_shape
from bigner.planning.report import verdict

# Larger corpora are not read through just to count: the answer shall come at once.
COUNTED_BYTES = 8_000_000


def require_sound(config: RunConfig, where: Where, world_size: int | None = None) -> None:
    """Refuse what a training run could only fail at, before it loads torch.

    Args:
        config: the run config.
        where: each field was set.
        world_size: processes of the run; those launched, if None.

    Raises:
        ConfigError: everything that does not fit together or is not there, at once.
    """
    problems = _problems(config, world_size or launched_world_size(), where)
    for split in config.data.splits():
        try:
            source_files(config.data, split)
        except (DataError, OSError) as error:
            problems.append(_data_problem(split, error, where))
    if problems:
        raise ConfigError(problems)


def require_strategy(config: RunConfig, where: Where) -> None:
    """Refuse a strategy that cannot run in the world that was launched.

    Raises:
        ConfigError: the strategy is for one process.
    """
    if problems := strategy_problems(config, launched_world_size(), where):
        raise ConfigError(problems)


def plan(config: RunConfig, world_size: int | None, where: Where) -> dict[str, Any]:
    """What the run would do with ``world_size`` processes (those launched, if None).

    Raises:
        ConfigError: everything that does not fit together, at once.
    """
    world_size = world_size or launched_world_size()
    problems = _problems(config, world_size, where)
    texts: dict[Split, int | None] = {}
    for split in config.data.splits():
        try:
            texts[split] = _count_texts(config, split)
        except (DataError, OSError) as error:
            problems.append(_data_problem(split, error, where))
    if problems:
        raise ConfigError(problems)
    warnings = [str(warning) for warning in advice(config, where)]
    return {**_resolved(config, world_size, texts), "warnings": warnings}


def _problems(config: RunConfig, world_size: int, where: Where) -> list[Problem]:
    return [
        *strategy_problems(config, world_size, where),
        *batch_problems(config, world_size, where),
        *model_problems(config.model, where),
        *dataset_problems(config.data, where),
        *resume_problems(config, where),
        *tracking_problems(config, where),
    ]


def _data_problem(split: Split, error: DataError | OSError, where: Where) -> Problem:
    field = f"data.{split}"
    message = f"cannot be read: {error.strerror}" if isinstance(error, OSError) else str(error)
    return Problem(where(field), field, message.removeprefix(f"{field}: "))


def _count_texts(config: RunConfig, split: Split) -> int | None:
    """Sentences or documents of a split; None where counting would take long."""
    files = source_files(config.data, split)
    if not files or sum(file.stat().st_size for file in files) > COUNTED_BYTES:
        return None
    sentences = read_sentences(config.data, split)
    if config.data.unit == "document":
        return len({sentence.document for sentence in sentences})
    return sum(1 for _ in sentences)


def _resolved(config: RunConfig, world_size: int, texts: dict[Split, int | None]) -> dict[str, Any]:
    training, strategy = config.training, config.strategy
    resolved: dict[str, Any] = {
        "strategy": strategy.model_dump(mode="json"),
        "precision": config.precision,
        "world_size": world_size,
        "batch": training.batch(world_size),
        "batch_text": training.describe_batch(world_size),
        "texts": texts,
        "optimizer_steps": _optimizer_steps(config, texts["train"]),
        "memory": _memory(config, world_size),
        "writes": _writes(config),
    }
    if isinstance(strategy, ZeroStrategy):
        resolved["deepspeed"] = render(config, strategy, world_size)
    return resolved


def _memory(config: RunConfig, world_size: int) -> str | None:
    """What a rank will hold, in a line; None where the model's sizes are not known."""
    try:
        shape = find_shape(config)
    except ModelError:
        # What is wrong with it is told when it is loaded.
        return None
    return verdict(job_of(config, shape, world_size))


def _optimizer_steps(config: RunConfig, texts: int | None) -> dict[str, Any]:
    """Steps of the run, and whether the number is exact."""
    training = config.training
    if training.max_steps is not None:
        return {"count": training.max_steps, "exact": True}
    if texts is None or training.global_batch_tokens is not None:
        return {"count": None, "exact": False}
    # A long text is more than one window, which only the tokenizer can tell.
    steps = -(-texts // training.global_batch_size) * training.num_epochs()
    return {"count": steps, "exact": False}


def _writes(config: RunConfig) -> dict[str, str]:
    run_dir = config.run_dir
    writes = {
        "metrics": str(run_dir / "metrics.jsonl"),
        "model": str(run_dir / "model"),
        "summary": str(run_dir / "summary.json"),
        "config": str(run_dir / "config.yaml"),
    }
    if config.data.splits() != ("train",):
        writes["predictions"] = str(run_dir / "predictions")
    if config.checkpoint.every_steps:
        writes["checkpoints"] = str(run_dir / "checkpoints")
    return writes | destinations(config)


def describe(resolved: dict[str, Any]) -> str:
    """The plan as lines for people."""
    steps = resolved["optimizer_steps"]
    options = ", ".join(
        f"{name} {value}"
        for name, value in resolved["strategy"].items()
        if name != "kind" and value is not None
    )
    kind = resolved["strategy"]["kind"]
    texts = ", ".join(
        f"{split} {'not counted' if count is None else format(count, ',')}"
        for split, count in resolved["texts"].items()
    )
    lines = {
        "strategy": f"{kind} ({options})" if options else kind,
        "precision": f"{resolved['precision']}, fp32 master weights",
        "world size": str(resolved["world_size"]),
        "global batch": resolved["batch_text"],
        "texts": texts,
        "optimizer steps": _steps_for_people(steps),
        "memory": resolved["memory"] or "not known; bigner plan says why",
        **{f"writes {name}": path for name, path in resolved["writes"].items()},
    }
    width = max(map(len, lines))
    return "\n".join(f"{name:<{width}}  {value}" for name, value in lines.items())


def _steps_for_people(steps: dict[str, Any]) -> str:
    if steps["count"] is None:
        return "known once the data is prepared"
    if steps["exact"]:
        return f"{steps['count']:,}"
    return f"{steps['count']:,}, more if long texts need several windows"
