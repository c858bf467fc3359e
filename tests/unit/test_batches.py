"""The global batch plan: each window once, the same work whatever the world."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from bigner.config.schema import DataConfig, TrainingConfig
from bigner.data.batches import (
    Rows,
    TrainingPlan,
    TrainingStep,
    dealing,
    evaluation_batches,
    token_spread,
)
from bigner.data.prepare import prepare

WORLDS = (1, 2, 4)


def numbers(count: int, seed: int = 0) -> Rows:
    return np.random.default_rng(seed).integers(3, 60, count)


def training_of(**settings: Any) -> TrainingConfig:
    return TrainingConfig.model_validate(settings)


def plan_of(count: int, *, batch: int = 8, seed: int = 1, pool: int = 32) -> TrainingPlan:
    training = training_of(global_batch_size=batch, micro_batch_size=1, pool_batches=pool)
    return TrainingPlan(
        numbers(count), [numbers(count, 1).astype(float)], training=training, seed=seed
    )


def by_tokens(**settings: Any) -> TrainingConfig:
    return training_of(batching="tokens", **settings)


def dealt(rows: Rows, training: TrainingConfig, lengths: Rows, world: int) -> list[list[Rows]]:
    return dealing(training, lengths, world)(rows)


def all_rows(steps: list[TrainingStep]) -> list[list[int]]:
    return [step.rows.tolist() for step in steps]


@settings(deadline=None)
@given(st.integers(1, 700), st.sampled_from([4, 8, 12]), st.sampled_from([1, 3, 32]))
def test_each_window_once_an_epoch(count: int, batch: int, pool: int) -> None:
    plan = plan_of(count, batch=batch, pool=pool)
    steps = plan.epoch(0)
    assert len(steps) == plan.steps_per_epoch == -(-count // batch)
    sizes = sorted((len(step.rows) for step in steps), reverse=True)
    assert sizes == [batch] * (count // batch) + [count % batch] * (count % batch > 0)
    assert sorted(row for step in steps for row in step.rows) == list(range(count))
    for step in steps:
        lengths = numbers(count)[step.rows].tolist()
        assert lengths == sorted(lengths, reverse=True)


@settings(deadline=None)
@given(st.integers(2, 700), st.integers(120, 900), st.sampled_from([1, 3, 32]), st.integers(0, 2))
def test_each_window_once_an_epoch_of_token_budgets(
    count: int, budget: int, pool: int, epoch: int
) -> None:
    lengths = numbers(count)
    training = by_tokens(global_batch_tokens=budget, pool_batches=pool)
    plan = TrainingPlan(lengths, [np.ones(count)], training=training, seed=1)
    steps = plan.epoch(epoch)
    assert len(steps) == plan.steps_per_epoch == -(-int(lengths.sum()) // budget)
    assert sorted(row for step in steps for row in step.rows) == list(range(count))
    share = lengths.sum() / len(steps)
    for step in steps:
        assert len(step.rows)
        assert step.num_tokens == lengths[step.rows].sum()
        # Half a window too many or too few at either end.
        assert abs(step.num_tokens - share) <= lengths.max()


def test_plain_shuffling_sorts_nothing_together() -> None:
    first = plan_of(512, pool=1).epoch(0)[0].rows
    assert np.ptp(numbers(512)[first]) > 20
    assert np.ptp(numbers(512)[plan_of(512).epoch(0)[0].rows]) < 20


@settings(deadline=None)
@given(st.integers(1, 100), st.sampled_from(WORLDS), st.sampled_from([1, 2, 4]))
def test_ranks_partition_each_global_batch(count: int, world: int, micro: int) -> None:
    batch = 16
    training = training_of(global_batch_size=batch, micro_batch_size=micro)
    for step in plan_of(count, batch=batch).epoch(0):
        parts = dealt(step.rows, training, numbers(count), world)
        assert len(parts) == batch // micro // world
        assert all(len(ranks) == world for ranks in parts)
        assert max(len(own) for ranks in parts for own in ranks) <= micro
        together = np.concatenate([own for ranks in parts for own in ranks])
        assert sorted(together) == sorted(step.rows)


@settings(deadline=None)
@given(
    st.lists(st.integers(3, 60), min_size=1, max_size=80),
    st.sampled_from([1, 2, 3, 8]),
    st.sampled_from([60, 100, 1000]),
)
def test_ranks_partition_each_global_batch_by_tokens(
    lengths: list[int], world: int, most: int
) -> None:
    ordered = np.array(sorted(lengths, reverse=True))
    rows = np.arange(len(ordered))
    parts = dealt(rows, by_tokens(micro_batch_tokens=most), ordered, world)
    assert all(len(ranks) == world for ranks in parts)
    assert all(ordered[own].sum() <= most for ranks in parts for own in ranks)
    assert sorted(np.concatenate([own for ranks in parts for own in ranks])) == rows.tolist()
    # One micro-batch less would not hold them, or would hold them barely.
    assert len(parts) == 1 or ordered.sum() > (len(parts) - 1) * world * (most - ordered.max())


def test_a_last_batch_smaller_than_the_world() -> None:
    (step,) = plan_of(3, batch=8).epoch(0)
    parts = dealt(step.rows, training_of(global_batch_size=8, micro_batch_size=1), numbers(3), 4)
    assert [[len(own) for own in ranks] for ranks in parts] == [[1, 1, 1, 0], [0, 0, 0, 0]]
    parts = dealt(step.rows, by_tokens(), numbers(3), 4)
    assert sorted(len(own) for (ranks,) in [parts] for own in ranks) == [0, 1, 1, 1]


def test_neighbours_in_length_compute_at_the_same_time() -> None:
    training = training_of(global_batch_size=16, micro_batch_size=4)
    plan = TrainingPlan(np.arange(16) + 3, [np.ones(16)], training=training, seed=0)
    (step,) = plan.epoch(0)
    assert step.rows.tolist() == list(range(15, -1, -1))
    parts = dealt(step.rows, training, np.arange(16) + 3, 2)
    # To and fro, so that no rank has the longer one each time.
    assert [ranks[1].tolist() for ranks in parts] == [[14, 13, 10, 9], [6, 5, 2, 1]]
    assert token_spread(parts, np.arange(16) + 3) == 0.0


def test_token_spread_by_hand() -> None:
    lengths = np.array([10, 6, 5, 3])
    parts = [[np.array([0]), np.array([1])], [np.array([2]), np.array([3])]]
    # (10 - 6) + (5 - 3) by (8 + 4).
    assert token_spread(parts, lengths) == pytest.approx(6 / 12)


def test_order_follows_from_seed_and_epoch() -> None:
    assert all_rows(plan_of(100).epoch(3)) == all_rows(plan_of(100).epoch(3))
    orders = [
        all_rows(plan_of(100, seed=seed).epoch(epoch)) for seed in (1, 2) for epoch in (0, 1, 2)
    ]
    assert all(a != b for i, a in enumerate(orders) for b in orders[:i])


def test_sums() -> None:
    plan = plan_of(37)
    for step in plan.epoch(0):
        assert step.num_tokens == numbers(37)[step.rows].sum()
        assert step.label_weights == (numbers(37, 1)[step.rows].sum(),)


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
@given(
    st.integers(1, 200),
    st.sampled_from([1, 2, 3, 4]),
    st.sampled_from(
        [{"batch_size": 1}, {"batch_size": 7}, {"batch_tokens": 8}, {"batch_tokens": 200}]
    ),
)
def test_evaluation_predicts_each_window_once(
    count: int, world: int, limit: dict[str, int]
) -> None:
    lengths = numbers(count)
    ranks = [
        evaluation_batches(lengths, **limit, rank=rank, world_size=world) for rank in range(world)
    ]
    assert len({len(batches) for batches in ranks}) == 1
    assert sorted(np.concatenate([rows for batches in ranks for rows in batches])) == list(
        range(count)
    )
    for rows in (rows for batches in ranks for rows in batches if len(rows)):
        assert len(rows) <= limit.get("batch_size", count)
        padded = len(rows) * lengths[rows].max()
        assert len(rows) == 1 or padded <= limit.get("batch_tokens", padded)
    longest = [lengths[rows].max() for rows in ranks[0]]
    assert longest == sorted(longest, reverse=True)


@pytest.fixture(scope="module")
def real_lengths(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Rows:
    """Of WNUT-17's training windows, in XLM-R's pieces."""
    tokenizer = AutoTokenizer.from_pretrained(shared_data / "xlmr-tokenizer")
    file = shared_data / "wnut17" / "wnut17train.conll"
    data = DataConfig(train=str(file), cache_dir=tmp_path_factory.mktemp("cache"))
    return prepare(data, tokenizer, ["train"]).splits["train"].column("length")


def real_spread(lengths: Rows, training: TrainingConfig, world: int) -> float:
    """The mean over the steps of an epoch."""
    plan = TrainingPlan(lengths, [np.ones(len(lengths))], training=training, seed=0)
    deal = dealing(training, lengths, world)
    return float(np.mean([token_spread(deal(step.rows), lengths) for step in plan.epoch(0)]))


@pytest.mark.data
@pytest.mark.parametrize("world", [2, 8])
def test_ranks_have_equal_work_on_real_lengths(world: int, real_lengths: Rows) -> None:
    lengths = real_lengths
    size = {"global_batch_size": 32}
    at_once = 32 // world
    pools = {"pool_batches": 32}
    assert real_spread(lengths, by_tokens(**size, **pools), world) < 0.05
    assert (
        real_spread(lengths, training_of(**size, **pools, micro_batch_size=at_once), world) < 0.05
    )
    # Of a random batch of 32 the longest window may be more than an eighth.
    bound = {2: 0.02, 8: 0.15}[world]
    assert real_spread(lengths, by_tokens(**size), world) < bound
    assert real_spread(lengths, training_of(**size, micro_batch_size=at_once), world) < bound


@pytest.mark.data
def test_steps_of_token_budgets_are_alike_on_real_lengths(real_lengths: Rows) -> None:
    training = by_tokens(global_batch_tokens=2048)
    plan = TrainingPlan(real_lengths, [np.ones(len(real_lengths))], training=training, seed=0)
    tokens = np.array([step.num_tokens for step in plan.epoch(0)])
    assert tokens.max() <= 2048 + 64
    assert np.ptp(tokens) / tokens.mean() < 0.1
