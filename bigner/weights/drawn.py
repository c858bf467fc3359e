"""Values that no file has: drawn as transformers draws them, one parameter at a time."""

from __future__ import annotations

import copy
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from bigner.errors import ModelError


class DrawnValues:
    """Values as transformers draws them, one parameter at a time."""

    def __init__(self, model: PreTrainedModel, seed: int) -> None:
        # The strategy takes the model apart: this copy, of shapes too, stays as it is.
        self._model = copy.deepcopy(model)
        self._seed = seed
        self._owner = ""
        self._values: dict[str, torch.Tensor] = {}

    def values(self, name: str) -> torch.Tensor:
        """All values of a parameter, flat, in fp32.

        Raises:
            ModelError: transformers does not say how it is drawn.
        """
        owner, _, last = name.rpartition(".")
        if not self._values or owner != self._owner:
            self._owner, self._values = owner, self._draw(owner)
        values = self._values[last]
        if values.isnan().any():
            raise ModelError(f"{name} cannot be drawn: transformers has no rule for its module")
        return values

    def _draw(self, owner: str) -> dict[str, torch.Tensor]:
        """The parameters of one module; all other modules stay shapes."""
        module = self._model.get_submodule(owner)
        shapes = dict(module._parameters)
        for key, shape in shapes.items():
            if shape is not None:
                empty = torch.full(shape.shape, torch.nan, dtype=torch.float32)
                module._parameters[key] = nn.Parameter(empty, requires_grad=False)
        seed = np.random.SeedSequence((self._seed, zlib.crc32(owner.encode())))
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(int(seed.generate_state(1)[0]))
            # From the module up: some models set the weights of a part from the whole's rule.
            for initialise, part in reversed(list(self._path(owner))):
                initialise(part)
        drawn = {key: p.detach().view(-1) for key, p in module._parameters.items() if p is not None}
        module._parameters.update(shapes)
        return drawn

    def _path(self, owner: str) -> Iterator[tuple[Callable[[nn.Module], Any], nn.Module]]:
        """The modules from the root down to one, each with the rule of its nearest model."""
        module: nn.Module = self._model
        initialise = self._model._init_weights
        yield initialise, module
        for part in owner.split(".") if owner else ():
            module = module.get_submodule(part)
            if isinstance(module, PreTrainedModel):
                initialise = module._init_weights
            yield initialise, module
