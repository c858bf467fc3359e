"""Parameters in low precision, and their fp32 masters."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch

# What a GPU reads at once, 16 bytes, has so many values in 16 bits; a part begins at such a place.
_ALIGNED = 8

# Their fp32 gradients, 4 MiB, come and go in each step: what is much larger the C library fetches
# from the system each time, and a GPU that is nearly full has no room for in one piece.
_MOST_VALUES = 2**20


def cut(parameters: Iterable[torch.Tensor]) -> Iterator[list[torch.Tensor]]:
    """The parameters in lists that ``Copies`` may be made of.

    A list has at most 2^20 values, or is one parameter; one is alone, too, if what came after it
    would not be aligned.
    """
    values = 0
    gathered: list[torch.Tensor] = []
    for parameter in parameters:
        if parameter.numel() % _ALIGNED:
            yield [parameter]
            continue
        if gathered and values + parameter.numel() > _MOST_VALUES:
            yield gathered
            values, gathered = 0, []
        values += parameter.numel()
        gathered.append(parameter)
    if gathered:
        yield gathered


class Copies:
    """Some parameters that are low-precision copies of fp32 masters, laid end to end as those are.

    A GPU waits for its host where a step is small. AdamW, the norm of the gradient and making the
    copies anew take the host a call for what is one tensor, however many parameters it is of.

    Args:
        parameters: in low precision; they become parts of one tensor, of undefined values.
    """

    def __init__(self, parameters: list[torch.Tensor]) -> None:
        self.parameters = parameters
        first, numel = parameters[0], sum(parameter.numel() for parameter in parameters)
        self._values = torch.empty(numel, dtype=first.dtype, device=first.device)
        for parameter, part in zip(parameters, self.parts_of(self._values), strict=True):
            parameter.data = part
        self.masters = torch.empty(numel, dtype=torch.float32, device=first.device)
        """``[values of all parameters]``."""

    def parts_of(self, flat: torch.Tensor) -> list[torch.Tensor]:
        """What lies as the masters do, as views in the parameters' shapes."""
        return torch._C._nn.unflatten_dense_tensors(flat, self.parameters)

    @torch.no_grad()
    def give_gradients(self) -> None:
        """Add what a micro-batch gave the copies to the gradient of the masters, in fp32.

        Where only some have a gradient, that of the others is zero.
        """
        given = [p.grad for p in self.parameters if p.grad is not None]
        if not given:
            return
        put: Callable[..., None] = torch._foreach_add_
        if self.masters.grad is None:
            put = torch._foreach_copy_
            is_whole = len(given) == len(self.parameters)
            made_as = torch.empty_like if is_whole else torch.zeros_like
            self.masters.grad = made_as(self.masters)
        parts = zip(self.parameters, self.parts_of(self.masters.grad), strict=True)
        wanted = [part for parameter, part in parts if parameter.grad is not None]
        put(wanted, given)
        for parameter in self.parameters:
            parameter.grad = None

    @torch.no_grad()
    def take_values(self) -> None:
        """Make the copies anew."""
        self._values.copy_(self.masters)
