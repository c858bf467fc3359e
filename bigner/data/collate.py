"""Windows become the tensors of one batch, packed or padded."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from bigner.data.arrays import Ints
from bigner.data.batches import PADDING_ROW, Rows
from bigner.data.encode import NO_PIECE
from bigner.data.labels import IGNORED
from bigner.data.prepare import Prepared, SplitData
from bigner.data.tables import to_numpy
from bigner.packing import PackedWindows, Packing, to_device

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Batch:
    """One micro-batch on its device, its windows the longest first.

    What the model says of it is counted flat, ``[pieces]``: window after window, with the padding
    where there is any.
    """

    inputs: dict[str, Any]
    """What the model is given: ``input_ids``, ``[1, pieces]`` with ``position_ids`` and ``windows``
    if packed, ``[windows, longest]`` with ``attention_mask`` if padded."""
    labels: torch.Tensor
    """``[heads, pieces]``, ids within their head or ``IGNORED``."""
    index: Ints
    """``[windows]``, which they are, on the host; -1 for a row of padding."""
    num_pieces: torch.Tensor
    """``[windows]``, pieces of each, with its padding."""
    num_words: Ints
    """``[windows]``, words that each owns, on the host."""
    word_places: torch.Tensor
    """``[words]``, the place of each owned word's first piece; ``NO_PIECE`` where it has none."""


class Collator:
    """Makes batches of one split.

    Args:
        prepared: the corpus.
        split: the split.
        device: where batches go.
        packing: of the model; without it batches are padded to their longest window.
        places: ``[pieces]``, what the model calls each piece, where it does not have all of them.
    """

    def __init__(
        self,
        prepared: Prepared,
        split: SplitData,
        device: torch.device,
        packing: Packing | None,
        places: Ints | None = None,
    ) -> None:
        self._lengths = split.column("length")
        self._places = places
        self._pad_id = prepared.pad_id if places is None else int(places[prepared.pad_id])
        self._empty_row = np.array(prepared.empty_row, dtype=np.int64)
        table = split.windows.data
        self._input_ids = _Lists(table.column("input_ids"))
        self._word_places = _Lists(table.column("word_places"))
        self._labels = [_Lists(table.column(f"labels_{i}")) for i in range(len(prepared.heads))]
        self._device = device
        self._packing = packing

    def __call__(self, rows: Rows) -> Batch:
        """The batch of some windows; of one row of padding if there are none."""
        rows = rows[np.argsort(-self._lengths[rows], kind="stable")]
        if not len(rows):
            return self._empty()
        return self._batch(
            rows,
            self._lengths[rows],
            self._input_ids.of(rows)[0],
            np.stack([labels.of(rows)[0] for labels in self._labels]),
            *self._word_places.of(rows),
        )

    def _empty(self) -> Batch:
        # Real tokens and not nothing: attention over an empty row would be 0 / 0.
        length = len(self._empty_row)
        return self._batch(
            np.array([PADDING_ROW]),
            np.array([length]),
            self._empty_row,
            np.full((len(self._labels), length), IGNORED),
            np.zeros(0, dtype=np.int64),
            np.zeros(1, dtype=np.int64),
        )

    def _batch(
        self,
        index: Ints,
        lengths: Ints,
        input_ids: Ints,
        labels: Ints,
        word_places: Ints,
        num_words: Ints,
    ) -> Batch:
        """The batch of windows whose pieces, labels and words are given end to end."""
        inputs: dict[str, Any]
        if self._places is not None:
            input_ids = self._places[input_ids]
        if self._packing is not None:
            windows = PackedWindows(lengths, self._device)
            if self._device.type == "cuda":
                # Sent from here, and not from the midst of a forward.
                windows.boundaries()
            inputs = {
                "input_ids": to_device(input_ids[None], self._device),
                "position_ids": to_device(
                    windows.position_ids(self._packing.first_position), self._device
                ),
                "windows": windows,
            }
            rows = lengths
        else:
            is_real = np.arange(lengths[0]) < lengths[:, None]
            inputs = {
                "input_ids": to_device(_padded(input_ids, is_real, self._pad_id), self._device),
                "attention_mask": to_device(is_real.astype(np.int64), self._device),
            }
            labels = np.stack([_padded(each, is_real, IGNORED).ravel() for each in labels])
            rows = np.full(len(lengths), lengths[0])
        starts = np.repeat(np.cumsum(rows) - rows, num_words)
        places = np.where(word_places == NO_PIECE, NO_PIECE, word_places + starts)
        return Batch(
            inputs=inputs,
            labels=to_device(labels, self._device),
            index=index,
            num_pieces=to_device(rows, self._device),
            num_words=num_words,
            word_places=to_device(places, self._device),
        )


class _Lists:
    """A memory-mapped column of lists of whole numbers."""

    def __init__(self, column: pa.ChunkedArray) -> None:
        # A chunk begins at its first offset, not at the first of its values.
        self._chunks = [(to_numpy(each.offsets), to_numpy(each.values)) for each in column.chunks]
        self._first_rows = np.cumsum([0, *(len(each) for each in column.chunks)])[:-1]

    def of(self, rows: Rows) -> tuple[Ints, Ints]:
        """The lists of some rows end to end, at least one, and the length of each."""
        lists = []
        chunks = np.searchsorted(self._first_rows, rows, side="right") - 1
        for row, chunk in zip((rows - self._first_rows[chunks]).tolist(), chunks, strict=True):
            offsets, values = self._chunks[chunk]
            lists.append(values[offsets[row] : offsets[row + 1]])
        return np.concatenate(lists, dtype=np.int64), np.array([len(each) for each in lists])


def _padded(values: Ints, is_real: npt.NDArray[np.bool_], value: int) -> Ints:
    """``[windows, longest]``."""
    padded = np.full(is_real.shape, value, dtype=np.int64)
    padded[is_real] = values
    return padded


def ahead(items: Iterator[Item]) -> Iterator[Item]:
    """The same items, the next one made while one is used.

    In a thread: making a batch is numpy's work, which lets others run, and a process of its own
    would have to be forked beside the threads of the tokenizer and of torch.
    """
    none_left: Any = object()
    with ThreadPoolExecutor(1, "batches") as thread:
        coming = thread.submit(next, items, none_left)
        while (item := coming.result()) is not none_left:
            coming = thread.submit(next, items, none_left)
            yield item


def word_predictions(
    piece_ids: torch.Tensor, word_places: torch.Tensor, default_id: int
) -> torch.Tensor:
    """The label ids of the words of a batch.

    Args:
        piece_ids: ``[pieces]``, predicted label ids.
        word_places: ``[words]`` as in ``Batch``.
        default_id: what a word without pieces is given.

    Returns:
        ``[words]``.
    """
    ids = piece_ids[word_places.clamp(min=0)]
    return ids.masked_fill(word_places == NO_PIECE, default_id)
