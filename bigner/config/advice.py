"""What is likely to go wrong in a run that is sound: warnings, told before it is paid for."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from bigner.config.checks import Where, is_file
from bigner.config.schema import ModelConfig, RunConfig
from bigner.config.text_file import read_object
from bigner.errors import ConfigError, Problem

# The ground on which large encoders do not collapse: the original recipes, and what people found
# who left them.
SOUND_LEARNING_RATE = 1e-5
HIGHEST_LEARNING_RATE = 2e-5
SOUND_WARMUP_RATIO = 0.1
LOWEST_WARMUP_RATIO = 0.05
SOUND_GRAD_NORM = 1.0
LEAST_GLOBAL_BATCH = 16

_LARGE_HIDDEN_SIZE = 1024
# Not xlm, nor xlnet-base.
_LARGE_NAME = re.compile(r"(?:^|[-_./])(?:x{0,2}large|x{1,2}l)(?![a-z])", re.IGNORECASE)


def advice(config: RunConfig, where: Where) -> list[Problem]:
    """What a large encoder that is trained whole may collapse on."""
    if config.model.training_type == "transfer_learning" or not is_large(config.model):
        return []
    return [Problem(where(field), field, message) for field, message in _off_the_ground(config)]


def _off_the_ground(config: RunConfig) -> Iterator[tuple[str, str]]:
    """Fields beyond what large encoders are known to learn with, each with a sentence."""
    training = config.training
    if training.learning_rate > HIGHEST_LEARNING_RATE:
        yield (
            "training.learning_rate",
            f"{training.learning_rate:g} is more than {HIGHEST_LEARNING_RATE:g}, where large "
            f"encoders often collapse to one tag; {SOUND_LEARNING_RATE:g} is safe",
        )
    if training.warmup_ratio < LOWEST_WARMUP_RATIO:
        yield (
            "training.warmup_ratio",
            f"{training.warmup_ratio:g} is less than {LOWEST_WARMUP_RATIO:g}, and large encoders "
            f"often collapse in their first steps; {SOUND_WARMUP_RATIO:g} is safe",
        )
    elif training.max_steps is not None and not training.warmup_steps(training.max_steps):
        yield (
            "training.warmup_ratio",
            f"{training.warmup_ratio:g} of {training.max_steps} steps is none, and large encoders "
            f"often collapse without warm-up; raise it or training.max_steps",
        )
    if training.max_grad_norm is None or training.max_grad_norm > SOUND_GRAD_NORM:
        norm = training.max_grad_norm
        yield (
            "training.max_grad_norm",
            f"{'null' if norm is None else f'{norm:g}'} lets steep gradients through, on which "
            f"large encoders often collapse; {SOUND_GRAD_NORM:g} is safe",
        )
    # What a global batch of so many pieces has in samples is known once the data is prepared.
    if training.global_batch_tokens is None and training.global_batch_size < LEAST_GLOBAL_BATCH:
        yield (
            "training.global_batch_size",
            f"{training.global_batch_size} is less than {LEAST_GLOBAL_BATCH}, where large encoders "
            f"often collapse to one tag; {LEAST_GLOBAL_BATCH} or more are safe",
        )


def is_large(model: ModelConfig) -> bool:
    """Whether an encoder is of the large kind: by its width, or by its name where that is not
    at hand.
    """
    width = _hidden_size(Path(model.name_or_path) / "config.json")
    if width is not None:
        return width >= _LARGE_HIDDEN_SIZE
    return _LARGE_NAME.search(model.name_or_path) is not None


def _hidden_size(path: Path) -> int | None:
    """What a model's config gives as its width; None if there is no such thing."""
    if not is_file(path):
        return None
    try:
        width = read_object(path, "model config").get("hidden_size")
    except ConfigError:
        # What is wrong with it is told when it is loaded.
        return None
    return width if isinstance(width, int) else None
