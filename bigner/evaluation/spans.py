"""What an entity is: a run of words, read from label ids as seqeval reads it from tags.

Whether an entity begins, goes on or ends between two words follows from the prefixes of both tags
and from whether their types are the same. That is looked up for all words at once in a table of a
few hundred entries, so no word becomes a Python object. seqeval is not imported here;
``tests/unit/test_spans.py`` holds this to it, for every scheme in both of its modes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.integer[Any]]
"""Label ids, in any type of integers: most often in one byte each."""
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

StrictScheme = Literal["IOB1", "IOB2", "IOE1", "IOE2", "IOBES", "BILOU"]
"""What seqeval's strict mode knows, by the names it gives them."""

# First letters of tags; the last stands for all others.
_LETTERS = "OBIESLU.?"
_BEGINS, _GOES_ON, _ENDS = 1, 2, 4


@dataclass(frozen=True, slots=True)
class _Rules:
    """Between which tags an entity begins, goes on or ends.

    Patterns, any of which may hold: ``BI>I=`` is a B or an I before an I of the same type, ``!`` is
    another type, neither sign is either, and ``*`` is every letter.
    """

    begins: str
    ends: str
    goes_on: str = ""
    letters: str = _LETTERS
    """Those that the scheme has."""


# seqeval.metrics.sequence_labeling: start_of_chunk and end_of_chunk.
_LENIENT = _Rules(begins="*>BS OES>IE *>BIESLU?!", ends="ES>* BI>BSO BIESLU?>*!")
# seqeval.scheme: start_patterns, end_patterns, inside_patterns and allowed_prefix.
_STRICT: dict[StrictScheme, _Rules] = {
    "IOB1": _Rules("OB>I I>I! IB>B=", "IB>O IB>I! I>B B>B=", "BI>I=", "IOB"),
    "IOB2": _Rules("*>B", "IB>O IB>I! IB>B", "BI>I=", "IOB"),
    "IOE1": _Rules("OE>I I>I! E>E=", "I>O I>IE! E>IE=", "I>IE=", "IOE"),
    "IOE2": _Rules("OE>IE I>IE!", "E>*", "I>IE=", "IOE"),
    "IOBES": _Rules("*>BS", "SE>*", "BI>IE=", "IOBES"),
    "BILOU": _Rules("*>BU", "UL>*", "BI>IL=", "BILOU"),
}


# Arrays have no one answer to whether they are equal.
@dataclass(frozen=True, slots=True, eq=False)
class Spans:
    """Entities in the order of their last words, of which no two entities share one."""

    first: Ints
    """``[entities]``: place of the first word of each."""
    last: Ints
    """``[entities]``: place of the last."""
    types: Ints
    """``[entities]``: number of the type of each."""

    def among(self, others: Spans) -> Spans:
        """Those that the others have too, with the type and both boundaries."""
        if not len(others.last):
            return Spans(self.first[:0], self.last[:0], self.types[:0])
        at = np.searchsorted(others.last, self.last).clip(max=len(others.last) - 1)
        same = (
            (others.last[at] == self.last)
            & (others.first[at] == self.first)
            & (others.types[at] == self.types)
        )
        return Spans(self.first[same], self.last[same], self.types[same])


class SpanReader:
    """Reads entities from label ids.

    Args:
        tags: the tag of each id. Without a scheme any strings that are not empty.
        scheme: seqeval's strict mode: only what the scheme allows to the letter is an entity. None
            for its default mode, which is conlleval's and takes an entity to begin where a tag
            continues nothing.
    """

    def __init__(self, tags: Sequence[str], scheme: StrictScheme | None = None) -> None:
        self.outside = len(tags)
        """An id beyond those of the tags that is read as O; for what stands between sentences."""
        self._tags = (*tags, "O")
        self._scheme = scheme
        self._rules = _STRICT[scheme] if scheme else _LENIENT
        self._table = _table(self._rules)
        type_of = _strict_type if scheme else _lenient_type
        # The type of O comes first.
        numbers = {type_of("O"): 0}
        types = [numbers.setdefault(type_of(tag), len(numbers)) for tag in self._tags]
        self.types = tuple(numbers)
        """The type of each number."""
        # One number more, for there is no type before the first word.
        self._type_of = np.array(types, dtype=np.min_scalar_type(len(numbers)))
        self._letter_of = np.array([_letter(tag) for tag in self._tags], dtype=np.uint8)

    def read(self, ids: Ids) -> Spans:
        """The entities of words in a row.

        Args:
            ids: ``[words]``, with ``outside`` between two sentences, or whatever else is an O.

        Raises:
            ValueError: a tag is none of the scheme's.
        """
        self._check_letters(ids)
        letters = np.zeros(len(ids) + 2, dtype=np.uint8)
        types = np.zeros(len(ids) + 2, dtype=self._type_of.dtype)
        letters[1:-1], types[1:-1] = self._letter_of[ids], self._type_of[ids]
        types[0] = len(self.types)
        # [words + 1]: what happens before each word, and behind the last.
        steps = (letters[:-1] * len(_LETTERS) + letters[1:]) * 2 + (types[:-1] == types[1:])
        happens = self._table[steps]
        first, last = _strictly(happens) if self._scheme else _leniently(happens)
        return Spans(first, last, types[1:][last].astype(np.int64))

    def _check_letters(self, ids: Ids) -> None:
        allowed = [_LETTERS.index(letter) for letter in self._rules.letters]
        wrong = ~np.isin(self._letter_of, allowed)
        if not wrong.any():
            return
        for place in ids[wrong[ids]][:1]:
            raise ValueError(f"{self._tags[place]!r} is no tag of the scheme {self._scheme}")


def _leniently(happens: npt.NDArray[np.uint8]) -> tuple[Ints, Ints]:
    """First and last words: what ends began where an entity last did before."""
    ends = np.flatnonzero(happens & _ENDS > 0)
    # Where none did, as with prefixes that conlleval does not know, at the first word of all.
    begins = np.append(0, np.flatnonzero(happens & _BEGINS > 0))
    return begins[np.searchsorted(begins[1:], ends)], ends - 1


def _strictly(happens: npt.NDArray[np.uint8]) -> tuple[Ints, Ints]:
    """First and last words: what begins goes on for as long as it may, and must end there."""
    begins = np.flatnonzero(happens & _BEGINS > 0)
    stops = np.flatnonzero(happens & _GOES_ON == 0)
    ends = stops[np.searchsorted(stops, begins, side="right")]
    # Of several beginnings before one end the first counts: within an entity none begins.
    whole = (np.diff(ends, prepend=-1) > 0) & (happens[ends] & _ENDS > 0)
    return begins[whole], ends[whole] - 1


def _table(rules: _Rules) -> npt.NDArray[np.uint8]:
    """``[letters before x letters here x (another type, the same)]``, flat: what happens there."""
    table = np.zeros((len(_LETTERS), len(_LETTERS), 2), dtype=np.uint8)
    patterns = ((_BEGINS, rules.begins), (_GOES_ON, rules.goes_on), (_ENDS, rules.ends))
    for what, together in patterns:
        for pattern in together.split():
            before, here = pattern.rstrip("=!").split(">")
            same = {"!": [0], "=": [1]}.get(pattern[-1], [0, 1])
            table[np.ix_(_places(before), _places(here), same)] |= what
    return table.ravel()


def _places(letters: str) -> list[int]:
    return [_LETTERS.index(letter) for letter in (_LETTERS if letters == "*" else letters)]


def _letter(tag: str) -> int:
    place = _LETTERS.find(tag[0])
    return len(_LETTERS) - 1 if place < 0 else place


def _lenient_type(tag: str) -> str:
    return tag[1:].split("-", 1)[-1] or "_"


def _strict_type(tag: str) -> str:
    return tag[1:].strip("-") or "_"


@dataclass(frozen=True, slots=True, eq=False)
class Matches:
    """The entities of gold and those of a prediction for the same words."""

    gold: Spans
    predicted: Spans
    correct: Spans
    """Those predicted with the type and both boundaries of gold."""
    types: tuple[str, ...]
    """The type of each number."""

    @classmethod
    def of(cls, gold: Ids, predicted: Ids, reader: SpanReader) -> Matches:
        """Read both.

        Args:
            gold: ``[words]``, ids of the reader's tags.
            predicted: ``[words]``, ids of the same.
            reader: what says what an entity is.
        """
        assert len(gold) == len(predicted)
        there, here = reader.read(gold), reader.read(predicted)
        return cls(there, here, here.among(there), reader.types)

    def counted(self, group: Callable[[Spans], Ints], groups: int) -> tuple[Ints, Ints, Ints]:
        """``[groups]`` each: how many of gold, of those predicted and of the correct ones.

        Args:
            group: the number of the group of each entity.
            groups: how many there are.
        """
        gold, predicted, correct = (
            np.bincount(group(spans), minlength=groups)
            for spans in (self.gold, self.predicted, self.correct)
        )
        return gold, predicted, correct

    def by_type(self) -> dict[str, tuple[int, int, int]]:
        """How many of gold, predicted and correct; of each type in either, sorted."""
        counts = np.stack(self.counted(lambda spans: spans.types, len(self.types)), axis=1)
        named = zip(self.types, counts.tolist(), strict=True)
        return {
            name: (gold, predicted, correct)
            for name, (gold, predicted, correct) in sorted(named)
            if gold or predicted
        }
