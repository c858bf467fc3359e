"""Cards and links, as their makers state them."""

from __future__ import annotations

import re
from dataclasses import dataclass

from bigner.config.schema import Precision
from bigner.errors import UserError

GIB = 2**30


@dataclass(frozen=True, slots=True)
class Gpu:
    """A card. Rates are dense, as stated; what a run reaches of them is the plan's assumption."""

    name: str
    memory_gib: float
    """As the driver reports it."""
    tflops_16bit: float
    tflops_fp32: float
    """TF32 where the card has it, which torch leaves off, so plain fp32."""
    memory_gbps: float
    nvlink_gbps: float | None
    """To all others together, one way; None without NVLink."""
    has_bf16: bool = True

    def tflops(self, precision: Precision) -> float:
        """The rate of matrix products."""
        return self.tflops_fp32 if precision == "fp32" else self.tflops_16bit


GPUS: dict[str, Gpu] = {
    gpu.name: gpu
    for gpu in (
        Gpu("b200-180gb", 178.4, 2250.0, 75.0, 7700.0, 900.0),
        Gpu("h200-141gb", 140.4, 989.0, 67.0, 4800.0, 450.0),
        Gpu("h100-80gb", 79.6, 989.0, 67.0, 3350.0, 450.0),
        Gpu("a100-80gb", 80.0, 312.0, 19.5, 2039.0, 300.0),
        Gpu("a100-40gb", 40.0, 312.0, 19.5, 1555.0, 300.0),
        Gpu("l40s-48gb", 45.0, 362.0, 91.6, 864.0, None),
        Gpu("l4-24gb", 22.5, 121.0, 30.3, 300.0, None),
        Gpu("a10-24gb", 22.5, 125.0, 31.2, 600.0, None),
        Gpu("rtx4090-24gb", 24.0, 165.0, 82.6, 1008.0, None),
        Gpu("v100-32gb", 32.0, 125.0, 15.7, 900.0, 150.0, has_bf16=False),
        Gpu("t4-16gb", 15.0, 65.0, 8.1, 300.0, None, has_bf16=False),
    )
}
HOP_WITHIN_NODE, HOP_BETWEEN_NODES = 2e-6, 10e-6
"""Seconds: assumptions, of the order that nccl's own tuning reckons with."""
_PCIE_GBPS = 25.0
"""Of the 32 GB/s a card has one way over PCIe 4, what collectives reach."""


def gpu_named(name: str) -> Gpu:
    """The card of that name.

    Raises:
        UserError: it is not known here.
    """
    if name not in GPUS:
        raise UserError(
            f"--gpu {name!r} is none of {', '.join(GPUS)}; or leave it out and give --memory-gib"
        )
    return GPUS[name]


@dataclass(frozen=True, slots=True)
class Links:
    """What ranks are joined by, in GB/s one way for each GPU."""

    within_node: float
    between_nodes: float
    gpus_per_node: int

    def ring_gbps(self, ranks: int) -> float:
        """Of rings over neighbouring ranks: each crosses from node to node once, and as many as a
        node has GPUs go at the same time, so that all of its ports are in use.
        """
        if ranks <= self.gpus_per_node:
            return self.within_node
        return min(self.within_node, self.between_nodes * self.gpus_per_node)

    def ring_seconds(self, ranks: int) -> float:
        """What a collective takes that moves next to nothing: its hops, one after the other."""
        nodes = -(-ranks // self.gpus_per_node)
        near = self.hop_seconds(is_between=False) * (ranks - nodes)
        return near + self.hop_seconds(is_between=True) * (nodes - 1)

    @staticmethod
    def hop_seconds(*, is_between: bool) -> float:
        """From one GPU to the next."""
        return HOP_BETWEEN_NODES if is_between else HOP_WITHIN_NODE

    def counterpart_gbps(self, ranks: int) -> float:
        """Of a ring over the GPUs of one place in each node, of so many ranks in all."""
        return self.within_node if ranks <= self.gpus_per_node else self.between_nodes


def link_gbps(text: str | None, gpu: Gpu) -> float:
    """GB/s of ``nvlink``, ``pcie`` or a number; of the best that the card has, if None.

    Raises:
        UserError: it is none of these, or the card has no NVLink.
    """
    if text is None:
        return gpu.nvlink_gbps or _PCIE_GBPS
    if text == "pcie":
        return _PCIE_GBPS
    if text == "nvlink":
        if gpu.nvlink_gbps is None:
            raise UserError(f"--link nvlink: {gpu.name} has none; take pcie or give GB/s")
        return gpu.nvlink_gbps
    number = re.fullmatch(r"(?:ethernet-)?([0-9]+(?:\.[0-9]+)?)(?:GBps)?", text)
    if number is None or not 0 < float(number[1]) < 1e5:
        raise UserError(
            f"--link must be nvlink, pcie or GB/s one way for each GPU, such as 12.5; got {text!r}"
        )
    return float(number[1])
