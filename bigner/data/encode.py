"""Sentences become windows of sub-word pieces, aligned with labels word by word.

A text (a sentence or a document) that does not fit into one window is cut into several that share
some words. Every word is *owned* by exactly one window, the one where it has most context: there
it is trained on and predicted, everywhere else it is context alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

from transformers import PreTrainedTokenizerFast

from bigner.data.formats import Sentence
from bigner.data.labels import LabelSet
from bigner.optim import IGNORED

NO_PIECE = -1
"""Place of a word that the tokenizer gives no piece: kept, and predicted ``O``."""

# Texts handed to the tokenizer at once: enough for its threads, little enough to hold.
TEXTS_AT_ONCE = 1000


@dataclass(frozen=True, slots=True)
class Text:
    """What is windowed as a whole: the words of a sentence or of a document."""

    words: list[str]
    label_ids: list[int]
    first_word: int
    """Position of the first word in the split, counted over all its words."""


@dataclass(frozen=True, slots=True)
class Window:
    """One row of a batch."""

    input_ids: list[int]
    labels: list[int]
    """A label id or ``IGNORED`` for each piece."""
    first_word: int
    """Position in the split of the first word this window owns."""
    word_places: list[int]
    """For each owned word the place of its first piece in ``input_ids``, or ``NO_PIECE``."""


def texts_of(
    sentences: Sequence[Sentence], labels: LabelSet, unit: Literal["sentence", "document"]
) -> Iterator[Text]:
    """The texts of a split, in order; together they hold every word once."""
    first_word = 0
    units = (
        ([s] for s in sentences)
        if unit == "sentence"
        else (list(group) for _, group in groupby(sentences, key=lambda s: s.document))
    )
    for members in units:
        words = [word for sentence in members for word in sentence.words]
        ids = [labels.id_of(tag) for sentence in members for tag in sentence.tags]
        yield Text(words, ids, first_word)
        first_word += len(words)


class WindowEncoder:
    """Cuts texts into windows for one tokenizer and one set of choices.

    Args:
        tokenizer: a fast tokenizer; words are tokenised one by one, as its
            ``is_split_into_words`` does.
        labels: gives the label of a word's later pieces where ``alignment`` is ``all``.
        max_length: pieces in a window, special tokens included.
        stride: words of context that neighbouring windows share; fewer where half a window
            has fewer words.
        alignment: ``first`` labels a word's first piece, ``all`` every piece (B- goes on as I-).
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerFast,
        labels: LabelSet,
        *,
        max_length: int,
        stride: int,
        alignment: Literal["first", "all"],
    ) -> None:
        self._tokenizer = tokenizer
        self._prefix, self._suffix = special_tokens(tokenizer)
        self._room = max_length - len(self._prefix) - len(self._suffix)
        self._stride = stride
        self._later_label = _later_labels(labels) if alignment == "all" else None
        self.words_without_pieces = 0
        self.words_cut = 0
        """Words of more pieces than a window holds: their last pieces are left out."""

    def encode(self, texts: Sequence[Text]) -> Iterator[Window]:
        """The windows of some texts, in order."""
        encodings = self._tokenizer(
            [text.words for text in texts],
            is_split_into_words=True,
            add_special_tokens=False,
            truncation=False,
            # Length is the windows' business; the tokenizer would warn of it.
            verbose=False,
        ).encodings
        assert encodings is not None
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
        spans = cut([len(word) for word in pieces], self._room, self._stride)
        for (start, end), (owned_start, owned_end) in zip(spans, owners(spans), strict=True):
            if owned_start < owned_end:
                yield self._window(text, pieces, range(start, end), range(owned_start, owned_end))

    def _window(self, text: Text, pieces: list[list[int]], words: range, owned: range) -> Window:
        input_ids = list(self._prefix)
        labels = [IGNORED] * len(input_ids)
        places = []
        for word in words:
            if word in owned:
                places.append(len(input_ids) if pieces[word] else NO_PIECE)
                labels += self._labels(text.label_ids[word], len(pieces[word]))
            else:
                labels += [IGNORED] * len(pieces[word])
            input_ids += pieces[word]
        labels += [IGNORED] * len(self._suffix)
        input_ids += self._suffix
        return Window(input_ids, labels, text.first_word + owned.start, places)

    def _labels(self, label: int, num_pieces: int) -> list[int]:
        if not num_pieces:
            return []
        later = IGNORED if self._later_label is None else self._later_label[label]
        return [label] + [later] * (num_pieces - 1)


def special_tokens(tokenizer: PreTrainedTokenizerFast) -> tuple[list[int], list[int]]:
    """The ids the tokenizer puts before and after a single text, such as ``<s>`` and ``</s>``."""
    framed = tokenizer(["a"], is_split_into_words=True, return_special_tokens_mask=True)
    ids, mask = framed["input_ids"], framed["special_tokens_mask"]
    text_start = mask.index(0) if 0 in mask else len(mask)
    text_end = len(mask) - mask[::-1].index(0) if 0 in mask else len(mask)
    return ids[:text_start], ids[text_end:]


def _later_labels(labels: LabelSet) -> list[int]:
    """For each label id, the label of a word's pieces after the first: B-X goes on as I-X."""
    return [
        labels.id_of(f"I-{tag[2:]}") if tag.startswith("B-") else i
        for i, tag in enumerate(labels.tags)
    ]


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
