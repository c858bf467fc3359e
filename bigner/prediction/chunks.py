"""A stream of texts in portions: what is computed, held and written at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")

TEXTS_AT_ONCE = 1000
CHARACTERS_AT_ONCE = 250_000


def chunks_of(
    items: Iterable[Item], characters: Callable[[Item], int], *, times: int = 1
) -> Iterator[list[Item]]:
    """Items in order; a chunk ends with the one that brings so many characters or is so manieth.

    Args:
        items: to be gone through once.
        characters: of an item.
        times: how many processes share a chunk.
    """
    chunk: list[Item] = []
    held = 0
    for item in items:
        chunk.append(item)
        held += characters(item)
        if len(chunk) == times * TEXTS_AT_ONCE or held >= times * CHARACTERS_AT_ONCE:
            yield chunk
            chunk, held = [], 0
    if chunk:
        yield chunk
