"""Windows: every word once, in order, with one prediction, whatever Unicode it is made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import accumulate, chain, pairwise
from math import inf
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from bigner.config.schema import DataConfig
from bigner.data.collate import word_predictions
from bigner.data.encode import (
    NO_PIECE,
    Text,
    WindowEncoder,
    cut,
    owners,
    surrounded,
    texts_of,
)
from bigner.data.formats import Sentence, read_sentences
from bigner.data.heads import Heads
from bigner.data.labels import IGNORED, LabelSet
from bigner.data.pieces import WordPieces, encode_words, special_tokens

LABELS = LabelSet.of_types(["LOC", "PER", "creative-work"])
HEADS = Heads.single(LABELS)

ODD_WORDS = [
    "\u200b",  # zero-width space: no piece
    "\ufeff",  # byte-order mark: no piece
    "\u200b\u200d\ufeff",
    "\u0301",  # a combining mark alone
    "e\u0301\u0327\u0300",
    "\u00a0",  # no-break space
    "a\u00a0b",
    "a b",
    "\u3000",
    "שלום",
    "\u202e\u05e2\u05d1\u05e8\u05d9\u05ea\u202c",
    "مرحبا",
    "👩‍👩‍👧‍👦",
    "👍🏽",
    "🇸🇰",
    "東京都",
    "ｱｲｳ",
    "ﬁ",
    "½",
    "…",
    "▁",
    "▁▁a",
    "<s>",
    "</s>",
    "<pad>",
    "<mask>",
    "a<mask>b",
    "[SEP]",
    "\x00",
    "\u2028",
    "#fun",
    "x" * 300,
    "Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft",
]
words = st.one_of(
    st.sampled_from(ODD_WORDS),
    st.sampled_from(["Peter", "in", "New", "York", ",", "-", "."]),
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=10),
)
tagged = st.lists(st.tuples(words, st.integers(0, len(LABELS) - 1)), min_size=1, max_size=40).map(
    lambda pairs: ([word for word, _ in pairs], [label for _, label in pairs])
)
corpora = st.lists(tagged, min_size=1, max_size=4)


@pytest.fixture(scope="module")
def xlmr(shared_data: Path) -> PreTrainedTokenizerFast:
    tokenizer: PreTrainedTokenizerFast = AutoTokenizer.from_pretrained(
        shared_data / "xlmr-tokenizer", add_prefix_space=True
    )
    return tokenizer


@cache
def byte_level() -> PreTrainedTokenizerFast:
    """A RoBERTa-like tokenizer: bytes, spaces before words, <s> and </s> around."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(["Peter lives in New York, not in York"], trainer)
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    )


@cache
def word_piece() -> PreTrainedTokenizerFast:
    """A BERT-like tokenizer: unknown words become one [UNK], control characters nothing."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(
        vocab_size=120,
        special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"],
        show_progress=False,
    )
    tokenizer.train_from_iterator(["peter lives in new york, not in york"], trainer)
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, cls_token="[CLS]", sep_token="[SEP]", pad_token="[PAD]"
    )


def whole(text_words: list[str], label_ids: list[int], first_word: int) -> Text:
    """A text of one head, windowed as a whole."""
    return Text(text_words, [label_ids], first_word, [(0, len(text_words))])


def as_one(texts: Sequence[Text]) -> Text:
    """A document of which each text is a part."""
    text_words = [word for text in texts for word in text.words]
    ids = [label for text in texts for label in text.label_ids[0]]
    ends = [0, *accumulate(len(text.words) for text in texts)]
    return Text(text_words, [ids], 0, list(pairwise(ends)))


def texts_from(corpus: Sequence[tuple[list[str], list[int]]]) -> list[Text]:
    texts, first_word = [], 0
    for text_words, label_ids in corpus:
        texts.append(whole(text_words, label_ids, first_word))
        first_word += len(text_words)
    return texts


@dataclass(frozen=True, slots=True)
class Window:
    """A row of what the encoder makes, its lengths checked."""

    input_ids: list[int]
    labels: list[list[int]]
    first_word: int
    word_places: list[int]


def windows_of(encoder: WindowEncoder, texts: Sequence[Text]) -> list[Window]:
    windows = []
    for row in encoder.encode(texts).to_pylist():
        assert row.pop("length") == len(row["input_ids"])
        assert row.pop("num_words") == len(row["word_places"])
        labels = [row.pop(name) for name in sorted(row) if name.startswith("labels_")]
        windows.append(Window(labels=labels, **row))
    return windows


def predicted_from(window: Window) -> list[int]:
    """The prediction of each owned word if every labelled piece is predicted right."""
    wrong = len(LABELS)
    pieces = torch.tensor([wrong if label == IGNORED else label for label in window.labels[0]])
    places = torch.tensor(window.word_places, dtype=torch.long)
    return word_predictions(pieces, places, LABELS.id_of("O")).tolist()


def word_by_word(
    tokenizer: PreTrainedTokenizerFast,
    text: Text,
    max_length: int,
    stride: int,
    alignment: str,
    context: int,
) -> list[Window]:
    """What the encoder makes of a text, put together as it reads."""
    prefix, suffix = special_tokens(tokenizer)
    room = max_length - len(prefix) - len(suffix)
    (encoding,) = encode_words(tokenizer, [text.words])
    pieces: list[list[int]] = [[] for _ in text.words]
    for piece, word in zip(encoding.ids, encoding.word_ids, strict=True):
        pieces[word] = [*pieces[word], piece][:room]
    lengths = [len(word) for word in pieces]
    windows = []
    for first, end in text.parts:
        spans = [surrounded(first, end, lengths, room, context)]
        owned = [(first, end)]
        if sum(lengths[first:end]) > room:
            of_part = cut(lengths[first:end], room, stride)
            spans = [(first + a, first + b) for a, b in of_part]
            owned = [(first + a, first + b) for a, b in owners(of_part)]
        for span, own in zip(spans, owned, strict=True):
            window = Window(list(prefix), [[IGNORED] * len(prefix)], text.first_word + own[0], [])
            for word in range(*span):
                label = text.label_ids[0][word]
                tag = LABELS.tags[label].replace("B-", "I-")
                later = LABELS.id_of(tag) if alignment == "all" else IGNORED
                labels = [label, *[later] * lengths[word]][: lengths[word]]
                if own[0] <= word < own[1]:
                    place = len(window.input_ids) if labels else NO_PIECE
                    window.word_places.append(place)
                else:
                    labels = [IGNORED] * lengths[word]
                window.input_ids.extend(pieces[word])
                window.labels[0].extend(labels)
            window.input_ids.extend(suffix)
            window.labels[0].extend([IGNORED] * len(suffix))
            windows += [window] if own[0] < own[1] else []
    return windows


def check_windows(
    tokenizer: PreTrainedTokenizerFast,
    corpus: Sequence[tuple[list[str], list[int]]],
    max_length: int,
    stride: int,
    alignment: str,
    context: int = 0,
) -> None:
    """Everything that holds of windows, whatever the tokenizer."""
    texts = texts_from(corpus)
    if context:
        texts = [as_one(texts)]
    encoder = WindowEncoder(
        tokenizer,
        HEADS,
        max_length=max_length,
        stride=stride,
        alignment=alignment,
        context=context,
    )
    windows = windows_of(encoder, texts)
    chosen = max_length, stride, alignment, context
    assert windows == [w for text in texts for w in word_by_word(tokenizer, text, *chosen)]
    prefix, suffix = special_tokens(tokenizer)

    for window in windows:
        assert len(window.input_ids) == len(window.labels[0]) <= max_length
        assert window.input_ids[: len(prefix)] == prefix
        assert window.input_ids[len(window.input_ids) - len(suffix) :] == suffix
        assert window.labels[0][0] == window.labels[0][-1] == IGNORED

    # Every word owned once, in order.
    owned = [window.first_word + i for window in windows for i in range(len(window.word_places))]
    gold = list(chain.from_iterable(text.label_ids[0] for text in texts))
    assert owned == list(range(len(gold)))

    # Tags -> pieces -> tags; words without pieces give O.
    places = list(chain.from_iterable(window.word_places for window in windows))
    assert places.count(NO_PIECE) == encoder.words_without_pieces
    o_id = LABELS.id_of("O")
    expected = [o_id if place == NO_PIECE else g for place, g in zip(places, gold, strict=True)]
    predicted = list(chain.from_iterable(map(predicted_from, windows)))
    assert predicted == expected

    # Labelled pieces: the first of each word, or all of them and the later ones never B-.
    for window in windows:
        firsts = {place for place in window.word_places if place != NO_PIECE}
        labelled = {i for i, label in enumerate(window.labels[0]) if label != IGNORED}
        assert firsts <= labelled
        if alignment == "first":
            assert firsts == labelled
        later = [LABELS.tags[window.labels[0][i]] for i in labelled - firsts]
        assert not [tag for tag in later if tag.startswith("B-")]


choices = {
    "corpus": corpora,
    "max_length": st.integers(8, 24),
    "stride": st.integers(0, 16),
    "alignment": st.sampled_from(["first", "all"]),
    "context": st.sampled_from([0, 1, 5, 50]),
}


@pytest.mark.data
@settings(deadline=None, max_examples=150)
@given(**choices)
def test_xlmr(
    xlmr: PreTrainedTokenizerFast,
    corpus: list[tuple[list[str], list[int]]],
    max_length: int,
    stride: int,
    alignment: str,
    context: int,
) -> None:
    check_windows(xlmr, corpus, max_length, stride, alignment, context)


@settings(deadline=None, max_examples=100)
@given(**choices)
def test_byte_level(
    corpus: list[tuple[list[str], list[int]]],
    max_length: int,
    stride: int,
    alignment: str,
    context: int,
) -> None:
    check_windows(byte_level(), corpus, max_length, stride, alignment, context)


@settings(deadline=None, max_examples=100)
@given(**choices)
def test_word_piece(
    corpus: list[tuple[list[str], list[int]]],
    max_length: int,
    stride: int,
    alignment: str,
    context: int,
) -> None:
    check_windows(word_piece(), corpus, max_length, stride, alignment, context)


def one_window(
    tokenizer: PreTrainedTokenizerFast, text_words: list[str], tags: str, alignment: str = "first"
) -> Window:
    encoder = WindowEncoder(tokenizer, HEADS, max_length=512, stride=0, alignment=alignment)
    ids = [LABELS.id_of(tag) for tag in tags.split()]
    (window,) = windows_of(encoder, [whole(text_words, ids, 0)])
    return window


def tags_of_pieces(window: Window) -> list[str]:
    return ["-" if label == IGNORED else LABELS.tags[label] for label in window.labels[0]]


@pytest.mark.data
def test_xlmr_by_hand(xlmr: PreTrainedTokenizerFast) -> None:
    assert special_tokens(xlmr) == ([0], [2])
    window = one_window(xlmr, ["Hello", "\u200b", "world", "\ufeff"], "O B-PER B-LOC I-LOC")
    assert window.input_ids == [0, 35378, 8999, 2]
    assert window.word_places == [1, NO_PIECE, 2, NO_PIECE]
    assert tags_of_pieces(window) == ["-", "O", "B-LOC", "-"]


def test_byte_level_words_are_split_as_in_running_text() -> None:
    assert special_tokens(byte_level()) == ([0], [2])
    text_words = ["Peter", "York", "שלום"]
    window = one_window(byte_level(), text_words, "O O O")
    assert window.input_ids == byte_level()(" ".join(text_words)).input_ids
    assert window.word_places[0] == 1


def test_word_piece_by_hand() -> None:
    tokenizer = word_piece()
    assert special_tokens(tokenizer) == ([2], [3])
    window = one_window(tokenizer, ["Peter,", "\u200b", "東京"], "B-PER O B-LOC", "all")
    pieces = tokenizer.convert_ids_to_tokens(window.input_ids)
    assert pieces == ["[CLS]", "peter", ",", "[UNK]", "[UNK]", "[SEP]"]
    assert window.word_places == [1, NO_PIECE, 3]
    assert tags_of_pieces(window) == ["-", "B-PER", "I-PER", "B-LOC", "I-LOC", "-"]


def test_alignment_all_goes_on_as_inside() -> None:
    word, tags = ["zzz", "zzz", "zzz"], "B-creative-work I-creative-work O"
    first, every = (
        tags_of_pieces(one_window(byte_level(), word, tags, a)) for a in ("first", "all")
    )
    b, i = "B-creative-work", "I-creative-work"
    assert first == ["-", b, "-", "-", "-", i, "-", "-", "-", "O", "-", "-", "-", "-"]
    assert every == ["-", b, i, i, i, i, i, i, i, "O", "O", "O", "O", "-"]


def test_a_word_longer_than_a_window_is_cut_and_counted() -> None:
    encoder = WindowEncoder(byte_level(), HEADS, max_length=10, stride=4, alignment="first")
    text = whole(["z", "q" * 50, "z"], [0, 1, 0], 7)
    windows = windows_of(encoder, [text])
    assert encoder.words_cut == 1
    assert max(len(window.input_ids) for window in windows) == 10
    assert [window.first_word for window in windows] == [7, 8, 9]
    assert [p for window in windows for p in predicted_from(window)] == [0, 1, 0]


def test_a_tokenizer_with_truncation_and_padding_of_its_own_is_not_obeyed() -> None:
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(byte_level().backend_tokenizer.to_str()),
        pad_token="<pad>",
    )
    tokenizer.backend_tokenizer.enable_truncation(5)
    tokenizer.backend_tokenizer.enable_padding(length=40)
    text_words = ["York"] * 20
    window = one_window(tokenizer, text_words, "O " * 20)
    assert window.input_ids == one_window(byte_level(), text_words, "O " * 20).input_ids


# ---------------------------------------------------------------- words


def check_pieces(tokenizer: PreTrainedTokenizerFast, texts: list[list[str]]) -> None:
    """A word's pieces are those it has among all the words of its text, asked for at any time."""
    known = WordPieces(tokenizer)
    for text, encoding in zip(texts, encode_words(tokenizer, texts), strict=True):
        pieces: list[list[int]] = [[] for _ in text]
        for piece, word in zip(encoding.ids, encoding.word_ids, strict=True):
            pieces[word].append(piece)
        starts, sizes = known.find(text)
        assert sizes.tolist() == [len(of_word) for of_word in pieces]
        assert known.take(starts, sizes).tolist() == list(chain.from_iterable(pieces))


texts_of_words = st.lists(st.lists(words, min_size=1, max_size=100), min_size=1, max_size=5)


@pytest.mark.data
@settings(deadline=None, max_examples=100)
@given(texts_of_words)
def test_words_one_by_one_with_xlmr(xlmr: PreTrainedTokenizerFast, texts: list[list[str]]) -> None:
    check_pieces(xlmr, texts)


@pytest.mark.parametrize("tokenizer", [byte_level, word_piece])
@settings(deadline=None, max_examples=100)
@given(texts_of_words)
def test_words_one_by_one(
    tokenizer: Callable[[], PreTrainedTokenizerFast], texts: list[list[str]]
) -> None:
    check_pieces(tokenizer(), texts)


@pytest.mark.data
def test_the_words_of_a_corpus_one_by_one(xlmr: PreTrainedTokenizerFast, shared_data: Path) -> None:
    data = DataConfig(train=str(shared_data / "wnut17" / "wnut17train.conll"))
    check_pieces(xlmr, [sentence.words for sentence in read_sentences(data, "train")])


def test_no_words_at_all() -> None:
    encoder = WindowEncoder(byte_level(), HEADS, max_length=10, stride=4, alignment="first")
    assert encoder.encode([]).num_rows == 0


# ---------------------------------------------------------------- cutting


@st.composite
def lengths_and_room(draw: st.DrawFn) -> tuple[list[int], int]:
    room = draw(st.integers(1, 20))
    return draw(st.lists(st.integers(0, room), min_size=1, max_size=60)), room


@settings(deadline=None, max_examples=500)
@given(lengths_and_room(), st.integers(0, 30))
def test_cut(case: tuple[list[int], int], stride: int) -> None:
    lengths, room = case
    spans = cut(lengths, room, stride)
    assert spans[0][0] == 0
    assert spans[-1][1] == len(lengths)
    assert all(sum(lengths[start:end]) <= room for start, end in spans)
    for (start, end), (next_start, next_end) in pairwise(spans):
        assert start < next_start <= end < next_end
        shared = end - next_start
        wanted = min(stride, (end - start) // 2)
        assert shared <= wanted
        # No more was given up than the next word needed.
        assert shared == wanted or sum(lengths[next_start - 1 : end + 1]) > room


def test_a_text_that_fits_is_one_window() -> None:
    assert cut([3, 0, 7], 10, 5) == [(0, 3)]


def test_neighbours_share_the_stride() -> None:
    assert cut([1] * 10, 6, 2) == [(0, 6), (4, 10)]
    assert cut([1] * 10, 6, 0) == [(0, 6), (6, 10)]


def brute_force_owners(spans: list[tuple[int, int]]) -> list[int]:
    """For each word the first window in which its poorer side has most words."""
    num_words = spans[-1][1]

    def context(word: int, span: tuple[int, int]) -> float:
        start, end = span
        if not start <= word < end:
            return -1
        left = inf if start == 0 else word - start
        right = inf if end == num_words else end - 1 - word
        return min(left, right)

    owner_of = []
    for word in range(num_words):
        contexts = [context(word, span) for span in spans]
        owner_of.append(contexts.index(max(contexts)))
    return owner_of


def owner_of_each_word(spans: list[tuple[int, int]]) -> list[int]:
    owned = owners(spans)
    assert owned[0][0] == 0
    assert all(end == following for (_, end), (following, _) in pairwise(owned))
    return [window for window, (start, end) in enumerate(owned) for _ in range(start, end)]


@settings(deadline=None, max_examples=500)
@given(lengths_and_room(), st.integers(0, 30))
def test_owners_of_cut_spans(case: tuple[list[int], int], stride: int) -> None:
    spans = cut(*case, stride)
    assert owner_of_each_word(spans) == brute_force_owners(spans)


@st.composite
def any_spans(draw: st.DrawFn) -> list[tuple[int, int]]:
    """Spans that overlap or touch, starts and ends strictly increasing; often many on one word."""
    spans = [(0, draw(st.integers(1, 12)))]
    for _ in range(draw(st.integers(0, 6))):
        start, end = spans[-1]
        spans.append((draw(st.integers(start + 1, end)), end + draw(st.integers(1, 5))))
    return spans


@settings(deadline=None, max_examples=500)
@given(any_spans())
def test_owners_of_any_spans(spans: list[tuple[int, int]]) -> None:
    assert owner_of_each_word(spans) == brute_force_owners(spans)


def test_ties_go_to_the_earlier_window() -> None:
    # Word 3 has one word on its poorer side in both.
    assert owners([(0, 5), (2, 7)]) == [(0, 4), (4, 7)]


# ---------------------------------------------------------------- texts


def sentence(text: str, document: int) -> Sentence:
    text_words = text.split()
    numbers = list(range(len(text_words)))
    return Sentence(text_words, [["B-PER"] + ["O"] * (len(numbers) - 1)], document, "f", numbers)


SENTENCES = [sentence("a b", 0), sentence("c", 0), sentence("d e f", 1), sentence("g", 2)]


def test_texts_by_sentence() -> None:
    texts = list(texts_of(SENTENCES, HEADS, "sentence"))
    assert [text.words for text in texts] == [["a", "b"], ["c"], ["d", "e", "f"], ["g"]]
    assert [text.first_word for text in texts] == [0, 2, 3, 6]


def test_texts_by_document() -> None:
    texts = list(texts_of(SENTENCES, HEADS, "document"))
    assert [text.words for text in texts] == [["a", "b", "c"], ["d", "e", "f"], ["g"]]
    assert [text.first_word for text in texts] == [0, 3, 6]
    b = LABELS.id_of("B-PER")
    assert [text.label_ids for text in texts] == [[[b, 0, b]], [[b, 0, 0]], [[b]]]


def test_texts_with_context_are_documents_windowed_sentence_by_sentence() -> None:
    texts = list(texts_of(SENTENCES, HEADS, "sentence", context=True))
    assert [text.words for text in texts] == [["a", "b", "c"], ["d", "e", "f"], ["g"]]
    assert [text.parts for text in texts] == [[(0, 2), (2, 3)], [(0, 3)], [(0, 1)]]


@given(
    st.lists(st.integers(0, 6), min_size=1, max_size=12),
    st.data(),
    st.integers(0, 8),
    st.integers(0, 20),
)
def test_surrounded(lengths: list[int], data: st.DataObject, context: int, spare: int) -> None:
    first = data.draw(st.integers(0, len(lengths) - 1))
    end = data.draw(st.integers(first + 1, len(lengths)))
    room = sum(lengths[first:end]) + spare
    left, right = surrounded(first, end, lengths, room, context)
    assert max(0, first - context) <= left <= first
    assert end <= right <= min(len(lengths), end + context)
    assert sum(lengths[left:right]) <= room
    # As much as there is room for, and no side starved for the other.
    used = sum(lengths[left:right])
    assert left == max(0, first - context) or used + lengths[left - 1] > room
    assert right == min(len(lengths), end + context) or used + lengths[right] > room


def test_context_by_hand() -> None:
    members = [sentence("z z", 0), sentence("q q", 0), sentence("y", 0), sentence("z", 1)]
    texts = list(texts_of(members, HEADS, "sentence", context=True))
    read = {}
    for max_length in (8, 12):
        encoder = WindowEncoder(
            byte_level(), HEADS, max_length=max_length, stride=0, alignment="first", context=2
        )
        windows = windows_of(encoder, texts)
        read[max_length] = [
            "".join(byte_level().convert_ids_to_tokens(window.input_ids)[1:-1]).replace("Ġ", " ")
            for window in windows
        ]
    # Two pieces a word: three words and five.
    assert read[8] == [" z z q", " z q q", " q q y", " z"]
    assert read[12] == [" z z q q", " z z q q y", " q q y", " z"]
    own = ["B-PER", "-", "O", "-"]
    assert tags_of_pieces(windows[1]) == ["-", *["-"] * 4, *own, *["-"] * 2, "-"]
    assert windows[1].word_places == [5, 7]


def test_labels_go_by_name() -> None:
    permuted = LabelSet(tuple(reversed(LABELS.tags)))
    for labels in (LABELS, permuted):
        encoder = WindowEncoder(
            byte_level(), Heads.single(labels), max_length=64, stride=0, alignment="all"
        )
        (text,) = texts_of([sentence("zz z", 0)], Heads.single(labels), "sentence")
        (window,) = windows_of(encoder, [text])
        names = [labels.tags[label] for label in window.labels[0] if label != IGNORED]
        assert names == ["B-PER", "I-PER", "I-PER", "O", "O"]
