"""What is wrong: which predicted entity is held against which gold entity, and how the two differ.

Entities are read as seqeval's default mode does. Within a sentence:

1. A predicted entity with the type and both boundaries of a gold entity is correct.
2. What is left on both sides is paired where it shares a word, each entity at most once: first
   those of the same type, of these first those that share most words, of these first the one whose
   gold entity begins first, and then the one whose predicted entity does.
3. A pair is one error: ``type``, both boundaries are right and the type is not; ``boundary``, the
   type is right and a boundary is not; ``boundary and type``, neither is.
4. A gold entity without a partner is ``missed``, a predicted one ``spurious``.

So every gold entity is correct, in one pair or missed, and every predicted entity is correct, in
one pair or spurious; all errors are counted exactly once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

Kind = Literal["boundary", "type", "boundary and type", "missed", "spurious"]
KINDS: tuple[Kind, ...] = get_args(Kind)


class Span(NamedTuple):
    """An entity of a sentence."""

    first: int
    """Place of its first word in the sentence, from 0."""
    last: int
    """Place of its last."""
    type: str

    def shared(self, other: Span) -> int:
        """How many words it has in common with another; none, or less than that, if apart."""
        return min(self.last, other.last) - max(self.first, other.first) + 1


@dataclass(frozen=True, slots=True)
class SpanError:
    """One thing that is wrong; at least one of the two entities is there."""

    gold: Span | None
    predicted: Span | None

    @property
    def kind(self) -> Kind:
        """What is wrong about it."""
        if self.gold is None:
            return "spurious"
        if self.predicted is None:
            return "missed"
        if self.gold[:2] == self.predicted[:2]:
            return "type"
        return "boundary" if self.gold.type == self.predicted.type else "boundary and type"

    @property
    def place(self) -> tuple[int, int]:
        """The first and the last word of both entities together."""
        spans = [span for span in (self.gold, self.predicted) if span is not None]
        return min(span.first for span in spans), max(span.last for span in spans)


def errors_of(gold: Sequence[Span], predicted: Sequence[Span]) -> list[SpanError]:
    """What is wrong in a sentence, in the order of the words.

    Args:
        gold: entities in the order of their words, of which no two share one.
        predicted: the same of a prediction.
    """
    right = set(gold) & set(predicted)
    missed = [span for span in gold if span not in right]
    spurious = [span for span in predicted if span not in right]
    partners = _paired(missed, spurious)
    paired = set(partners.values())
    errors = [
        *(SpanError(span, partners.get(span)) for span in missed),
        *(SpanError(None, span) for span in spurious if span not in paired),
    ]
    return sorted(errors, key=lambda error: error.place)


def _paired(gold: Sequence[Span], predicted: Sequence[Span]) -> dict[Span, Span]:
    """Gold entities with their partners, of entities of which none is correct."""
    partners: dict[Span, Span] = {}
    taken: set[Span] = set()
    candidates = sorted(
        _overlapping(gold, predicted),
        key=lambda pair: (pair[0].type != pair[1].type, -pair[0].shared(pair[1]), pair),
    )
    for there, here in candidates:
        if there not in partners and here not in taken:
            partners[there] = here
            taken.add(here)
    return partners


def _overlapping(gold: Sequence[Span], predicted: Sequence[Span]) -> Iterator[tuple[Span, Span]]:
    """Pairs that share a word."""
    i = j = 0
    while i < len(gold) and j < len(predicted):
        if gold[i].shared(predicted[j]) > 0:
            yield gold[i], predicted[j]
        if gold[i].last < predicted[j].last:
            i += 1
        else:
            j += 1
