"""Words that are not what they look like, and entities whose edges are in the wrong place."""

from __future__ import annotations

from collections.abc import Iterator
from unicodedata import category

from bigner.config.schema import DataConfig, Split
from bigner.data.formats import Sentence, spans
from bigner.lint.findings import Finding, Place, Places, counted, listed, quoted
from bigner.lint.reading import Sentences

_JOINERS = "\u200c\u200d"
"""Change how their neighbours are written in Persian, in Indic scripts and in emoji."""
_REPLACEMENT = "\ufffd"


def white_space(sentences: Sentences, tag_heads: list[int]) -> Finding:
    """Words that begin or end with white space, or are nothing else.

    Args:
        sentences: of all splits.
        tag_heads: places of the heads of entities among a sentence's ``tags``.
    """
    entities, others = Places(), Places()
    known: dict[str, bool] = {}
    for sentence, i, word in _words(sentences):
        if (odd := known.get(word)) is None:
            odd = known[word] = word != word.strip()
        if odd:
            places = entities if in_entity(sentence, i, tag_heads) else others
            places.add(Place.of(sentence, i, quoted(word)))
    places = entities.followed_by(others)
    if not places:
        return Finding("white space", "pass", "no word begins or ends with white space")
    return Finding(
        "white space",
        "warning",
        f"{counted(len(places), 'word')} with white space at the edges or nothing else, "
        f"{len(entities):,} of them in entities; it is no part of a name: take it out",
        places,
    )


def characters(sentences: Sentences, tag_heads: list[int]) -> Finding:
    """Words with characters that nobody sees, or that stand for a character that was lost."""
    entities, others = Places(), Places()
    known: dict[str, str] = {}
    found: dict[str, int] = {}
    for sentence, i, word in _words(sentences):
        if (odd := known.get(word)) is None:
            odd = known[word] = odd_characters(word)
        if odd:
            places = entities if in_entity(sentence, i, tag_heads) else others
            places.add(Place.of(sentence, i, f"{quoted(word)} {odd}"))
            found[odd] = found.get(odd, 0) + 1
    places = entities.followed_by(others)
    if not places:
        return Finding("characters", "pass", "no word has invisible or lost characters")
    kinds = sorted(found, key=lambda odd: (-found[odd], odd))
    return Finding(
        "characters",
        "warning",
        f"{counted(len(places), 'word')} with invisible, private or lost characters "
        f"({listed(f'{odd}: {found[odd]:,}' for odd in kinds)}), {len(entities):,} of them in "
        f"entities; clean the text, and the text that will be tagged likewise",
        places,
    )


def odd_characters(word: str) -> str:
    """The odd characters of a word, such as ``U+200B``; nothing for a word without any.

    Odd are control and format characters (but joiners between two others), private ones, and
    U+FFFD, which stands where a decoder failed.
    """
    if word.isascii() and word.isprintable():
        return ""
    odd = [
        char
        for i, char in enumerate(word)
        if char == _REPLACEMENT or (category(char) in ("Cc", "Cf", "Co") and not _joins(word, i))
    ]
    return " ".join(f"U+{ord(char):04X}" for char in dict.fromkeys(odd))


def _joins(word: str, i: int) -> bool:
    return word[i] in _JOINERS and 0 < i < len(word) - 1


def in_entity(sentence: Sentence, word: int, tag_heads: list[int]) -> bool:
    """Whether a word is in an entity of any head."""
    return any(sentence.tags[place][word] != "O" for place in tag_heads)


def _words(sentences: Sentences) -> Iterator[tuple[Sentence, int, str]]:
    for of_split in sentences.values():
        for sentence in of_split:
            for i, word in enumerate(sentence.words):
                yield sentence, i, word


def entity_edges(data: DataConfig, splits: list[Split]) -> list[Finding]:
    """Of character spans: entities with white space at their edges, and edges inside words."""
    padded, inside = Places(), Places()
    for split in splits:
        for text, file, line, entities in spans.records(data, split):
            words = spans.tokenise(text) if entities else []
            starts, ends = {start for start, _ in words}, {end for _, end in words}
            for entity in entities:
                surface = text[entity.start : entity.end]
                start = entity.start + len(surface) - len(surface.lstrip())
                end = entity.end - len(surface) + len(surface.rstrip())
                shown = f"{entity.start}-{entity.end} {entity.label} {quoted(surface)}"
                if surface != surface.strip():
                    padded.add(Place(file, line, shown))
                if start not in starts or end not in ends:
                    inside.add(Place(file, line, shown))
    return [
        _edges(
            "entity white space",
            padded,
            "white space at their edges",
            "which belongs to no word and is let go",
        ),
        _edges(
            "entity edges",
            inside,
            "edges inside words",
            "which are cut there, and words that will be tagged are not",
        ),
    ]


def _edges(check: str, places: Places, what: str, so: str) -> Finding:
    if not places:
        return Finding(check, "pass", f"no entities with {what}")
    number = counted(len(places), "entity", "entities")
    return Finding(check, "warning", f"{number} with {what}, {so}; are the offsets right?", places)
