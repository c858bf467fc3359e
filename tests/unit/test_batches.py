"""The global batch plan: each window once, the same work whatever the world."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from bigner.config.schema import DataConfig
from bigner.data.batches import PADDING_ROW, Rows, TrainingPlan, TrainingStep, evaluation_batches
from bigner.data.prepare import prepare

WORLDS = (1, 2, 4)


def numbers(count: int, seed: int = 0) -> Rows:
    return np.random.default_rng(seed).integers(3, 60, count)


def plan_of(count: int, *, batch: int = 8, seed: int = 1) -> TrainingPlan:
    return TrainingPlan(
        numbers(count), [numbers(count, 1).astype(float)], global_batch_size=batch, seed=seed
    )


def real(rows: Rows) -> list[int]:
    return rows[rows != PADDING_ROW].tolist()


def all_rows(steps: list[TrainingStep]) -> list[list[int]]:
    return [step.rows.tolist() for step in steps]


@settings(deadline=None)
@given(st.integers(1, 700), st.sampled_from([4, 8, 12]))
def test_each_window_once_an_epoch(count: int, batch: int) -> None:
    plan = plan_of(count, batch=batch)
    steps = plan.epoch(0)
    assert len(steps) == plan.steps_per_epoch == -(-count // batch)
    assert {len(step.rows) for step in steps} == {batch}
    assert sorted(row for step in steps for row in real(step.rows)) == list(range(count))


@settings(deadline=None)
@given(st.integers(1, 100), st.sampled_from(WORLDS), st.sampled_from([1, 2, 4]))
def test_ranks_partition_each_global_batch(count: int, world: int, micro: int) -> None:
    batch = 16
    for step in plan_of(count, batch=batch).epoch(0):
        ranks = [step.micro_batches(micro, rank, world) for rank in range(world)]
        for own in ranks:
            assert [len(rows) for rows in own] == [micro] * (batch // micro // world)
        dealt = np.concatenate([rows for own in ranks for rows in own])
        assert sorted(dealt) == sorted(step.rows)


def test_a_last_batch_smaller_than_the_world() -> None:
    (step,) = plan_of(3, batch=8).epoch(0)
    own = [step.micro_batches(1, rank, 4) for rank in range(4)]
    assert [len(micro_batches) for micro_batches in own] == [2, 2, 2, 2]
    assert [sum(len(real(rows)) for rows in micro_batches) for micro_batches in own] == [1, 1, 1, 0]


def test_neighbours_in_length_compute_at_the_same_time() -> None:
    plan = TrainingPlan(np.arange(16) + 3, [np.ones(16)], global_batch_size=16, seed=0)
    (step,) = plan.epoch(0)
    assert step.rows.tolist() == list(range(15, -1, -1))
    assert [rows.tolist() for rows in step.micro_batches(4, 1, 2)] == [
        [14, 12, 10, 8],
        [6, 4, 2, 0],
    ]


def test_order_follows_from_seed_and_epoch() -> None:
    assert all_rows(plan_of(100).epoch(3)) == all_rows(plan_of(100).epoch(3))
    orders = [
        all_rows(plan_of(100, seed=seed).epoch(epoch)) for seed in (1, 2) for epoch in (0, 1, 2)
    ]
    assert all(a != b for i, a in enumerate(orders) for b in orders[:i])


def test_sums() -> None:
    plan = plan_of(37)
    for step in plan.epoch(0):
        rows = real(step.rows)
        assert step.num_tokens == numbers(37)[rows].sum()
        assert step.label_weights == (numbers(37, 1)[rows].sum(),)


@pytest.mark.parametrize("start", [0, 1, 4, 5, 6, 12])
def test_resumed_steps_are_the_tail_of_the_unbroken_ones(start: int) -> None:
    plan = plan_of(37)
    assert plan.steps_per_epoch == 5
    unbroken = list(plan.steps(0, 13))
    assert [number for number, _ in unbroken] == list(range(13))
    resumed = list(plan.steps(start, 13))
    assert [number for number, _ in resumed] == list(range(start, 13))
    assert all_rows([s for _, s in resumed]) == all_rows([s for _, s in unbroken[start:]])
    assert all_rows([s for _, s in unbroken[5:10]]) == all_rows(plan.epoch(1))


def test_no_steps_after_the_last() -> None:
    assert list(plan_of(37).steps(13, 13)) == []


@settings(deadline=None)
@given(st.integers(1, 200), st.sampled_from([1, 2, 3, 4]), st.sampled_from([1, 7, 32]))
def test_evaluation_predicts_each_window_once(count: int, world: int, batch: int) -> None:
    lengths = numbers(count)
    ranks = [
        evaluation_batches(lengths, batch_size=batch, rank=rank, world_size=world)
        for rank in range(world)
    ]
    assert len({len(batches) for batches in ranks}) == 1
    assert {len(rows) for batches in ranks for rows in batches} == {batch}
    rows = [row for batches in ranks for rows in batches for row in real(rows)]
    assert sorted(rows) == list(range(count))
    longest = [lengths[real(rows)].max() for rows in ranks[0]]
    assert longest == sorted(longest, reverse=True)


def computed_to_real(batches: list[Rows], lengths: Rows) -> float:
    computed = sum(len(rows) * lengths[rows].max() for rows in batches)
    return float(computed / sum(lengths[rows].sum() for rows in batches))


@pytest.mark.data
def test_little_padding_is_computed_on_real_lengths(shared_data: Path, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(shared_data / "xlmr-tokenizer")
    file = shared_data / "wnut17" / "wnut17train.conll"
    data = DataConfig(train=str(file), cache_dir=tmp_path)
    train = prepare(data, tokenizer, ["train"]).splits["train"]
    lengths = train.column("length")
    plan = TrainingPlan(
        lengths,
        [train.label_weights(0, np.ones(13, dtype=np.float32))],
        global_batch_size=32,
        seed=0,
    )
    planned = [
        np.array(real(rows))
        for _, step in islice(plan.steps(0, 200), 200)
        for rank in range(2)
        for rows in step.micro_batches(16, rank, 2)
        if real(rows)
    ]
    order = np.random.default_rng(0).permutation(len(lengths))
    shuffled = [order[i : i + 16] for i in range(0, len(order), 16)]
    assert computed_to_real(planned, lengths) < 1.1
    assert computed_to_real(shuffled, lengths) > 1.4
