"""A whole corpus in memory: every split read, checked, and its tags brought to IOB2."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain

from bigner.config.schema import DataConfig, HeadConfig, Split
from bigner.data.formats import Sentence, read_sentences
from bigner.data.heads import HeadKind, Heads
from bigner.data.labels import LabelSet, Scheme, TagError, recognise_scheme, split_tag, to_iob2
from bigner.errors import DataError

_PLACES_SHOWN = 5

Sentences = dict[Split, list[Sentence]]
TypeCounts = dict[Split, dict[str, int]]


@dataclass(frozen=True, slots=True)
class HeadLabels:
    """What is known of one head's labels."""

    kind: HeadKind
    labels: LabelSet
    """As the config lists them, or all of all these splits."""
    scheme: Scheme | None
    """The scheme that the files are written in; None for classes."""
    type_counts: TypeCounts
    """Split -> entity type or class -> number of entities or words, types sorted."""
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Corpus:
    """The sentences of some splits and what is known of their tags."""

    sentences: Sentences
    """Split -> its sentences in order, tags in IOB2."""
    heads: dict[str, HeadLabels]
    """Head -> its labels, in the order of each sentence's ``tags``."""
    splits_without_context: tuple[Split, ...]
    """Where ``data.context`` is wanted and no document has two sentences."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the user should know and can train with: a sentence each."""
        of_heads = (
            warning if len(self.heads) == 1 else f"head {name}: {warning}"
            for name, head in self.heads.items()
            for warning in head.warnings
        )
        of_splits = (
            f"{split}: every document has one sentence, so data.context finds nothing to read; see "
            f"docs/data.md on where documents begin"
            for split in self.splits_without_context
        )
        return (*of_heads, *of_splits)

    def label_sets(self) -> Heads:
        """The heads of a model of this corpus."""
        return Heads([(name, head.kind, head.labels) for name, head in self.heads.items()])


def read_corpus(data: DataConfig, splits: Sequence[Split] | None = None) -> Corpus:
    """Read splits (all that the config gives, if None) as one corpus.

    Labels and scheme follow from all the splits read together, so ask for all that will be used.

    Raises:
        DataError: a file cannot be read, a tag is none of the scheme's, there is no entity to
            train on, or a type is none of those the config lists.
    """
    sentences: Sentences = {
        split: list(read_sentences(data, split)) for split in splits or data.splits()
    }
    heads = {}
    for place, (name, config) in enumerate(data.resolved_heads().items()):
        column = _Column(
            sentences,
            place,
            config,
            field=data.head_field(name, "column"),
            listing=data.head_field(name, "labels"),
            scheme_field=data.head_field(name, "scheme"),
        )
        heads[name] = column.classes() if config.kind == "classes" else column.tags()
    return Corpus(sentences, heads, _without_context(data, sentences))


def _without_context(data: DataConfig, sentences: Sentences) -> tuple[Split, ...]:
    if not data.context:
        return ()
    return tuple(
        split
        for split, members in sentences.items()
        if len({one.document for one in members}) == len(members)
    )


@dataclass(frozen=True, slots=True)
class _Column:
    """The tags of one head, all through the corpus."""

    sentences: Sentences
    place: int
    """Among the ``tags`` of a sentence."""
    config: HeadConfig
    field: str
    """The config's field that names the column."""
    listing: str
    """The config's field that lists the labels."""
    scheme_field: str
    """The config's field that names the scheme."""

    def tags(self) -> HeadLabels:
        """Check the tags against their scheme and bring them to IOB2."""
        scheme = self._scheme()
        broken = self._to_iob2(scheme)
        tags = self._count()
        type_counts = {
            split: {tag[2:]: counts[tag] for tag in sorted(counts) if tag.startswith("B-")}
            for split, counts in tags.items()
        }
        found = sorted(set().union(*type_counts.values()))
        self._require_listed(found, type_counts)
        if not found and "train" in type_counts:
            raise DataError(
                f"no entity in {', '.join(type_counts)}: every tag is O; does {self.field} name "
                f"the right column?"
            )
        types = self.config.labels or tuple(found)
        warnings = (
            *_scheme_warnings(broken, scheme),
            *_type_warnings(types, type_counts, self.listing),
        )
        return HeadLabels("tags", LabelSet.of_types(types), scheme, type_counts, warnings)

    def classes(self) -> HeadLabels:
        """The classes as they stand, the commonest first."""
        counted = {split: dict(sorted(counts.items())) for split, counts in self._count().items()}
        total: Counter[str] = sum(map(Counter, counted.values()), Counter())
        found = sorted(total, key=lambda name: (-total[name], name))
        if "train" in counted and len(counted["train"]) == 1:
            raise DataError(
                f"every word of train has the class {next(iter(counted['train']))!r}, so there is "
                f"nothing to learn; does {self.field} name the right column?"
            )
        self._require_listed(found, counted)
        classes = self.config.labels or tuple(found)
        warnings = tuple(_type_warnings(classes, counted, self.listing))
        return HeadLabels("classes", LabelSet(classes), None, counted, warnings)

    def _all(self) -> Iterable[tuple[Sentence, list[str]]]:
        for sentence in chain.from_iterable(self.sentences.values()):
            yield sentence, sentence.tags[self.place]

    def _count(self) -> dict[Split, Counter[str]]:
        return {
            split: Counter(chain.from_iterable(one.tags[self.place] for one in sentences))
            for split, sentences in self.sentences.items()
        }

    def _scheme(self) -> Scheme:
        """The scheme as given or recognised; every tag is one of its tags."""
        if self.config.scheme != "auto":
            self._require_tags(self.config.scheme)
            return self.config.scheme
        # bioes has the prefixes of all schemes.
        self._require_tags("bioes")
        return recognise_scheme([tags for _, tags in self._all()])

    def _require_tags(self, scheme: Scheme) -> None:
        wrong: dict[str, str] = {}
        for tag in sorted(set().union(*(tags for _, tags in self._all()))):
            try:
                split_tag(tag, scheme)
            except TagError as error:
                wrong[tag] = str(error)
        for sentence, tags in self._all() if wrong else ():
            for tag, line in zip(tags, sentence.lines, strict=True):
                if tag in wrong:
                    others = f" (other such tags: {len(wrong) - 1})" if len(wrong) > 1 else ""
                    raise DataError.at(
                        sentence.file,
                        line,
                        f"{wrong[tag]}{others}; correct it, or see {self.field} and "
                        f"{self.scheme_field}",
                    )

    def _to_iob2(self, scheme: Scheme) -> list[str]:
        """Convert every sentence's tags in place; returns where they break their scheme."""
        places = []
        for sentence, tags in self._all():
            sentence.tags[self.place], broken = to_iob2(tags, scheme)
            places += [f"{sentence.file}:{sentence.lines[position]}" for position in broken]
        return places

    def _require_listed(self, found: Iterable[str], type_counts: TypeCounts) -> None:
        listed = self.config.labels
        outside = [name for name in found if listed is not None and name not in listed]
        if outside:
            counted = "; ".join(_counted(name, type_counts) for name in outside)
            what = "types" if self.config.kind == "tags" else "classes"
            raise DataError(
                f"{what} that {self.listing} does not list: {counted}; add them, or take them out "
                f"of the data"
            )


def _scheme_warnings(places: Sequence[str], scheme: Scheme) -> list[str]:
    if not places:
        return []
    more = ", ..." if len(places) > _PLACES_SHOWN else ""
    tags_break = "1 tag breaks" if len(places) == 1 else f"{len(places)} tags break"
    return [
        f"{tags_break} the scheme {scheme} (read as conlleval does, where a stray I begins an "
        f"entity): {', '.join(places[:_PLACES_SHOWN])}{more}"
    ]


def _type_warnings(types: Sequence[str], type_counts: TypeCounts, listing: str) -> list[str]:
    warnings = []
    train = type_counts.get("train")
    unseen = [
        entity_type
        for entity_type in types
        if train is not None
        and entity_type not in train
        and any(entity_type in counts for counts in type_counts.values())
    ]
    if unseen:
        listed = "; ".join(_counted(entity_type, type_counts) for entity_type in unseen)
        warnings.append(f"types that train has no example of, so they cannot be learnt: {listed}")
    absent = [
        entity_type
        for entity_type in types
        if not any(entity_type in counts for counts in type_counts.values())
    ]
    if absent:
        warnings.append(f"types of {listing} that the data does not have: {', '.join(absent)}")
    return warnings


def _counted(entity_type: str, type_counts: TypeCounts) -> str:
    """A type with the splits it occurs in, such as ``PER (3 in validation, 1 in test)``."""
    counts = [
        f"{counts[entity_type]} in {split}"
        for split, counts in type_counts.items()
        if entity_type in counts
    ]
    return f"{entity_type} ({', '.join(counts)})"
