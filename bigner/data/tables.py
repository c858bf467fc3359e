"""Tables on disk: written in batches of rows, memory-mapped when read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from bigner.data.arrays import Ints


class Table(Sequence[dict[str, Any]]):
    """A table in memory, or memory-mapped; as a sequence, of rows as plain values."""

    def __init__(self, data: pa.Table) -> None:
        self.data = data
        self._batches = data.to_batches()
        self._edges = np.cumsum([0, *(batch.num_rows for batch in self._batches)])

    @classmethod
    def open(cls, path: Path) -> Table:
        """The table of a file; nothing of it is read yet.

        Raises:
            OSError: it cannot be read.
        """
        with pa.memory_map(str(path)) as source, pa.ipc.open_stream(source) as reader:
            return cls(reader.read_all())

    @property
    def num_rows(self) -> int:
        """How many there are."""
        return int(self._edges[-1])

    def take(self, rows: Sequence[int]) -> pa.Table:
        """Some rows, in the order asked for.

        Only what is taken is touched, where Arrow would copy the whole column first.
        """
        batches = np.searchsorted(self._edges, rows, side="right") - 1
        places = np.asarray(rows, np.int64) - self._edges[batches]
        slices = [
            self._batches[batch].slice(place, 1)
            for batch, place in zip(batches.tolist(), places.tolist(), strict=True)
        ]
        return pa.Table.from_batches(slices, self.data.schema)

    def __len__(self) -> int:
        return self.num_rows

    def __getitem__(self, row: int) -> dict[str, Any]:  # type: ignore[override]
        if not 0 <= row < self.num_rows:
            raise IndexError(row)
        (values,) = self.take([row]).to_pylist()
        found: dict[str, Any] = values
        return found


def write_table(path: Path, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> None:
    """Write a file that ``Table.open`` opens, a batch of rows after the other.

    Raises:
        OSError: it cannot be written.
    """
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
        for batch in batches:
            writer.write_batch(batch)


# What follows goes by buffers, which is without a copy and without pandas: pyarrow's own ways from
# and to numpy import it (0.3 s), to see whether they are given something of its.


def numbers(values: npt.NDArray[Any]) -> pa.Array:
    """A column of numbers."""
    buffer = pa.py_buffer(np.ascontiguousarray(values))
    return pa.Array.from_buffers(pa.from_numpy_dtype(values.dtype), len(values), [None, buffer])


def strings(values: Iterable[str]) -> pa.StringArray:
    """A column of texts."""
    encoded = [value.encode() for value in values]
    data, offsets = b"".join(encoded), _offsets(np.fromiter(map(len, encoded), np.int64))
    return pa.StringArray.from_buffers(len(encoded), pa.py_buffer(offsets), pa.py_buffer(data))


def lists(values: pa.Array, sizes: Ints) -> pa.ListArray:
    """A column of lists.

    Args:
        values: of all lists, one after the other.
        sizes: ``[rows]``, values in each.
    """
    return pa.ListArray.from_arrays(numbers(_offsets(sizes)), values)


def to_numpy(column: pa.Array | pa.ChunkedArray) -> npt.NDArray[Any]:
    """The numbers of a column; a view where it is of one piece."""
    if isinstance(column, pa.ChunkedArray):
        parts = [to_numpy(chunk) for chunk in column.chunks]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)
    dtype = np.dtype(column.type.to_pandas_dtype())
    start, end = column.offset, column.offset + len(column)
    return np.frombuffer(column.buffers()[1] or b"", dtype)[start:end]


def _offsets(sizes: Ints) -> npt.NDArray[np.int32]:
    """Where each value begins and ends, when all stand one after the other."""
    return np.append(0, np.cumsum(sizes)).astype(np.int32)
