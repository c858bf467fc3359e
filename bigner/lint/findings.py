"""What a check has to tell: a level, a sentence and places."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from bigner.data.formats import Sentence
from bigner.errors import printable

Level = Literal["pass", "skipped", "warning", "failure"]
"""``failure``: training refuses the data, or its scores would mean nothing. ``warning``: it can be
trained with, and should be known. ``skipped``: could not be looked at, for the reason told."""

MOST_PLACES = 1000
"""Places of one finding that are kept and written as JSON; the rest is counted."""
PLACES_SHOWN = 5
NAMES_SHOWN = 8

_LONGEST_TEXT = 60
# What is quoted of hostile input ends somewhere.
_LONGEST_NOTE = 200


@dataclass(frozen=True, slots=True)
class Place:
    """A line of a data file, with what stands there."""

    file: str
    line: int
    """Counted from 1."""
    text: str = ""

    @classmethod
    def of(cls, sentence: Sentence, word: int, text: str = "") -> Place:
        """The place of a word of a sentence."""
        return cls(sentence.file, sentence.lines[word], shortened(text, _LONGEST_NOTE))

    def seen_from(self, other: Place) -> str:
        """The place, as short as it can be said beside another."""
        return f"line {self.line}" if self.file == other.file else f"{self.file}:{self.line}"

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}"
        return printable(f"{where} {self.text}" if self.text else where)


class Places:
    """All places of a finding: the first of them, and how many there are.

    Args:
        places: in the order in which they are shown.
    """

    def __init__(self, places: Iterable[Place] = ()) -> None:
        self.kept: list[Place] = []
        self._count = 0
        for place in places:
            self.add(place)

    def add(self, place: Place) -> None:
        """One more place."""
        self._count += 1
        if len(self.kept) < MOST_PLACES:
            self.kept.append(place)

    def followed_by(self, others: Places) -> Places:
        """These places and then others."""
        both = Places([*self.kept, *others.kept])
        both._count = len(self) + len(others)
        return both

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Place]:
        return iter(self.kept)


@dataclass(frozen=True, slots=True)
class Finding:
    """The outcome of one check."""

    check: str
    """Its name, which stays the same whatever it finds."""
    level: Level
    message: str
    places: Places = field(default_factory=Places)
    head: str | None = None
    """The head whose labels were looked at; None where it is about the words."""

    def as_json(self) -> dict[str, Any]:
        """As ``--json`` writes it."""
        return {
            "check": self.check,
            "head": self.head,
            "level": self.level,
            "message": self.message,
            "num_places": len(self.places),
            "places": [
                {"file": place.file, "line": place.line, "text": place.text}
                for place in self.places
            ],
        }


def quoted(text: str) -> str:
    """A word or label between quotes, whatever characters it is made of, and not too long."""
    return repr(shortened(text))


def shortened(text: str, longest: int = _LONGEST_TEXT) -> str:
    """A text with its end left out, if it is long."""
    return text if len(text) <= longest else f"{text[: longest - 3]}..."


def counted(number: int, noun: str, plural: str = "") -> str:
    """A number with its noun, such as ``1 word`` or ``1,200 words``."""
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"


def listed(names: Iterable[str]) -> str:
    """The first names of many."""
    names = [shortened(name, _LONGEST_NOTE) for name in names]
    more = len(names) - NAMES_SHOWN
    return "; ".join([*names[:NAMES_SHOWN], *([f"and {more:,} more"] if more > 0 else [])])


def percent(part: int, whole: int) -> str:
    """A share, such as ``3.1 %``."""
    return f"{100 * part / whole:.1f} %"
