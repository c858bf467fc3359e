"""The loss, against what its definition gives in float64."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from bigner.config.schema import LossConfig
from bigner.data.heads import Heads
from bigner.data.labels import IGNORED, LabelSet
from bigner.errors import DataError
from bigner.loss import TrainingLoss, class_weights, token_losses, weighted_losses

NER = LabelSet.of_types(["PER", "LOC"])
POS = LabelSet(("NOUN", "VERB", "PUNCT"))
TWO = Heads([("ner", "tags", NER), ("pos", "classes", POS)])
CHOICES = [
    {"focal_gamma": gamma, "label_smoothing": smoothing}
    for gamma in (0.0, 0.5, 2.0)
    for smoothing in (0.0, 0.1)
]


def cross_entropy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """By its definition, in float64."""
    log_sums = logits.double().exp().sum(-1).log()
    chosen = logits.double().gather(-1, labels.clamp(min=0)[..., None])[..., 0]
    return torch.where(labels == IGNORED, 0.0, log_sums - chosen)


def one_loss(logits: torch.Tensor, label: int, weights: torch.Tensor, **choice: float) -> Any:
    """The loss of one piece by its definition, in float64: a loop over the labels."""
    p = logits.double().exp() / logits.double().exp().sum()
    total: Any = 0.0
    for c in range(len(p)):
        target = choice["label_smoothing"] / len(p)
        target += (1 - choice["label_smoothing"]) * (c == label)
        cost = (1 - p[c]) ** choice["focal_gamma"] * -p[c].log()
        total = total + target * cost
    return weights[label].double() * total


def batch(rows: int, pieces: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of both heads and labels, few in the first rows and many in the last."""
    random = torch.Generator().manual_seed(seed)
    logits = torch.randn(rows, pieces, 8, generator=random) * 3
    labels = torch.stack(
        [torch.randint(len(head.labels), (rows, pieces), generator=random) for head in TWO], dim=1
    )
    for row in range(rows):
        labels[row, :, 1 + row :] = IGNORED
    return logits, labels


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_token_losses(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    logits = (torch.randn(3, 5, 7) * 4).to(dtype)
    labels = torch.randint(7, (3, 5))
    labels[0, 2:] = IGNORED
    labels[2] = IGNORED
    losses = token_losses(logits, labels)
    assert losses.shape == labels.shape
    assert losses.dtype == torch.float32
    torch.testing.assert_close(losses.double(), cross_entropy(logits, labels), atol=1e-6, rtol=1e-6)


def test_token_losses_of_a_batch_without_labels() -> None:
    logits = torch.randn(2, 3, 4, requires_grad=True)
    losses = token_losses(logits, torch.full((2, 3), IGNORED))
    losses.sum().backward()
    assert losses.sum() == 0.0
    assert logits.grad is not None
    assert not logits.grad.any()


def test_token_losses_of_large_fp16_logits() -> None:
    # The sum of exponentials of these is beyond fp16's range.
    logits = torch.tensor([[[30.0, 29.0, -60.0]]], dtype=torch.float16)
    labels = torch.tensor([[1]])
    torch.testing.assert_close(token_losses(logits, labels).double(), cross_entropy(logits, labels))


@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_losses_and_slopes_are_those_of_the_definition(
    choice: dict[str, float], dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    logits = (torch.randn(2, 6, 5) * 4).to(dtype).requires_grad_()
    labels = torch.randint(5, (2, 6))
    labels[0, 3:] = IGNORED
    weights = torch.tensor([0.2, 1.0, 3.0, 0.7, 12.5])
    losses = weighted_losses(logits, labels, weights, **choice)
    assert losses.dtype == torch.float32
    exact = logits.detach().double().requires_grad_()
    expected = torch.stack(
        [
            one_loss(exact[i, j], int(labels[i, j]), weights, **choice)
            if labels[i, j] != IGNORED
            else exact.new_zeros(())
            for i in range(2)
            for j in range(6)
        ]
    ).view(2, 6)
    torch.testing.assert_close(losses.double(), expected, atol=1e-5, rtol=1e-5)
    losses.sum().backward()
    expected.sum().backward()
    assert logits.grad is not None
    assert exact.grad is not None
    tolerance = 1e-5 if dtype == torch.float32 else 2e-3
    torch.testing.assert_close(logits.grad.double(), exact.grad, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize(
    ("smoothing", "weights"),
    [(0.0, torch.tensor([0.2, 1.0, 3.0, 0.7, 12.5])), (0.3, torch.ones(5))],
)
def test_weights_are_torchs_and_smoothing_too(smoothing: float, weights: torch.Tensor) -> None:
    torch.manual_seed(1)
    logits, labels = torch.randn(4, 5), torch.randint(5, (4,))
    losses = weighted_losses(logits[None], labels[None], weights, label_smoothing=smoothing)
    mean = losses.sum() / weights[labels].sum()
    theirs = F.cross_entropy(logits, labels, weight=weights, label_smoothing=smoothing)
    torch.testing.assert_close(mean, theirs)


def test_a_label_that_never_occurs_does_not_outweigh_all_when_targets_are_smoothed() -> None:
    logits, labels = torch.zeros(1, 1, 3), torch.tensor([[0]])
    modest = weighted_losses(logits, labels, torch.tensor([0.5, 1.0, 1.0]), label_smoothing=0.1)
    heavy = weighted_losses(logits, labels, torch.tensor([0.5, 1.0, 3e4]), label_smoothing=0.1)
    assert heavy == modest == pytest.approx(0.5 * math.log(3))


@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_a_sure_model_has_a_slope_that_is_a_number(gamma: float) -> None:
    logits = torch.tensor([[[200.0, 0.0, 0.0]]], requires_grad=True)
    weighted_losses(logits, torch.tensor([[0]]), torch.ones(3), focal_gamma=gamma).sum().backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


# ---------------------------------------------------------------- the mean over a global batch


COUNTS = [np.array([900, 50, 0, 40, 10]), np.array([500, 300, 200])]
SETTINGS: list[dict[str, Any]] = [
    {},
    {"class_weights": "inverse_frequency"},
    {"class_weights": "effective_number", "effective_number_beta": 0.99, "label_smoothing": 0.1},
    {"class_weights": {"O": 0.1, "PER": 2.0, "VERB": 3.0}, "focal_gamma": 2.0},
]


@pytest.mark.parametrize("settings", SETTINGS)
def test_shares_of_ranks_and_micro_batches_sum_to_the_weighted_mean(
    settings: dict[str, Any],
) -> None:
    """Ranks have other numbers of labels each; the mean is that of float64 all the same."""
    config = LossConfig(**settings)
    head_weights = [1.0, 0.3]
    loss = TrainingLoss(config, TWO, head_weights, COUNTS, torch.device("cpu"))
    logits, labels = batch(rows=12, pieces=10)
    choice = {
        "focal_gamma": config.focal_gamma,
        "label_smoothing": config.label_smoothing,
    }
    expected, denominators = 0.0, []
    for i, head in enumerate(TWO):
        weights = torch.from_numpy(loss.class_weights[i])
        of_head, total, weight = logits[..., head.logits], 0.0, 0.0
        for row in range(12):
            for piece in range(10):
                label = int(labels[row, i, piece])
                if label != IGNORED:
                    total += float(one_loss(of_head[row, piece], label, weights, **choice))
                    weight += float(weights[label])
        denominators.append(weight)
        expected += head_weights[i] * total / weight
    for world, micro in ((1, 12), (2, 3), (3, 2), (4, 1)):
        shares = [
            loss.share(
                logits[start::world][at : at + micro],
                # Heads first.
                rows[at : at + micro].transpose(0, 1),
                denominators,
            )
            for start in range(world)
            for rows in [labels[start::world]]
            for at in range(0, 12 // world, micro)
        ]
        assert len(shares) == 12 // micro
        assert float(sum(shares)) == pytest.approx(expected, abs=2e-6)  # type: ignore[arg-type]


def test_a_global_batch_without_labels_costs_nothing() -> None:
    loss = TrainingLoss(LossConfig(), TWO, [1.0, 1.0], COUNTS, torch.device("cpu"))
    share = loss.share(torch.randn(1, 3, 8), torch.full((2, 1, 3), IGNORED), [0.0, 0.0])
    assert float(share) == 0.0


# ---------------------------------------------------------------- class weights


def weights_of(settings: object, counts: list[int]) -> list[float]:
    beta = 0.9 if settings == "effective_number" else None
    config = LossConfig.model_validate({"class_weights": settings, "effective_number_beta": beta})
    return class_weights(config, TWO[1], np.array(counts)).tolist()


def test_class_weights_by_hand() -> None:
    assert weights_of("none", [5, 3, 2]) == [1, 1, 1]
    # 10 labels of 3 kinds: 10 / (3 n).
    assert weights_of("inverse_frequency", [5, 3, 2]) == pytest.approx([2 / 3, 10 / 9, 5 / 3])
    # Inverse effective numbers 1, 1 / 1.9, 1 / 2.71, over their mean.
    inverse = np.array([1, 1 / 1.9, 1 / 2.71])
    assert weights_of("effective_number", [1, 2, 3]) == pytest.approx(inverse / inverse.mean())
    assert weights_of({"VERB": 4}, [5, 3, 2]) == [1, 4, 1]


def test_a_label_that_does_not_occur_counts_as_one_that_occurs_once() -> None:
    assert weights_of("inverse_frequency", [5, 0, 2]) == weights_of("inverse_frequency", [5, 1, 2])


def test_many_occurrences_lose_no_digits() -> None:
    config = LossConfig(class_weights="effective_number", effective_number_beta=0.9999)
    (common, rare) = class_weights(
        config, Heads.single(LabelSet(("O", "B-X")))[0], np.array([10**9, 1])
    )
    # Effective numbers 10,000 and 1.
    assert rare / common == pytest.approx(10_000, rel=1e-4)


def test_a_map_names_tags_or_types() -> None:
    config = LossConfig(class_weights={"O": 0.5, "PER": 2.0, "I-PER": 3.0})
    assert class_weights(config, TWO[0], COUNTS[0]).tolist() == [0.5, 2.0, 3.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("name", "advice"), [("PRE", "did you mean PER?"), ("X-Y", "there are B-")]
)
def test_a_map_that_names_what_is_not_there(name: str, advice: str) -> None:
    config = LossConfig(class_weights={"O": 0.5, name: 2.0})
    with pytest.raises(DataError, match=f"loss.class_weights names '{name}'") as caught:
        TrainingLoss(config, TWO, [1.0, 1.0], COUNTS, torch.device("cpu"))
    assert advice in str(caught.value)
