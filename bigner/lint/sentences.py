"""Sentences that come twice, that are too short or too long, and where documents begin."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import blake2b

from bigner.config.schema import DataConfig, Split
from bigner.data.formats import Sentence
from bigner.data.labels import Scheme, to_iob2
from bigner.lint.findings import Finding, Level, Place, Places, counted, percent
from bigner.lint.reading import Sentences

Group = list[tuple[Split, Sentence]]
"""Sentences of the same words with their splits, in the order of splits and files."""

LONG = 4
"""A sentence of fewer words may well come twice by itself."""
GIANT = 1000
"""Words of a sentence that is none."""

_MANY = 0.05
_MOST = 0.5
# Of fewer sentences a share says nothing.
_ENOUGH = 50
_PAIRS: tuple[tuple[Split, Split], ...] = (
    ("validation", "train"),
    ("test", "train"),
    ("test", "validation"),
)


def repeated(sentences: Sentences) -> list[Group]:
    """Sentences that there are two or more of, words compared exactly."""
    groups: dict[bytes, Group] = {}
    for split, of_split in sentences.items():
        for sentence in of_split:
            key = blake2b("\n".join(sentence.words).encode(), digest_size=16).digest()
            groups.setdefault(key, []).append((split, sentence))
    return [group for group in groups.values() if len(group) > 1]


def duplicates(groups: Sequence[Group], sentences: Sentences) -> list[Finding]:
    """Sentences that a split has more than once; a finding for each split."""
    findings = []
    for split, of_split in sentences.items():
        found = _repeats(groups, split, split)
        total = len(of_split)
        repeat = "repeats" if len(found) == 1 else "repeat"
        message = (
            f"{len(found):,} of {counted(total, 'sentence')} of {split} {repeat} an earlier one "
            f"of it{_of_them_long(found)}"
        )
        findings.append(Finding("duplicates", _level(found, total), message, _places(found)))
    return findings


def leaks(groups: Sequence[Group], sentences: Sentences) -> list[Finding]:
    """Sentences that one split has from another; a finding for each pair of splits."""
    pairs = [pair for pair in _PAIRS if sentences.keys() >= set(pair)]
    if not pairs:
        return [Finding("leaks", "skipped", "there are no two splits to compare")]
    return [_leak(groups, sentences, split, source) for split, source in pairs]


def _leak(groups: Sequence[Group], sentences: Sentences, split: Split, source: Split) -> Finding:
    found = _repeats(groups, split, source)
    total = len(sentences[split])
    are = "is" if len(found) == 1 else "are"
    message = (
        f"{len(found):,} of {counted(total, 'sentence')} of {split} {are} in {source} "
        f"too{_of_them_long(found)}"
    )
    level = _level(found, total)
    if len(found) > _MOST * total:
        level = "failure"
        message += f": scores on {split} tell what was remembered, and not what was learnt"
    if both := {s.file for s in sentences[split]} & {s.file for s in sentences[source]}:
        message += f"; both read {min(both)}"
    return Finding("leaks", level, message, _places(found))


def contradictions(groups: Sequence[Group], schemes: Mapping[str, Scheme | None]) -> Finding:
    """Sentences of the same words that are labelled in two ways, within splits or across them.

    Args:
        groups: sentences of the same words.
        schemes: head -> scheme of its tags, so that two spellings of the same entities are one;
            None where the labels are compared as they stand.
    """
    places, of_groups = Places(), 0
    for group in groups:
        (_, first), *others = group
        expected = _labels(first, schemes)
        before = len(places)
        for _, sentence in others:
            if (found := _labels(sentence, schemes)) != expected:
                word, head = _difference(found, expected)
                named = f"{list(schemes)[head]} " if len(schemes) > 1 else ""
                at = Place.of(first, word).seen_from(Place.of(sentence, word))
                text = f"{named}{found[head][word]} for {expected[head][word]} at {at}"
                places.add(Place.of(sentence, word, text))
        of_groups += len(places) > before
    if not places:
        return Finding("contradictions", "pass", "sentences of the same words have the same labels")
    have = "has" if of_groups == 1 else "have"
    return Finding(
        "contradictions",
        "warning",
        f"{of_groups:,} of {counted(len(groups), 'sentence')} found more than once {have} other "
        f"labels elsewhere",
        places,
    )


def _labels(sentence: Sentence, schemes: Mapping[str, Scheme | None]) -> list[list[str]]:
    """``[heads][words]``, tags in IOB2."""
    return [
        tags if scheme is None else to_iob2(tags, scheme)[0]
        for tags, scheme in zip(sentence.tags, schemes.values(), strict=True)
    ]


def _difference(found: list[list[str]], expected: list[list[str]]) -> tuple[int, int]:
    """The first word that is labelled differently, and the head that does."""
    return next(
        (word, head)
        for word in range(len(found[0]))
        for head in range(len(found))
        if found[head][word] != expected[head][word]
    )


def _repeats(
    groups: Sequence[Group], split: Split, source: Split
) -> list[tuple[Sentence, Sentence]]:
    """The sentences of a split that another split, or an earlier line of it, has too, with that."""
    found = []
    for group in groups:
        here = [sentence for name, sentence in group if name == split]
        there = [sentence for name, sentence in group if name == source]
        if split == source:
            here = here[1:]
        if there:
            found += [(sentence, there[0]) for sentence in here]
    return found


def _of_them_long(found: Sequence[tuple[Sentence, Sentence]]) -> str:
    return f" ({_num_long(found):,} of at least {LONG} words)" if found else ""


def _num_long(found: Sequence[tuple[Sentence, Sentence]]) -> int:
    return sum(len(sentence.words) >= LONG for sentence, _ in found)


def _level(found: Sequence[tuple[Sentence, Sentence]], total: int) -> Level:
    """A few short ones are no wonder."""
    return "warning" if _num_long(found) or len(found) > _MANY * total else "pass"


def _places(found: Sequence[tuple[Sentence, Sentence]]) -> Places:
    places = Places()
    for sentence, other in found:
        at = Place.of(other, 0).seen_from(Place.of(sentence, 0))
        places.add(Place.of(sentence, 0, f"as {at}"))
    return places


# ---------------------------------------------------------------- lengths and documents


def lengths(sentences: Sentences) -> list[Finding]:
    """Sentences of one word, where they are most, and sentences that are none."""
    check = "sentences"
    findings = []
    for split, of_split in sentences.items():
        single = [s for s in of_split if len(s.words) == 1]
        if len(of_split) >= _ENOUGH and len(single) > _MOST * len(of_split):
            message = (
                f"{percent(len(single), len(of_split))} of the sentences of {split} have one word; "
                f"is there a blank line too many?"
            )
            places = Places(Place.of(s, 0) for s in single)
            findings.append(Finding(check, "warning", message, places))
    giants = [s for of_split in sentences.values() for s in of_split if len(s.words) > GIANT]
    if giants:
        places = Places(Place.of(s, 0, counted(len(s.words), "word")) for s in giants)
        message = (
            f"{counted(len(giants), 'sentence')} of more than {GIANT:,} words; are blank lines"
        )
        findings.append(Finding(check, "warning", f"{message} missing?", places))
    longest = max((len(s.words) for of_split in sentences.values() for s in of_split), default=0)
    told = f"the longest sentence has {counted(longest, 'word')}"
    return findings or [Finding(check, "pass", told)]


def documents(data: DataConfig, sentences: Sentences) -> list[Finding]:
    """Splits without boundaries between documents, where documents decide what is read together."""
    check = "documents"
    if data.unit == "sentence" and not data.context:
        unused = "documents are not used (data.unit sentence, data.context 0)"
        return [Finding(check, "pass", unused)]
    findings = []
    for split, of_split in sentences.items():
        number = of_split[-1].document + 1
        if len(of_split) < _ENOUGH:
            continue
        place = Places([Place.of(of_split[0], 0)])
        if number == 1:
            message = f"all {len(of_split):,} sentences of {split} are one document; are the"
            findings.append(Finding(check, "warning", f"{message} boundaries missing?", place))
        elif number == len(of_split):
            message = (
                f"each sentence of {split} is a document of its own, so that none is read with its "
                f"neighbours; are the boundaries where they should be?"
            )
            findings.append(Finding(check, "warning", message, place))
    return findings or [Finding(check, "pass", "every split has documents of several sentences")]
