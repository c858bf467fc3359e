"""What a run has wrong, counted: kinds of errors, and which type was taken for which."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from bigner.report.confidence import SURE
from bigner.report.matching import KINDS, Kind, Span
from bigner.report.scores import TypeScores
from bigner.report.sentences import WrongSentence


def kinds_of_errors(sentences: Sequence[WrongSentence], run: int) -> dict[Kind, int]:
    """How many errors of each kind a run made."""
    counts = Counter(error.kind for sentence in sentences for error in sentence.errors[run])
    return {kind: counts[kind] for kind in KINDS}


def sure_errors(sentences: Sequence[WrongSentence], run: int) -> int:
    """How many errors a run made that it was sure of."""
    found = (sure for sentence in sentences for sure in sentence.sure[run])
    return sum(sure is not None and sure >= SURE for sure in found)


@dataclass(frozen=True, slots=True)
class Cell:
    """Entities of one type in gold and of one, the same or another, in the prediction."""

    gold: int | None
    """Number of the type; None for spurious ones."""
    predicted: int | None
    """Number of the type; None for missed ones."""
    count: int
    share: float
    """Of those of its row on the diagonal, of the most that are in one cell elsewhere."""

    @property
    def is_diagonal(self) -> bool:
        """Whether the type is right."""
        return self.gold == self.predicted


def confusion(
    sentences: Sequence[WrongSentence], types: Sequence[TypeScores], run: int
) -> list[list[Cell]]:
    """Gold types by predicted types of one run.

    A row of a type sums up to its entities in gold, a column to those predicted. On the diagonal
    are the correct ones and those of which a boundary alone is wrong.

    Args:
        sentences: those that a run has wrong.
        types: their scores.
        run: its number.

    Returns:
        A row for each type, and one for the spurious; in it a cell for each type, and one for the
        missed.
    """
    numbers = {scored.name: i for i, scored in enumerate(types)}

    def number(span: Span | None) -> int | None:
        return None if span is None else numbers[span.type]

    counts = Counter(
        (number(error.gold), number(error.predicted))
        for sentence in sentences
        for error in sentence.errors[run]
    )
    for i, scored in enumerate(types):
        counts[i, i] += scored.runs[run].correct
    most = max((count for (row, column), count in counts.items() if row != column), default=0)
    places = [*range(len(types)), None]

    def cell(row: int | None, column: int | None) -> Cell:
        whole = sum(counts[row, other] for other in places) if row == column else most
        return Cell(row, column, counts[row, column], counts[row, column] / max(1, whole))

    return [[cell(row, column) for column in places] for row in places]
