"""Attention within packed windows: in one call of a kernel, or bucket by bucket."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from bigner.doctor.findings import Finding, ok
from bigner.packing import has_flash_attention

# Of every XLM-RoBERTa but XXL, which has 128 and the same kernel.
_HEAD_SIZE = 64


def look(device: torch.device) -> Iterator[Finding]:
    """What a run in sixteen bits would get on a device."""
    formats = {"fp16": torch.float16, "bf16": torch.bfloat16}
    found = [n for n, dtype in formats.items() if has_flash_attention(device, dtype, _HEAD_SIZE)]
    yield flash_attention(found, device.type)


def flash_attention(formats: list[str], device_type: str) -> Finding:
    """Flash attention over windows of any length.

    Args:
        formats: the precisions that have it.
        device_type: where runs compute.
    """
    subject = "flash attention"
    if formats:
        return ok(subject, f"for packed windows in {' and '.join(formats)}")
    return Finding(
        subject,
        "missing",
        f"none on {'processors' if device_type == 'cpu' else 'this GPU'}",
        "packed windows attend in buckets of like length, padded for as long as that takes",
        "a GPU of compute capability 8.0 or more, under fp16 or bf16",
    )
