"""Windows become the tensors of one batch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from bigner.data.batches import PADDING_ROW, Rows
from bigner.data.encode import NO_PIECE
from bigner.data.labels import IGNORED
from bigner.data.prepare import Prepared, SplitData, rows_of


@dataclass(frozen=True, slots=True)
class Batch:
    """One micro-batch on its device."""

    inputs: dict[str, torch.Tensor]
    """What the model is given: ``input_ids`` and ``attention_mask``, ``[rows, pieces]``."""
    labels: torch.Tensor
    """``[rows, heads, pieces]``, ids within their head or ``IGNORED``."""
    index: torch.Tensor
    """``[rows]``, the window of each row; -1 for a row of padding."""
    word_places: torch.Tensor
    """``[rows, words]``: place of each owned word's first piece; -1 where it has none, ``IGNORED``
    where the row has no such word."""


class Collator:
    """Makes batches of one split, padded to the longest row of the batch."""

    def __init__(self, prepared: Prepared, split: SplitData, device: torch.device) -> None:
        self._windows = split.windows
        self._pad_id = prepared.pad_id
        self._empty_row = prepared.empty_row
        self._labels = [f"labels_{i}" for i in range(len(prepared.heads))]
        self._device = device

    def __call__(self, rows: Rows) -> Batch:
        """The batch of some windows; of one row of padding if there are none.

        Args:
            rows: indices of windows; -1 stands for none.
        """
        index = rows[rows != PADDING_ROW]
        columns = rows_of(self._windows, index.tolist())
        if not len(index):
            # Real tokens and not nothing: attention over an empty row would be 0 / 0.
            index = np.array([PADDING_ROW])
            columns = {
                "input_ids": [self._empty_row],
                "word_places": [[]],
                **{name: [[IGNORED] * len(self._empty_row)] for name in self._labels},
            }
        input_ids = _padded(columns["input_ids"], self._pad_id)
        mask = _padded([[1] * len(row) for row in columns["input_ids"]], 0)
        return Batch(
            inputs={
                "input_ids": input_ids.to(self._device),
                "attention_mask": mask.to(self._device),
            },
            labels=torch.stack(
                [_padded(columns[name], IGNORED) for name in self._labels], dim=1
            ).to(self._device),
            index=torch.from_numpy(index).to(self._device),
            word_places=_padded(columns["word_places"], IGNORED).to(self._device),
        )


def _padded(rows: list[list[int]], value: int) -> torch.Tensor:
    """``[rows, longest]``, int64."""
    padded = np.full((len(rows), max(map(len, rows))), value, dtype=np.int64)
    for i, row in enumerate(rows):
        padded[i, : len(row)] = row
    return torch.from_numpy(padded)


def word_predictions(
    piece_ids: torch.Tensor, word_places: torch.Tensor, default_id: int
) -> torch.Tensor:
    """The label ids of the owned words of a batch, row after row.

    Args:
        piece_ids: ``[rows, pieces]``, predicted label ids.
        word_places: ``[rows, words]`` as in ``Batch``.
        default_id: what a word without pieces is given.

    Returns:
        ``[owned words of all rows]``.
    """
    ids = piece_ids.gather(1, word_places.clamp(min=0))
    ids = ids.masked_fill(word_places == NO_PIECE, default_id)
    return ids[word_places != IGNORED]
