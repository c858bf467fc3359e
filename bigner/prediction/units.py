"""What a model says of words, or of their pieces: a label and how sure it is of it.

``word`` and ``first`` ask the first piece of a word. ``average`` takes the mean of its pieces'
probabilities, and ``max`` the piece that is surest of its label. ``simple`` asks each piece.
Decoding under IOB2 asks as ``word`` does, and takes the best sequence in place of each best tag.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from bigner.data.arrays import Ints, ranges
from bigner.data.batches import evaluation_batches
from bigner.data.collate import Batch, Collator, ahead
from bigner.data.encode import NO_PIECE
from bigner.data.heads import Head
from bigner.data.labels import IGNORED
from bigner.data.prepare import SplitData
from bigner.evaluation.confidence import probabilities_of
from bigner.evaluation.decoding import Bools, Iob2Decoder, begun_properly, decode_batch
from bigner.prediction.options import Aggregation
from bigner.strategies.base import Strategy

Floats = npt.NDArray[np.floating[Any]]


# Arrays have no one answer to whether they are equal.
@dataclass(frozen=True, slots=True, eq=False)
class Units:
    """Words with pieces in order, decoded ones also without; or, for ``simple``, their pieces."""

    words: Ints
    """``[units]``, the word of each, counted over all texts; rising."""
    ids: Ints
    """``[units]``, the label of each, counted in the head."""
    scores: Floats
    """``[units]``, its probability."""

    def of_all_words(self, num_words: int, default_id: int) -> Units:
        """With the words that have no piece, which are given a label; not for ``simple``."""
        ids, scores = np.full(num_words, default_id), np.ones(num_words)
        ids[self.words], scores[self.words] = self.ids, self.scores
        return Units(np.arange(num_words), ids, scores)


Asked = Iterable[tuple[Batch, Ints, torch.Tensor]]
"""Of each batch the number of each word that it owns, counted over all texts, and ``[pieces,
labels]``, the logits."""


def ask(
    strategy: Strategy, head: Head, split: SplitData, collate: Collator, batch_tokens: int
) -> Asked:
    """Ask the model of all windows, batch by batch.

    Args:
        strategy: the whole model.
        head: the one that is asked.
        split: the windows, see ``WindowMaker``.
        collate: makes batches of them.
        batch_tokens: pieces that are computed at once.
    """
    batches = evaluation_batches(
        split.column("length"), batch_tokens=batch_tokens, rank=0, world_size=1
    )
    first_word = split.column("first_word")
    for batch in ahead(map(collate, batches)):
        logits = strategy.predict(batch.inputs).flatten(0, -2)[..., head.logits]
        yield batch, ranges(first_word[batch.index], batch.num_words), logits


def read_units(asked: Asked, aggregation: Aggregation) -> Units:
    """What the model says of all windows, each word where a window owns it.

    Args:
        asked: of the model.
        aggregation: how pieces come to one label.
    """
    found = []
    for batch, words, logits in asked:
        inside, ids, scores = _units_of(logits.float().softmax(dim=-1), batch, aggregation)
        found.append((words[inside], ids, scores))
    words, ids, scores = _in_order(found)
    return Units(words, ids, scores.astype(np.float64))


def read_decoded(
    asked: Asked, head: Head, decoder: Iob2Decoder, first_word: Ints, begins: Bools
) -> Units:
    """The best tags of all words that IOB2 allows, those of a word without pieces among them.

    Args:
        asked: of the model.
        head: the one that was asked.
        decoder: of the head.
        first_word: ``[windows]``, the first word that each owns.
        begins: ``[words]``, whether a word is the first of its text.
    """
    found = []
    for batch, words, logits in asked:
        said = decode_batch(decoder, logits, batch, first_word, begins)
        both = (_of_words(logits, ids, batch) for ids in (said, decoder.begun[said]))
        found.append((words, said.cpu().numpy(), *both))
    _, ids, scores, if_begun = _in_order(found)
    mended = begun_properly(ids, begins, head.labels.tags)
    scores = np.where(mended == ids, scores, if_begun)
    return Units(np.arange(len(ids)), mended, scores.astype(np.float64))


def _in_order(found: Sequence[tuple[npt.NDArray[Any], ...]]) -> list[npt.NDArray[Any]]:
    """What was found in batches, by the number of the word, which comes first in each."""
    words, *told = (np.concatenate(parts) for parts in zip(*found, strict=True))
    # Pieces of a word lie together, and stay in their order.
    order = np.argsort(words, kind="stable")
    return [words[order], *(each[order] for each in told)]


def _of_words(logits: torch.Tensor, ids: torch.Tensor, batch: Batch) -> Floats:
    """``[words]``: the probability of a label of each word; 1 for a word without pieces."""
    told = probabilities_of(logits, ids, batch.word_places)
    found: Floats = told.masked_fill(batch.word_places == NO_PIECE, 1.0).cpu().numpy()
    return found


def _units_of(
    probabilities: torch.Tensor, batch: Batch, aggregation: Aggregation
) -> tuple[Ints, Ints, Floats]:
    """Of each unit of a batch its word, counted in the batch, its label and its score."""
    places = batch.word_places.cpu().numpy()
    with_pieces = np.flatnonzero(places != NO_PIECE)
    places = places[with_pieces]
    if aggregation in ("word", "first"):
        return with_pieces, *_surest(_rows(probabilities, places))
    # Places of words rise through the batch, and a word's pieces follow its first.
    owned = np.flatnonzero(batch.labels[0].cpu().numpy() != IGNORED)
    of_pieces = np.searchsorted(places, owned, side="right") - 1
    rows = _rows(probabilities, owned)
    if aggregation == "simple":
        return with_pieces[of_pieces], *_surest(rows)
    first = np.searchsorted(owned, places)
    rows = _means(rows, first) if aggregation == "average" else rows[_best(rows, of_pieces)]
    return with_pieces, *_surest(rows)


def _rows(values: torch.Tensor, places: Ints) -> Floats:
    rows: Floats = values[torch.from_numpy(places).to(values.device)].cpu().numpy()
    return rows


def _surest(probabilities: Floats) -> tuple[Ints, Floats]:
    ids = probabilities.argmax(axis=-1)
    return ids, probabilities[np.arange(len(ids)), ids]


def _means(rows: Floats, first: Ints) -> Floats:
    """``[words, labels]``: means over the pieces of each word, of which the first are given."""
    if not len(first):
        return rows
    sizes = np.diff(first, append=len(rows))
    means: Floats = np.add.reduceat(rows, first, axis=0) / sizes[:, None].astype(rows.dtype)
    return means


def _best(rows: Floats, of_pieces: Ints) -> Ints:
    """``[words]``: the piece of each word that is surest of its label, the first of equals."""
    # By word, then surest first; stable, so the first of equals stays the first.
    order = np.lexsort((-rows.max(axis=-1), of_pieces))
    return order[np.unique(of_pieces[order], return_index=True)[1]]
