"""One process, nothing sharded: the reference the other strategies are tested against."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from transformers import PreTrainedModel

from bigner.config.schema import Precision, TrainingConfig
from bigner.distributed import World
from bigner.modeling import allocate
from bigner.strategies.adamw import Stepper, TorchStrategy
from bigner.strategies.base import DTYPES, PendingOutcome, Shard


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
        dtype = DTYPES[precision]
        if not training:
            for parameter in model.parameters():
                parameter.data = parameter.data.to(dtype)
        allocate(model, world.device)
        is_copied = training is not None and dtype != torch.float32
        self._masters: dict[torch.Tensor, torch.Tensor] = {}
        for parameter in model.parameters() if is_copied else ():
            self._masters[parameter] = parameter.detach()
            parameter.data = torch.empty_like(parameter, dtype=dtype)
        self._trained = [copy for copy in self._masters if copy.requires_grad]
        stepper = None
        if training:
            stepper = Stepper(model, training, precision, world, self._masters)
        super().__init__(model, precision, stepper, cancel_mean=1)

    def backward(self, loss_share: torch.Tensor, *, last: bool) -> None:
        super().backward(loss_share, last=last)
        self._take_gradients()

    @torch.no_grad()
    def _take_gradients(self) -> None:
        """Add what a micro-batch gave the copies to the gradients of their masters, in fp32."""
        given = [p for p in self._trained if p.grad is not None]
        first = [p for p in given if self._masters[p].grad is None]
        later = [p for p in given if self._masters[p].grad is not None]
        for parameter in first:
            master = self._masters[parameter]
            master.grad = torch.empty_like(master)
        for put, some in ((torch._foreach_copy_, first), (torch._foreach_add_, later)):
            if some:
                put(_gradients(self._masters[p] for p in some), _gradients(some))
        for parameter in given:
            parameter.grad = None

    def step(self, learning_rate: float) -> PendingOutcome:
        outcome = super().step(learning_rate)
        # What is frozen has not moved.
        self._copy(self._trained)
        return outcome

    def publish(self) -> None:
        """Make the copies anew, if there are any."""
        self._copy(list(self._masters))

    @torch.no_grad()
    def _copy(self, copies: list[torch.Tensor]) -> None:
        if copies:
            torch._foreach_copy_(copies, [self._masters[copy] for copy in copies])

    def shards(self) -> Iterator[Shard]:
        for name, parameter in self._model.named_parameters():
            master = self._masters.get(parameter, parameter)
            flat = {key: moment.view(-1) for key, moment in self._moments(master).items()}
            values = master.detach().view(-1)
            yield Shard(name, tuple(parameter.shape), 0, values.numel(), values, **flat)


def _gradients(tensors: Iterable[torch.Tensor]) -> list[torch.Tensor]:
    return [tensor.grad for tensor in tensors if tensor.grad is not None]
