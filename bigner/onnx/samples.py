"""Windows of many lengths in batches of many sizes, to compare a graph on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import torch
from transformers import PreTrainedTokenizerFast

from bigner.data.pieces import special_tokens
from bigner.sample.letters import write_letters


@dataclass(frozen=True, slots=True)
class Batch:
    """Padded windows."""

    inputs: dict[str, torch.Tensor]
    """``[windows, longest]`` each, by name."""
    real: torch.Tensor
    """``[windows, longest]``, where there is no padding."""


LONGEST = 512
"""Pieces of the longest window, of models that have positions for as many."""
# Lengths of the windows of each batch, as parts of the longest.
_LENGTHS = (
    (1.0,),
    (0.01,),
    (1.0, 0.5, 0.1),
    (0.3, 0.3),
    (0.7, 0.2, 0.05, 0.4, 0.01, 0.6, 0.15, 0.9),
)
_SEED = 1


def sample_batches(
    tokenizer: PreTrainedTokenizerFast, names: list[str], longest: int
) -> list[Batch]:
    """Padded batches, always the same ones.

    Every second window is of text, the others of pieces drawn from the whole vocabulary.

    Args:
        tokenizer: of the model.
        names: the inputs that it takes.
        longest: pieces of the longest window.
    """
    prefix, suffix = special_tokens(tokenizer)
    sources = (_text(tokenizer), _drawn(tokenizer))
    pad = tokenizer.pad_token_id or 0
    number = 0
    batches = []
    for shares in _LENGTHS:
        rows = []
        for share in shares:
            room = max(1, round(share * longest) - len(prefix) - len(suffix))
            rows.append([*prefix, *islice(sources[number % 2], room), *suffix])
            number += 1
        width = max(map(len, rows))
        ids = torch.tensor([row + [pad] * (width - len(row)) for row in rows])
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
        every = {"input_ids": ids, "attention_mask": mask, "token_type_ids": torch.zeros_like(ids)}
        batches.append(Batch({name: every[name] for name in names}, mask.bool()))
    return batches


def _text(tokenizer: PreTrainedTokenizerFast) -> Iterator[int]:
    """Pieces of the sample's letters, which never end."""
    letters = write_letters("test")
    while True:
        for letter in letters:
            for sentence in letter:
                words = [word for word, _ in sentence]
                encoded = tokenizer(words, is_split_into_words=True, add_special_tokens=False)
                yield from encoded["input_ids"]


def _drawn(tokenizer: PreTrainedTokenizerFast) -> Iterator[int]:
    random = torch.Generator().manual_seed(_SEED)
    special = set(tokenizer.all_special_ids)
    while True:
        drawn = torch.randint(len(tokenizer), (1024,), generator=random)
        yield from (piece for piece in drawn.tolist() if piece not in special)
