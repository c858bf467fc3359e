"""Packed windows on a GPU, whose kernel attends within each of them."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch

from bigner.packing import PACKED_FAMILIES, PackedWindows, has_flash_attention, pack_attention
from tests.unit.test_packing import LENGTHS, built, configs, flat, padded_inputs, sequences

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]
GPU = torch.device("cuda")
TOLERANCE = {torch.float16: 0.02, torch.bfloat16: 0.15}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["fp16", "bf16"])
@pytest.mark.parametrize("family", sorted(PACKED_FAMILIES))
def test_logits_and_gradients_are_those_of_a_padded_batch_in_fp32(
    family: str, dtype: torch.dtype, tmp_path: Path
) -> None:
    padded = built(tmp_path, configs()[family]).eval()
    packed = copy.deepcopy(padded).to(GPU, dtype)
    head_size = padded.config.hidden_size // padded.config.num_attention_heads
    assert has_flash_attention(GPU, dtype, head_size)
    packing = pack_attention(packed, wanted=True)
    assert packing is not None
    windows = sequences()
    expected = flat(padded(**padded_inputs(windows)).logits)
    there = PackedWindows(LENGTHS, GPU)
    logits = packed(
        input_ids=torch.cat(windows).unsqueeze(0).to(GPU),
        position_ids=there.position_ids(packing.first_position).to(GPU),
        windows=there,
    ).logits[0]
    scale = float(expected.detach().std())
    torch.testing.assert_close(
        logits.float().cpu(), expected, atol=TOLERANCE[dtype] * max(scale, 1.0), rtol=0.0
    )

    expected.square().mean().backward()
    logits.float().square().mean().backward()
    for (name, ours), theirs in zip(packed.named_parameters(), padded.parameters(), strict=True):
        if theirs.grad is None:
            continue
        assert ours.grad is not None, name
        difference = (ours.grad.float().cpu() - theirs.grad).norm() / (theirs.grad.norm() + 1e-4)
        assert float(difference) < 5 * TOLERANCE[dtype], name


def test_dropout_of_attention_follows_from_the_seed(tmp_path: Path) -> None:
    model = built(tmp_path, configs()["xlm-roberta"], dropout=0.3).to(GPU, torch.float16).train()
    packing = pack_attention(model, wanted=True)
    assert packing is not None
    there = PackedWindows(LENGTHS, GPU)
    inputs = {
        "input_ids": torch.cat(sequences()).unsqueeze(0).to(GPU),
        "position_ids": there.position_ids(packing.first_position).to(GPU),
        "windows": there,
    }

    def logits(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return model(**inputs).logits

    first = logits(1)
    assert torch.equal(logits(1), first)
    assert not torch.equal(logits(2), first)
