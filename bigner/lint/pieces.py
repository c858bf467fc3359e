"""What the tokenizer makes of the words: pieces, none, unknown ones, and how many windows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby

from transformers import PreTrainedTokenizerFast

from bigner.config.schema import DataConfig, Split
from bigner.data.encode import TEXTS_AT_ONCE, cut, owners
from bigner.data.formats import Sentence
from bigner.data.pieces import encode_words, special_tokens
from bigner.lint.findings import Finding, Level, Place, Places, counted, percent, quoted
from bigner.lint.lengths import Lengths
from bigner.lint.reading import Sentences
from bigner.lint.words import in_entity
from bigner.log import progress

_MANY_UNKNOWN = 0.01


@dataclass(slots=True)
class Words:
    """Words that the tokenizer makes something odd of."""

    tag_heads: list[int]
    total: int = 0
    empty_entities: Places = field(default_factory=Places)
    empty_others: Places = field(default_factory=Places)
    unknown_entities: Places = field(default_factory=Places)
    unknown_others: Places = field(default_factory=Places)
    special: Places = field(default_factory=Places)
    too_long: Places = field(default_factory=Places)

    def empty(self, sentence: Sentence, i: int) -> None:
        """Note a word without pieces."""
        entity = in_entity(sentence, i, self.tag_heads)
        places = self.empty_entities if entity else self.empty_others
        places.add(Place.of(sentence, i, quoted(sentence.words[i])))

    def unknown(self, sentence: Sentence, i: int) -> None:
        """Note a word with an unknown piece."""
        entity = in_entity(sentence, i, self.tag_heads)
        places = self.unknown_entities if entity else self.unknown_others
        places.add(Place.of(sentence, i, quoted(sentence.words[i])))


@dataclass(frozen=True, slots=True)
class Measured:
    """What the tokenizer makes of a corpus."""

    words: Words
    long_texts: Places
    lengths: Lengths


class _Measurer:
    """Counts the pieces of words.

    Args:
        tokenizer: as training has it.
        data: of the run.
        words: takes up what is odd.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast, data: DataConfig, words: Words) -> None:
        self._tokenizer = tokenizer
        self._words = words
        self.frame = sum(map(len, special_tokens(tokenizer)))
        self._room = data.max_length - self.frame
        self._stride = data.stride
        self._unknown = tokenizer.unk_token_id
        self._special = {i for i in tokenizer.all_special_ids if i != self._unknown}

    def pieces(self, sentences: Sequence[Sentence]) -> Iterator[list[int]]:
        """Of each sentence the pieces of each word, as far as a window holds them."""
        encodings = encode_words(self._tokenizer, [sentence.words for sentence in sentences])
        for sentence, encoding in zip(sentences, encodings, strict=True):
            counts = [0] * len(sentence.words)
            for word in encoding.word_ids:
                counts[word] += 1
            self._note(sentence, counts)
            self._note_ids(sentence, encoding.ids, encoding.word_ids)
            yield [min(count, self._room) for count in counts]

    def windows(self, lengths: list[int]) -> int:
        """Windows that a text of words of so many pieces becomes."""
        if sum(lengths) <= self._room:
            return 1
        spans = cut(lengths, self._room, self._stride)
        return sum(start < end for start, end in owners(spans))

    def _note(self, sentence: Sentence, counts: list[int]) -> None:
        self._words.total += len(counts)
        if min(counts) and max(counts) <= self._room:
            return
        for i, count in enumerate(counts):
            if not count:
                self._words.empty(sentence, i)
            elif count > self._room:
                text = f"{quoted(sentence.words[i])} {count:,} pieces"
                self._words.too_long.add(Place.of(sentence, i, text))

    def _note_ids(self, sentence: Sentence, ids: list[int], word_ids: list[int]) -> None:
        found = set(ids)
        if self._unknown in found:
            for i in dict.fromkeys(
                word for piece, word in zip(ids, word_ids, strict=True) if piece == self._unknown
            ):
                self._words.unknown(sentence, i)
        if found & self._special:
            for piece, i in zip(ids, word_ids, strict=True):
                if piece in self._special:
                    text = quoted(sentence.words[i])
                    self._words.special.add(Place.of(sentence, i, text))


def measure(
    tokenizer: PreTrainedTokenizerFast,
    data: DataConfig,
    sentences: Sentences,
    tag_heads: list[int],
) -> Measured:
    """Tokenise a corpus and keep the numbers alone.

    Args:
        tokenizer: as training has it.
        data: of the run; says what a text is and how long a window.
        sentences: of all splits.
        tag_heads: places of the heads of entities among a sentence's ``tags``.
    """
    words, long_texts = Words(tag_heads), Places()
    measurer = _Measurer(tokenizer, data, words)
    lengths: dict[Split, list[int]] = {split: [] for split in sentences}
    windows: dict[Split, int] = dict.fromkeys(sentences, 0)
    for split, of_split in sentences.items():
        pieces = _pieces_of(measurer, split, of_split)
        for first, text in _texts(data, of_split, pieces):
            length, num_windows = sum(text) + measurer.frame, measurer.windows(text)
            lengths[split].append(length)
            windows[split] += num_windows
            if length > data.max_length:
                shown = f"{counted(length, 'piece')}, {counted(num_windows, 'window')}"
                long_texts.add(Place.of(first, 0, shown))
    return Measured(
        words, long_texts, Lengths(data.unit, "pieces", data.max_length, lengths, windows)
    )


def _pieces_of(measurer: _Measurer, split: Split, sentences: list[Sentence]) -> Iterator[list[int]]:
    starts = range(0, len(sentences), TEXTS_AT_ONCE)
    for start in progress(starts, f"tokenising {split}"):
        yield from measurer.pieces(sentences[start : start + TEXTS_AT_ONCE])


def _texts(
    data: DataConfig, sentences: list[Sentence], pieces: Iterator[list[int]]
) -> Iterator[tuple[Sentence, list[int]]]:
    """The first sentence of each text, and the pieces of each of its words."""
    each = zip(sentences, pieces, strict=True)
    if data.unit == "sentence":
        yield from each
        return
    for _, group in groupby(each, key=lambda pair: pair[0].document):
        members = list(group)
        yield members[0][0], [count for _, counts in members for count in counts]


# ---------------------------------------------------------------- findings


def findings(measured: Measured) -> list[Finding]:
    """All that the tokenizer tells."""
    return [
        windows(measured),
        without_pieces(measured.words),
        unknown(measured.words),
        special(measured.words),
        cut_words(measured.words),
    ]


def windows(measured: Measured) -> Finding:
    """Texts that do not fit into one window: nothing is lost, but they are read in parts."""
    lengths, places = measured.lengths, measured.long_texts
    total = sum(map(len, lengths.of_splits.values()))
    num_windows = sum((lengths.windows or {}).values())
    become = f"{counted(total, lengths.what)} {'become' if total != 1 else 'becomes'} "
    become += counted(num_windows, "window")
    if not places:
        message = f"every {lengths.what} fits into a window of {lengths.max_length} pieces"
        return Finding("windows", "pass", message)
    message = (
        f"{counted(len(places), lengths.what)} longer than data.max_length "
        f"{lengths.max_length}, read in several windows: {become}"
    )
    # Documents are meant to be cut.
    level: Level = "warning" if lengths.what == "sentence" else "pass"
    return Finding("windows", level, message, places)


def without_pieces(words: Words) -> Finding:
    """Words that the model does not see."""
    places = words.empty_entities.followed_by(words.empty_others)
    if not places:
        return Finding("words without pieces", "pass", "every word has a piece")
    message = (
        f"{counted(len(places), 'word')} for which the tokenizer has no piece, "
        f"{len(words.empty_entities):,} of them in entities; the model does not see them and they "
        f"are predicted O, or the commonest class"
    )
    return Finding("words without pieces", "warning", message, places)


def unknown(words: Words) -> Finding:
    """Words of which the model sees that there is something, and not what."""
    places = words.unknown_entities.followed_by(words.unknown_others)
    if not places:
        return Finding("unknown words", "pass", "the tokenizer knows every word")
    message = (
        f"{counted(len(places), 'word')} ({percent(len(places), words.total)}) with pieces that "
        f"the tokenizer does not know, {len(words.unknown_entities):,} of them in entities"
    )
    if len(places) > _MANY_UNKNOWN * words.total:
        message += "; is it the tokenizer of this language?"
        return Finding("unknown words", "warning", message, places)
    return Finding("unknown words", "pass", message, places)


def special(words: Words) -> Finding:
    """Words that are read as the tokenizer's own marks, such as ``</s>``."""
    if not words.special:
        return Finding("special words", "pass", "no word is read as a special token")
    message = f"{counted(len(words.special), 'word')} read as special tokens; write them otherwise"
    return Finding("special words", "warning", message, words.special)


def cut_words(words: Words) -> Finding:
    """Words of more pieces than a window holds."""
    if not words.too_long:
        return Finding("words cut", "pass", "every word fits into a window")
    message = (
        f"{counted(len(words.too_long), 'word')} of more pieces than a window holds; their ends "
        f"are left out"
    )
    return Finding("words cut", "warning", message, words.too_long)
