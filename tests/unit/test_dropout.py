"""Dropout whose masks are drawn at once: what torch's own drops, by torch's seed."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from bigner.dropout import draw_at_once, dropped


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_share_that_is_dropped_and_what_the_others_gain(p: float, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    values = torch.ones(1001, 333, dtype=dtype)
    out = dropped(values, p)
    assert out.dtype == dtype
    kept = out[out != 0].float()
    share = 1 - len(kept) / out.numel()
    # Five standard deviations.
    assert share == pytest.approx(p, abs=5 * (p * (1 - p) / out.numel()) ** 0.5 + 2**-16)
    torch.testing.assert_close(kept, torch.full_like(kept, 1 / (1 - p)), rtol=1e-2, atol=0.0)


def test_neighbours_and_calls_are_independent() -> None:
    torch.manual_seed(0)
    first, second = (dropped(torch.ones(200_000), 0.5) == 0 for _ in range(2))
    for other in (second, first.roll(1), first.roll(4)):
        assert float((first == other).float().mean()) == pytest.approx(0.5, abs=0.01)


def test_the_mask_follows_from_torchs_seed() -> None:
    def drawn(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return dropped(torch.ones(1000), 0.3)

    assert torch.equal(drawn(1), drawn(1))
    assert not torch.equal(drawn(1), drawn(2))


def test_gradients_go_where_values_went() -> None:
    values = torch.randn(50, 7, requires_grad=True)
    out = dropped(values, 0.4)
    out.sum().backward()
    assert values.grad is not None
    torch.testing.assert_close(values.grad * values.detach(), out.detach())


@pytest.mark.parametrize("size", [(), (0, 3), (3,), (5, 1)])
def test_sizes_that_are_no_multiple_of_anything(size: tuple[int, ...]) -> None:
    assert dropped(torch.ones(size), 0.5).shape == size


def test_nothing_and_everything() -> None:
    values = torch.randn(9)
    assert torch.equal(dropped(values, 0.0), values)
    assert not dropped(values, 1.0).any()


def test_a_model_drops_in_training_alone() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5), nn.AlphaDropout(0.5))
    draw_at_once(model)
    assert type(model[2]) is nn.AlphaDropout
    values = torch.ones(2000)
    assert torch.equal(model[1].eval()(values), values)
    share = float((model[1].train()(values) == 0).float().mean())
    assert share == pytest.approx(0.5, abs=0.1)


def test_what_is_computed_again_drops_the_same() -> None:
    layer = nn.Sequential(nn.Linear(6, 6), nn.Dropout(0.5), nn.Linear(6, 6), nn.Dropout(0.5))
    draw_at_once(layer)
    values = torch.randn(20, 6)
    gradients = []
    for again in (False, True):
        torch.manual_seed(3)
        out = checkpoint(layer, values, use_reentrant=False) if again else layer(values)
        gradients.append(torch.autograd.grad(out.square().sum(), list(layer.parameters())))
    for plain, recomputed in zip(*gradients, strict=True):
        assert torch.equal(plain, recomputed)
