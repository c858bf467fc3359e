"""What a model tells of every word: one thing, or several at once, each by a head of its own.

All heads are rows of one linear layer: the first head's labels come first among the logits, then
the second's. So a model of several heads is a model of one with more labels, for everything that
loads, shards, saves and exports it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from bigner.config.schema import ONLY_HEAD
from bigner.data.labels import LabelSet
from bigner.errors import ModelError

HeadKind = Literal["tags", "classes"]

CONFIG_FIELD = "bigner_heads"
"""Field of a transformers config that names the heads, where there are several."""


@dataclass(frozen=True, slots=True)
class Head:
    """One of the things told of a word."""

    name: str
    kind: HeadKind
    labels: LabelSet
    """Tags in IOB2, or classes."""
    first: int
    """Its first label's place among the logits."""

    @property
    def logits(self) -> slice:
        """Its places among the logits."""
        return slice(self.first, self.first + len(self.labels))

    @property
    def names(self) -> tuple[str, ...]:
        """The entity types, or the classes."""
        return self.labels.types if self.kind == "tags" else self.labels.tags

    @property
    def default_id(self) -> int:
        """What a word without pieces is given: ``O``, or the first class, the commonest."""
        return self.labels.id_of("O") if self.kind == "tags" else 0


class Heads(Sequence[Head]):
    """The heads of a model, in the order of their logits."""

    def __init__(self, named: Sequence[tuple[str, HeadKind, LabelSet]]) -> None:
        self._heads: list[Head] = []
        first = 0
        for name, kind, labels in named:
            self._heads.append(Head(name, kind, labels, first))
            first += len(labels)

    @classmethod
    def single(cls, labels: LabelSet) -> Heads:
        """One head of tags, whose name nobody asks for."""
        return cls([(ONLY_HEAD, "tags", labels)])

    @classmethod
    def from_config(cls, described: object, names: Sequence[str]) -> Heads:
        """The heads of an exported model.

        Args:
            described: what its config has under ``CONFIG_FIELD``; None where it is not there.
            names: the names of its logits, in order.

        Raises:
            ModelError: the labels are not IOB2 tags, or the description is not one.
        """
        if described is None:
            return cls.single(LabelSet.from_id2label(dict(enumerate(names))))
        items = list(described.items()) if isinstance(described, Mapping) else []
        # transformers sorts what it writes; the logits have kept their order.
        order = {name.partition(":")[0]: place for place, name in enumerate(names)}
        items.sort(key=lambda item: order.get(str(item[0]), 0))
        try:
            heads = cls([(str(name), one["kind"], _label_set(**one)) for name, one in items])
        except (KeyError, TypeError, AttributeError):
            heads = cls([])
        if heads.names_of_logits != tuple(names):
            raise ModelError(f"the model's {CONFIG_FIELD} does not describe its labels")
        return heads

    def described(self) -> dict[str, Any] | None:
        """What ``from_config`` reads; None for one head of tags, which ``id2label`` says all of."""
        if len(self) == 1 and self._heads[0].kind == "tags":
            return None
        return {
            head.name: {"kind": head.kind, "labels": list(head.labels.tags)} for head in self._heads
        }

    @property
    def names_of_logits(self) -> tuple[str, ...]:
        """A name for each logit: the tag, with its head before it where there are several."""
        return tuple(
            tag if len(self) == 1 else f"{head.name}:{tag}"
            for head in self._heads
            for tag in head.labels.tags
        )

    def named(self, name: str) -> Head:
        """The head of a name.

        Raises:
            ModelError: there is none.
        """
        for head in self._heads:
            if head.name == name:
                return head
        known = ", ".join(head.name for head in self._heads)
        raise ModelError(
            f"the model has no head {name!r}; it has {known}: name these in data.heads"
        )

    def __getitem__(self, place: int) -> Head:  # type: ignore[override]
        return self._heads[place]

    def __len__(self) -> int:
        return len(self._heads)

    def __iter__(self) -> Iterator[Head]:
        return iter(self._heads)


def paired(data: Heads, model: Heads) -> list[tuple[Head, Head]]:
    """The model's head for each head of the data: by name, but one alone goes with one alone.

    Raises:
        ModelError: the model has no such head, or it tells classes where the data has tags.
    """
    alone = len(data) == len(model) == 1
    pairs = [(head, model[0] if alone else model.named(head.name)) for head in data]
    for head, other in pairs:
        if head.kind != other.kind:
            raise ModelError(
                f"head {head.name!r}: the data has {head.kind} and the model tells {other.kind}; "
                f"see data.heads"
            )
    return pairs


def _label_set(kind: str, labels: Sequence[str]) -> LabelSet:
    if kind == "tags":
        return LabelSet.from_id2label(dict(enumerate(labels)))
    if kind != "classes" or not all(isinstance(label, str) for label in labels) or not labels:
        raise TypeError(kind)
    return LabelSet(tuple(labels))
