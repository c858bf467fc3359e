"""The formulas of a plan beside a step that is traced on fake tensors."""

from __future__ import annotations

from typing import Any

import pytest

from bigner.config.schema import FsdpStrategy
from bigner.planning.simulate import simulate
from tests.unit.test_planning import job

# What must hold is a tenth; what was found is less.
TOLERANCE = 0.05


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        # The peak is in the backward of the last layer, or in that of the table.
        ("xlm-roberta-base", {"windows": 32, "ranks": 8}),
        ("xlm-roberta-base", {"windows": 1, "ranks": 2}),
        ("xlm-roberta-base", {"windows": 1, "ranks": 1}),
        ("xlm-roberta-base", {"windows": 32, "ranks": 1, "precision": "fp32"}),
        ("xlm-roberta-base", {"windows": 32, "checkpointing": True}),
        ("xlm-roberta-base", {"windows": 32, "checkpointing": "selective"}),
        ("xlm-roberta-large", {"windows": 8, "precision": "bf16", "accumulation": 3}),
        ("xlm-roberta-large", {"windows": 1, "window": 128, "tokens": 128, "ranks": 256}),
        ("ModernBERT-base", {"windows": 16}),
        ("electra-base-discriminator", {"windows": 16, "precision": "bf16"}),
        ("xlm-roberta-xl", {"windows": 4, "ranks": 16}),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(map(str, value.values())),
)
def test_the_tracer_agrees(name: str, settings: dict[str, Any]) -> None:
    _agrees(name, settings, FsdpStrategy(kind="fsdp"))


@pytest.mark.parametrize(
    "strategy",
    [
        FsdpStrategy(kind="fsdp", reshard_after_forward=False),
        FsdpStrategy(kind="fsdp", reduce_dtype="precision"),
        FsdpStrategy(kind="fsdp", dp_replicate=2),
    ],
    ids=["kept", "reduced in fp16", "two copies"],
)
@pytest.mark.parametrize("windows", [1, 16])
def test_the_tracer_agrees_on_layouts(strategy: FsdpStrategy, windows: int) -> None:
    _agrees("xlm-roberta-base", {"windows": windows}, strategy)


def _agrees(name: str, settings: dict[str, Any], strategy: FsdpStrategy) -> None:
    traced = simulate(job(name, strategy, **settings))
    assert traced["formula_gib"] == pytest.approx(traced["peak_gib"], rel=TOLERANCE)
