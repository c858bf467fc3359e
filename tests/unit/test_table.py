"""The rows of the embedding table in use, and the whole table again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from transformers import BertConfig, ModernBertConfig, PretrainedConfig

from bigner.config.schema import ModelConfig
from bigner.errors import CheckpointError
from bigner.modeling import build_model
from bigner.strategies import Shard
from bigner.table import TableFolder, UsedRows, fill_rows, keep_rows
from bigner.tensor_files import TensorEntry, read_rows
from tests.unit.helpers import TINY, tiny_xlmr

TAGS = ("O", "B-PER", "I-PER")
VOCAB = 300
NAME = "embeddings"


def configs() -> dict[str, PretrainedConfig]:
    sizes = {**TINY, "vocab_size": VOCAB}
    # ModernBERT's padding id is far up in its table.
    modern = {"pad_token_id": 283, "bos_token_id": 281, "eos_token_id": 282, "cls_token_id": 281}
    return {
        "xlm-roberta": tiny_xlmr(VOCAB),
        "bert": BertConfig(**sizes),
        "modernbert": ModernBertConfig(**sizes, **modern, sep_token_id=282),
    }


@pytest.mark.parametrize("family", sorted(configs()))
def test_a_model_is_left_with_the_rows_in_use(family: str, tmp_path: Path) -> None:
    config = configs()[family]
    config.save_pretrained(tmp_path)
    model = build_model(ModelConfig(name_or_path=str(tmp_path), training_type="from_scratch"), TAGS)
    pad_id = config.pad_token_id
    used = np.unique([*range(40, 60), 299, pad_id])
    rows = keep_rows(model, used, pad_id)
    assert rows is not None
    assert set(used) <= set(rows.ids)
    assert len(rows.ids) < 60
    table = model.get_input_embeddings()
    assert model.get_parameter(rows.parameter) is table.weight
    assert table.weight.shape == (len(rows.ids) + 1, table.embedding_dim)
    assert table.weight.is_meta
    places = rows.places()
    assert places[rows.ids].tolist() == list(range(len(rows.ids)))
    assert (np.delete(places, rows.ids) == -1).all()
    if table.padding_idx is not None:
        assert rows.ids[table.padding_idx] == pad_id
    if family == "xlm-roberta":
        # Whose positions are counted from behind the padding id that the config names.
        assert places[pad_id] == pad_id


def test_a_table_in_full_use_is_left_whole(tmp_path: Path) -> None:
    tiny_xlmr(VOCAB).save_pretrained(tmp_path)
    model = build_model(ModelConfig(name_or_path=str(tmp_path), training_type="from_scratch"), TAGS)
    assert keep_rows(model, np.arange(VOCAB), 1) is None
    assert model.get_input_embeddings().num_embeddings == VOCAB


def table_of(rows: int = 50, width: int = 3) -> torch.Tensor:
    return torch.arange(rows * width, dtype=torch.float32).view(rows, width)


@settings(deadline=None, max_examples=60)
@given(st.sets(st.integers(0, 49), max_size=30), st.integers(1, 6))
def test_ranges_of_the_rows_in_use(
    tmp_path_factory: pytest.TempPathFactory, ids: set[int], parts: int
) -> None:
    """However ranks cut the table, within rows too, they fill it together; ones at its end."""
    file = tmp_path_factory.mktemp("table") / "whole.safetensors"
    save_file({NAME: table_of()}, file)
    rows = UsedRows(NAME, np.array(sorted(ids), dtype=np.int64), 50)
    expected = torch.cat([table_of()[sorted(ids)], torch.ones(1, 3)]).flatten()
    found = torch.zeros_like(expected)
    for cut in np.array_split(np.arange(len(expected)), parts):
        if len(cut):
            fill_rows(file, rows, int(cut[0]), found[cut[0] : cut[-1] + 1], 3)
    assert torch.equal(found, expected)


def test_rows_that_are_not_there(tmp_path: Path) -> None:
    file = tmp_path / "whole.safetensors"
    save_file({NAME: table_of()}, file)
    for ids, width in (([50], 3), ([1], 4)):
        with pytest.raises(ValueError, match="has shape"):
            read_rows(file, NAME, np.array(ids), torch.empty(len(ids), width))


def test_the_whole_table_again(tmp_path: Path) -> None:
    folder = TableFolder(tmp_path / "table")
    rows = UsedRows(NAME, np.array([0, 7, 9]), 50)
    folder.write(rows, table_of())
    found = folder.rows()
    assert (found.parameter, found.num_pieces) == (NAME, 50)
    assert found.ids.tolist() == [0, 7, 9]

    trained = torch.cat([torch.full((3, 3), -1.0), torch.full((1, 3), 0.5)])
    names = ["before", NAME, "after"]
    tensors = [torch.zeros(2), trained, torch.ones(2)]
    shapes = [
        TensorEntry(name, t.dtype, tuple(t.shape)) for name, t in zip(names, tensors, strict=True)
    ]
    assert [entry.shape for entry in folder.entries(shapes)] == [(2,), (50, 3), (2,)]
    before, whole, after = folder.tensors(names, tensors)
    assert before is tensors[0]
    assert after is tensors[2]
    assert (whole[[0, 7, 9]] == -1.0).all()
    others = np.delete(np.arange(50), [0, 7, 9])
    assert torch.equal(whole[others], 0.5 * table_of()[others])
    # A later attempt at the same run begins anew.
    folder.write(UsedRows(NAME, np.array([3]), 50), table_of())
    assert folder.rows().ids.tolist() == [3]


IDS = "ids of the rows in use"
HOSTILE: dict[str, dict[str, torch.Tensor]] = {
    "no ids": {NAME: table_of()},
    "two tables": {NAME: table_of(), "other": table_of(), IDS: torch.tensor([1])},
    "a number": {NAME: torch.tensor(1.0), IDS: torch.tensor([0])},
    "floats": {NAME: table_of(), IDS: torch.tensor([1.0])},
    "a matrix of ids": {NAME: table_of(), IDS: torch.tensor([[1]])},
    "beyond the table": {NAME: table_of(), IDS: torch.tensor([50])},
    "negative": {NAME: table_of(), IDS: torch.tensor([-1])},
    "twice": {NAME: table_of(), IDS: torch.tensor([2, 2])},
    "another width": {NAME: table_of(width=4), IDS: torch.tensor([2, 3])},
    "another number": {NAME: table_of(), IDS: torch.tensor([2])},
    "whole numbers": {NAME: table_of().long(), IDS: torch.tensor([2, 3])},
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_table_of_another_hand(what: str, tmp_path: Path) -> None:
    folder = TableFolder(tmp_path / "table")
    folder.path.mkdir()
    save_file(HOSTILE[what], folder.file)
    trained = torch.zeros(3, 3)
    with pytest.raises(CheckpointError, match=r"table\.safetensors cannot be read"):
        list(folder.tensors([NAME], [trained]))


def test_a_table_that_changed_since_it_was_written(tmp_path: Path) -> None:
    folder = TableFolder(tmp_path / "table")
    folder.write(UsedRows(NAME, np.array([0, 7]), 50), table_of())
    assert folder.damage() == ""
    content = bytearray(folder.file.read_bytes())
    content[-1] ^= 1
    folder.file.write_bytes(content)
    assert folder.damage() == f"{folder.file} changed since it was written"
    folder.file.write_bytes(content[:-1])
    assert "cannot be read" in folder.damage()
    folder.write(UsedRows(NAME, np.array([0, 7]), 50), table_of())
    (folder.path / "sha256.json").write_text("{")
    assert "cannot be read" in folder.damage()


def test_a_table_that_is_damaged_or_gone(tmp_path: Path) -> None:
    folder = TableFolder(tmp_path / "table")
    with pytest.raises(CheckpointError, match=r"table\.safetensors cannot be read"):
        folder.rows()
    folder.path.mkdir()
    folder.file.write_bytes(b"\x08\0\0\0\0\0\0\0{}")
    with pytest.raises(CheckpointError, match=r"table\.safetensors cannot be read"):
        folder.rows()
    shard = Shard(NAME, (4, 3), 0, 12, torch.zeros(12))
    with pytest.raises(CheckpointError, match=r"table\.safetensors cannot be read"):
        folder.fill(UsedRows(NAME, np.array([1, 2, 3]), 50), shard)
    folder.file.unlink()
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="cannot be written"):
        TableFolder(tmp_path / "file" / "table").write(
            UsedRows(NAME, np.array([1]), 50), table_of()
        )
