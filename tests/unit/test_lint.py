"""Every check of the data, by a corpus that it tells of and one that it passes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bigner.commands.lint import lint
from bigner.config.schema import DataConfig, HeadConfig, RunConfig, Split
from bigner.data.corpus import read_corpus
from bigner.data.encode import WindowEncoder, texts_of
from bigner.data.formats import Sentence
from bigner.data.labels import Scheme
from bigner.errors import DataError
from bigner.lint import labels, pieces, sentences, words
from bigner.lint.findings import MOST_PLACES, Finding, Place, Places, listed, quoted
from bigner.lint.labels import Column, Labelled
from bigner.lint.lengths import Lengths
from bigner.lint.reading import Sentences, read
from tests.unit.helpers import SENTENCES, tiny_tokenizer, write_columns
from tests.unit.test_corpus import NERKOR, SLOVAK, WNUT

LABELLED = (
    labels.unlisted,
    labels.look_alikes,
    labels.empty_splits,
    labels.unlearnable,
    labels.unscored,
    labels.rare,
    labels.balance,
    labels.shifted,
)


def corpus(**splits: str) -> Sentences:
    """Splits of sentences such as ``Anna/B-PER reads/O | Oslo/B-LOC``: a word a line, a blank line
    after each sentence; two heads are ``Anna/B-PER/NOUN``.
    """
    read_splits: Sentences = {}
    for split, text in splits.items():
        line, found = 1, []
        for sentence in text.split(" | "):
            cells = [cell.split("/") for cell in sentence.split(" ")]
            heads = [list(column) for column in zip(*(cell[1:] for cell in cells), strict=True)]
            lines = list(range(line, line + len(cells)))
            found.append(Sentence([cell[0] for cell in cells], heads, 0, split, lines))
            line += len(cells) + 1
        read_splits[split] = found  # type: ignore[index]
    return read_splits


def column(read_splits: Sentences, **config: object) -> Column:
    """The first head of a corpus."""
    head = HeadConfig.model_validate({"column": -1, **config})
    return Column("tags", 0, head, "data.columns.tags", "data.labels", "data.scheme", read_splits)


def head(read_splits: Sentences, **config: object) -> Labelled:
    """Its labels."""
    found, _ = labels.labelled(column(read_splits, **config))
    assert found is not None
    return found


def told(finding: Finding) -> tuple[str, list[str]]:
    """The level of a finding and its places."""
    return finding.level, [str(place) for place in finding.places]


def levels(check: Callable[[Labelled], Finding | list[Finding]], of_head: Labelled) -> set[str]:
    found = check(of_head)
    return {one.level for one in ([found] if isinstance(found, Finding) else found)}


def many(cell: str, count: int) -> str:
    return " | ".join([cell] * count)


# ---------------------------------------------------------------- places


def test_places_are_kept_up_to_a_limit_and_all_counted() -> None:
    places = Places(Place("f", line) for line in range(MOST_PLACES + 5))
    assert (len(places), len(places.kept)) == (MOST_PLACES + 5, MOST_PLACES)
    both = Places([Place("a", 1)]).followed_by(places)
    assert (len(both), len(both.kept)) == (MOST_PLACES + 6, MOST_PLACES)
    assert str(both.kept[0]) == "a:1"


def test_what_a_terminal_would_obey_is_escaped() -> None:
    assert str(Place("a\x1b[2J", 1, quoted("b\u200b\x07"))) == "a\\x1b[2J:1 'b\\u200b\\x07'"
    assert len(quoted("x" * 1000)) < 100


def test_a_long_list_ends_in_a_number() -> None:
    assert listed("abc") == "a; b; c"
    assert listed(map(str, range(10))).endswith("7; and 2 more")


# ---------------------------------------------------------------- tags and their scheme


def test_tags_of_no_scheme_are_a_failure_with_all_their_places() -> None:
    wrong = corpus(train="a/PER b/O | c/B-PER d/PER", test="e/_")
    found, findings = labels.labelled(column(wrong))
    assert found is None
    (finding,) = findings
    assert told(finding) == ("failure", ["train:1 'PER'", "train:5 'PER'", "test:1 '_'"])
    assert "'PER' (2); '_' (1)" in finding.message
    assert "data.columns.tags and data.scheme" in finding.message


def test_a_given_scheme_has_its_own_tags() -> None:
    bioes = corpus(train="a/B-X b/E-X c/S-X")
    assert labels.unknown_tags(column(bioes)).level == "pass"
    assert labels.unknown_tags(column(bioes, scheme="bioes")).level == "pass"
    finding = labels.unknown_tags(column(bioes, scheme="iob2"))
    assert told(finding) == ("failure", ["train:2 'E-X'", "train:3 'S-X'"])


@pytest.mark.parametrize(
    ("scheme", "train", "places"),
    [
        (
            "iob2",
            "a/I-X b/O c/B-Y d/I-X",
            ["train:1 I-X between start and O", "train:4 I-X between B-Y and end"],
        ),
        ("bioes", "a/B-X b/O | c/S-X", ["train:1 B-X between start and O"]),
        ("iob1", "a/O b/B-X", ["train:2 B-X between O and end"]),
    ],
)
def test_violations_have_places_and_what_is_around(
    scheme: str, train: str, places: list[str]
) -> None:
    _, findings = labels.labelled(column(corpus(train=train), scheme=scheme))
    assert told(findings[-1]) == ("warning", places)
    assert f"the scheme {scheme} (as given)" in findings[-1].message


@pytest.mark.parametrize(
    ("train", "scheme"),
    [("a/B-X b/I-X", "iob2"), ("a/I-X b/B-X", "iob1"), ("a/S-X", "bioes"), ("a/I-X", "io")],
)
def test_a_recognised_scheme_that_is_kept_to(train: str, scheme: str) -> None:
    found, findings = labels.labelled(column(corpus(train=train)))
    assert [finding.level for finding in findings] == ["pass", "pass"]
    assert found is not None
    assert found.scheme == scheme
    assert found.counts["train"]["X"] == (2 if scheme == "iob1" else 1)


# ---------------------------------------------------------------- labels


def test_listed_labels() -> None:
    data = corpus(train="a/B-X b/B-Y", test="c/B-Y d/I-Y e/B-Z")
    finding = labels.unlisted(head(data, labels=["X"]))
    assert told(finding) == ("failure", ["train:2 Y 'b'", "test:1 Y 'c'", "test:3 Z 'e'"])
    assert "Y (1 in train, 1 in test); Z (1 in test)" in finding.message
    finding = labels.unlisted(head(data, labels=["X", "Y", "W", "Z"]))
    assert (finding.level, finding.message[-3:]) == ("warning", ": W")
    assert labels.unlisted(head(data, labels=["X", "Y", "Z"])).level == "pass"
    assert labels.unlisted(head(data)).level == "pass"


@pytest.mark.parametrize(
    "other", ["Per", "PER.", "P-E-R", "\u0420\u0415R", "PE\u200bR", "\uff30\uff25\uff32"]
)
def test_types_that_look_alike(other: str) -> None:
    finding = labels.look_alikes(head(corpus(train=f"a/B-PER b/B-PER c/B-{other}")))
    assert told(finding) == ("warning", [str(Place("train", 3, f"{other} 'c'"))])
    assert ascii(other) in finding.message


@pytest.mark.parametrize("other", ["PERS", "LOC", "R", "+"])
def test_types_that_do_not_look_alike(other: str) -> None:
    assert labels.look_alikes(head(corpus(train=f"a/B-PER b/B-{other} c/B--"))).level == "pass"


def test_of_classes_marks_have_a_meaning() -> None:
    data = corpus(train="a/PRP b/PRP$ c/. d/,")
    assert labels.look_alikes(head(data, kind="classes")).level == "pass"
    data = corpus(train="a/NOUN b/Noun")
    assert labels.look_alikes(head(data, kind="classes")).level == "warning"


def test_splits_without_an_entity() -> None:
    assert told(labels.empty_splits(head(corpus(train="a/O", test="b/B-X")))) == (
        "failure",
        ["train:1"],
    )
    assert told(labels.empty_splits(head(corpus(train="a/B-X", test="b/O")))) == (
        "warning",
        ["test:1"],
    )
    assert labels.empty_splits(head(corpus(train="a/B-X", test="b/B-X"))).level == "pass"


def test_one_class_alone() -> None:
    one, two = corpus(train="a/N b/N", test="a/V"), corpus(train="a/N b/V")
    assert labels.empty_splits(head(one, kind="classes")).level == "failure"
    assert labels.empty_splits(head(two, kind="classes")).level == "pass"


def test_labels_in_one_split_only() -> None:
    data = head(corpus(train="a/B-X b/B-Y c/B-Y", validation="d/B-X", test="e/B-X f/B-Z g/B-Y"))
    finding = labels.unlearnable(data)
    assert told(finding) == ("warning", ["test:2 Z 'f'"])
    assert "Z (1 in test)" in finding.message
    (finding,) = labels.unscored(data)
    assert told(finding) == ("warning", ["train:2 Y 'b'", "train:3 Y 'c'"])
    assert "validation has no example of: Y (2 in train, 1 in test)" in finding.message
    alike = head(corpus(train="a/B-X", test="b/B-X"))
    assert levels(labels.unlearnable, alike) == levels(labels.unscored, alike) == {"pass"}


def test_rare_labels() -> None:
    data = head(corpus(train=many("a/B-X", 10) + " | " + many("b/B-Y", 9), test="c/B-Z"))
    finding = labels.rare(data)
    assert (finding.level, len(finding.places)) == ("warning", 9)
    assert str(finding.places.kept[0]) == "train:21 Y 'b'"
    assert "1 of 2 types" in finding.message
    assert "Y (9)" in finding.message
    assert labels.rare(head(corpus(train=many("a/B-X", 10)))).level == "pass"


def test_balance() -> None:
    mostly_o = corpus(train="a/B-X " + " ".join(["b/O"] * 100))
    assert labels.balance(head(mostly_o)).level == "warning"
    uneven = corpus(train="a/B-X " + " ".join(["b/B-Y"] * 100 + ["c/O"] * 10))
    assert "100 entities of Y for 1 of X" in labels.balance(head(uneven)).message
    assert labels.balance(head(uneven)).level == "warning"
    finding = labels.balance(head(corpus(train="a/B-X b/O c/O d/O e/B-Y f/O")))
    assert finding.level == "pass"
    assert finding.message.startswith("66.7 % of the words of train are O")


def test_shares_that_differ() -> None:
    def data(in_train: int, in_test: int) -> Labelled:
        train = ["a/B-X"] * in_train + ["b/O"] * (1000 - in_train)
        test = ["a/B-X"] * in_test + ["b/O"] * (1000 - in_test)
        return head(corpus(train=" ".join(train), test=" ".join(test)))

    assert levels(labels.shifted, data(20, 100)) == {"warning"}
    assert levels(labels.shifted, data(100, 20)) == {"warning"}
    assert levels(labels.shifted, data(21, 100)) == {"pass"}
    # Of so few it is chance.
    assert levels(labels.shifted, data(2, 19)) == {"pass"}
    assert levels(labels.shifted, data(19, 2)) == {"pass"}


@pytest.mark.parametrize(
    "check", [labels.unlearnable, labels.unscored, labels.rare, labels.balance, labels.shifted]
)
def test_what_cannot_be_told_without_train_is_skipped(
    check: Callable[[Labelled], Finding | list[Finding]],
) -> None:
    assert levels(check, head(corpus(test="a/B-X"))) == {"skipped"}
    assert levels(check, head(corpus(train="a/O", test="a/B-X"))) == {"skipped"}


# ---------------------------------------------------------------- sentences


def repeats_of(
    check: Callable[..., list[Finding]], read_splits: Sentences
) -> list[tuple[str, list[str]]]:
    return [told(finding) for finding in check(sentences.repeated(read_splits), read_splits)]


def test_duplicates_within_a_split() -> None:
    data = corpus(
        train="a/O b/O c/O d/O | e/O | a/O b/O c/O d/O | a/O b/O c/O d/B-X",
        test="a/O b/O c/O d/O | f/O",
    )
    assert repeats_of(sentences.duplicates, data) == [
        ("warning", ["train:8 as line 1", "train:13 as line 1"]),
        ("pass", []),
    ]


def test_a_few_short_sentences_may_come_twice() -> None:
    others = " | ".join(f"{i}/O x/O" for i in range(38))
    assert repeats_of(sentences.duplicates, corpus(train=f"a/O | {others} | a/O")) == [
        ("pass", ["train:117 as line 1"])
    ]
    assert repeats_of(sentences.duplicates, corpus(train="a/O | b/O | a/O"))[0][0] == "warning"


def test_words_are_compared_as_words() -> None:
    data = corpus(train="a/O bc/O | ab/O c/O | abc/O | A/O bc/O")
    assert sentences.repeated(data) == []


def test_leaks_from_split_to_split() -> None:
    data = corpus(
        train="a/O b/O c/O d/O | e/O",
        validation="x/O | y/O",
        test="a/O b/O c/O d/O | x/O | q/O | p/O",
    )
    assert repeats_of(sentences.leaks, data) == [
        ("pass", []),
        ("warning", ["test:1 as train:1"]),
        ("warning", ["test:6 as validation:1"]),
    ]


def test_a_split_that_is_mostly_another_is_a_failure() -> None:
    data = corpus(train="a/O | b/O | c/O", test="a/O | b/O | d/O")
    (finding,) = sentences.leaks(sentences.repeated(data), data)
    assert told(finding) == ("failure", ["test:1 as train:1", "test:3 as train:3"])
    assert "both read" not in finding.message
    half = corpus(train="a/O | b/O | c/O", test="a/O | d/O")
    assert repeats_of(sentences.leaks, half)[0][0] == "warning"


def test_one_file_read_for_two_splits_is_named() -> None:
    data = corpus(train="a/O | b/O")
    data["test"] = data["train"]
    (finding,) = sentences.leaks(sentences.repeated(data), data)
    assert finding.level == "failure"
    assert finding.message.endswith("both read train")


def test_one_split_has_nothing_to_leak_from() -> None:
    (finding,) = sentences.leaks([], corpus(train="a/O"))
    assert finding.level == "skipped"


def test_contradictions() -> None:
    data = corpus(
        train="May/B-PER/N 1/O/M | a/O/X | May/B-PER/N 1/O/M",
        test="May/O/N 1/O/M | May/B-PER/N 1/O/Q | a/O/X",
    )
    schemes: dict[str, Scheme | None] = {"ner": "iob2", "pos": None}
    finding = sentences.contradictions(sentences.repeated(data), schemes)
    assert told(finding) == (
        "warning",
        ["test:1 ner O for B-PER at train:1", "test:5 pos Q for M at train:2"],
    )
    assert finding.message.startswith("1 of 2 sentences found more than once has other labels")
    same = sentences.repeated(corpus(train="a/O b/B-X c/I-X | a/O b/I-X c/I-X"))
    assert told(sentences.contradictions(same, {"ner": "iob2"})) == ("pass", [])
    assert sentences.contradictions(same, {"ner": None}).level == "warning"


def test_sentences_of_one_word_and_of_thousands() -> None:
    singles = corpus(train=" | ".join(f"w{i}/O" for i in range(50)))
    (finding,) = sentences.lengths(singles)
    assert (finding.level, len(finding.places)) == ("warning", 50)
    giant = corpus(train=" ".join(["a/O"] * 1001), test="a/O b/O")
    (finding,) = sentences.lengths(giant)
    assert told(finding) == ("warning", ["train:1 1,001 words"])
    sound = corpus(train=many("a/O b/O", 25) + " | " + many("a/O", 25) + " | b/O c/O")
    assert [finding.level for finding in sentences.lengths(sound)] == ["pass"]


def in_documents(count: int, per_document: int) -> Sentences:
    read_splits = corpus(train=many("a/O b/O", count))
    read_splits["train"] = [
        Sentence(s.words, s.tags, i // per_document, s.file, s.lines)
        for i, s in enumerate(read_splits["train"])
    ]
    return read_splits


@pytest.mark.parametrize(
    ("per_document", "level", "phrase"),
    [(60, "warning", "one document"), (1, "warning", "document of its own"), (20, "pass", "every")],
)
@pytest.mark.parametrize("settings", [{"unit": "document"}, {"context": 16}])
def test_document_boundaries(
    per_document: int, level: str, phrase: str, settings: dict[str, object]
) -> None:
    data = DataConfig.model_validate({"train": "x", **settings})
    (finding,) = sentences.documents(data, in_documents(60, per_document))
    assert finding.level == level
    assert phrase in finding.message


def test_documents_that_are_not_used() -> None:
    (finding,) = sentences.documents(DataConfig(train="x"), in_documents(60, 60))
    assert (finding.level, "not used" in finding.message) == ("pass", True)


# ---------------------------------------------------------------- words


def test_white_space_around_words() -> None:
    data = corpus(train="a\u00a0/O \u3000b/B-X | \u00a0/O c/I-X d\u00a0e/B-X")
    finding = words.white_space(data, [0])
    # Those in entities first.
    assert told(finding) == (
        "warning",
        ["train:2 '\\u3000b'", "train:1 'a\\xa0'", "train:4 '\\xa0'"],
    )
    assert "3 words" in finding.message
    assert "1 of them in entities" in finding.message
    # Of classes none is an entity.
    assert "0 of them in entities" in words.white_space(data, []).message
    assert told(words.white_space(corpus(train="a/O b\u00a0c/O"), [0])) == ("pass", [])


@pytest.mark.parametrize(
    ("word", "odd"),
    [
        ("a\u200bb", "U+200B"),
        ("\ufeff", "U+FEFF"),
        ("a\u00adb\u00adc", "U+00AD"),
        ("\x07a", "U+0007"),
        ("na\ufffdve", "U+FFFD"),
        ("\ue000", "U+E000"),
        ("\u200da", "U+200D"),
        ("\u202e\u200b", "U+202E U+200B"),
        ("naïve", ""),
        ("plain", ""),
        ("👩\u200d👧", ""),
        ("\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645", ""),
        ("e\u0301", ""),
    ],
)
def test_odd_characters(word: str, odd: str) -> None:
    assert words.odd_characters(word) == odd
    finding = words.characters(corpus(train=f"x/O {word}/B-X"), [0])
    places = [str(Place("train", 2, f"{quoted(word)} {odd}"))] if odd else []
    assert told(finding) == ("warning" if odd else "pass", places)


def spans_data(folder: Path, *entities: tuple[int, int]) -> DataConfig:
    record = {
        "text": "Anna lives in New York.",
        "entities": [{"start": start, "end": end, "label": "X"} for start, end in entities],
    }
    (folder / "train.jsonl").write_text(f"{json.dumps(record)}\n")
    return DataConfig(format="spans", train=str(folder / "train.jsonl"))


def test_edges_of_entities(tmp_path: Path) -> None:
    data = spans_data(tmp_path, (0, 5), (6, 10), (13, 22))
    space, inside = words.entity_edges(data, ["train"])
    file = tmp_path / "train.jsonl"
    assert told(space) == (
        "warning",
        [f"{file}:1 0-5 X 'Anna '", f"{file}:1 13-22 X ' New York'"],
    )
    assert told(inside) == ("warning", [f"{file}:1 6-10 X 'ives'"])
    sound = words.entity_edges(spans_data(tmp_path, (0, 4), (14, 22)), ["train"])
    assert [finding.level for finding in sound] == ["pass", "pass"]


# ---------------------------------------------------------------- lengths


def test_percentiles_are_lengths_that_occur() -> None:
    lengths = Lengths("sentence", "words", 8, {"train": [*range(1, 101)], "test": [7]}, None)
    assert lengths.percentiles("train") == {50: 50, 90: 90, 99: 99, 100: 100}
    assert lengths.percentiles("test") == {50: 7, 90: 7, 99: 7, 100: 7}


@pytest.mark.parametrize("max_length", [8, 12, 16, 500])
def test_the_histogram_holds_every_text_once(max_length: int) -> None:
    found: dict[Split, list[int]] = {"train": [1, 8, 9, 12, 13, 16, 17, 40], "test": [3]}
    lengths = Lengths("sentence", "pieces", max_length, found, {"train": 8, "test": 1})
    buckets = lengths.histogram()
    for start, end, counts in buckets:
        for split, of_split in found.items():
            assert counts[split] == sum(start <= length <= end for length in of_split)
    assert sum(counts["train"] for _, _, counts in buckets) == 8
    assert max_length in [end for _, end, _ in buckets]
    assert lengths.too_long("train") == sum(length > max_length for length in found["train"])


# ---------------------------------------------------------------- pieces


def tagged(*groups: int) -> Sentences:
    """The sentences of `helpers`, so many a document."""
    line, found = 1, []
    documents = [number for number, size in enumerate(groups) for _ in range(size)]
    for document, pairs in zip(documents, SENTENCES, strict=True):
        lines = list(range(line, line + len(pairs)))
        line += len(pairs) + 1
        tags = [[tag for _, tag in pairs]]
        found.append(Sentence([word for word, _ in pairs], tags, document, "f", lines))
    return {"train": found}


@pytest.mark.parametrize(
    "settings", [{"unit": "sentence"}, {"unit": "document"}, {"context": 4}], ids=str
)
@pytest.mark.parametrize("max_length", [8, 16, 64, 2048])
def test_numbers_of_windows_are_those_of_training(
    tmp_path: Path, settings: dict[str, object], max_length: int
) -> None:
    read_splits = tagged(3, 1, 4)
    stride = min(8, max_length // 2)
    data = DataConfig.model_validate(
        {"train": "x", "max_length": max_length, "stride": stride, **settings}
    )
    measured = pieces.measure(tiny_tokenizer(), data, read_splits, [0])
    path = write_columns(tmp_path / "x", SENTENCES)
    heads = read_corpus(DataConfig(train=str(path))).label_sets()
    encoder = WindowEncoder(
        tiny_tokenizer(),
        heads,
        max_length=max_length,
        stride=data.stride,
        alignment="first",
        context=data.context,
    )
    texts = list(texts_of(read_splits["train"], heads, data.unit, context=data.context > 0))
    windows = [encoder.encode([text]).to_pylist() for text in texts]
    assert measured.lengths.windows == {"train": sum(map(len, windows))}
    if data.context:
        # A text is a whole document there, and a sentence is what is measured.
        return
    assert len(measured.long_texts) == sum(len(of_text) > 1 for of_text in windows)
    for length, of_text in zip(measured.lengths.of_splits["train"], windows, strict=True):
        if len(of_text) == 1:
            assert length == of_text[0]["length"]
    empty = measured.words.empty_entities.followed_by(measured.words.empty_others)
    assert len(empty) == encoder.words_without_pieces
    assert len(measured.words.too_long) == encoder.words_cut


def of_tokenizer(read_splits: Sentences, **settings: object) -> dict[str, Finding]:
    data = DataConfig.model_validate({"train": "x", **settings})
    measured = pieces.measure(tiny_tokenizer(), data, read_splits, [0])
    return {finding.check: finding for finding in pieces.findings(measured)}


def test_words_without_pieces() -> None:
    found = of_tokenizer(corpus(train="\u200b/O Anna/B-PER | \ufeff/B-X"))["words without pieces"]
    assert told(found) == ("warning", ["train:4 '\\ufeff'", "train:1 '\\u200b'"])
    assert "2 words" in found.message
    assert "1 of them in entities" in found.message
    assert of_tokenizer(corpus(train="Anna/O"))["words without pieces"].level == "pass"


def test_unknown_words() -> None:
    found = of_tokenizer(corpus(train="Anna/O 東京/B-X lives/O 京/O"))["unknown words"]
    assert told(found) == ("warning", ["train:2 '東京'", "train:4 '京'"])
    assert "2 words (50.0 %)" in found.message
    one_of_many = of_tokenizer(corpus(train="東/O " + " ".join(["Anna/O"] * 99)))["unknown words"]
    assert told(one_of_many) == ("pass", ["train:1 '東'"])
    assert told(of_tokenizer(corpus(train="Anna/O"))["unknown words"]) == ("pass", [])


def test_special_words() -> None:
    found = of_tokenizer(corpus(train="Anna/O <mask>/O <pad>/O <x>/O"))["special words"]
    assert told(found) == ("warning", ["train:2 '<mask>'", "train:3 '<pad>'"])
    assert of_tokenizer(corpus(train="Anna/O"))["special words"].level == "pass"


def test_windows() -> None:
    data = corpus(train="Anna/O | " + " ".join(["Anna/O"] * 20))
    long = of_tokenizer(data, max_length=16, stride=4)["windows"]
    assert long.level == "warning"
    assert [place.line for place in long.places] == [3]
    assert "1 sentence longer than data.max_length 16" in long.message
    assert of_tokenizer(data, max_length=256)["windows"].level == "pass"
    # Documents are meant to be cut.
    document = of_tokenizer(data, max_length=16, stride=4, unit="document")["windows"]
    assert (document.level, [place.line for place in document.places]) == ("pass", [1])


def test_words_longer_than_a_window() -> None:
    word = "qxzj" * 30
    cut = of_tokenizer(corpus(train=f"Anna/O {word}/O"), max_length=8, stride=4)["words cut"]
    assert (cut.level, [place.line for place in cut.places]) == ("warning", [2])
    assert of_tokenizer(corpus(train="Anna/O"), max_length=8, stride=4)["words cut"].level == "pass"


# ---------------------------------------------------------------- reading


def test_each_file_that_is_refused_is_told(tmp_path: Path) -> None:
    folder = tmp_path / "train"
    folder.mkdir()
    (folder / "a.conll").write_text("a B-X\nb\n")
    (folder / "b.conll").write_text("a B-X\n")
    (folder / "c.conll").write_text("a B-X\n\nb O\nc O O\n")
    (tmp_path / "test").write_text("a B-X\n")
    reading = read(DataConfig(train=str(folder), test=str(tmp_path / "test")))
    assert list(reading.sentences) == ["test"]
    assert [told(finding) for finding in reading.findings] == [
        ("failure", [f"{folder}/a.conll:2"]),
        ("failure", [f"{folder}/c.conll:4"]),
        ("pass", []),
    ]
    assert reading.findings[0].message.startswith("train cannot be read: 1 column, and 2 expected")


def test_a_split_that_is_not_there(tmp_path: Path) -> None:
    reading = read(DataConfig(train=str(tmp_path / "none")))
    (finding,) = reading.findings
    assert told(finding) == ("failure", [])
    assert finding.message.startswith("train cannot be read: nothing at ")


# ---------------------------------------------------------------- the whole


def run_of(folder: Path, **data: object) -> RunConfig:
    """A run whose tokenizer cannot be loaded."""
    return RunConfig.model_validate(
        {
            "run_dir": str(folder / "run"),
            "model": {"name_or_path": str(folder / "no-model")},
            "data": data,
            "training": {"epochs": 1, "global_batch_size": 1, "micro_batch_size": 1},
        }
    )


@pytest.mark.parametrize(
    ("train", "test", "settings"),
    [
        ("a B-X\n", "b B-X\n", {}),
        ("a B-X\nb I-Y\n", "b B-X\n", {}),
        ("a B-X\nb PER\n", "b B-X\n", {}),
        ("a B-X\n", "b B-X\nc\n", {}),
        ("a B-X\n", "b B-X\nc E-X\n", {"scheme": "iob2"}),
        ("a B-X\n", "b B-Y\n", {"labels": ["X"]}),
        ("a B-X\n", "b B-X\n", {"labels": ["X", "Y"]}),
        ("a O\n", "b O\n", {}),
        ("a B-X\n", "b O\n", {}),
        ("a B-X\n", "", {}),
        ("a N\n", "b V\n", {"heads": {"pos": {"column": 1, "kind": "classes"}}}),
        (
            "a N\n",
            "b V\n",
            {"heads": {"pos": {"column": 1, "kind": "classes", "labels": ["N"]}}},
        ),
        ("a B-X N\n", "b B-X N\n", {"heads": {"ner": {"column": 1}, "pos": {"column": 2}}}),
        (
            "a B-X N\n",
            "b B-X N\n",
            {"heads": {"ner": {"column": 1}, "pos": {"column": 2, "kind": "classes"}}},
        ),
    ],
    ids=str,
)
def test_what_training_refuses_is_a_failure_and_nothing_else_here(
    tmp_path: Path, train: str, test: str, settings: dict[str, object]
) -> None:
    for name, text in (("train", train), ("test", test)):
        (tmp_path / name).write_text(text)
    sources = {"train": str(tmp_path / "train"), "test": str(tmp_path / "test")}
    config = run_of(tmp_path, **sources, **settings)
    try:
        read_corpus(config.data)
        refused = False
    except DataError:
        refused = True
    report = lint(config)
    assert (report.number("failure") > 0) == refused
    if refused:
        with pytest.raises(DataError, match="the report says where"):
            report.require_no_failure()
    else:
        report.require_no_failure()


def test_without_a_tokenizer_the_rest_is_checked(tmp_path: Path) -> None:
    (tmp_path / "train").write_text("a\u00a0 B-X\nb O\n")
    report = lint(run_of(tmp_path, train=str(tmp_path / "train")))
    found = {finding.check: finding for finding in report.findings}
    assert found["tokenizer"].level == "skipped"
    assert "there is no such folder; windows, words without pieces" in found["tokenizer"].message
    assert found["white space"].level == "warning"
    assert report.lengths is not None
    assert (report.lengths.unit, report.lengths.windows) == ("words", None)
    assert report.lengths.of_splits == {"train": [2]}


def test_each_head_is_told_by_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "train").write_text("a B-X N\nb I-Y N\n")
    heads = {"ner": {"column": 1}, "pos": {"column": 2, "kind": "classes"}}
    report = lint(run_of(tmp_path, train=str(tmp_path / "train"), heads=heads))
    of_heads = {(f.head, f.check): f.level for f in report.findings if f.head is not None}
    assert of_heads["ner", "scheme"] == "warning"
    assert of_heads["pos", "entities"] == "failure"
    assert ("pos", "scheme") not in of_heads
    report.show()
    shown = capsys.readouterr().out
    assert "warning  ner: scheme: 1 tag breaks the scheme iob2" in shown
    assert "pos: classes" in shown


def test_a_head_of_wrong_tags_does_not_hide_the_other(tmp_path: Path) -> None:
    (tmp_path / "train").write_text("a B-X N\nb I-Y N\n")
    heads = {"ner": {"column": 1}, "pos": {"column": 2}}
    report = lint(run_of(tmp_path, train=str(tmp_path / "train"), heads=heads))
    found = {(f.head, f.check): f for f in report.findings}
    assert found["pos", "tags"].level == "failure"
    assert "data.heads.pos.column and data.heads.pos.scheme" in found["pos", "tags"].message
    assert found["pos", "labels"].level == "skipped"
    assert found["ner", "rare labels"].level == "warning"
    assert [head.head for head in report.heads] == ["ner"]


def test_nothing_can_be_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = lint(run_of(tmp_path, train=str(tmp_path / "none")))
    assert [finding.check for finding in report.findings] == ["reading"]
    report.show()
    assert "\n  sentences       -  \n" in capsys.readouterr().out
    assert report.as_json()["splits"] == {"train": None}


def test_hostile_names_do_no_harm(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Labels and words that rich or a terminal would take for something else."""
    (tmp_path / "train").write_text("[/red] B-[/bold]\n\x1b[2J B-a\x1b[31m\n")
    lint(run_of(tmp_path, train=str(tmp_path / "train"))).show()
    shown = capsys.readouterr().out
    assert "[/bold]" in shown
    assert "\x1b" not in shown


def test_five_places_are_shown_and_all_are_in_the_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "train").write_text("a I-X\nb B-X\n\n" * 7)
    report = lint(run_of(tmp_path, train=str(tmp_path / "train"), scheme="iob2"))
    report.show()
    (line,) = [line for line in capsys.readouterr().out.splitlines() if " scheme: " in line]
    assert line.count("I-X between start and B-X") == 5
    assert line.endswith(" and 2 more")
    (finding,) = [f for f in report.as_json()["findings"] if f["check"] == "scheme"]
    assert finding["num_places"] == 7
    assert [place["line"] for place in finding["places"]] == [1 + 3 * i for i in range(7)]


# ---------------------------------------------------------------- formats


def test_jsonl_and_a_saved_dataset(tmp_path: Path) -> None:
    from datasets import Dataset, DatasetDict  # noqa: PLC0415

    rows = [{"tokens": [" Anna", "reads"], "ner_tags": ["B-PER", "O"]}]
    rows += [{"tokens": ["Oslo"], "ner_tags": ["I-LOC"]}]
    (tmp_path / "t.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    columns = {"words": "tokens", "tags": "ner_tags"}
    DatasetDict({"train": Dataset.from_list(rows)}).save_to_disk(tmp_path / "saved")
    for settings, file in (
        ({"format": "jsonl", "train": str(tmp_path / "t.jsonl")}, str(tmp_path / "t.jsonl")),
        (
            {"format": "hub", "train": "train", "dataset": str(tmp_path / "saved")},
            f"{tmp_path}/saved[train]",
        ),
    ):
        report = lint(run_of(tmp_path, columns=columns, **settings))
        found = {finding.check: finding for finding in report.findings}
        assert told(found["white space"]) == ("warning", [f"{file}:1 ' Anna'"])
        assert told(found["scheme"]) == ("warning", [f"{file}:2 I-LOC between start and end"])


def test_spans_have_checks_of_their_own(tmp_path: Path) -> None:
    data = spans_data(tmp_path, (0, 5))
    report = lint(run_of(tmp_path, format="spans", train=data.train))
    found = {finding.check: finding.level for finding in report.findings}
    assert found["entity white space"] == "warning"
    assert found["entity edges"] == "pass"


# ---------------------------------------------------------------- real corpora


def of_real(folder: Path, sources: dict[str, str], tokenizer: Path, **settings: Any) -> Any:
    paths = {split: str(folder / source) for split, source in sources.items()}
    config = run_of(folder, **paths, **settings)
    model = config.model.model_copy(update={"tokenizer": str(tokenizer)})
    return lint(config.model_copy(update={"model": model}))


def numbers(report: Any, check: str) -> list[tuple[str, int]]:
    return [(f.level, len(f.places)) for f in report.findings if f.check == check]


@pytest.mark.data
def test_wnut17(shared_data: Path) -> None:
    report = of_real(
        shared_data / "wnut17", WNUT, shared_data / "xlmr-tokenizer", max_length=64, stride=16
    )
    counts = {split: (c.sentences, c.words) for split, c in report.splits.items()}
    assert counts == {
        "train": (3394, 62730),
        "validation": (1009, 15733),
        "test": (1287, 23394),
    }
    assert numbers(report, "duplicates") == [("warning", 103), ("warning", 3), ("warning", 7)]
    assert numbers(report, "leaks") == [("pass", 0)] * 3
    (contradictions,) = [f for f in report.findings if f.check == "contradictions"]
    assert contradictions.message.startswith("13 of 97 sentences")
    (characters,) = [f for f in report.findings if f.check == "characters"]
    assert [(p.line, p.text) for p in characters.places] == [
        (16730, "'Dubbz\\ufeff' U+FEFF"),
        (15556, "'watched\\u200bwas' U+200B"),
    ]
    assert numbers(report, "windows") == [("warning", 103)]
    assert numbers(report, "scheme") == [("pass", 0)]
    assert report.number("failure") == 0


@pytest.mark.data
def test_uner_slovak_snk(shared_data: Path) -> None:
    report = of_real(
        shared_data / "uner-slovak-snk",
        SLOVAK,
        shared_data / "xlmr-tokenizer",
        columns={"words": 1, "tags": 2},
        unit="document",
    )
    counts = {split: (c.sentences, c.documents, c.words) for split, c in report.splits.items()}
    assert counts == {
        "train": (8483, 283, 80628),
        "validation": (1060, 36, 12733),
        "test": (1061, 36, 12736),
    }
    assert numbers(report, "duplicates") == [("warning", 276), ("warning", 7), ("pass", 14)]
    assert numbers(report, "leaks") == [("pass", 4), ("pass", 11), ("pass", 3)]
    shares = [f.message for f in report.findings if f.check == "shares"]
    assert len(shares) == 2
    assert "LOC (of 1,000 words 3.4 in train, 23.6 in validation)" in shares[0]
    assert "LOC (of 1,000 words 3.4 in train, 25.6 in test)" in shares[1]
    assert report.lengths.what == "document"
    assert sum(map(len, report.lengths.of_splits.values())) == 283 + 36 + 36


@pytest.mark.data
def test_nerkor_and_its_eleven_violations(shared_data: Path) -> None:
    folder = shared_data / "nerkor-hu"
    report = of_real(
        folder,
        NERKOR,
        folder / "no-tokenizer",
        columns={"words": "FORM"},
        heads={
            "ner": {"column": "CONLL:NER"},
            "upos": {"column": "UPOS", "kind": "classes"},
            "xpos": {"column": "XPOS", "kind": "classes"},
        },
    )
    found = {(f.head, f.check): f for f in report.findings}
    violations = [(Path(p.file).stem, p.line) for p in found["ner", "scheme"].places]
    assert violations == [
        ("globalvoices_16", 1329),
        ("globalvoices_2", 2468),
        ("globalvoices_2", 2629),
        ("globalvoices_20", 2689),
        ("globalvoices_6", 823),
        ("globalvoices_9", 2780),
        ("newscrawl_10", 3739),
        ("rapid_11", 912),
        ("globalvoices_1", 728),
        ("globalvoices_1", 738),
        ("globalvoices_1", 1676),
    ]
    assert numbers(report, "duplicates") == [("warning", 21), ("pass", 0), ("pass", 0)]
    # A document of test is one of train, under another name.
    assert numbers(report, "leaks") == [("warning", 1), ("warning", 13), ("pass", 0)]
    assert found["upos", "rare labels"].level == "pass"
    assert found["xpos", "rare labels"].message.startswith("514 of 832 classes")
    assert found["xpos", "labels without training"].message.startswith("64 classes")
    assert "'[/N][Pl][Nom]' and '[/n][Pl][Nom]'" in found["xpos", "look-alikes"].message
    assert report.splits["train"].documents == 66
