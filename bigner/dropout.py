"""Dropout on processors, where drawing the mask takes longer than anything that is done with it.

torch draws a number for each value there, one after the other in one thread. Here torch draws one
number a call, which seeds numpy's SFC64, and 16 of its bits decide on a value. So what is dropped
still follows from torch's seed, and a checkpointed layer that is computed again, with torch's state
put back, drops the same.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

_STEPS = 2**16


class _DrawnAtOnce(nn.Dropout):
    """``nn.Dropout`` with a mask of 16-bit numbers; p is rounded to a multiple of 2 ** -16."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return dropped(input, self.p) if self.training else input


def draw_at_once(model: nn.Module) -> None:
    """Let every dropout of a model, which is on a processor, draw its masks at once."""
    for module in model.modules():
        # Its own kind alone: what is made from it may do something else.
        if type(module) is nn.Dropout and not module.inplace:
            module.__class__ = _DrawnAtOnce


# numpy's generator is nothing that could be compiled.
@torch.compiler.disable  # type: ignore[untyped-decorator]
def dropped(values: torch.Tensor, p: float) -> torch.Tensor:
    """Zero in place of a share p of the values, and the others larger by as much.

    Args:
        values: on a processor.
        p: at least 0 and at most 1.
    """
    threshold = round(p * _STEPS)
    if threshold == 0:
        return values
    if threshold == _STEPS:
        return torch.zeros_like(values) * values
    seed = int(torch.randint(2**62, ()))
    random = np.random.Generator(np.random.SFC64(seed))
    drawn = random.integers(0, 2**64, -(-values.numel() // 4), dtype=np.uint64)
    kept = drawn.view(np.uint16)[: values.numel()] >= threshold
    scale = _STEPS / (_STEPS - threshold)
    mask = torch.from_numpy(kept).view(values.shape).to(values.dtype) * scale
    return values * mask
