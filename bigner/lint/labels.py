"""The labels of one head: tags and classes by their names, their numbers and their scheme."""

from __future__ import annotations

import string
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any
from unicodedata import category, normalize

from bigner.config.schema import DataConfig, HeadConfig, Split
from bigner.data.heads import HeadKind
from bigner.data.labels import Scheme, TagError, recognise_scheme, split_tag, to_iob2
from bigner.lint.findings import Finding, Place, Places, counted, listed, percent, quoted, shortened
from bigner.lint.reading import Sentences

FEW_EXAMPLES = 10
"""A label with fewer training examples is rare."""
_MOST_OF_ONE = 0.99
_UNEVEN = 100
"""Entities of the commonest type for one of the rarest."""
_SHIFTED = 5
"""How often a type may be denser in one split than in another..."""
_ENOUGH = 20
"""... where this many entities would be expected or found: fewer are chance."""


@dataclass(frozen=True, slots=True)
class Column:
    """One head's labels as the files have them."""

    head: str
    place: int
    """Among the ``tags`` of a sentence."""
    config: HeadConfig
    field: str
    """The config's field that names the column."""
    listing: str
    """The config's field that lists the labels."""
    scheme_field: str
    """The config's field that names the scheme."""
    sentences: Sentences


@dataclass(frozen=True, slots=True)
class Labelled:
    """One head's labels, counted."""

    head: str
    kind: HeadKind
    scheme: Scheme | None
    """The scheme that the files are written in; None for classes."""
    listing: str
    listed: tuple[str, ...] | None
    sentences: Sentences
    labels: dict[Split, list[list[str]]]
    """Split -> of each sentence the tags in IOB2, or the classes."""
    tags: dict[Split, Counter[str]]
    """Split -> how often each tag or class occurs."""
    counts: dict[Split, dict[str, int]]
    """Split -> entity type or class -> number of entities or words, the commonest first."""

    @property
    def noun(self) -> str:
        """What its labels are called."""
        return "type" if self.kind == "tags" else "class"

    @property
    def nouns(self) -> str:
        """What several of its labels are called."""
        return "types" if self.kind == "tags" else "classes"

    def named(self, number: int) -> str:
        """A number of types or classes."""
        return counted(number, self.noun, self.nouns)

    @property
    def names(self) -> list[str]:
        """All types or classes that occur, the commonest first, then by name."""
        total = sum(map(Counter, self.counts.values()), Counter[str]())
        return sorted(total, key=lambda name: (-total[name], name))

    def words(self, split: Split) -> int:
        """Words of a split."""
        return self.tags[split].total()

    def in_splits(self, name: str) -> str:
        """A label with the splits it occurs in, such as ``PER (3 in validation, 1 in test)``."""
        numbers = [
            f"{counts[name]:,} in {split}"
            for split, counts in self.counts.items()
            if name in counts
        ]
        return f"{shortened(name)} ({', '.join(numbers)})"

    def examples(self, split: Split, names: Iterable[str]) -> Iterator[Place]:
        """Where the entities or words of some types or classes are."""
        names = set(names)
        begin = "B-" if self.kind == "tags" else ""
        wanted = {f"{begin}{name}": name for name in names}
        for sentence, labels in zip(self.sentences[split], self.labels[split], strict=True):
            # Most sentences have none, and sets tell so at once.
            if wanted.keys().isdisjoint(labels):
                continue
            for i, label in enumerate(labels):
                if label in wanted:
                    text = f"{shortened(wanted[label])} {quoted(sentence.words[i])}"
                    yield Place.of(sentence, i, text)

    def as_json(self) -> dict[str, Any]:
        """Counts of each split, as ``--json`` writes them."""
        splits = {}
        for split, counts in self.counts.items():
            splits[split] = {"total": sum(counts.values()), "labels": counts}
            if self.kind == "tags":
                splits[split]["o_words"] = self.tags[split]["O"]
        return {"kind": self.kind, "scheme": self.scheme, "splits": splits}


def columns(data: DataConfig, sentences: Sentences) -> list[Column]:
    """The columns of all heads."""
    return [
        Column(
            head=name,
            place=place,
            config=config,
            field=data.head_field(name, "column"),
            listing=data.head_field(name, "labels"),
            scheme_field=data.head_field(name, "scheme"),
            sentences=sentences,
        )
        for place, (name, config) in enumerate(data.resolved_heads().items())
    ]


def labelled(column: Column) -> tuple[Labelled | None, list[Finding]]:
    """Count a head's labels, with findings on their scheme; None where they have none."""
    if column.config.kind == "classes":
        return _counted(column, None, _raw(column)), []
    wrong = unknown_tags(column)
    if wrong.level == "failure":
        return None, [wrong]
    given = column.config.scheme
    scheme = given if given != "auto" else recognise_scheme(_sequences(column))
    converted, violations = _to_iob2(column, scheme)
    how = "as given" if given != "auto" else "recognised"
    return _counted(column, scheme, converted), [wrong, _scheme_finding(scheme, how, violations)]


def unknown_tags(column: Column) -> Finding:
    """Tags that the scheme does not have; training refuses them."""
    # bioes has the prefixes of all schemes.
    scheme: Scheme = "bioes" if column.config.scheme == "auto" else column.config.scheme
    found = set[str]().union(*_sequences(column))
    wrong = {tag for tag in found if not _is_tag(tag, scheme)}
    if not wrong:
        message = f"{counted(len(found), 'different tag')}, all of a known scheme"
        return Finding("tags", "pass", message)
    places, counts = Places(), Counter[str]()
    for sentences in column.sentences.values():
        for sentence in sentences:
            for i, tag in enumerate(sentence.tags[column.place]):
                if tag in wrong:
                    places.add(Place.of(sentence, i, quoted(tag)))
                    counts[tag] += 1
    shown = listed(f"{quoted(tag)} ({n:,})" for tag, n in counts.most_common())
    return Finding(
        "tags",
        "failure",
        f"tags that are none of the scheme {scheme}'s: {shown}; correct them, or see "
        f"{column.field} and {column.scheme_field}",
        places,
    )


def _is_tag(tag: str, scheme: Scheme) -> bool:
    try:
        split_tag(tag, scheme)
    except TagError:
        return False
    return True


def _sequences(column: Column) -> list[list[str]]:
    return [s.tags[column.place] for of_split in column.sentences.values() for s in of_split]


def _raw(column: Column) -> dict[Split, list[list[str]]]:
    return {
        split: [sentence.tags[column.place] for sentence in sentences]
        for split, sentences in column.sentences.items()
    }


def _to_iob2(column: Column, scheme: Scheme) -> tuple[dict[Split, list[list[str]]], Places]:
    """All tags in IOB2, and where they break their scheme."""
    converted: dict[Split, list[list[str]]] = {}
    places = Places()
    for split, sentences in column.sentences.items():
        converted[split] = []
        for sentence in sentences:
            tags = sentence.tags[column.place]
            iob2, broken = to_iob2(tags, scheme)
            converted[split].append(iob2)
            for i in broken:
                around = ["start", *tags, "end"][i : i + 3]
                text = "{1} between {0} and {2}".format(*around)
                places.add(Place.of(sentence, i, text))
    return converted, places


def _scheme_finding(scheme: Scheme, how: str, places: Places) -> Finding:
    if not places:
        return Finding("scheme", "pass", f"all tags keep to the scheme {scheme} ({how})")
    tags_break = "1 tag breaks" if len(places) == 1 else f"{len(places):,} tags break"
    return Finding(
        "scheme",
        "warning",
        f"{tags_break} the scheme {scheme} ({how}); they are read as conlleval does, where a stray "
        f"I begins an entity",
        places,
    )


def _counted(
    column: Column, scheme: Scheme | None, labels: dict[Split, list[list[str]]]
) -> Labelled:
    tags = {split: Counter(tag for one in all_ for tag in one) for split, all_ in labels.items()}
    if scheme is None:
        names = tags
    else:
        names = {
            split: Counter({tag[2:]: n for tag, n in found.items() if tag.startswith("B-")})
            for split, found in tags.items()
        }
    return Labelled(
        head=column.head,
        kind=column.config.kind,
        scheme=scheme,
        listing=column.listing,
        listed=column.config.labels,
        sentences=column.sentences,
        labels=labels,
        tags=tags,
        counts={
            split: dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))
            for split, found in names.items()
        },
    )


# ---------------------------------------------------------------- names


def unlisted(head: Labelled) -> Finding:
    """Labels outside those that the config lists, which training refuses, and listed ones that
    nothing is labelled with.
    """
    check = "listed labels"
    if head.listed is None:
        return Finding(check, "pass", f"{head.listing} is not given: {head.named(len(head.names))}")
    outside = [name for name in head.names if name not in head.listed]
    if outside:
        places = Places(p for split in head.counts for p in head.examples(split, outside))
        shown = listed(map(head.in_splits, outside))
        message = f"{head.nouns} that {head.listing} does not list: {shown}; add them, or take them"
        return Finding(check, "failure", f"{message} out of the data", places)
    if absent := [name for name in head.listed if name not in head.names]:
        message = f"{head.nouns} of {head.listing} that the data does not have: {listed(absent)}"
        return Finding(check, "warning", message)
    return Finding(check, "pass", f"the data has the {head.nouns} of {head.listing} and no others")


_LATIN = str.maketrans(
    "АВЕКМНОРСТХУаеорсхуАΑΒΕΖΗΙΚΜΝΟΡΤΥΧο",  # noqa: RUF001
    "ABEKMHOPCTXYaeopcxyAABEZHIKMNOPTYXo",
)
"""Cyrillic and Greek letters that look like Latin ones."""


def look_alikes(head: Labelled) -> Finding:
    """Names that differ in case, marks or letters that look the same, and mean one thing."""
    alike: dict[str, list[str]] = {}
    for name in head.names:
        alike.setdefault(_looks(name, head.kind), []).append(name)
    groups = [names for names in alike.values() if len(names) > 1]
    check = "look-alikes"
    if not groups:
        return Finding(check, "pass", f"no two {head.nouns} have names that look alike")
    rare = {name for names in groups for name in names[1:]}
    places = Places(p for split in head.counts for p in head.examples(split, rare))
    shown = listed(" and ".join(map(_spelt, names)) for names in groups)
    message = f"{head.nouns} whose names look alike: {shown}; is each a {head.noun} of its own?"
    return Finding(check, "warning", message, places)


def _spelt(name: str) -> str:
    """A name that can be told from one that looks the same."""
    return quoted(name) if name.isascii() else f"{quoted(name)} ({shortened(ascii(name))})"


def _looks(name: str, kind: HeadKind) -> str:
    """What a name has in common with those that look like it."""
    name = "".join(char for char in normalize("NFKC", name) if category(char) != "Cf")
    name = "".join(name.translate(_LATIN).casefold().split())
    if kind == "classes":
        # Their marks can have a meaning: PRP and PRP$.
        return name
    return name.translate(str.maketrans("", "", string.punctuation)) or name


# ---------------------------------------------------------------- numbers


def empty_splits(head: Labelled) -> Finding:
    """Splits without an entity; of classes, a training split with one class alone."""
    check = "entities"
    if head.kind == "classes":
        train = list(head.counts.get("train", ()))
        if len(train) == 1:
            message = f"every word of train has the class {shortened(train[0])}"
            return Finding(check, "failure", f"{message}: there is nothing to learn")
        return Finding(check, "pass", f"{head.named(len(head.names))} in all")
    empty = [split for split, counts in head.counts.items() if not counts]
    if not empty:
        return Finding(check, "pass", "every split has entities")
    places = Places(Place.of(head.sentences[split][0], 0) for split in empty)
    message = f"no entity in {', '.join(empty)}: every tag is O; is the column of tags right?"
    return Finding(check, "failure" if "train" in empty else "warning", message, places)


def unlearnable(head: Labelled) -> Finding:
    """Labels that other splits have and training does not."""
    check = "labels without training"
    if (skipped := _needs_train(check, head)) is not None:
        return skipped
    train = head.counts["train"]
    unseen = [name for name in head.names if name not in train]
    if not unseen:
        return Finding(check, "pass", f"train has examples of every {head.noun}")
    places = Places(p for split in head.counts for p in head.examples(split, unseen))
    shown = listed(map(head.in_splits, unseen))
    message = f"{head.named(len(unseen))} that train has no example of: {shown}; cannot be learnt"
    return Finding(check, "warning", message, places)


def unscored(head: Labelled) -> list[Finding]:
    """Labels that are trained and that a split for scoring has none of."""
    check = "labels without scoring"
    if (skipped := _needs_train(check, head)) is not None:
        return [skipped]
    findings = []
    for split, counts in head.counts.items():
        absent = [name for name in head.counts["train"] if name not in counts]
        # An empty split is told by a check of its own.
        if not absent or not counts:
            continue
        shown = listed(map(head.in_splits, absent))
        message = f"{head.named(len(absent))} of train that {split} has no example of: {shown}"
        places = Places(head.examples("train", absent))
        findings.append(Finding(check, "warning", f"{message}; no score will tell of it", places))
    scored = f"validation and test have every {head.noun} of train, as far as they are given"
    return findings or [Finding(check, "pass", scored)]


def rare(head: Labelled) -> Finding:
    """Labels with few training examples."""
    check = "rare labels"
    if (skipped := _needs_train(check, head)) is not None:
        return skipped
    train = head.counts["train"]
    few = sorted((n, name) for name, n in train.items() if n < FEW_EXAMPLES)
    if not few:
        return Finding(
            check, "pass", f"train has {FEW_EXAMPLES} examples or more of each of its {head.nouns}"
        )
    shown = listed(f"{shortened(name)} ({n})" for n, name in few)
    return Finding(
        check,
        "warning",
        f"{len(few):,} of {head.named(len(train))} with fewer than {FEW_EXAMPLES} examples in "
        f"train: {shown}; scores of these are chance",
        Places(head.examples("train", [name for _, name in few])),
    )


def balance(head: Labelled) -> Finding:
    """How much of the training words the commonest label is of, and how uneven the types are."""
    check = "balance"
    if (skipped := _needs_train(check, head)) is not None:
        return skipped
    (label, most), words = head.tags["train"].most_common(1)[0], head.words("train")
    train = head.counts["train"]
    message = f"{percent(most, words)} of the words of train are {shortened(label)}"
    if most / words > _MOST_OF_ONE and len(head.tags["train"]) > 1:
        message += "; see loss.class_weights, or is a part of the text not annotated?"
        return Finding(check, "warning", message)
    common = list(train.items())
    if head.kind == "tags" and common and common[0][1] >= _UNEVEN * common[-1][1]:
        (first, many), (last, few) = common[0], common[-1]
        uneven = f"{many:,} entities of {shortened(first)} for {few:,} of {shortened(last)}"
        return Finding(check, "warning", f"{message}; {uneven}: see loss.class_weights")
    return Finding(check, "pass", message)


def shifted(head: Labelled) -> list[Finding]:
    """Types that are much denser in one split than in train: another text, or another annotator."""
    check = "shares"
    if (skipped := _needs_train(check, head)) is not None:
        return [skipped]
    findings = []
    for split in head.counts:
        odd = [name for name in head.counts["train"] if _is_shifted(head, split, name)]
        if odd:
            shown = listed(_densities(head, split, name) for name in odd)
            message = f"{head.nouns} whose share differs {_SHIFTED} times or more: {shown}"
            findings.append(
                Finding(check, "warning", f"{message}; are the splits annotated alike?")
            )
    alike = f"no {head.noun} is {_SHIFTED} times as dense in train as elsewhere, or conversely"
    return findings or [Finding(check, "pass", alike)]


def _is_shifted(head: Labelled, split: Split, name: str) -> bool:
    here, there = head.counts["train"][name], head.counts[split].get(name, 0)
    if not there:
        return False
    ratio = (there / head.words(split)) / (here / head.words("train"))
    # What each would have at the density of the other.
    return (ratio >= _SHIFTED and there >= _ENOUGH and here * ratio >= _ENOUGH) or (
        ratio <= 1 / _SHIFTED and here >= _ENOUGH and there / ratio >= _ENOUGH
    )


def _densities(head: Labelled, split: Split, name: str) -> str:
    each = (
        f"{1000 * head.counts[one][name] / head.words(one):.1f} in {one}"
        for one in ("train", split)
    )
    return f"{shortened(name)} (of 1,000 words {', '.join(each)})"


def _needs_train(check: str, head: Labelled) -> Finding | None:
    """Why a check cannot be made, if train could not be read or has no labels."""
    if head.counts.get("train"):
        return None
    why = "train has no entity" if "train" in head.counts else "train could not be read"
    return Finding(check, "skipped", why)
