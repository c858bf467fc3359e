"""The rows of the embedding table that a run's data needs, and the whole table again.

Of XLM-R's 250,002 pieces a corpus has some thousands. A row of any other piece is never looked up:
its gradient is zero in every step, its moments stay zero, and all that AdamW does to it is weight
decay. So the run trains a table of the rows in use and one row more, of ones, which is never looked
up either: what decay leaves of it is what decay would leave of each row that was left out. With it
the whole table is put together on export, to rounding what training all rows gives, while
neither gathering nor reducing nor updating nor saving has anything to do with them.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import PreTrainedModel

from bigner.data.arrays import Ints
from bigner.errors import CheckpointError, one_line
from bigner.modeling import lookup_table
from bigner.strategies.base import Shard
from bigner.tensor_files import TensorEntry, checksum_of, entries_of, read_rows, write_tensors

_FILE = "table.safetensors"
_CHECKSUMS = "sha256.json"
_IDS = "ids of the rows in use"


@dataclass(frozen=True, slots=True)
class UsedRows:
    """Which rows of which table a model was left with."""

    parameter: str
    """Name of the table."""
    ids: Ints
    """``[rows]``, the pieces that have a row, in its order."""
    num_pieces: int
    """Rows of the whole table."""

    def places(self) -> Ints:
        """``[pieces]``: the row of each, -1 where it has none."""
        places = np.full(self.num_pieces, -1, dtype=np.int64)
        places[self.ids] = np.arange(len(self.ids))
        return places


def keep_rows(model: PreTrainedModel, used: Ints, pad_id: int) -> UsedRows | None:
    """Leave a model of shapes with the rows of some pieces, and the row of ones.

    Args:
        model: its table is a shape yet.
        used: the ids of all pieces that it will be given, in order.
        pad_id: what padding is computed with.

    Returns:
        what was kept; None if the table is none whose rows can be left out.
    """
    found = lookup_table(model)
    if found is None:
        return None
    name, table = found
    if len(used) >= table.num_embeddings - 1:
        return None
    # RoBERTa's kind tells padding by its id: low ids, which special pieces have, stay as they are.
    low = np.arange(min(pad_id + 1, 16))
    ids = np.union1d(used, np.append(low, pad_id))
    rows = UsedRows(name, ids, table.num_embeddings)
    shape = torch.empty(len(ids) + 1, table.embedding_dim, device="meta")
    table.weight = nn.Parameter(shape, table.weight.requires_grad)
    table.num_embeddings = len(shape)
    if table.padding_idx is not None:
        table.padding_idx = int(rows.places()[table.padding_idx])
    return rows


class TableFolder:
    """The whole table as it was before training, and which of its rows are in use.

    Args:
        path: of the folder, in a run or in one of its checkpoints.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file = path / _FILE

    def write(self, rows: UsedRows, whole: torch.Tensor) -> None:
        """Make the folder.

        Raises:
            CheckpointError: it cannot be written.
        """
        tensors = {rows.parameter: whole, _IDS: torch.from_numpy(rows.ids)}
        working = self.path.with_name(f".{self.path.name}.tmp")
        try:
            for leftover in (working, self.path):
                shutil.rmtree(leftover, ignore_errors=True)
            working.mkdir()
            found = write_tensors(working / _FILE, entries_of(tensors), tensors.values())
            checksums = json.dumps(dict(zip(tensors, found, strict=True)), indent=2)
            (working / _CHECKSUMS).write_text(f"{checksums}\n", encoding="utf-8")
            working.rename(self.path)
        except OSError as error:
            raise CheckpointError(f"{self.path} cannot be written: {error}") from None

    def damage(self) -> str:
        """What is not as it was written, or nothing; reads all of it, but for tables that were
        written before there were checksums of them.
        """
        if not (self.path / _CHECKSUMS).exists():
            return ""
        try:
            checksums = json.loads((self.path / _CHECKSUMS).read_text(encoding="utf-8"))
            with safe_open(self.file, "pt") as file:
                shapes = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
            found = {
                name: checksum_of(self.file, name, math.prod(shape))
                for name, shape in shapes.items()
            }
        except (OSError, SafetensorError, ValueError, RuntimeError) as error:
            return one_line(f"{self.path} cannot be read", str(error))
        return "" if found == checksums else f"{self.file} changed since it was written"

    def rows(self) -> UsedRows:
        """Which rows are in use.

        Raises:
            CheckpointError: it cannot be read.
        """
        try:
            with safe_open(self.file, "pt") as file:
                (parameter,) = set(file.keys()) - {_IDS}
                shape, ids = file.get_slice(parameter).get_shape(), file.get_tensor(_IDS)
        except (OSError, SafetensorError, ValueError, RuntimeError) as error:
            raise self._damaged(str(error)) from None
        if len(shape) != 2 or ids.dtype != torch.int64 or ids.ndim != 1:
            raise self._damaged("it holds no table and ids of its rows")
        found: Ints = ids.numpy()
        edges = np.concatenate([[-1], found, [shape[0]]])
        if (np.diff(edges) <= 0).any():
            raise self._damaged(f"its ids are not those of {shape[0]} rows, each once and rising")
        return UsedRows(parameter, found, shape[0])

    def why_not(self, rows: UsedRows | None) -> str:
        """Why a run that trains some rows, or all if None, cannot go on from the checkpoint that
        this folder is of; empty if it can.

        Raises:
            CheckpointError: it cannot be read.
        """
        if rows is None:
            there = "has the rows in use alone; set model.embedding_rows to used"
            return there if self.path.is_dir() else ""
        if not self.path.is_dir():
            return "has all rows of the embedding table; set model.embedding_rows to all"
        if not np.array_equal(self.rows().ids, rows.ids):
            return (
                "was trained on other data, whose pieces are not those of this; under "
                "model.embedding_rows used a run goes on with the data it began with"
            )
        return ""

    def fill(self, rows: UsedRows, shard: Shard) -> None:
        """Fill a shard of the rows in use with their first values.

        Raises:
            CheckpointError: the table cannot be read.
        """
        try:
            fill_rows(self.file, rows, shard.offset, shard.master[: shard.numel], shard.shape[1])
        except (OSError, SafetensorError, ValueError, RuntimeError) as error:
            raise self._damaged(str(error)) from None

    def entries(self, entries: Sequence[TensorEntry]) -> list[TensorEntry]:
        """What parameters are once the table is whole again."""
        rows = self.rows()
        return [
            TensorEntry(entry.name, entry.dtype, (rows.num_pieces, *entry.shape[1:]))
            if entry.name == rows.parameter
            else entry
            for entry in entries
        ]

    def tensors(
        self, names: Iterable[str], tensors: Iterable[torch.Tensor]
    ) -> Iterator[torch.Tensor]:
        """Parameters as they come, with the whole table in place of the rows in use.

        Raises:
            CheckpointError: the table cannot be read.
        """
        rows = self.rows()
        for name, tensor in zip(names, tensors, strict=True):
            yield self._whole(rows, tensor) if name == rows.parameter else tensor

    def _whole(self, rows: UsedRows, trained: torch.Tensor) -> torch.Tensor:
        try:
            with safe_open(self.file, "pt") as file:
                whole: torch.Tensor = file.get_tensor(rows.parameter)
        except (OSError, SafetensorError, RuntimeError) as error:
            raise self._damaged(str(error)) from None
        if whole.dtype != torch.float32 or trained.shape != (len(rows.ids) + 1, whole.shape[1]):
            raise self._damaged(f"it does not go with {tuple(trained.shape[:1])} trained rows")
        # What weight decay has left of the ones.
        whole = whole * trained[-1].to(whole.dtype)
        whole[torch.from_numpy(rows.ids)] = trained[:-1]
        return whole

    def _damaged(self, reason: str) -> CheckpointError:
        return CheckpointError(one_line(f"{self.file} cannot be read", reason))


def fill_rows(path: Path, rows: UsedRows, offset: int, target: torch.Tensor, width: int) -> None:
    """Fill a flat range of the rows in use, and the row of ones behind them, from a whole table.

    Args:
        path: safetensors file with the whole table under its name.
        rows: which are in use.
        offset: of the range.
        target: the range.
        width: values of a row.

    Raises:
        OSError, SafetensorError, ValueError: the file does not hold that table.
    """
    first, last = offset // width, -(-(offset + target.numel()) // width)
    values = torch.ones(last - first, width)
    ids = rows.ids[first:last]
    read_rows(path, rows.parameter, ids, values[: len(ids)])
    start = offset - first * width
    target.copy_(values.view(-1)[start : start + target.numel()])
