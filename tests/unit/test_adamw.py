"""The step of the strategies that leave AdamW to torch."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from bigner.strategies.adamw import total_norm
from bigner.strategies.copies import Copies


def test_the_norm_of_many_values_is_right() -> None:
    values = torch.full((2**23,), 0.1)
    exact = (len(values) * 0.1**2) ** 0.5
    assert float(total_norm([values])) == pytest.approx(exact, rel=1e-5)
    # What it is for: torch's own norm of so many is further off.
    assert float(torch.linalg.vector_norm(values)) != pytest.approx(exact, rel=1e-5)


def test_the_norm_is_that_of_all_tensors_together() -> None:
    assert float(total_norm([torch.full((3, 3), 2.0), torch.tensor([8.0])])) == 10.0
    assert float(total_norm([])) == 0.0


def _copies() -> tuple[list[torch.Tensor], Copies]:
    """A matrix, a vector of an odd number of values, and another matrix."""
    shapes = ((8, 16), (5,), (64, 2))
    parameters = [nn.Parameter(torch.empty(shape, dtype=torch.bfloat16)) for shape in shapes]
    copies = Copies(parameters)
    for number, part in enumerate(copies.parts_of(copies.masters), start=1):
        part.fill_(number)
    copies.take_values()
    return list(parameters), copies


def test_copies_lie_where_kernels_like_them() -> None:
    parameters, copies = _copies()
    start = min(parameter.data_ptr() for parameter in parameters)
    matrices = (parameters[0], parameters[2])
    assert all((matrix.data_ptr() - start) % 128 == 0 for matrix in matrices)
    assert copies.masters.numel() % 64 == 0
    # In the order in which they lie.
    assert [float(parameter.detach().min()) for parameter in parameters] == [1.0, 3.0, 2.0]
    assert [float(parameter.detach().max()) for parameter in parameters] == [1.0, 3.0, 2.0]


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


def test_zeros_behind_the_values_stay_zeros() -> None:
    parameters, copies = _copies()
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    copies.give_gradients()
    assert copies.masters.grad is not None
    values = sum(parameter.numel() for parameter in parameters)
    assert float(copies.masters.grad.sum()) == values
    assert not copies.masters[values:].any()
