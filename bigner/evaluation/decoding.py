"""The best sequence of tags that IOB2 allows, for every sentence of a batch at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from bigner.data.arrays import Ints
from bigner.data.collate import Batch
from bigner.data.encode import NO_PIECE
from bigner.data.labels import IGNORED
from bigner.packing import to_device

Ids = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


class Iob2Decoder:
    """Viterbi's algorithm (1967) with one rule: an I- continues a B- or I- of its type.

    A sequence's score is the sum of its tags' logits: what normalises them to probabilities is the
    same for every sequence. A type that the model has no B- for may begin with I-.

    Args:
        tags: the tags of the head, in the order of their ids.
        device: of the logits.
    """

    def __init__(self, tags: Sequence[str], device: torch.device) -> None:
        known = set(tags)
        continues = [tag.startswith("I-") and f"B-{tag[2:]}" in known for tag in tags]
        allowed = [
            [not inside or (tag[0] in "BI" and tag[2:] == then[2:]) for tag in tags]
            for then, inside in zip(tags, continues, strict=True)
        ]
        nothing = torch.zeros(())
        never = torch.tensor(-torch.inf)
        # [labels then, labels before]: what a step from one to the other costs.
        self._transition = torch.where(torch.tensor(allowed), nothing, never).to(device)
        # [labels]: what it costs to begin with one.
        self._begin = torch.where(torch.tensor(continues), never, nothing).to(device)
        self._only_o = torch.full((len(tags),), -torch.inf, device=device)
        self._only_o[list(tags).index("O")] = 0.0
        self.begun = torch.from_numpy(begun_ids(tags)).to(device)
        """``[labels]``, see ``begun_ids``."""

    def __call__(
        self, logits: torch.Tensor, word_places: torch.Tensor, begins: torch.Tensor
    ) -> torch.Tensor:
        """The label ids of the owned words of a batch, row after row.

        Args:
            logits: ``[pieces, labels]``.
            word_places: ``[rows, words]``, as in ``Batch`` but row by row, filled up with
                ``IGNORED``; a word without pieces is ``O``.
            begins: ``[rows, words]``, whether a word is the first of its sentence.

        Returns:
            ``[owned words of all rows]``.
        """
        scores = logits.float()[word_places.clamp(min=0)]
        scores = torch.where((word_places == NO_PIECE).unsqueeze(-1), self._only_o, scores)
        owned = word_places != IGNORED
        return self._best(scores, owned, begins)[owned]

    def _best(
        self, scores: torch.Tensor, owned: torch.Tensor, begins: torch.Tensor
    ) -> torch.Tensor:
        """``[rows, words]``: ids, anything where the row has no such word."""
        rows, words, labels = scores.shape
        stay = torch.arange(labels, device=scores.device).expand(rows, labels)
        best = scores.new_zeros(rows, labels)
        before = []
        for word in range(words):
            from_same, came_from = (best.unsqueeze(1) + self._transition).max(dim=-1)
            # A new sentence may follow on anything, and no I- may begin it.
            highest, last = best.max(dim=-1, keepdim=True)
            first = begins[:, word].unsqueeze(-1)
            reached = torch.where(first, highest + self._begin, from_same)
            came_from = torch.where(first, last.expand_as(came_from), came_from)
            there = owned[:, word].unsqueeze(-1)
            best = torch.where(there, reached + scores[:, word], best)
            before.append(torch.where(there, came_from, stay))
        ids = [best.argmax(dim=-1)]
        for came_from in reversed(before[1:]):
            ids.append(came_from.gather(1, ids[-1].unsqueeze(-1)).squeeze(-1))
        # Without a word there is an id too many.
        return torch.stack(ids[::-1], dim=1)[:, :words]


def decode_batch(
    decoder: Iob2Decoder, logits: torch.Tensor, batch: Batch, first_word: Ints, begins: Bools
) -> torch.Tensor:
    """The label ids of the owned words of a batch, row after row.

    Args:
        decoder: of the head.
        logits: ``[pieces, labels]``.
        batch: the windows they are of.
        first_word: ``[windows]``, of the whole split: the first word that each window owns.
        begins: ``[words]``, of the whole split: whether a word is the first of its sentence.
    """
    words = np.arange(batch.num_words.max())
    owned = to_device(words < batch.num_words[:, None], logits.device)
    places = torch.full_like(owned, IGNORED, dtype=batch.word_places.dtype)
    places = places.masked_scatter(owned, batch.word_places)
    # A row has fewer words than the longest, and the last one's would lie beyond the split.
    here = begins[(first_word[batch.index][:, None] + words).clip(max=len(begins) - 1)]
    return decoder(logits, places, to_device(here, logits.device))


def begun_ids(tags: Sequence[str]) -> Ids:
    """``[labels]``: of an I- the id of its B-, where there is one; of other tags their own.

    Args:
        tags: the tags of the head.
    """
    place = {tag: i for i, tag in enumerate(tags)}
    return np.array(
        [place.get(f"B-{tag[2:]}", i) if tag.startswith("I-") else i for i, tag in enumerate(tags)]
    )


def begun_properly(ids: Ids, begins: Bools, tags: Sequence[str]) -> Ids:
    """Make an I- that continues nothing a B-: where a window ends within a sentence, the next one
    was decoded without knowing its last tag.

    Only the first word that a window owns can be such an I-.

    Args:
        ids: ``[words]``.
        begins: ``[words]``, whether a word is the first of its sentence.
        tags: the tags of the head.
    """
    types = list(dict.fromkeys(tag[2:] for tag in tags))
    type_of = np.array([types.index(tag[2:]) for tag in tags])
    before = np.concatenate([[-1], type_of[ids[:-1]]])
    stray = begins | (before != type_of[ids])
    return np.where(stray, begun_ids(tags)[ids], ids)
