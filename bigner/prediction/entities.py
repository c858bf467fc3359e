"""Entities in texts: what was told of words or pieces, put together and found in the characters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
from transformers import PreTrainedTokenizerFast

from bigner.data.pieces import encode_words
from bigner.evaluation.spans import SpanReader
from bigner.prediction.units import Units
from bigner.prediction.words import Span, SplitText


@dataclass(frozen=True, slots=True)
class Entity:
    """An entity in a text."""

    type: str
    start: int
    """Its first character, counted from 0 in the text as it was given."""
    end: int
    """The character behind its last."""
    text: str
    """``text[start:end]``."""
    score: float
    """The mean probability of what it is made of: words, or their pieces."""


class EntityFinder:
    """Finds the entities that a head tells of, by the rule that conlleval and seqeval have.

    Args:
        tags: of the head, in the order of their ids.
    """

    def __init__(self, tags: Sequence[str]) -> None:
        self._reader = SpanReader(tags)

    def find(
        self,
        texts: Sequence[SplitText],
        units: Units,
        piece_spans: PieceSpans | None,
    ) -> list[list[Entity]]:
        """The entities of each text, in order.

        Args:
            texts: what the units are of.
            units: words, or their pieces.
            piece_spans: where pieces stand within their words, if the units are pieces.
        """
        sizes = np.array([len(text.words) for text in texts], np.int64)
        text_of_word = np.repeat(np.arange(len(texts)), sizes)
        first_words = [0, *accumulate(sizes.tolist())]
        # One place more for each text, where no entity goes on.
        places = np.arange(len(units.words)) + text_of_word[units.words]
        ids = np.full(len(units.words) + len(texts), self._reader.outside)
        ids[places] = units.ids
        spans = self._reader.read(ids)
        first, last = np.searchsorted(places, spans.first), np.searchsorted(places, spans.last)
        sums = np.concatenate([[0.0], np.cumsum(units.scores)])
        means = (sums[last + 1] - sums[first]) / (last + 1 - first)
        found: list[list[Entity]] = [[] for _ in texts]
        types = [self._reader.types[number] for number in spans.types]
        ends = zip(types, first.tolist(), last.tolist(), means.tolist(), strict=True)
        for entity_type, begin, stop, score in ends:
            number = int(text_of_word[units.words[begin]])
            text = texts[number]
            start, _ = _place(text, first_words[number], units, begin, piece_spans)
            _, end = _place(text, first_words[number], units, stop, piece_spans)
            found[number].append(Entity(entity_type, start, end, text.text[start:end], score))
        return found


class PieceSpans:
    """Where the pieces of a word stand in it, through all that the tokenizer makes of the word."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self._tokenizer = tokenizer

    def of(self, word: str) -> list[Span]:
        """The characters of each piece, counted in the word.

        What normalisation takes away, or makes one character of two, is part of the piece before.
        Pieces of one character, which it makes several of, all have that character.
        """
        (encoding,) = encode_words(self._tokenizer, [[word]])
        starts = [0, *(start for start, _ in encoding.offsets[1:])]
        ends = [end for _, end in encoding.offsets]
        following = [*starts[1:], len(word)]
        return list(zip(starts, map(max, ends, following), strict=True))


def _place(
    text: SplitText, first_word: int, units: Units, unit: int, piece_spans: PieceSpans | None
) -> Span:
    """The characters of a unit in its text, whose words are counted from ``first_word``."""
    word = int(units.words[unit])
    start, end = text.words[word - first_word]
    if piece_spans is None:
        return start, end
    piece = unit - int(np.searchsorted(units.words, word))
    inside = piece_spans.of(text.text[start:end])[piece]
    return start + inside[0], start + inside[1]
