"""FSDP's two collectives on processors, where gloo's own are slow.

gloo adds up a scattered gradient by reducing the whole of it on every rank. Here each rank sends
every other one the part that is that one's, all at once, and adds up what it gets: half the bytes
or less, and in the order of ranks, so that the sum does not depend on who was first. For a few
processes on one machine, which is what gloo is used for here; nccl has better ones.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist


class _Exchange:
    """What both are to FSDP: something that allocates, and something that is called."""

    def allocate(
        self, size: Sequence[int | torch.SymInt], *, dtype: torch.dtype, device: torch.device
    ) -> torch.Tensor:
        """Room for a collective's input or output."""
        return torch.empty(*size, dtype=dtype, device=device)


class ExchangedAllGather(_Exchange):
    """Every rank's part, on every rank."""

    def __call__(
        self,
        output_tensor: torch.Tensor,
        input_tensor: torch.Tensor,
        group: dist.ProcessGroup,
        async_op: bool = False,  # noqa: ARG002
    ) -> None:
        rank, parts = group.rank(), output_tensor.chunk(group.size())
        if parts[rank].data_ptr() != input_tensor.data_ptr():
            parts[rank].copy_(input_tensor)
        _exchange([input_tensor] * group.size(), parts, group)


class ExchangedReduceScatter(_Exchange):
    """Of the sum or mean over all ranks, the part that is this rank's."""

    def __call__(
        self,
        output_tensor: torch.Tensor,
        input_tensor: torch.Tensor,
        group: dist.ProcessGroup,
        op: object,
        async_op: bool = False,  # noqa: ARG002
    ) -> None:
        assert op in (dist.ReduceOp.SUM, dist.ReduceOp.AVG), op
        rank, parts = group.rank(), input_tensor.chunk(group.size())
        received = [
            part if other == rank else torch.empty_like(part) for other, part in enumerate(parts)
        ]
        _exchange(parts, received, group)
        torch.add(received[0], received[1], out=output_tensor)
        for part in received[2:]:
            output_tensor += part
        if op == dist.ReduceOp.AVG:
            output_tensor /= group.size()


def _exchange(
    sent: Sequence[torch.Tensor], received: Sequence[torch.Tensor], group: dist.ProcessGroup
) -> None:
    """Send each other rank its tensor, and take one from each."""
    others = [other for other in range(group.size()) if other != group.rank()]
    works = [dist.isend(sent[other], group=group, group_dst=other) for other in others]
    works += [dist.irecv(received[other], group=group, group_src=other) for other in others]
    for work in works:
        assert work is not None
        work.wait()
