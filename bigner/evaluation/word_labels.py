"""What is scored: for each word of a split what gold says and what a model says, as label ids."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from bigner.evaluation.spans import Ids, Ints

# Sentences whose labels are strings at the same time.
_AT_ONCE = 1000


# Arrays have no one answer to whether they are equal.
@dataclass(frozen=True, slots=True, eq=False)
class WordLabels:
    """Gold and predicted label of each word, sentence after sentence."""

    gold: Ids
    """``[words]``, ids of ``gold_labels``."""
    predicted: Ids
    """``[words]``, ids of ``predicted_labels``."""
    gold_labels: tuple[str, ...]
    predicted_labels: tuple[str, ...]
    """Those of the model, which may have others than gold."""
    sentence_lengths: Ints
    """``[sentences]``: words of each."""

    def in_one_set(self) -> WordLabels:
        """The same words with all labels of both sides in one list, so that their ids compare."""
        if self.gold_labels == self.predicted_labels:
            return self
        labels = tuple(dict.fromkeys((*self.gold_labels, *self.predicted_labels)))
        place = {label: i for i, label in enumerate(labels)}
        smallest = np.min_scalar_type(len(labels))

        def replaced(ids: Ids, own: Sequence[str]) -> Ids:
            return np.array([place[label] for label in own], dtype=smallest)[ids]

        return WordLabels(
            gold=replaced(self.gold, self.gold_labels),
            predicted=replaced(self.predicted, self.predicted_labels),
            gold_labels=labels,
            predicted_labels=labels,
            sentence_lengths=self.sentence_lengths,
        )

    def with_gaps(self, ids: Ids, gap: int) -> Ids:
        """``[words + sentences]``: ids of the words, and a gap behind each sentence."""
        length = len(ids) + len(self.sentence_lengths)
        spread = np.full(length, gap, dtype=np.promote_types(ids.dtype, np.min_scalar_type(gap)))
        is_word = np.ones(length, dtype=bool)
        is_word[np.cumsum(self.sentence_lengths + 1) - 1] = False
        spread[is_word] = ids
        return spread

    def gold_tags(self) -> Iterator[list[str]]:
        """The gold labels of one sentence after the other."""
        return by_sentence(self.gold, self.gold_labels, self.sentence_lengths)

    def predicted_tags(self) -> Iterator[list[str]]:
        """The predicted labels of one sentence after the other."""
        return by_sentence(self.predicted, self.predicted_labels, self.sentence_lengths)


def by_sentence(ids: Ids, names: Sequence[str], sentence_lengths: Ints) -> Iterator[list[str]]:
    """The names of ids, of one sentence after the other.

    Args:
        ids: ``[words]``.
        names: of each id; -1 has the last one.
        sentence_lengths: ``[sentences]``, words of each.
    """
    known = np.array(names, dtype=object)
    start = 0
    for first in range(0, len(sentence_lengths), _AT_ONCE):
        lengths = sentence_lengths[first : first + _AT_ONCE]
        words = known[ids[start : start + int(lengths.sum())]].tolist()
        start += len(words)
        edges = np.cumsum(lengths).tolist()
        for begin, end in zip([0, *edges], edges, strict=False):
            yield words[begin:end]
