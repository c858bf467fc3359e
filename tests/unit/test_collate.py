"""Windows as tensors: padding, masks, and a row for a rank that has nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from bigner.config.schema import DataConfig
from bigner.data.batches import PADDING_ROW
from bigner.data.collate import Batch, Collator, word_predictions
from bigner.data.encode import NO_PIECE
from bigner.data.labels import IGNORED
from bigner.data.prepare import Prepared, SplitData, prepare
from bigner.loss import token_losses
from tests.unit.helpers import (
    SENTENCES,
    opened,
    run_config,
    tiny_tokenizer,
    tiny_xlmr,
    whole_model,
    write_columns,
)


@pytest.fixture
def prepared(tmp_path: Path) -> Prepared:
    file = write_columns(tmp_path / "train.conll", SENTENCES)
    data = DataConfig(
        train=str(file), cache_dir=tmp_path / "cache", max_length=16, stride=4, alignment="all"
    )
    return prepare(data, tiny_tokenizer(), ["train"])


def batch_of(prepared: Prepared, *rows: int) -> Batch:
    collate = Collator(prepared, prepared.splits["train"], torch.device("cpu"))
    return collate(np.array(rows, dtype=np.int64))


def window(split: SplitData, row: int) -> dict[str, list[int]]:
    return dict(split.windows[row])


def test_rows_are_padded_to_the_longest(prepared: Prepared) -> None:
    split = prepared.splits["train"]
    rows = [4, 0, 2, 3]
    lengths = split.column("length")[rows]
    assert len(set(lengths)) > 1
    batch = batch_of(prepared, *rows)
    ids, mask = batch.inputs["input_ids"], batch.inputs["attention_mask"]
    assert ids.shape == mask.shape == batch.labels[:, 0].shape == (4, lengths.max())
    assert batch.index.tolist() == rows
    for i, row in enumerate(rows):
        expected = window(split, row)
        length, words = lengths[i], len(expected["word_places"])
        assert ids[i, :length].tolist() == expected["input_ids"]
        assert batch.labels[i, 0, :length].tolist() == expected["labels_0"]
        assert batch.word_places[i, :words].tolist() == expected["word_places"]
        assert mask[i].tolist() == [1] * length + [0] * (len(mask[i]) - length)
        assert (ids[i, length:] == prepared.pad_id).all()
        assert (batch.labels[i, 0, length:] == IGNORED).all()
        assert (batch.word_places[i, words:] == IGNORED).all()


def test_padding_rows_among_others_are_left_out(prepared: Prepared) -> None:
    batch = batch_of(prepared, 1, PADDING_ROW, 3, PADDING_ROW)
    assert batch.index.tolist() == [1, 3]
    assert torch.equal(batch.inputs["input_ids"], batch_of(prepared, 1, 3).inputs["input_ids"])


def test_a_rank_with_nothing_computes_one_row(prepared: Prepared, tmp_path: Path) -> None:
    batch = batch_of(prepared, PADDING_ROW, PADDING_ROW)
    assert batch.index.tolist() == [PADDING_ROW]
    assert batch.inputs["input_ids"].tolist() == [[0, 2]]
    assert batch.inputs["attention_mask"].all()
    assert (batch.labels == IGNORED).all()

    tokenizer = tiny_tokenizer()
    tiny_xlmr(len(tokenizer)).save_pretrained(tmp_path / "model")
    config = run_config(tmp_path, tmp_path / "model")
    model = whole_model(config.model, prepared.heads.names_of_logits, seed=0)
    strategy = opened(config, model)
    logits = strategy.forward(batch.inputs)
    assert logits.isfinite().all()
    # Its share of the loss is zero and so are its gradients.
    losses = token_losses(logits, batch.labels[:, 0])
    strategy.backward(losses.sum(), last=True)
    assert losses.sum() == 0.0
    assert strategy.step(1e-3).grad_norm == 0.0
    predictions = word_predictions(logits.argmax(-1), batch.word_places, default_id=0)
    assert predictions.tolist() == []


def test_word_predictions() -> None:
    pieces = torch.tensor([[9, 1, 2, 3, 9], [9, 4, 5, 9, 9], [9, 9, 9, 9, 9]])
    places = torch.tensor([[1, 3, NO_PIECE], [2, IGNORED, IGNORED], [NO_PIECE, NO_PIECE, IGNORED]])
    assert word_predictions(pieces, places, default_id=7).tolist() == [1, 3, 7, 5, 7, 7]


def test_every_word_of_a_split_has_a_place(prepared: Prepared) -> None:
    split = prepared.splits["train"]
    batch = batch_of(prepared, *range(split.windows.num_rows))
    words = sum(len(sentence) for sentence in SENTENCES)
    assert int((batch.word_places != IGNORED).sum()) == words
    assert int((batch.word_places == NO_PIECE).sum()) == split.words_without_pieces == 5
