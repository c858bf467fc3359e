"""Sentences become windows of sub-word pieces, aligned with labels word by word.

A text (a sentence or a document) that does not fit into one window is cut into several that share
some words. Every word is *owned* by exactly one window, the one where it has most context: there
it is trained on and predicted, everywhere else it is context alone. A sentence may have words of
its neighbours around it, which are context in the same way (Schweter and Akbik, 2020, "FLERT").
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain, groupby, pairwise
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from transformers import PreTrainedTokenizerFast

from bigner.data.arrays import Ints, ranges
from bigner.data.formats import Sentence
from bigner.data.heads import Head, Heads
from bigner.data.labels import IGNORED
from bigner.data.pieces import WordPieces, special_tokens
from bigner.data.tables import lists, numbers

NO_PIECE = -1
"""Place of a word that the tokenizer gives no piece: kept, and predicted ``O``."""


# Texts handed to the tokenizer at once: enough for its threads, little enough to hold.
TEXTS_AT_ONCE = 1000

_Range = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Text:
    """What is windowed as a whole: the words of a sentence or of a document."""

    words: list[str]
    label_ids: list[list[int]]
    """``[heads][words]``."""
    first_word: int
    """Position of the first word in the split, counted over all its words."""
    parts: list[tuple[int, int]]
    """Ranges of words, together all of them, that are windowed one by one, with the rest of the
    text as their context."""


def window_schema(num_heads: int) -> pa.Schema:
    """The columns of windows, of which a row is what a model computes at once.

    ``input_ids``, and for each head ``labels_0`` ... (``[pieces]``, a label id or ``IGNORED``);
    ``first_word``, the position in the split of the first word that the window owns; for each owned
    word in ``word_places`` the place of its first piece in ``input_ids``, or ``NO_PIECE``; and how
    many these are: ``length`` pieces, ``num_words`` owned words.
    """
    columns = {
        "input_ids": pa.list_(pa.int32()),
        "first_word": pa.int64(),
        "word_places": pa.list_(pa.int32()),
        "length": pa.int64(),
        "num_words": pa.int64(),
    }
    return pa.schema(columns | {f"labels_{i}": pa.list_(pa.int16()) for i in range(num_heads)})


def texts_of(
    sentences: Sequence[Sentence],
    heads: Heads,
    unit: Literal["sentence", "document"],
    *,
    context: bool = False,
) -> Iterator[Text]:
    """The texts of a split, in order; together they hold every word once.

    Args:
        sentences: of the split.
        heads: give the ids of tags.
        unit: what is windowed as a whole.
        context: let a sentence be windowed with the rest of its document around it.
    """
    first_word = 0
    units = (
        ([s] for s in sentences)
        if unit == "sentence" and not context
        else (list(group) for _, group in groupby(sentences, key=lambda s: s.document))
    )
    for members in units:
        words = list(chain.from_iterable(sentence.words for sentence in members))
        ids = [
            head.labels.ids_of(chain.from_iterable(sentence.tags[i] for sentence in members))
            for i, head in enumerate(heads)
        ]
        ends = list(accumulate(len(sentence.words) for sentence in members))
        parts = list(pairwise([0, *ends])) if context else [(0, len(words))]
        yield Text(words, ids, first_word, parts)
        first_word += len(words)


class WindowEncoder:
    """Cuts texts into windows for one tokenizer and one set of choices.

    Args:
        tokenizer: a fast tokenizer; words are tokenised one by one, as its
            ``is_split_into_words`` does.
        heads: give the labels of a word's later pieces where ``alignment`` is ``all``.
        max_length: pieces in a window, special tokens included.
        stride: words of context that neighbouring windows share; fewer where half a window
            has fewer words.
        alignment: ``first`` labels a word's first piece, ``all`` every piece (B- goes on as I-).
        context: words that a part of a text is given on each side, as far as there is room.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerFast,
        heads: Heads,
        *,
        max_length: int,
        stride: int,
        alignment: Literal["first", "all"],
        context: int = 0,
    ) -> None:
        self._pieces = WordPieces(tokenizer)
        self._prefix, self._suffix = special_tokens(tokenizer)
        self._room = max_length - len(self._prefix) - len(self._suffix)
        self._stride = stride
        self._context = context
        later = _later_labels if alignment == "all" else _no_later_labels
        self._later_label = [np.array(later(head), np.int16) for head in heads]
        self._schema = window_schema(len(heads))
        self.words_without_pieces = 0
        self.words_cut = 0
        """Words of more pieces than a window holds: their last pieces are left out."""

    def encode(self, texts: Sequence[Text]) -> pa.RecordBatch:
        """The windows of some texts, in order, as ``window_schema`` has them."""
        words = list(chain.from_iterable(text.words for text in texts))
        places, sizes = self._pieces.find(words)
        self.words_without_pieces += int((sizes == 0).sum())
        self.words_cut += int((sizes > self._room).sum())
        sizes = np.minimum(sizes, self._room)
        spans = np.array(list(self._spans(texts, sizes)), np.int64).reshape(-1, 5)
        rows = _Rows(spans, sizes, len(self._prefix), len(self._suffix))
        columns = {
            "input_ids": lists(numbers(self._input_ids(rows, places)), rows.lengths),
            "first_word": numbers(rows.first_word),
            "word_places": lists(numbers(rows.word_places()), rows.num_words),
            "length": numbers(rows.lengths),
            "num_words": numbers(rows.num_words),
        }
        for i, later in enumerate(self._later_label):
            of_words = chain.from_iterable(text.label_ids[i] for text in texts)
            labels = rows.labels(np.fromiter(of_words, np.int16, len(words)), later)
            columns[f"labels_{i}"] = lists(numbers(labels), rows.lengths)
        return pa.record_batch(columns, schema=self._schema)

    def _spans(self, texts: Sequence[Text], sizes: Ints) -> Iterator[tuple[int, ...]]:
        """For each window first and end of its words and of those that it owns, counted over all
        these texts, and the first of the latter, counted over the split.
        """
        lengths = sizes.tolist()
        before = 0
        for text in texts:
            of_text = lengths[before : before + len(text.words)]
            for part in text.parts:
                for words, owned in self._cut(part, of_text):
                    yield (
                        *(before + word for word in (*words, *owned)),
                        text.first_word + owned[0],
                    )
            before += len(text.words)

    def _cut(self, part: tuple[int, int], lengths: list[int]) -> Iterator[tuple[_Range, _Range]]:
        """The words of each window of a part, and those that it owns, counted over its text."""
        first, end = part
        if sum(lengths[first:end]) <= self._room:
            yield surrounded(first, end, lengths, self._room, self._context), part
            return
        spans = cut(lengths[first:end], self._room, self._stride)
        for words, owned in zip(spans, owners(spans), strict=True):
            if owned[0] < owned[1]:
                yield (first + words[0], first + words[1]), (first + owned[0], first + owned[1])

    def _input_ids(self, rows: _Rows, places: Ints) -> npt.NDArray[np.int32]:
        """The pieces of all rows, one row after the other."""
        ids = np.empty(rows.total, np.int32)
        ids[rows.first_pieces[:, None] + np.arange(len(self._prefix))] = self._prefix
        ids[rows.last_pieces[:, None] - np.arange(len(self._suffix))] = self._suffix[::-1]
        ids[ranges(rows.places, rows.sizes)] = self._pieces.take(places[rows.words], rows.sizes)
        return ids


class _Rows:
    """Where everything stands when the rows of all windows stand one after the other.

    Args:
        spans: ``[windows, 5]``, see ``WindowEncoder._spans``.
        sizes: ``[words]``, how many pieces each word has.
        prefix: special tokens before the pieces of a row.
        suffix: special tokens behind them.
    """

    def __init__(self, spans: Ints, sizes: Ints, prefix: int, suffix: int) -> None:
        first, end, owned, owned_end, self.first_word = spans.T
        self.num_words = owned_end - owned
        edges = np.append(0, np.cumsum(sizes))
        self.lengths = prefix + edges[end] - edges[first] + suffix
        self.first_pieces = np.cumsum(self.lengths) - self.lengths
        self.last_pieces = self.first_pieces + self.lengths - 1
        self.total = int(self.lengths.sum())
        # Of each word of each window, one window after the other:
        self.words = ranges(first, end - first)
        """Which it is."""
        self.sizes = sizes[self.words]
        window = np.repeat(np.arange(len(spans)), end - first)
        self.places = np.cumsum(self.sizes) - self.sizes + window * (prefix + suffix) + prefix
        """Where its first piece stands."""
        self._places_in_row = self.places - self.first_pieces[window]
        self._owned = (owned[window] <= self.words) & (self.words < owned_end[window])

    def word_places(self) -> npt.NDArray[np.int32]:
        """The places of all owned words in their rows."""
        places = np.where(self.sizes > 0, self._places_in_row, NO_PIECE).astype(np.int32)
        owned: npt.NDArray[np.int32] = places[self._owned]
        return owned

    def labels(
        self, ids: npt.NDArray[np.int16], later: npt.NDArray[np.int16]
    ) -> npt.NDArray[np.int16]:
        """One head's labels of all pieces.

        Args:
            ids: ``[words]``, of each word.
            later: ``[labels]``, see ``_later_labels``.
        """
        labels = np.full(self.total, IGNORED, np.int16)
        labelled = self._owned & (self.sizes > 0)
        first, num_later = self.places[labelled], self.sizes[labelled] - 1
        of_words = ids[self.words[labelled]]
        labels[first] = of_words
        labels[ranges(first + 1, num_later)] = np.repeat(later[of_words], num_later)
        return labels


def _later_labels(head: Head) -> list[int]:
    """For each label id, the label of a word's pieces after the first: B-X goes on as I-X."""
    return [
        head.labels.id_of(f"I-{tag[2:]}") if head.kind == "tags" and tag.startswith("B-") else i
        for i, tag in enumerate(head.labels.tags)
    ]


def _no_later_labels(head: Head) -> list[int]:
    return [IGNORED] * len(head.labels)


def surrounded(
    first: int, end: int, lengths: Sequence[int], room: int, context: int
) -> tuple[int, int]:
    """A range of words with words around it, left and right in turn while there is room.

    Args:
        first: of the range, which fits.
        end: of the range.
        lengths: pieces of each word of the text.
        room: pieces that a window holds.
        context: words on each side at most.
    """
    leftmost, rightmost = max(0, first - context), min(len(lengths), end + context)
    used = sum(lengths[first:end])
    grows = True
    while grows:
        grows = False
        if first > leftmost and used + lengths[first - 1] <= room:
            first -= 1
            used += lengths[first]
            grows = True
        if end < rightmost and used + lengths[end] <= room:
            used += lengths[end]
            end += 1
            grows = True
    return first, end


def cut(lengths: Sequence[int], room: int, stride: int) -> list[tuple[int, int]]:
    """Word ranges ``[start, end)`` of windows that hold at most ``room`` pieces each.

    Neighbours share ``stride`` words; fewer where that is more than half of the earlier window,
    or where the shared words would leave no room for the next one. So both starts and ends
    increase strictly.

    Args:
        lengths: pieces of each word, none longer than ``room``.
    """
    # Pieces before each word: sums of stretches, without adding them up again.
    before = [0, *accumulate(lengths)]
    spans: list[tuple[int, int]] = []
    start = 0
    while True:
        end = bisect_right(before, before[start] + room) - 1
        spans.append((start, end))
        if end == len(lengths):
            return spans
        start = end - min(stride, (end - start) // 2)
        while before[end + 1] - before[start] > room:
            start += 1


def owners(spans: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """The range of words that each window owns: where they have most context.

    Context is the number of words on the poorer side; the edge of the text itself is no want of
    context, for there is nothing beyond it. Ties go to the earlier window.

    Going from word to word the owner only ever moves to the next window: once a later window is
    the better one it stays so, and no window is better than the next one while a later one is
    better still (starts and ends increase strictly). A window may own nothing.
    """
    num_words = spans[-1][1]
    owned = []
    first = 0
    for span, following in zip(spans, [*spans[1:], None], strict=True):
        end = num_words
        if following is not None:
            # The words before the next window it has not, and this one has.
            end = max(first, following[0])
            while end < num_words and (
                _context(end, span, num_words) >= _context(end, following, num_words)
            ):
                end += 1
        owned.append((first, end))
        first = end
    return owned


def _context(word: int, span: tuple[int, int], num_words: int) -> int:
    """Words on the poorer side of ``word`` in a window; negative outside of it."""
    start, end = span
    left = word - start if start > 0 else num_words
    right = end - 1 - word if end < num_words else num_words
    return min(left, right)
