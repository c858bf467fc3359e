"""Cross-validation: the training data in parts, each of them held out once."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence

from bigner.config.schema import Fold
from bigner.data.formats.sentence import Sentence
from bigner.errors import DataError


def fold_numbers(documents: Sequence[int], folds: int) -> list[int]:
    """``[sentences]``: which fold holds each sentence out, counted from 1.

    Documents are put in a random order that depends on their number alone, and dealt out in turn.
    So the parts are the same in every run, whatever its seed, and have equally many documents.

    Args:
        documents: ``[sentences]``, the number of each sentence's document.
        folds: how many parts.

    Raises:
        DataError: there are fewer documents than parts.
    """
    numbers = set(documents)
    if len(numbers) < folds:
        raise DataError(
            f"data.train has too few documents for {folds} folds: {len(numbers)}; take fewer "
            f"folds, or see docs/data.md on where documents begin"
        )
    order = sorted(numbers, key=lambda number: hashlib.sha256(str(number).encode()).digest())
    fold_of = {number: place % folds + 1 for place, number in enumerate(order)}
    return [fold_of[number] for number in documents]


def part_of(sentences: Iterable[Sentence], fold: Fold, *, held_out: bool) -> Iterator[Sentence]:
    """The sentences of the fold if ``held_out``, else all others, in their order.

    Raises:
        DataError: there are fewer documents than folds.
    """
    sentences = list(sentences)
    numbers = fold_numbers([sentence.document for sentence in sentences], fold.of)
    for sentence, number in zip(sentences, numbers, strict=True):
        if (number == fold.number) == held_out:
            yield sentence
