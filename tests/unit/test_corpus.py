"""A corpus: one scheme, one label set and honest warnings over all its splits."""

from __future__ import annotations

from pathlib import Path

import pytest

from bigner.config.schema import DataConfig
from bigner.data.corpus import Corpus, HeadLabels, read_corpus
from bigner.errors import DataError

WNUT = {
    "train": "wnut17train.conll",
    "validation": "emerging.dev.conll",
    "test": "emerging.test.annotated",
}
SLOVAK = {
    "train": "sk_snk-ud-train.iob2",
    "validation": "sk_snk-ud-dev.iob2",
    "test": "sk_snk-ud-test.iob2",
}
NERKOR = {"train": "data/train/news", "validation": "data/devel/news", "test": "data/test/news"}


def corpus_of(folder: Path, sources: dict[str, str], **settings: object) -> Corpus:
    paths = {split: str(folder / source) for split, source in sources.items()}
    return read_corpus(DataConfig.model_validate({**paths, **settings}))


def written(folder: Path, **splits: str) -> dict[str, str]:
    """Column files made of tags alone: a sentence a line of ``splits``."""
    for split, text in splits.items():
        sentences = ("".join(f"w {tag}\n" for tag in line.split()) for line in text.split("/"))
        (folder / split).write_text("\n".join(sentences))
    return {split: split for split in splits}


# ---------------------------------------------------------------- real corpora


@pytest.mark.data
def test_wnut17(shared_data: Path) -> None:
    corpus = corpus_of(shared_data / "wnut17", WNUT)
    assert only(corpus).scheme == "iob2"
    assert corpus.warnings == ()
    types = ("corporation", "creative-work", "group", "location", "person", "product")
    assert only(corpus).labels.types == types
    counts = {
        "train": (221, 140, 264, 548, 660, 142),
        "validation": (34, 105, 39, 74, 470, 114),
        "test": (66, 142, 165, 150, 429, 127),
    }
    assert only(corpus).type_counts == {
        split: dict(zip(types, numbers, strict=True)) for split, numbers in counts.items()
    }


@pytest.mark.data
def test_uner_slovak_snk(shared_data: Path) -> None:
    columns = {"words": 1, "tags": 2}
    corpus = corpus_of(shared_data / "uner-slovak-snk", SLOVAK, columns=columns)
    assert (only(corpus).scheme, corpus.warnings) == ("iob2", ())
    assert only(corpus).type_counts == {
        "train": {"LOC": 277, "ORG": 153, "PER": 2277},
        "validation": {"LOC": 300, "ORG": 60, "PER": 276},
        "test": {"LOC": 326, "ORG": 50, "PER": 539},
    }


@pytest.mark.data
def test_nerkor_and_its_eleven_violations(shared_data: Path) -> None:
    columns = {"words": "FORM", "tags": "CONLL:NER"}
    folder = shared_data / "nerkor-hu"
    corpus = corpus_of(folder, NERKOR, columns=columns)
    assert only(corpus).scheme == "iob2"
    assert only(corpus).type_counts == {
        "train": {"LOC": 1629, "MISC": 1227, "ORG": 3038, "PER": 2238},
        "validation": {"LOC": 173, "MISC": 113, "ORG": 256, "PER": 258},
        "test": {"LOC": 213, "MISC": 143, "ORG": 256, "PER": 312},
    }
    (warning,) = corpus.warnings
    first = [("16", 1329), ("2", 2468), ("2", 2629), ("20", 2689), ("6", 823)]
    places = ", ".join(
        f"{folder}/data/train/news/globalvoices_{number}.conllup:{line}" for number, line in first
    )
    assert warning.startswith("11 tags break the scheme iob2")
    assert warning.endswith(f": {places}, ...")
    assert changed_places(corpus, column=5) == {
        ("train", "globalvoices_20", 2689),
        ("train", "rapid_11", 912),
        ("train", "newscrawl_10", 3739),
        ("train", "globalvoices_6", 823),
        ("train", "globalvoices_9", 2780),
        ("train", "globalvoices_16", 1329),
        ("train", "globalvoices_2", 2468),
        ("train", "globalvoices_2", 2629),
        ("validation", "globalvoices_1", 728),
        ("validation", "globalvoices_1", 738),
        ("validation", "globalvoices_1", 1676),
    }


def only(corpus: Corpus) -> HeadLabels:
    """The one head."""
    (head,) = corpus.heads.values()
    return head


def changed_places(corpus: Corpus, *, column: int) -> set[tuple[str, str, int]]:
    """Where a tag of the corpus is not the tag of the file."""
    lines: dict[str, list[str]] = {}
    changed = set()
    for split, sentences in corpus.sentences.items():
        for sentence in sentences:
            if sentence.file not in lines:
                lines[sentence.file] = Path(sentence.file).read_text("utf-8").split("\n")
            for tag, number in zip(sentence.tags[0], sentence.lines, strict=True):
                if lines[sentence.file][number - 1].split("\t")[column] != tag:
                    changed.add((split, Path(sentence.file).stem, number))
    return changed


@pytest.mark.data
@pytest.mark.parametrize(("language", "dev", "test"), [("en_ewt", 966, 1084), ("sk_snk", 621, 907)])
def test_uner_multicol(shared_data: Path, language: str, dev: int, test: int) -> None:
    name = f"{language}-ud-{{}}.form-upos-xpos-ner.conll"
    sources = {"train": name.format("dev"), "test": name.format("test")}
    corpus = corpus_of(shared_data / "uner-multicol", sources)
    assert (only(corpus).scheme, corpus.warnings) == ("iob2", ())
    assert {split: sum(counts.values()) for split, counts in only(corpus).type_counts.items()} == {
        "train": dev,
        "test": test,
    }


# ---------------------------------------------------------------- schemes


@pytest.mark.parametrize(
    ("train", "validation", "scheme", "tags"),
    [
        ("B-X E-X O S-X", "S-X", "bioes", ["B-X", "I-X", "O", "B-X"]),
        ("B-X I-X O B-X", "S-X", "bioes", ["B-X", "I-X", "O", "B-X"]),
        ("I-X I-X O", "I-X B-X", "iob1", ["B-X", "I-X", "O"]),
        ("I-X I-X O", "I-Y", "io", ["B-X", "I-X", "O"]),
        ("B-X I-X O", "O", "iob2", ["B-X", "I-X", "O"]),
    ],
)
def test_the_scheme_is_recognised_over_all_splits(
    tmp_path: Path, train: str, validation: str, scheme: str, tags: list[str]
) -> None:
    corpus = corpus_of(tmp_path, written(tmp_path, train=train, validation=validation))
    assert only(corpus).scheme == scheme
    assert corpus.sentences["train"][0].tags == [tags]


def test_a_given_scheme_is_not_guessed_again(tmp_path: Path) -> None:
    sources = written(tmp_path, train="I-X I-X O I-X/O I-X")
    corpus = corpus_of(tmp_path, sources, scheme="iob2")
    assert only(corpus).scheme == "iob2"
    file = tmp_path / "train"
    assert corpus.warnings == (
        f"3 tags break the scheme iob2 (read as conlleval does, where a stray I begins an entity): "
        f"{file}:1, {file}:4, {file}:7",
    )


@pytest.mark.parametrize(
    ("scheme", "train", "line", "reason"),
    [
        ("auto", "O B-X/O _ _", 5, "'_' is not a tag of the scheme bioes"),
        ("auto", "PER O", 1, "'PER' is not a tag"),
        ("iob2", "B-X E-X", 2, "(O, B-TYPE, I-TYPE); correct it, or see data.columns"),
        ("io", "O I-X B-X", 3, "'B-X' is not a tag of the scheme io (O, I-TYPE)"),
        ("auto", "O NOUN VERB ADJ", 2, "(other such tags: 2); correct it"),
    ],
)
def test_a_tag_outside_the_scheme_has_its_place(
    tmp_path: Path, scheme: str, train: str, line: int, reason: str
) -> None:
    sources = written(tmp_path, train=train)
    with pytest.raises(DataError) as caught:
        corpus_of(tmp_path, sources, scheme=scheme)
    assert str(caught.value).startswith(f"{tmp_path / 'train'}:{line}: ")
    assert reason in str(caught.value)


# ---------------------------------------------------------------- labels


def test_labels_are_all_types_of_all_splits(tmp_path: Path) -> None:
    sources = written(tmp_path, train="B-Y O", validation="B-X B-Z B-X", test="B-X I-X")
    corpus = corpus_of(tmp_path, sources)
    assert only(corpus).labels.tags == ("O", "B-X", "I-X", "B-Y", "I-Y", "B-Z", "I-Z")
    assert corpus.warnings == (
        "types that train has no example of, so they cannot be learnt: "
        "X (2 in validation, 1 in test); Z (1 in validation)",
    )
    assert list(corpus.sentences) == ["train", "validation", "test"]


def test_labels_of_the_config_keep_their_order(tmp_path: Path) -> None:
    sources = written(tmp_path, train="B-Y B-X")
    corpus = corpus_of(tmp_path, sources, labels=["Y", "W", "X"])
    assert only(corpus).labels.types == ("Y", "W", "X")
    assert corpus.warnings == ("types of data.labels that the data does not have: W",)


def test_types_outside_the_labels_of_the_config(tmp_path: Path) -> None:
    sources = written(tmp_path, train="B-X B-Y I-Y B-Y", test="B-Y B-Z")
    with pytest.raises(DataError) as caught:
        corpus_of(tmp_path, sources, labels=["X"])
    assert "does not list: Y (2 in train, 1 in test); Z (1 in test)" in str(caught.value)


def test_a_corpus_without_any_entity(tmp_path: Path) -> None:
    sources = written(tmp_path, train="O O", test="O")
    with pytest.raises(DataError, match="no entity in train, test: every tag is O"):
        corpus_of(tmp_path, sources)


def test_some_splits_can_be_read_alone(tmp_path: Path) -> None:
    written(tmp_path, train="B-X", test="B-Y")
    data = DataConfig(train=str(tmp_path / "none"), test=str(tmp_path / "test"))
    corpus = read_corpus(data, ["test"])
    assert only(corpus).labels.types == ("Y",)
    assert corpus.warnings == ()
