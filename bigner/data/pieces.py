"""What a tokenizer makes of words."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from transformers import PreTrainedTokenizerFast

from bigner.data.arrays import Ints, ranges

# Words are tokenised so many at a time: a text for each word would cost twice as much, and few long
# texts would leave the tokenizer's threads without work.
_WORDS_IN_A_TEXT = 64


class WordPieces:
    """The pieces of words, each distinct word tokenised once.

    A word's pieces do not depend on the words around it, and most words of a corpus it has had
    before: of a million some fifty thousand are left.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self._tokenizer = tokenizer
        self._numbers: dict[str, int] = {}
        self._pieces = array("i")
        """Of all words that were met, one after the other."""
        self._ends = array("q", [0])
        """Where in ``_pieces`` each word ends."""

    def find(self, words: Sequence[str]) -> tuple[Ints, Ints]:
        """Where the pieces of words are, for ``take``, and how many each word has; ``[words]``."""
        self._learn(words)
        numbers = np.fromiter(map(self._numbers.__getitem__, words), np.int64, len(words))
        ends = np.frombuffer(self._ends, np.int64)
        starts = ends[numbers]
        return starts, ends[numbers + 1] - starts

    def take(self, starts: Ints, sizes: Ints) -> npt.NDArray[np.int32]:
        """The pieces of words, one word after the other.

        Args:
            starts: ``[words]``, from ``find``.
            sizes: ``[words]``, how many pieces of each to take.
        """
        found: npt.NDArray[np.int32] = np.frombuffer(self._pieces, np.int32)[ranges(starts, sizes)]
        return found

    def _learn(self, words: Sequence[str]) -> None:
        """Tokenise those words that are new."""
        new = [word for word in dict.fromkeys(words) if word not in self._numbers]
        if not new:
            return
        starts = range(0, len(new), _WORDS_IN_A_TEXT)
        texts = [new[start : start + _WORDS_IN_A_TEXT] for start in starts]
        sizes = []
        for text, encoding in zip(texts, encode_words(self._tokenizer, texts), strict=True):
            self._pieces.extend(encoding.ids)
            sizes.append(np.bincount(np.array(encoding.word_ids, np.int64), minlength=len(text)))
        ends = self._ends[-1] + np.cumsum(np.concatenate(sizes))
        self._ends.frombytes(ends.astype(np.int64).tobytes())
        self._numbers.update(zip(new, range(len(self._numbers), len(self._ends)), strict=False))


def encode_words(tokenizer: PreTrainedTokenizerFast, texts: list[list[str]]) -> list[Any]:
    """The pieces of texts that are given as words, without special tokens and however many."""
    encodings = tokenizer(
        texts,
        is_split_into_words=True,
        add_special_tokens=False,
        truncation=False,
        # Length is the windows' business; the tokenizer would warn of it.
        verbose=False,
    ).encodings
    assert encodings is not None
    return list(encodings)


def special_tokens(tokenizer: PreTrainedTokenizerFast) -> tuple[list[int], list[int]]:
    """The ids the tokenizer puts before and after a single text, such as ``<s>`` and ``</s>``."""
    framed = tokenizer(["a"], is_split_into_words=True, return_special_tokens_mask=True)
    ids, mask = framed["input_ids"], framed["special_tokens_mask"]
    text_start = mask.index(0) if 0 in mask else len(mask)
    text_end = len(mask) - mask[::-1].index(0) if 0 in mask else len(mask)
    return ids[:text_start], ids[text_end:]
