"""One process, nothing sharded: the reference the other strategies are tested against."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from transformers import PreTrainedModel

from bigner.config.schema import Precision, TrainingConfig
from bigner.distributed import World
from bigner.modeling import allocate
from bigner.optim import parameter_groups
from bigner.strategies.adamw import Groups, Stepper, TorchStrategy
from bigner.strategies.base import DTYPES, PendingOutcome, Shard
from bigner.strategies.copies import Copies, cut


class Single(TorchStrategy):
    """Plain torch; to train in low precision, the parameters are copies of fp32 masters.

    So it computes what a sharded strategy computes, and in fewer kernels than under autocast, which
    casts in each product the weights and what goes into them.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        training: TrainingConfig | None,
        precision: Precision,
        world: World,
    ) -> None:
        for parameter in model.parameters():
            parameter.data = parameter.data.to(DTYPES[precision])
        allocate(model, world.device)
        self._trained: list[Copies] = []
        """Of each group in turn; none in fp32, where parameters are masters."""
        self._frozen: list[Copies] = []
        stepper = None
        if training:
            groups = parameter_groups(model, training)
            if precision != "fp32":
                groups = self._make_copies(model, groups)
            stepper = Stepper(groups, training, precision, world)
        super().__init__(model, precision, stepper, cancel_mean=1)

    def _make_copies(self, model: PreTrainedModel, groups: Groups) -> Groups:
        """The same groups, of masters."""
        of_masters = []
        for group in groups:
            found = [Copies(parameters) for parameters in cut(group["params"])]
            of_masters.append({**group, "params": [copies.masters for copies in found]})
            self._trained += found
        # An export needs fp32 values of them, too.
        frozen = (parameter for parameter in model.parameters() if not parameter.requires_grad)
        self._frozen = [Copies(parameters) for parameters in cut(frozen)]
        return of_masters

    def backward(self, loss_share: torch.Tensor, *, last: bool) -> None:
        super().backward(loss_share, last=last)
        for copies in self._trained:
            copies.give_gradients()

    def step(self, learning_rate: float) -> PendingOutcome:
        outcome = super().step(learning_rate)
        # What is frozen has not moved.
        for copies in self._trained:
            copies.take_values()
        return outcome

    def publish(self) -> None:
        """Make the copies anew, if there are any."""
        for copies in (*self._trained, *self._frozen):
            copies.take_values()

    def shards(self) -> Iterator[Shard]:
        of_copies = {
            parameter: values
            for copies in (*self._trained, *self._frozen)
            for parameter, values in self._of_copies(copies)
        }
        for name, parameter in self._model.named_parameters():
            values = of_copies.get(parameter)
            if values is None:
                values = {"master": parameter.detach(), **self._moments(parameter)}
            flat = {key: tensor.view(-1) for key, tensor in values.items()}
            yield Shard(name, tuple(parameter.shape), 0, parameter.numel(), **flat)

    def _of_copies(self, copies: Copies) -> Iterator[tuple[torch.Tensor, dict[str, torch.Tensor]]]:
        """Each parameter with its master and, where it is trained, its moments."""
        flat = {"master": copies.masters, **self._moments(copies.masters)}
        parts = {key: copies.parts_of(tensor) for key, tensor in flat.items()}
        for i, parameter in enumerate(copies.parameters):
            yield parameter, {key: tensors[i] for key, tensors in parts.items()}
