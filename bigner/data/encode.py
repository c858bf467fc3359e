"""Sentences become windows of sub-word pieces, aligned with labels word by word.

A text (a sentence or a document) that does not fit into one window is cut into several that share
some words. Every word is *owned* by exactly one window, the one where it has most context: there
it is trained on and predicted, everywhere else it is context alone. A sentence may have words of
its neighbours around it, which are context in the same way (Schweter and Akbik, 2020, "FLERT").
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby, pairwise
from typing import Any, Literal

from transformers import PreTrainedTokenizerFast

from bigner.data.formats import Sentence
from bigner.data.heads import Head, Heads
from bigner.data.labels import IGNORED

NO_PIECE = -1
"""Place of a word that the tokenizer gives no piece: kept, and predicted ``O``."""

# Texts handed to the tokenizer at once: enough for its threads, little enough to hold.
TEXTS_AT_ONCE = 1000


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


@dataclass(frozen=True, slots=True)
class Window:
    """One row of a batch."""

    input_ids: list[int]
    labels: list[list[int]]
    """``[heads][pieces]``: a label id or ``IGNORED``."""
    first_word: int
    """Position in the split of the first word this window owns."""
    word_places: list[int]
    """For each owned word the place of its first piece in ``input_ids``, or ``NO_PIECE``."""


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
        words = [word for sentence in members for word in sentence.words]
        ids = [
            [head.labels.id_of(tag) for sentence in members for tag in sentence.tags[i]]
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
        self._tokenizer = tokenizer
        self._prefix, self._suffix = special_tokens(tokenizer)
        self._room = max_length - len(self._prefix) - len(self._suffix)
        self._stride = stride
        self._context = context
        later = _later_labels if alignment == "all" else _no_later_labels
        self._later_label = [later(head) for head in heads]
        self.words_without_pieces = 0
        self.words_cut = 0
        """Words of more pieces than a window holds: their last pieces are left out."""

    def encode(self, texts: Sequence[Text]) -> Iterator[Window]:
        """The windows of some texts, in order."""
        encodings = encode_words(self._tokenizer, [text.words for text in texts])
        for text, encoding in zip(texts, encodings, strict=True):
            pieces: list[list[int]] = [[] for _ in text.words]
            for piece, word in zip(encoding.ids, encoding.word_ids, strict=True):
                pieces[word].append(piece)
            yield from self._windows(text, pieces)

    def _windows(self, text: Text, pieces: list[list[int]]) -> Iterator[Window]:
        self.words_without_pieces += sum(not word for word in pieces)
        for i, word in enumerate(pieces):
            if len(word) > self._room:
                self.words_cut += 1
                pieces[i] = word[: self._room]
        lengths = [len(word) for word in pieces]
        for part in text.parts:
            for words, owned in self._cut(part, lengths):
                yield self._window(text, pieces, words, owned)

    def _cut(self, part: tuple[int, int], lengths: list[int]) -> Iterator[tuple[range, range]]:
        """The words of each window of a part, and those that it owns."""
        first, end = part
        if sum(lengths[first:end]) <= self._room:
            yield (
                range(*surrounded(first, end, lengths, self._room, self._context)),
                range(first, end),
            )
            return
        spans = cut(lengths[first:end], self._room, self._stride)
        for span, owned in zip(spans, owners(spans), strict=True):
            if owned[0] < owned[1]:
                yield (
                    range(first + span[0], first + span[1]),
                    range(first + owned[0], first + owned[1]),
                )

    def _window(self, text: Text, pieces: list[list[int]], words: range, owned: range) -> Window:
        input_ids = list(self._prefix)
        places = []
        for word in words:
            if word in owned:
                places.append(len(input_ids) if pieces[word] else NO_PIECE)
            input_ids += pieces[word]
        input_ids += self._suffix
        labels = [
            self._labels(ids, later, pieces, words, owned)
            for ids, later in zip(text.label_ids, self._later_label, strict=True)
        ]
        return Window(input_ids, labels, text.first_word + owned.start, places)

    def _labels(
        self,
        ids: list[int],
        later: list[int],
        pieces: list[list[int]],
        words: range,
        owned: range,
    ) -> list[int]:
        """One head's labels of a window's pieces."""
        labels = [IGNORED] * len(self._prefix)
        for word in words:
            num_pieces = len(pieces[word])
            if word not in owned:
                labels += [IGNORED] * num_pieces
            elif num_pieces:
                labels += [ids[word], *[later[ids[word]]] * (num_pieces - 1)]
        return labels + [IGNORED] * len(self._suffix)


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
    spans: list[tuple[int, int]] = []
    start = 0
    while True:
        end, used = start, 0
        while end < len(lengths) and used + lengths[end] <= room:
            used += lengths[end]
            end += 1
        spans.append((start, end))
        if end == len(lengths):
            return spans
        start = end - min(stride, (end - start) // 2)
        while sum(lengths[start : end + 1]) > room:
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
        end = first
        while end < num_words and (
            following is None
            or _context(end, span, num_words) >= _context(end, following, num_words)
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
