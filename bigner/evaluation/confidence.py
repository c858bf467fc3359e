"""How sure a model is of the tags it says, small enough to be gathered for every word.

The confidence of a word is the probability that the softmax over the labels of its head, in fp32 at
the word's first piece, gives to the tag that was said. It is counted in ten-thousandths: two bytes
a word. A word without pieces has none.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from bigner.data.arrays import Ints
from bigner.data.encode import NO_PIECE
from bigner.distributed import World
from bigner.evaluation.gather import WordPlaces, gather_stretches, put_in_order

Confidences = npt.NDArray[np.int16]
"""In ten-thousandths, or ``NONE``."""

WHOLE = 10_000
NONE = -1
"""Of a word without pieces, and where a model's numbers are none."""

TEXTS = (*(f"{number / WHOLE:.4f}" for number in range(WHOLE + 1)), "")
"""How each is written; at ``NONE``, behind all others, an empty string."""


def probabilities_of(
    logits: torch.Tensor, ids: torch.Tensor, word_places: torch.Tensor
) -> torch.Tensor:
    """``[words]``, in fp32 on the device; anything where a word has no pieces.

    Args:
        logits: ``[pieces, labels]`` of one head.
        ids: ``[words]``, the label that was said of each word.
        word_places: ``[words]``, as in ``Batch``.
    """
    of_words = logits[word_places.clamp(min=0)].float().softmax(dim=-1)
    return of_words.gather(1, ids.unsqueeze(1)).squeeze(1)


def confidences_of(
    logits: torch.Tensor, ids: torch.Tensor, word_places: torch.Tensor
) -> torch.Tensor:
    """``[words]``, in ten-thousandths or ``NONE``; see ``probabilities_of``."""
    said = probabilities_of(logits, ids, word_places)
    counted = (said * WHOLE).round().nan_to_num(nan=NONE)
    return counted.masked_fill(word_places == NO_PIECE, NONE).to(torch.int16)


# Arrays have no one answer to whether they are equal.
@dataclass(frozen=True, slots=True, eq=False)
class Gathered:
    """The confidences of all ranks."""

    of_words: Iterable[Confidences]
    """``[ranks, words, heads]`` of owned words, row after row; in stretches of words."""
    if_begun: Confidences
    """``[ranks, rows, heads]``: what the first word of each row has if its I- becomes a B-."""

    def in_order(
        self, places: Sequence[WordPlaces], index: Ints, num_words: Ints
    ) -> tuple[Confidences, Confidences]:
        """``[heads, words]`` of the split, and ``[windows, heads]`` of what was begun.

        Args:
            places: of the words of each rank.
            index: ``[ranks, rows]``, window of each row; negative for padding.
            num_words: ``[windows]``, owned words of each.
        """
        heads = self.if_begun.shape[-1]
        of_words = np.full((heads, int(num_words.sum())), NONE, dtype=np.int16)
        put_in_order(self.of_words, places, of_words)
        if_begun = np.full((len(num_words), heads), NONE, dtype=np.int16)
        if_begun[index[index >= 0]] = self.if_begun[index >= 0]
        return of_words, if_begun


def gather(world: World, of_words: torch.Tensor, if_begun: torch.Tensor) -> Gathered:
    """Gather confidences from all ranks; collective, and so is going through the words.

    Args:
        world: all ranks.
        of_words: ``[words, heads]``.
        if_begun: ``[rows, heads]``.
    """
    words, rows = (
        map(_from_bytes, gather_stretches(_as_bytes(part), world, pad=0))
        for part in (of_words, if_begun)
    )
    return Gathered(words, np.concatenate(list(rows), axis=1))


def _as_bytes(confidences: torch.Tensor) -> torch.Tensor:
    """``[words, 2 * heads]`` of ``[words, heads]``: gloo and nccl know no integers of 16 bits."""
    return confidences.contiguous().view(torch.uint8)


def _from_bytes(gathered: torch.Tensor) -> Confidences:
    """``[..., heads]`` of ``[..., 2 * heads]``."""
    found: Confidences = gathered.contiguous().view(torch.int16).numpy()
    return found
