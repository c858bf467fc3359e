"""Parameter groups and the learning rate of each step."""

from __future__ import annotations

import pytest
from torch import nn

from bigner.config.schema import Schedule, TrainingConfig
from bigner.optim import LearningRate, parameter_groups


def test_parameter_groups() -> None:
    model = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 2))
    model[3].requires_grad_(False)
    decayed, plain = parameter_groups(model, 0.1)
    assert decayed == {"params": [model[0].weight, model[1].weight], "weight_decay": 0.1}
    assert plain["weight_decay"] == 0.0
    vectors = [model[1].bias, model[2].weight, model[2].bias]
    assert [id(p) for p in plain["params"]] == [id(p) for p in vectors]


def test_no_empty_parameter_group() -> None:
    assert len(parameter_groups(nn.Linear(2, 2, bias=False), 0.1)) == 1


PEAK, TOTAL, WARMUP = 0.1, 50, 10


def rates(
    schedule: Schedule, *, warmup_ratio: float = WARMUP / TOTAL, total: int = TOTAL
) -> list[float]:
    training = TrainingConfig(learning_rate=PEAK, schedule=schedule, warmup_ratio=warmup_ratio)
    learning_rate = LearningRate(training, total, lower_is_better=False)
    return [learning_rate.at(step) for step in range(total)]


SCHEDULES: tuple[Schedule, ...] = ("linear", "cosine", "constant", "reduce_on_plateau")


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_warm_up_rises_to_the_peak(schedule: Schedule) -> None:
    expected = [PEAK * (step + 1) / WARMUP for step in range(WARMUP)]
    assert rates(schedule)[:WARMUP] == pytest.approx(expected)
    assert max(rates(schedule)) == pytest.approx(PEAK)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("warmup_ratio", [0.0, 0.01, 0.2, 0.99])
@pytest.mark.parametrize("total", [1, 2, TOTAL])
def test_no_step_is_thrown_away(schedule: Schedule, warmup_ratio: float, total: int) -> None:
    seen = rates(schedule, warmup_ratio=warmup_ratio, total=total)
    assert all(0.0 < rate <= PEAK for rate in seen)


def test_schedules_after_warm_up() -> None:
    linear, cosine = rates("linear")[WARMUP:], rates("cosine")[WARMUP:]
    assert linear == pytest.approx([PEAK * (1 - i / 40) for i in range(40)])
    assert cosine == sorted(cosine, reverse=True)
    assert cosine[20] == pytest.approx(PEAK / 2)
    assert cosine[-1] < linear[-1] < PEAK / 20
    for schedule in ("constant", "reduce_on_plateau"):
        assert rates(schedule)[WARMUP:] == pytest.approx([PEAK] * 40)


def plateau(*scores: float, lower_is_better: bool = False) -> LearningRate:
    training = TrainingConfig(
        learning_rate=PEAK,
        schedule="reduce_on_plateau",
        warmup_ratio=0.0,
        plateau_factor=0.5,
        plateau_patience=2,
    )
    learning_rate = LearningRate(training, TOTAL, lower_is_better=lower_is_better)
    for score in scores:
        learning_rate.scored(score)
    return learning_rate


def test_plateau_reduces_after_its_patience() -> None:
    history = (0.0, 0.3, 0.5, 0.5, 0.4, 0.5, 0.6)
    seen = [plateau(*history[:n]).at(20) for n in range(len(history) + 1)]
    assert seen == pytest.approx([PEAK] * 6 + [PEAK / 2] * 2)


def test_plateau_of_a_loss_goes_down() -> None:
    falling, rising = (0.9, 0.7, 0.5, 0.3), (0.3, 0.5, 0.7, 0.9)
    assert plateau(*falling, lower_is_better=True).at(20) == pytest.approx(PEAK)
    assert plateau(*rising, lower_is_better=True).at(20) == pytest.approx(PEAK / 2)


def test_plateau_is_replayed_from_the_history() -> None:
    unbroken = plateau(0.5, 0.4)
    unbroken.at(10)
    unbroken.scored(0.4)
    unbroken.at(20)
    unbroken.scored(0.4)
    assert unbroken.at(21) == plateau(0.5, 0.4, 0.4, 0.4).at(21) < PEAK


def test_other_schedules_do_not_listen_to_scores() -> None:
    training = TrainingConfig(learning_rate=PEAK, schedule="constant", warmup_ratio=0.0)
    learning_rate = LearningRate(training, TOTAL, lower_is_better=False)
    for _ in range(10):
        learning_rate.scored(0.0)
    assert learning_rate.at(5) == PEAK
