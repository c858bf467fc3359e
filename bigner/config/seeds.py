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


def with_seeds(config: RunConfig, seeds: Sequence[int]) -> list[RunConfig]:
    """The config once for each seed, each with a folder ``seed-N`` of its own in ``run_dir``.

    Raises:
        UserError: the config goes on from one checkpoint, which cannot be that of each.
    """
    resume = config.checkpoint.resume
    if resume not in ("auto", "none"):
        raise UserError(
            f"--seeds begins a run for each seed, and checkpoint.resume names one checkpoint, "
            f"{resume!r}; set it to auto or none"
        )
    return [
        config.model_copy(update={"seed": seed, "run_dir": config.run_dir / f"seed-{seed}"})
        for seed in seeds
    ]
