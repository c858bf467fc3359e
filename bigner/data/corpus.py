"""A whole corpus in memory: every split read, checked, and brought to IOB2."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import chain

from bigner.config.schema import DataConfig, Split
from bigner.data.formats import Sentence, read_sentences
from bigner.data.labels import LabelSet, Scheme, TagError, recognise_scheme, split_tag, to_iob2
from bigner.errors import DataError

_PLACES_SHOWN = 5

Sentences = dict[Split, list[Sentence]]
TypeCounts = dict[Split, dict[str, int]]


@dataclass(frozen=True, slots=True)
class Corpus:
    """The sentences of some splits and what is known of their tags."""

    sentences: Sentences
    """Split -> its sentences in order, tags in IOB2."""
    labels: LabelSet
    """From ``data.labels``, or all types of all these splits, sorted."""
    scheme: Scheme
    """The scheme that the files are written in."""
    type_counts: TypeCounts
    """Split -> entity type -> number of entities, types sorted."""
    warnings: tuple[str, ...]
    """What the user should know and can train with: a sentence each."""


def read_corpus(data: DataConfig, splits: Sequence[Split] | None = None) -> Corpus:
    """Read splits (all that the config gives, if None) as one corpus.

    Labels and scheme follow from all the splits read together, so ask for all that will be used.

    Raises:
        DataError: a file cannot be read, a tag is none of the scheme's, there is no entity to
            train on, or a type is not in ``data.labels``.
    """
    raw: Sentences = {split: list(read_sentences(data, split)) for split in splits or data.splits()}
    scheme = _scheme(data, raw)
    sentences, warnings = _to_iob2(raw, scheme)
    type_counts = {split: _count_types(sentences[split]) for split in sentences}
    labels = _labels(data, type_counts)
    return Corpus(
        sentences=sentences,
        labels=labels,
        scheme=scheme,
        type_counts=type_counts,
        warnings=(*warnings, *_type_warnings(labels, type_counts)),
    )


def _scheme(data: DataConfig, sentences: Sentences) -> Scheme:
    """The scheme as given or recognised; every tag is one of its tags."""
    if data.scheme != "auto":
        _require_tags(sentences, data.scheme)
        return data.scheme
    # bioes has the prefixes of all schemes.
    _require_tags(sentences, "bioes")
    return recognise_scheme([sentence.tags for sentence in _all(sentences)])


def _require_tags(sentences: Sentences, scheme: Scheme) -> None:
    wrong: dict[str, str] = {}
    for tag in sorted(set().union(*(sentence.tags for sentence in _all(sentences)))):
        try:
            split_tag(tag, scheme)
        except TagError as error:
            wrong[tag] = str(error)
    for sentence in _all(sentences) if wrong else ():
        for tag, line in zip(sentence.tags, sentence.lines, strict=True):
            if tag in wrong:
                others = f" (other such tags: {len(wrong) - 1})" if len(wrong) > 1 else ""
                raise DataError.at(
                    sentence.file,
                    line,
                    f"{wrong[tag]}{others}; correct it, or see data.columns and data.scheme",
                )


def _to_iob2(raw: Sentences, scheme: Scheme) -> tuple[Sentences, list[str]]:
    places: list[str] = []
    converted: Sentences = {split: [] for split in raw}
    for split, sentences in raw.items():
        for sentence in sentences:
            tags, broken = to_iob2(sentence.tags, scheme)
            converted[split].append(replace(sentence, tags=tags))
            places += [f"{sentence.file}:{sentence.lines[position]}" for position in broken]
    if not places:
        return converted, []
    more = ", ..." if len(places) > _PLACES_SHOWN else ""
    tags_break = "1 tag breaks" if len(places) == 1 else f"{len(places)} tags break"
    return converted, [
        f"{tags_break} the scheme {scheme} (read as conlleval does, where a stray I begins an "
        f"entity): {', '.join(places[:_PLACES_SHOWN])}{more}"
    ]


def _count_types(sentences: Iterable[Sentence]) -> dict[str, int]:
    tags = Counter(chain.from_iterable(sentence.tags for sentence in sentences))
    return {tag[2:]: tags[tag] for tag in sorted(tags) if tag.startswith("B-")}


def _labels(data: DataConfig, type_counts: TypeCounts) -> LabelSet:
    found = sorted(set().union(*type_counts.values()))
    if data.labels is not None:
        outside = [entity_type for entity_type in found if entity_type not in data.labels]
        if outside:
            listed = "; ".join(_counted(entity_type, type_counts) for entity_type in outside)
            raise DataError(
                f"types that data.labels does not list: {listed}; add them, or take them out of "
                f"the data"
            )
        return LabelSet.of_types(data.labels)
    if not found and "train" in type_counts:
        raise DataError(
            f"no entity in {', '.join(type_counts)}: every tag is O; does data.columns.tags name "
            f"the right column?"
        )
    return LabelSet.of_types(found)


def _type_warnings(labels: LabelSet, type_counts: TypeCounts) -> list[str]:
    warnings = []
    train = type_counts.get("train")
    unseen = [
        entity_type
        for entity_type in labels.types
        if train is not None
        and entity_type not in train
        and any(entity_type in counts for counts in type_counts.values())
    ]
    if unseen:
        listed = "; ".join(_counted(entity_type, type_counts) for entity_type in unseen)
        warnings.append(f"types that train has no example of, so they cannot be learnt: {listed}")
    absent = [
        entity_type
        for entity_type in labels.types
        if not any(entity_type in counts for counts in type_counts.values())
    ]
    if absent:
        warnings.append(f"types of data.labels that the data does not have: {', '.join(absent)}")
    return warnings


def _counted(entity_type: str, type_counts: TypeCounts) -> str:
    """A type with the splits it occurs in, such as ``PER (3 in validation, 1 in test)``."""
    counts = [
        f"{counts[entity_type]} in {split}"
        for split, counts in type_counts.items()
        if entity_type in counts
    ]
    return f"{entity_type} ({', '.join(counts)})"


def _all(sentences: Sentences) -> Iterable[Sentence]:
    return chain.from_iterable(sentences.values())
