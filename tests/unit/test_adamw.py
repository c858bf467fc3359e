"""The step of the strategies that leave AdamW to torch."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from bigner.config.schema import TrainingConfig
from bigner.distributed import World
from bigner.strategies.adamw import Stepper, total_norm
from bigner.strategies.copies import Copies, cut

SHAPES = ((8, 16), (64, 2))


def test_the_norm_of_many_values_is_right() -> None:
    values = torch.rand(2**23, generator=torch.Generator().manual_seed(1))
    exact = float(values.double().square().sum().sqrt())
    # torch's own norm of so many is off by 3e-4.
    assert float(total_norm([values])) == pytest.approx(exact, rel=2e-6)


def test_the_norm_is_that_of_all_tensors_together() -> None:
    assert float(total_norm([torch.full((3, 3), 2.0), torch.tensor([8.0])])) == 10.0
    assert float(total_norm([])) == 0.0


def _copies() -> tuple[list[torch.Tensor], Copies]:
    """Two matrices in bf16, of ones and of twos, and what holds them."""
    parameters = [nn.Parameter(torch.empty(shape, dtype=torch.bfloat16)) for shape in SHAPES]
    copies = Copies(parameters)
    for number, part in enumerate(copies.parts_of(copies.masters), start=1):
        part.fill_(number)
    copies.take_values()
    return list(parameters), copies


def test_copies_are_what_their_masters_are() -> None:
    parameters, copies = _copies()
    assert copies.masters.dtype == torch.float32
    for number, (parameter, shape) in enumerate(zip(parameters, SHAPES, strict=True), start=1):
        assert torch.equal(parameter.detach(), torch.full(shape, number, dtype=torch.bfloat16))
    assert parameters[1].data_ptr() == parameters[0].data_ptr() + 2 * parameters[0].numel()


def test_what_got_no_gradient_counts_as_zero() -> None:
    parameters, copies = _copies()
    copies.give_gradients()
    assert copies.masters.grad is None
    for _ in range(2):
        parameters[0].grad = torch.ones_like(parameters[0])
        copies.give_gradients()
        assert parameters[0].grad is None
    assert copies.masters.grad is not None
    assert float(copies.masters.grad.sum()) == 2 * parameters[0].numel()
    assert float(total_norm([copies.masters.grad])) == pytest.approx(2 * 128**0.5)


def test_what_nothing_depends_on_decays() -> None:
    used, unused = torch.ones(3), torch.ones(3)
    groups = [{"params": [used, unused], "weight_decay": 0.5, "lr_factor": 1.0}]
    stepper = Stepper(groups, TrainingConfig(), "fp32", World())
    used.grad = torch.ones(3)
    assert stepper.step(0.1).wait().grad_norm == pytest.approx(3**0.5)
    assert torch.allclose(unused, torch.full((3,), 1 - 0.1 * 0.5))
    assert float(used[0]) < float(unused[0])


def test_parameters_are_put_together_where_they_lie_well() -> None:
    sizes = (2**19, 2**18, 5, 2**18, 64, 2**21, 64, 36)
    parameters = [torch.empty(size, device="meta") for size in sizes]
    found = [[parameter.numel() for parameter in some] for some in cut(parameters)]
    assert found == [[5], [2**19, 2**18, 2**18], [64], [2**21], [36], [64]]
    assert list(cut([])) == []
