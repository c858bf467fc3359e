"""Safetensors files: written tensor by tensor, read range by range, neither ever held whole.

The library's own ``save_file`` wants all tensors of a file at once and copies them again on their
way out. The format is a header and the raw values one after the other, so writing it as the values
come is a page of code; reading, where a file of any hand may come, is left to the library.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors import safe_open

_CHUNK_BYTES = 16 * 2**20
_DTYPE_NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """What the header of a file says of one tensor."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def num_bytes(self) -> int:
        """Bytes of the values."""
        return numel_of(self.shape) * self.dtype.itemsize


def entries_of(tensors: Mapping[str, torch.Tensor]) -> list[TensorEntry]:
    """The entries of tensors that are at hand."""
    return [TensorEntry(name, value.dtype, tuple(value.shape)) for name, value in tensors.items()]


def numel_of(shape: Iterable[int]) -> int:
    """Values in a tensor of a shape."""
    product = 1
    for size in shape:
        product *= size
    return product


def write_tensors(
    path: Path,
    entries: Sequence[TensorEntry],
    tensors: Iterable[torch.Tensor],
    metadata: Mapping[str, str] | None = None,
) -> list[str]:
    """Write a safetensors file and bring it to the disk; ``tensors`` come in the order of entries.

    Returns:
        the SHA-256 of each tensor's bytes.

    Raises:
        OSError: it cannot be written.
    """
    checksums = []
    with path.open("wb") as stream:
        stream.write(_header(entries, metadata))
        for entry, tensor in zip(entries, tensors, strict=True):
            assert (tensor.dtype, tuple(tensor.shape)) == (entry.dtype, entry.shape), entry.name
            digest = hashlib.sha256()
            for chunk in _chunks(tensor):
                digest.update(chunk)
                stream.write(chunk)
            checksums.append(digest.hexdigest())
        stream.flush()
        os.fsync(stream.fileno())
    return checksums


def _header(entries: Sequence[TensorEntry], metadata: Mapping[str, str] | None) -> bytes:
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    start = 0
    for entry in entries:
        stop = start + entry.num_bytes
        header[entry.name] = {
            "dtype": _DTYPE_NAMES[entry.dtype],
            "shape": list(entry.shape),
            "data_offsets": [start, stop],
        }
        start = stop
    text = json.dumps(header, separators=(",", ":")).encode()
    # Values begin at a multiple of 8, which some readers rely on.
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _chunks(tensor: torch.Tensor) -> Iterator[memoryview]:
    # Little-endian, as every machine is that torch runs on and as the format wants it.
    flat = tensor.detach().cpu().contiguous().view(-1).view(torch.uint8)
    data = memoryview(flat.numpy())  # type: ignore[arg-type]
    for start in range(0, len(data), _CHUNK_BYTES):
        yield data[start : start + _CHUNK_BYTES]


def read_range(path: Path, name: str, offset: int, target: torch.Tensor) -> None:
    """Fill flat ``target`` with a tensor's flattened values from ``offset`` on, in target's dtype.

    The file is opened anew each time: what was mapped of it does not stay in memory.

    Raises:
        OSError, SafetensorError: the file is missing, or its header or that name in it.
        ValueError: the tensor has fewer values.
    """
    filled = 0
    for values in _ranges(path, name, offset, target.numel()):
        target[filled : filled + values.numel()].copy_(values)
        filled += values.numel()


def read_rows(path: Path, name: str, ids: npt.NDArray[np.int64], target: torch.Tensor) -> None:
    """Fill ``target``, ``[rows, width]``, with some rows of a matrix, in target's dtype.

    Args:
        path: of the file.
        name: of the matrix.
        ids: ``[rows]``, rising.
        target: what is filled.

    Raises:
        OSError, SafetensorError: the file is missing, or its header or that name in it.
        ValueError: the matrix has fewer rows, or of another width.
    """
    with safe_open(path, "pt") as file:
        saved = file.get_slice(name)
        shape = saved.get_shape()
        if len(shape) != 2 or shape[1] != target.shape[1] or (len(ids) and ids[-1] >= shape[0]):
            raise ValueError(f"{name} has shape {shape}, and rows up to {ids[-1:]} are wanted")
        # Neighbours are read at once.
        for run in np.split(np.arange(len(ids)), np.flatnonzero(np.diff(ids) != 1) + 1):
            if len(run):
                first, last = int(ids[run[0]]), int(ids[run[-1]])
                target[int(run[0]) : int(run[-1]) + 1].copy_(saved[first : last + 1])


def checksum_of(path: Path, name: str, numel: int) -> str:
    """The SHA-256 of the bytes of a tensor of ``numel`` values.

    Raises:
        OSError, SafetensorError: as ``read_range``.
        ValueError: the tensor has fewer or more values.
    """
    digest = hashlib.sha256()
    for values in _ranges(path, name, 0, numel, whole=True):
        for chunk in _chunks(values):
            digest.update(chunk)
    return digest.hexdigest()


def _ranges(
    path: Path, name: str, offset: int, numel: int, *, whole: bool = False
) -> Iterator[torch.Tensor]:
    """The values ``[offset, offset + numel)`` of a tensor, in flat pieces of some megabytes.

    They may lie in the mapped file: used before the next one is asked for, and not changed.

    Args:
        whole: refuse a tensor that has more values than those.
    """
    stop = offset + numel
    with safe_open(path, "pt") as file:
        saved = file.get_slice(name)
        shape = saved.get_shape()
        present = numel_of(shape)
        if stop > present or (whole and stop != present):
            raise ValueError(f"{name} has shape {shape}, and {stop} values are wanted")
        # A number cannot be sliced.
        table = saved if shape else file.get_tensor(name).view(1)
        width = numel_of(shape[1:])
        rows_at_once = max(1, _CHUNK_BYTES // 4 // max(1, width))
        done = offset
        while done < stop:
            row = done // width
            rows = table[row : min(row + rows_at_once, -(-stop // width))].reshape(-1)
            piece = rows[done - row * width : stop - row * width]
            yield piece
            done += piece.numel()
