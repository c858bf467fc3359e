"""Parameters in low precision, and their fp32 masters."""

from __future__ import annotations

from collections.abc import Sequence

import torch

# Values in front of a matrix are a multiple of this many, as products want them: 128 bytes of fp16.
# So are all together, which AdamW's kernel for a GPU wants, or it takes them one by one.
_ALIGNED = 64


class Copies:
    """Parameters that are low-precision copies of fp32 masters, all of them laid end to end.

    A GPU waits for its host where a step is small, and what is one tensor takes the host one call:
    AdamW, the norm of the gradient, making the copies anew.

    Args:
        parameters: in low precision; they become parts of one tensor, of undefined values.
    """

    def __init__(self, parameters: Sequence[torch.Tensor]) -> None:
        # What has another number of values comes last.
        self.parameters = sorted(parameters, key=lambda p: p.numel() % _ALIGNED > 0)
        """In the order in which they are laid."""
        first, self._end = self.parameters[0], sum(p.numel() for p in self.parameters)
        numel = -(-self._end // _ALIGNED) * _ALIGNED
        self._values = torch.empty(numel, dtype=first.dtype, device=first.device)
        for parameter, part in zip(self.parameters, self.parts_of(self._values), strict=True):
            parameter.data = part
        self.masters = torch.empty(numel, dtype=torch.float32, device=first.device)
        """``[values of all parameters, and zeros up to a round number]``."""
        self.masters[self._end :] = 0

    def parts_of(self, flat: torch.Tensor) -> Sequence[torch.Tensor]:
        """What lies as the masters do, as views in the parameters' shapes."""
        return torch._C._nn.unflatten_dense_tensors(flat, self.parameters)

    @torch.no_grad()
    def give_gradients(self) -> None:
        """Add what a micro-batch gave the copies to the gradient of the masters, in fp32."""
        given = [p.grad for p in self.parameters if p.grad is not None]
        if not given:
            return
        is_first, is_whole = self.masters.grad is None, len(given) == len(self.parameters)
        if is_first:
            empty = torch.empty_like if is_whole else torch.zeros_like
            self.masters.grad = empty(self.masters)
            self.masters.grad[self._end :] = 0
        assert self.masters.grad is not None
        parts = zip(self.parameters, self.parts_of(self.masters.grad), strict=True)
        wanted = [part for parameter, part in parts if parameter.grad is not None]
        put = torch._foreach_copy_ if is_first else torch._foreach_add_
        put(wanted, given)
        for parameter in self.parameters:
            parameter.grad = None

    @torch.no_grad()
    def take_values(self) -> None:
        """Make the copies anew."""
        self._values.copy_(self.masters)
