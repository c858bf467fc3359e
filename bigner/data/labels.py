"""Tags: the schemes they come in, and the label set a model is trained on.

A tag is ``O`` or ``PREFIX-TYPE``; types may contain ``-`` themselves (``creative-work``).

    iob2    B begins every entity, I goes on                               B-PER I-PER O B-PER
    iob1    I begins and goes on, B only where it touches one of its type  I-PER I-PER O I-PER
    bioes   B begins, I goes on, E ends, S stands alone; BILOU's L, U too  B-PER E-PER O S-PER
    io      I alone; neighbouring entities of one type run together        I-PER I-PER O I-PER

Inside bigner everything is IOB2.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Literal

from bigner.errors import ModelError

Scheme = Literal["iob2", "iob1", "bioes", "io"]

IGNORED = -100
"""Label id of a piece that carries none: special tokens, padding, later pieces, context words."""

_PREFIXES: dict[Scheme, str] = {"iob2": "BI", "iob1": "BI", "bioes": "BIESLU", "io": "I"}


class TagError(ValueError):
    """A tag that its scheme does not have; a reader adds file and line."""


@lru_cache(maxsize=4096)
def split_tag(tag: str, scheme: Scheme = "bioes") -> tuple[str, str]:
    """Prefix and type of a tag; ``("O", "")`` for ``O``.

    L and U, BILOU's letters, come back as E and S.

    Raises:
        TagError: the scheme has no such tag; the message says what it has.
    """
    if tag == "O":
        return "O", ""
    prefix, dash, entity_type = tag.partition("-")
    prefixes = _PREFIXES[scheme]
    if len(prefix) != 1 or prefix not in prefixes or not dash or not entity_type:
        allowed = ", ".join(["O", *(f"{letter}-TYPE" for letter in prefixes)])
        raise TagError(f"{tag!r} is not a tag of the scheme {scheme} ({allowed})")
    return {"L": "E", "U": "S"}.get(prefix, prefix), entity_type


def recognise_scheme(sequences: Iterable[Sequence[str]]) -> Scheme:
    """The scheme that sequences of tags are written in.

    `bioes` if E, S, L or U occurs; `io` if only I does; `iob1` if an I begins an entity and each B
    follows an entity of its type; else `iob2`, also where there is no entity.

    Raises:
        TagError: something is no tag in any scheme.
    """
    sequences = list(sequences)
    prefixes = {split_tag(tag)[0] for tag in set().union(*sequences)} - {"O"}
    if prefixes & {"E", "S"}:
        return "bioes"
    if prefixes == {"I"}:
        return "io"
    if prefixes == {"B", "I"} and _reads_like_iob1(sequences):
        return "iob1"
    return "iob2"


def _reads_like_iob1(sequences: Iterable[Sequence[str]]) -> bool:
    an_i_begins = False
    for tags in sequences:
        type_before = ""
        for tag in tags:
            prefix, entity_type = split_tag(tag)
            if prefix == "B" and entity_type != type_before:
                return False
            an_i_begins |= prefix == "I" and entity_type != type_before
            type_before = entity_type
    return an_i_begins


def to_iob2(tags: Sequence[str], scheme: Scheme) -> tuple[list[str], list[int]]:
    """The tags of a sentence in IOB2, and the positions at which they break their scheme.

    Broken places are read as conlleval reads them: an I or E that continues nothing begins an
    entity, an entity that is not ended ends where the next begins or its type stops.

    Raises:
        TagError: a tag that the scheme does not have.
    """
    if tags.count("O") == len(tags):
        # Half of all sentences, and nothing to do.
        return list(tags), []
    pairs = [split_tag(tag, scheme) for tag in tags]
    converted: list[str] = []
    open_type = ""
    for prefix, entity_type in pairs:
        if prefix == "O":
            converted.append("O")
        else:
            goes_on = prefix in "IE" and entity_type == open_type
            converted.append(f"{'I' if goes_on else 'B'}-{entity_type}")
        open_type = "" if prefix in "OES" else entity_type
    return converted, _violations(pairs, scheme)


def _violations(pairs: Sequence[tuple[str, str]], scheme: Scheme) -> list[int]:
    if scheme == "io":
        return []
    if scheme == "bioes":
        return _bioes_violations(pairs)
    # The one tag that must follow its own type: I in IOB2, B in IOB1.
    follower = "I" if scheme == "iob2" else "B"
    before = [("O", ""), *pairs]
    return [
        position
        for position, (prefix, entity_type) in enumerate(pairs)
        if prefix == follower and before[position][1] != entity_type
    ]


def _bioes_violations(pairs: Sequence[tuple[str, str]]) -> list[int]:
    broken = set()
    open_type = ""
    for position, (prefix, entity_type) in enumerate([*pairs, ("O", "")]):
        goes_on = prefix in "IE" and entity_type == open_type
        if open_type and not goes_on:
            broken.add(position - 1)
        if prefix in "IE" and not goes_on:
            broken.add(position)
        open_type = entity_type if prefix in "BI" else ""
    return sorted(broken)


@dataclass(frozen=True)
class LabelSet:
    """The labels of one head, in the order of their ids."""

    tags: tuple[str, ...]
    """``O`` and tags of the form B-TYPE and I-TYPE, or classes; the place of one is its id."""

    @classmethod
    def of_types(cls, types: Iterable[str]) -> LabelSet:
        """The label set of entity types: O, B-x, I-x, B-y, I-y, ..."""
        tags = ("O", *(f"{prefix}-{entity_type}" for entity_type in types for prefix in "BI"))
        assert len(set(tags)) == len(tags), f"a type twice in {tags}"
        return cls(tags)

    @classmethod
    def from_id2label(cls, id2label: Mapping[int, str] | Mapping[str, str]) -> LabelSet:
        """The label set of a model that somebody else trained, as its config has it.

        The ids may be in any order and, as in JSON, strings. A tag may lack its counterpart: models
        trained on IOB1 have an I-PER and no B-PER.

        Raises:
            ModelError: the ids are not 0, 1, ... or the labels are not IOB2 tags with an O.
        """
        by_id = {int(key): tag for key, tag in id2label.items()}
        if sorted(by_id) != list(range(len(id2label))):
            raise ModelError(f"the model's label ids are not 0 to {len(id2label) - 1}: {by_id}")
        tags = tuple(by_id[number] for number in range(len(by_id)))
        for tag in tags:
            _require_iob2(tag, tags)
        if "O" not in tags or len(set(tags)) < len(tags):
            raise ModelError(f"the model's labels need one O and no label twice: {_listed(tags)}")
        return cls(tags)

    def __len__(self) -> int:
        return len(self.tags)

    @cached_property
    def types(self) -> tuple[str, ...]:
        """The entity types, in the order of their first tags; not for classes."""
        return tuple(dict.fromkeys(tag[2:] for tag in self.tags if tag != "O"))

    @cached_property
    def label2id(self) -> dict[str, int]:
        """Tag -> id, for a transformers config."""
        return {tag: number for number, tag in enumerate(self.tags)}

    def id_of(self, tag: str) -> int:
        """The id of a tag.

        Raises:
            ModelError: the set does not have it.
        """
        (number,) = self.ids_of([tag])
        return number

    def ids_of(self, tags: Iterable[str]) -> list[int]:
        """The ids of tags.

        Raises:
            ModelError: the set does not have one of them.
        """
        try:
            return list(map(self.label2id.__getitem__, tags))
        except KeyError as error:
            unknown = error.args[0]
            raise ModelError(
                f"the model has no label {unknown!r}; it has {_listed(self.tags)}"
            ) from None


def _require_iob2(tag: str, tags: Sequence[str]) -> None:
    try:
        split_tag(tag, "iob2")
    except TagError:
        raise ModelError(
            f"the model's label {tag!r} is neither O nor B-TYPE nor I-TYPE; bigner needs a model "
            f"with IOB2 labels, and this one has {_listed(tags)}"
        ) from None


def _listed(tags: Sequence[str]) -> str:
    shown = ", ".join(tags[:12])
    return f"{shown}, ... ({len(tags)} in all)" if len(tags) > 12 else shown
