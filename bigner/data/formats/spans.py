"""JSON lines with a text and its entities, as annotation tools export them.

    {"text": "Anna lives in Oslo", "entities": [{"start": 14, "end": 18, "label": "LOC"}]}

Offsets count code points of ``text`` from 0, ``end`` is exclusive. Entities must not overlap; white
space at their edges belongs to no word and is let go. Other keys, such as ids, are not read.

A text is a document. Its lines are its sentences, except that no sentence ends inside an entity.
Its words are those of `tokenise`, cut once more where an entity starts or ends inside one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from sys import intern
from unicodedata import category, name

from bigner.config.schema import DataConfig, Split
from bigner.data.formats.files import read_objects, source_files
from bigner.data.formats.sentence import Sentence, field_of, require_text
from bigner.errors import DataError

_KEYS = "a line is {'text': ..., 'entities': [{'start': 0, 'end': 4, 'label': 'PER'}]}"


def read(data: DataConfig, split: Split) -> Iterator[Sentence]:
    """The sentences of texts with character spans; tags are IOB2, ``lines`` those of the record.

    Raises:
        DataError: with file, line and entity, where a record is not as this module says.
    """
    for document, (text, file, line, entities) in enumerate(records(data, split)):
        for words, tags in _sentences(text, entities):
            yield Sentence(words, [tags], document, file, [line] * len(words))


def records(data: DataConfig, split: Split) -> Iterator[tuple[str, str, int, list[Entity]]]:
    """The records of a split: text, file, line, and entities in the order of the text.

    Raises:
        DataError: as in ``read``.
    """
    for path in source_files(data, split):
        file = str(path)
        for line, record in read_objects(path):
            text = _text(record, file, line)
            yield text, file, line, _entities(record, text, file, line)


def tokenise(text: str) -> list[tuple[int, int]]:
    """The words of a text as (start, end) in code points; together they hold all but white space.

    A word is a run of letters, digits and the marks on them, with apostrophes inside it
    (``O'Neil``; a final ``'s`` is a word of its own) and with points and commas between digits
    (``1,000.5``), or one other character. Letters of scripts that put no spaces between words (Han,
    kana, Thai, Lao, Khmer, Myanmar) are a word each, since nothing tells where a longer one ends.
    """
    return list(_words(text))


def _words(text: str) -> Iterator[tuple[int, int]]:
    # One class letter a code point, so that offsets in the classes are offsets in the text.
    classes = text.translate(_CLASSES)
    for match in _WORD.finditer(_INSIDE.sub("j", classes)):
        start, end = match.span()
        if end - start > 2 and text[end - 1] in "sS" and classes[end - 2] == "a":
            yield start, end - 2
            start = end - 2
        yield start, end


# Letters w, digits d, marks and format characters m, letters without spaces i, apostrophes a,
# points and commas n, white space s, everything else p; j for a and n that are inside a word. They
# are marked first because a repeated group would remember each of its turns.
_INSIDE = re.compile(r"(?<=[wdm])a(?=[wd])|(?<=d)n(?=d)")
_WORD = re.compile(r"m*[wd][wdmj]*|im*|m+|[ajnp]m*")

_UNSPACED = (
    "CJK",
    "IDEOGRAPHIC",
    "HIRAGANA",
    "KATAKANA",
    "HALFWIDTH KATAKANA",
    "THAI",
    "LAO",
    "KHMER",
    "MYANMAR",
)


class _Classes(dict[int, str]):
    """Code point -> its class; filled as code points are met."""

    def __missing__(self, code: int) -> str:
        self[code] = found = _class_of(chr(code))
        return found


def _class_of(char: str) -> str:
    if char.isspace():
        return "s"
    kind = category(char)
    if kind == "Nd":
        return "d"
    if kind[0] == "M" or kind == "Cf":
        return "m"
    if kind[0] in "LN":
        return "i" if name(char, "").startswith(_UNSPACED) else "w"
    return "p"


_APOSTROPHES = "'\N{RIGHT SINGLE QUOTATION MARK}"
_CLASSES = _Classes(
    {
        **dict.fromkeys(map(ord, _APOSTROPHES), "a"),
        **dict.fromkeys(map(ord, ".,"), "n"),
        ord("_"): "w",
    }
)


@dataclass(frozen=True, slots=True, order=True)
class Entity:
    """Code points ``start`` to ``end`` of a text, and what they name."""

    start: int
    end: int
    label: str


def _text(record: Mapping[str, object], file: str, line: int) -> str:
    text = field_of(record, "text", role=_KEYS, file=file, line=line)
    if not isinstance(text, str):
        raise DataError.at(file, line, f"'text' must be a string, and is {text!r:.60}")
    if not text or text.isspace():
        raise DataError.at(file, line, "the text has no words; take the line out")
    require_text(text, file, line)
    return text


def _entities(record: Mapping[str, object], text: str, file: str, line: int) -> list[Entity]:
    """The entities of a record in the order of the text, each checked, none overlapping."""
    listed = field_of(record, "entities", role=_KEYS, file=file, line=line)
    if not isinstance(listed, list):
        raise DataError.at(file, line, f"'entities' must be a list; {_KEYS}")
    entities = sorted(_entity(item, text, file, line) for item in listed)
    for one, other in pairwise(entities):
        if other.start < one.end:
            raise DataError.at(
                file,
                line,
                f"{_shown(one, text)} and {_shown(other, text)} overlap, and a word has one tag; "
                f"keep one of them",
            )
    return entities


def _entity(item: object, text: str, file: str, line: int) -> Entity:
    if not isinstance(item, dict):
        raise DataError.at(file, line, f"an entity must be an object, and is {item!r:.60}; {_KEYS}")
    start, end, label = (
        field_of(item, key, role=f"the entity is {item!r:.80}", file=file, line=line)
        for key in ("start", "end", "label")
    )
    # bool is an int to Python, and no offset.
    if type(start) is not int or type(end) is not int:
        reason = f"start and end must be whole numbers: {item!r:.80}"
    elif not isinstance(label, str) or not label.strip():
        reason = f"label must be a string that is not empty: {item!r:.80}"
    elif not 0 <= start < end <= len(text):
        reason = (
            f"start and end must be 0 <= start < end <= {len(text)}, the length of the text in "
            f"code points: {item!r:.80}"
        )
    elif text[start:end].isspace():
        reason = f"the entity covers white space alone: {item!r:.80}"
    else:
        require_text(label, file, line)
        return Entity(start, end, label)
    raise DataError.at(file, line, reason)


def _shown(entity: Entity, text: str) -> str:
    surface = text[entity.start : entity.end]
    return f"{entity.label:.40} {entity.start}-{entity.end} {surface!r:.40}"


def _sentences(text: str, entities: list[Entity]) -> Iterator[tuple[list[str], list[str]]]:
    """The sentences of a text as words and IOB2 tags."""
    words: list[str] = []
    tags: list[str] = []
    behind, last = 0, None
    for start, end, entity in _words_in_entities(text, entities):
        inside = entity is not None and entity is last
        if words and not inside and "\n" in text[behind:start]:
            yield words, tags
            words, tags = [], []
        words.append(text[start:end])
        # One string a tag, however many words it is the tag of.
        tags.append("O" if entity is None else intern(f"{'I' if inside else 'B'}-{entity.label}"))
        behind, last = end, entity
    if words:
        yield words, tags


def _words_in_entities(
    text: str, entities: list[Entity]
) -> Iterator[tuple[int, int, Entity | None]]:
    """The words of a text, cut at the edges of entities, each with the entity it is in."""
    upcoming = iter(entities)
    entity = next(upcoming, None)
    for start, end in _words(text):
        while start < end:
            while entity is not None and entity.end <= start:
                entity = next(upcoming, None)
            if entity is None or entity.start >= end:
                yield start, end, None
                break
            inside = entity.start <= start
            cut = min(end, entity.end if inside else entity.start)
            yield start, cut, entity if inside else None
            start = cut  # noqa: PLW2901
