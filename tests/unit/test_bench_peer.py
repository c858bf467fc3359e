"""The benchmark beside the Trainer: who did less is found out."""

from __future__ import annotations

import dataclasses

import pytest

from tests.scripts import script

bench = script("bench_peer")
OURS = bench.Outcome(
    train=2000.0,
    evaluate=8000.0,
    samples=64,
    tokens=1700,
    loss=0.5,
    evaluation_loss=0.6,
    f1=0.1,
    peak_memory_bytes=1,
)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({}, None),
        ({"loss": 0.53, "evaluation_loss": 0.57}, None),
        ({"samples": 63}, "saw other samples"),
        ({"tokens": 1699}, None),
        ({"tokens": 1650}, "saw other samples"),
        ({"loss": 1.0}, "loss 0.5000 of bigner and 1.0000 of Trainer"),
        ({"evaluation_loss": 1.2}, "evaluation_loss 0.6000 of bigner"),
    ],
)
def test_less_work_is_told(change: dict[str, float], complaint: str | None) -> None:
    peer = dataclasses.replace(OURS, **change)
    found = list(bench.check("single-fp32", {"bigner": [OURS], "peer": [peer]}))
    if complaint is None:
        assert found == []
    else:
        (line,) = found
        assert complaint in line


def test_the_table_has_medians_spread_and_ratios() -> None:
    rounds = [dataclasses.replace(OURS, train=train) for train in (900.0, 1000.0, 2000.0)]
    cases = {"single-fp32": bench.summary({"bigner": [OURS] * 3, "peer": rounds})}
    about = {"date": "", "cores": 2, "device": "", "versions": {}}
    settings = {"steps": 30, "warmup_steps": 30}
    table = list(bench.table({"cases": cases, "machine": about, "settings": settings}))
    assert table[2] == (
        "| single-fp32 | training | 2,000 (2,000 to 2,000) | 1,000 (900 to 2,000) | 2.00 |"
    )
