"""Ways to keep attention within the windows of a batch, side by side on this machine.

A small encoder (6 layers, 384 wide, random weights) makes whole training steps on windows as long
as WNUT-17's under XLM-R's tokenizer, in random order (each batch as it is drawn) or sorted (each
batch of similar lengths). The ways take turns; real pieces a second, medians of the rounds.

    python scripts/bench_attention.py [--precision fp32] [--windows 32] [--steps 8] [--rounds 3]
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import torch
from bench_gpu import WNUT_LENGTHS
from transformers import PreTrainedModel, XLMRobertaConfig, XLMRobertaForTokenClassification

from bigner import packing
from bigner.config.schema import TrainingConfig
from bigner.distributed import World
from bigner.loss import token_losses
from bigner.strategies.single import Single

LABELS = 13
PIECES = 30_000
Batch = tuple[dict[str, Any], torch.Tensor]


@dataclass(frozen=True, slots=True)
class Way:
    """How attention is kept apart."""

    title: str
    is_packed: bool = True
    bucket_share: float | None = None
    attend: Callable[..., torch.Tensor] | None = None


def _block_mask(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, how: Any
) -> torch.Tensor:
    """Attention over the whole row, under a mask that has a block for each window."""
    owner = torch.from_numpy(np.repeat(np.arange(len(how.windows.lengths)), how.windows.lengths))
    attended = (owner[:, None] == owner)[None, None]
    states = (states.transpose(0, 1).unsqueeze(0) for states in (query, key, value))
    rows = packing._written_out(*states, attended, how)
    return rows[0].transpose(0, 1)


WAYS = {
    "padded": Way("a padded batch", is_packed=False),
    "buckets": Way("packed; buckets of similar length (bigner's)"),
    "one_bucket": Way("packed; padded within attention alone", bucket_share=0.0),
    "loop": Way("packed; windows of equal length together", bucket_share=1.0),
    "block_mask": Way("packed; one mask over the whole row", attend=_block_mask),
}


def main() -> None:
    """Time each way in each order, and print a markdown table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--precision", default="fp32", choices=["fp32", "bf16", "fp16"])
    parser.add_argument("--windows", type=int, default=32, help="in a batch")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--ways", default=",".join(WAYS))
    options = parser.parse_args()
    names = options.ways.split(",")
    batches = {order: _lengths(options, order) for order in ("random", "sorted")}
    rates: dict[tuple[str, str], list[float]] = {}
    for _ in range(options.rounds):
        for order, lengths in batches.items():
            for name in names:
                with _as(WAYS[name]):
                    rate = _pieces_a_second(options.precision, WAYS[name], lengths)
                rates.setdefault((name, order), []).append(rate)
                print(f"{order}, {name}: {rate:,.0f}", file=sys.stderr, flush=True)
    print("| real pieces a second, training | random batches | sorted batches |")
    print("| --- | --- | --- |")
    for name in names:
        told = (f"{statistics.median(rates[name, order]):,.0f}" for order in batches)
        print(f"| {WAYS[name].title} | {' | '.join(told)} |")
    print(
        f"\n{datetime.now(UTC).date()}, {options.precision}, {torch.get_num_threads()} threads, "
        f"torch {torch.__version__}; {options.windows} windows a batch, medians of "
        f"{options.rounds} rounds of {options.steps} steps."
    )


def _lengths(options: argparse.Namespace, order: str) -> list[np.ndarray[Any, Any]]:
    """The lengths of each batch, longest first."""
    draw = random.Random(0)
    drawn = draw.choices(WNUT_LENGTHS, k=options.windows * options.steps)
    if order == "sorted":
        drawn.sort()
    rows = np.array(drawn, dtype=np.int64).reshape(options.steps, options.windows)
    return [np.sort(row)[::-1].copy() for row in rows]


@contextmanager
def _as(way: Way) -> Iterator[None]:
    """bigner's packing, with the way in place of its own."""
    before = packing._BUCKET_SHARE, packing._by_buckets
    try:
        if way.bucket_share is not None:
            packing._BUCKET_SHARE = way.bucket_share
        if way.attend is not None:
            packing._by_buckets = way.attend
        yield
    finally:
        packing._BUCKET_SHARE, packing._by_buckets = before


def _pieces_a_second(precision: Any, way: Way, lengths: list[np.ndarray[Any, Any]]) -> float:
    model = _model()
    packed = packing.pack_attention(model, wanted=way.is_packed)
    strategy = Single(model, TrainingConfig(), precision, World())
    for shard in strategy.shards():
        shard.master.normal_(std=0.02)
    batches = [_batch(row, packed) for row in lengths]
    _steps(strategy, batches[:2])
    start = time.perf_counter()
    _steps(strategy, batches)
    return float(sum(row.sum() for row in lengths)) / (time.perf_counter() - start)


def _model() -> PreTrainedModel:
    config = XLMRobertaConfig(
        vocab_size=PIECES,
        hidden_size=384,
        num_hidden_layers=6,
        num_attention_heads=12,
        intermediate_size=1536,
        max_position_embeddings=514,
        num_labels=LABELS,
    )
    return XLMRobertaForTokenClassification(config)


def _batch(lengths: np.ndarray[Any, Any], packed: packing.Packing | None) -> Batch:
    """Random pieces and labels; padding has no label."""
    if packed is None:
        is_real = torch.from_numpy(np.arange(lengths[0]) < lengths[:, None])
        pieces = torch.randint(5, PIECES, is_real.shape).masked_fill(~is_real, 1)
        inputs: dict[str, Any] = {"input_ids": pieces, "attention_mask": is_real.long()}
        return inputs, torch.where(is_real, pieces % LABELS, -100)
    windows = packing.PackedWindows(lengths, torch.device("cpu"))
    pieces = torch.randint(5, PIECES, (1, int(lengths.sum())))
    positions = windows.position_ids(packed.first_position)
    inputs = {"input_ids": pieces, "position_ids": positions, "windows": windows}
    return inputs, pieces % LABELS


def _steps(strategy: Single, batches: list[Batch]) -> None:
    for inputs, labels in batches:
        losses = token_losses(strategy.forward(inputs), labels)
        strategy.backward(losses.sum() / (labels != -100).sum(), last=True)
        strategy.step(1e-5).wait()


if __name__ == "__main__":
    main()
