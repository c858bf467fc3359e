"""``--seeds 1,2,3``: one run config as several that differ in their seed."""

from __future__ import annotations

from collections.abc import Sequence

from bigner.config.schema import RunConfig
from bigner.errors import UserError

_SEEDS = range(2**32)
"""What ``RunConfig.seed`` may be."""


def parse_seeds(text: str, overrides: Sequence[str]) -> tuple[int, ...]:
    """The seeds of ``--seeds``, in the order given.

    Raises:
        UserError: they are no list of different seeds, or an override gives the seed too.
    """
    seeds = []
    for part in text.split(","):
        number = part.strip()
        # Numbers of thousands of digits are not turned into any.
        if not (number.isascii() and number.isdecimal() and len(number) <= 20):
            raise _wrong(text, f"{part!r:.40} is no whole number")
        seed = int(number)
        if seed not in _SEEDS:
            raise _wrong(text, f"{seed} is more than {_SEEDS[-1]}, the largest seed")
        if seed in seeds:
            raise _wrong(text, f"{seed} is in it twice")
        seeds.append(seed)
    for override in overrides:
        if override.partition("=")[0] == "seed":
            raise UserError(
                f"--seeds {text} and the override {override!r:.80} both give the seed; leave one "
                f"out"
            )
    return tuple(seeds)


def _wrong(text: str, why: str) -> UserError:
    return UserError(f"--seeds must be different seeds such as 1,2,3; got {text!r:.80}: {why}")


def require_no_checkpoint(config: RunConfig, what: str) -> None:
    """Refuse to begin several runs with one checkpoint.

    Args:
        config: of which the runs are made.
        what: makes them, for the message.

    Raises:
        UserError: the config names a checkpoint to go on from.
    """
    resume = config.checkpoint.resume
    if resume not in ("auto", "none"):
        raise UserError(
            f"{what} begins several runs, and checkpoint.resume names one checkpoint, {resume!r}; "
            f"set it to auto or none"
        )


def with_seeds(config: RunConfig, seeds: Sequence[int]) -> list[RunConfig]:
    """The config once for each seed, each with a folder ``seed-N`` of its own in ``run_dir``.

    Raises:
        UserError: the config goes on from one checkpoint, which cannot be that of each.
    """
    require_no_checkpoint(config, "--seeds")
    return [
        config.model_copy(update={"seed": seed, "run_dir": config.run_dir / f"seed-{seed}"})
        for seed in seeds
    ]
