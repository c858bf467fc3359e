"""Parameter groups and the learning rate of each step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from bigner.config.schema import ModelConfig, Schedule, TrainingConfig
from bigner.loss import token_losses
from bigner.modeling import build_model
from bigner.optim import LearningRate, parameter_groups
from tests.unit.helpers import opened, run_config, tiny_xlmr, whole_model

# ---------------------------------------------------------------- who learns how fast

VOCAB = 50
HEAD = {"head_learning_rate": 3e-3}
# By hand, for three layers and a layer_decay of 0.5.
FACTORS = {
    "classifier.": 1.0,
    "roberta.encoder.layer.2.": 0.5,
    "roberta.encoder.layer.1.": 0.25,
    "roberta.encoder.layer.0.": 0.125,
    "roberta.embeddings.": 0.0625,
}


def built(folder: Path, **freeze: Any) -> PreTrainedModel:
    """A model of three layers, as shapes."""
    tiny_xlmr(VOCAB).save_pretrained(folder)
    model = ModelConfig.model_validate({"name_or_path": str(folder), "freeze": freeze})
    return build_model(model, ("O", "B-X", "I-X"))


def in_groups(
    model: PreTrainedModel, training: TrainingConfig
) -> dict[str, list[tuple[float, float]]]:
    """Weight decay and factor of each parameter, once for each group that has it."""
    groups = parameter_groups(model, training)
    settings = [(group["weight_decay"], group["lr_factor"]) for group in groups]
    assert len(set(settings)) == len(settings), "two groups could be one"
    return {
        name: [
            setting
            for setting, group in zip(settings, groups, strict=True)
            if any(parameter is other for other in group["params"])
        ]
        for name, parameter in model.named_parameters()
    }


def is_vector(name: str) -> bool:
    return name.endswith(".bias") or "LayerNorm" in name


def test_matrices_decay_and_all_learn_alike(tmp_path: Path) -> None:
    groups = in_groups(built(tmp_path), TrainingConfig(weight_decay=0.1))
    assert groups == {name: [(0.0 if is_vector(name) else 0.1, 1.0)] for name in groups}
    assert {is_vector(name) for name in groups} == {True, False}


def test_groups_without_a_difference_are_one(tmp_path: Path) -> None:
    (group,) = parameter_groups(built(tmp_path), TrainingConfig(weight_decay=0.0))
    assert group["lr_factor"] == 1.0
    training = TrainingConfig(weight_decay=0.1, layer_decay=0.5)
    # Three layers, embeddings and head, each with matrices and vectors.
    assert len(parameter_groups(built(tmp_path), training)) == 10


@pytest.mark.parametrize(("head", "factor"), [({}, 1.0), (HEAD, 3.0)])
def test_each_layer_down_learns_slower(
    tmp_path: Path, head: dict[str, float], factor: float
) -> None:
    training = TrainingConfig(learning_rate=1e-3, layer_decay=0.5, weight_decay=0.1, **head)
    groups = in_groups(built(tmp_path), training)
    for name, settings in groups.items():
        (share,) = [share for prefix, share in FACTORS.items() if name.startswith(prefix)]
        share = factor if name.startswith("classifier.") else share
        assert settings == [(0.0 if is_vector(name) else 0.1, pytest.approx(share))], name
    seen = {prefix for prefix in FACTORS if any(name.startswith(prefix) for name in groups)}
    assert seen == set(FACTORS)


def test_the_head_alone_may_have_its_own_rate(tmp_path: Path) -> None:
    training = TrainingConfig(learning_rate=1e-3, weight_decay=0.0, **HEAD)
    factors = {name: factor for name, [(_, factor)] in in_groups(built(tmp_path), training).items()}
    assert {name for name, factor in factors.items() if factor != 1.0} == {
        "classifier.weight",
        "classifier.bias",
    }
    assert factors["classifier.bias"] == pytest.approx(3.0)


def test_what_is_frozen_is_in_no_group(tmp_path: Path) -> None:
    model = built(tmp_path, embeddings=True, layers=2)
    groups = in_groups(model, TrainingConfig(layer_decay=0.5))
    frozen = tuple(
        f"roberta.{part}." for part in ("embeddings", "encoder.layer.0", "encoder.layer.1")
    )
    assert {name for name, settings in groups.items() if not settings} == {
        name for name in groups if name.startswith(frozen)
    }
    # What is left learns as it would otherwise: frozen layers count.
    assert groups["roberta.encoder.layer.2.output.dense.weight"] == [(0.01, 0.5)]


def test_the_first_step_is_as_long_as_the_factor_says(tmp_path: Path) -> None:
    """AdamW's first step is its learning rate for whatever has a gradient to speak of."""
    tiny_xlmr(VOCAB).save_pretrained(tmp_path)
    shape = ModelConfig(name_or_path=str(tmp_path), training_type="from_scratch")
    model = whole_model(shape, ("O", "B-X", "I-X"), seed=0)
    training = {"learning_rate": 1e-3, "layer_decay": 0.5, "weight_decay": 0.0, **HEAD}
    strategy = opened(run_config(tmp_path, tmp_path, training=training), model)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    labels = torch.randint(3, (2, 12))
    logits = strategy.forward({"input_ids": torch.randint(5, VOCAB, (2, 12))})
    strategy.backward(token_losses(logits, labels).mean(), last=True)
    strategy.step(1e-3)
    for name, parameter in model.named_parameters():
        (factor,) = [share for prefix, share in FACTORS.items() if name.startswith(prefix)]
        factor = 3.0 if name.startswith("classifier.") else factor
        # Softmax does not see a bias that all keys share; its gradient is noise.
        if not name.endswith("key.bias"):
            longest = float((parameter.detach() - before[name]).abs().max())
            assert longest == pytest.approx(1e-3 * factor, rel=1e-2), name


# ---------------------------------------------------------------- the learning rate

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
