"""Windows as tensors: packed, padded, and a row for a rank that has nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from bigner.config.schema import DataConfig
from bigner.data.batches import PADDING_ROW
from bigner.data.collate import Batch, Collator, ahead, word_predictions
from bigner.data.encode import NO_PIECE
from bigner.data.labels import IGNORED
from bigner.data.prepare import Prepared, SplitData, prepare
from bigner.loss import token_losses
from bigner.packing import Packing, pack_attention
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


PACKING = Packing(first_position=2)


def batch_of(prepared: Prepared, *rows: int, packing: Packing | None = None) -> Batch:
    collate = Collator(prepared, prepared.splits["train"], torch.device("cpu"), packing)
    return collate(np.array(rows, dtype=np.int64))


def window(split: SplitData, row: int) -> dict[str, list[int]]:
    return dict(split.windows[row])


def longest_first(split: SplitData, rows: list[int]) -> list[int]:
    lengths = split.column("length")
    return sorted(rows, key=lambda row: -lengths[row])


def check_windows(batch: Batch, split: SplitData, rows: list[int]) -> None:
    """Pieces, labels and words of each window stand where the batch says."""
    ids = batch.inputs["input_ids"].flatten()
    assert batch.index.tolist() == rows
    start, first_word = 0, 0
    for i, row in enumerate(rows):
        expected = window(split, row)
        stop = start + len(expected["input_ids"])
        assert ids[start:stop].tolist() == expected["input_ids"]
        assert batch.labels[0, start:stop].tolist() == expected["labels_0"]
        last_word = first_word + int(batch.num_words[i])
        places = batch.word_places[first_word:last_word].tolist()
        assert places == [at + start if at >= 0 else NO_PIECE for at in expected["word_places"]]
        start, first_word = start + int(batch.num_pieces[i]), last_word
    assert start == len(ids) == batch.labels.shape[1]
    assert first_word == len(batch.word_places)


def test_rows_are_padded_to_the_longest(prepared: Prepared) -> None:
    split = prepared.splits["train"]
    rows = longest_first(split, [4, 0, 2, 3])
    lengths = split.column("length")[rows]
    assert len(set(lengths)) > 1
    batch = batch_of(prepared, 4, 0, 2, 3)
    check_windows(batch, split, rows)
    ids, mask = batch.inputs["input_ids"], batch.inputs["attention_mask"]
    assert ids.shape == mask.shape == (4, lengths.max())
    labels = batch.labels.view(1, *ids.shape)
    for i, length in enumerate(lengths):
        assert mask[i].tolist() == [1] * length + [0] * (len(mask[i]) - length)
        assert (ids[i, length:] == prepared.pad_id).all()
        assert (labels[0, i, length:] == IGNORED).all()


def test_packed_rows_follow_one_another(prepared: Prepared) -> None:
    split = prepared.splits["train"]
    rows = longest_first(split, [4, 0, 2, 3])
    lengths = split.column("length")[rows]
    batch = batch_of(prepared, 4, 0, 2, 3, packing=PACKING)
    check_windows(batch, split, rows)
    assert batch.inputs["input_ids"].shape == (1, lengths.sum())
    assert batch.inputs["position_ids"].tolist() == [[2 + i for n in lengths for i in range(n)]]
    assert batch.inputs["windows"].lengths.tolist() == lengths.tolist()


@pytest.mark.parametrize("packing", [None, PACKING])
def test_a_rank_with_nothing_computes_one_row(
    packing: Packing | None, prepared: Prepared, tmp_path: Path
) -> None:
    batch = batch_of(prepared, packing=packing)
    assert batch.index.tolist() == [PADDING_ROW]
    assert batch.inputs["input_ids"].tolist() == [[0, 2]]
    assert (batch.labels == IGNORED).all()
    assert batch.num_words.tolist() == [0]

    tokenizer = tiny_tokenizer()
    tiny_xlmr(len(tokenizer)).save_pretrained(tmp_path / "model")
    config = run_config(tmp_path, tmp_path / "model")
    model = whole_model(config.model, prepared.heads.names_of_logits, seed=0)
    pack_attention(model, wanted=packing is not None)
    strategy = opened(config, model)
    logits = strategy.forward(batch.inputs).flatten(0, -2)
    assert logits.isfinite().all()
    # Its share of the loss is zero and so are its gradients.
    losses = token_losses(logits, batch.labels[0])
    strategy.backward(losses.sum(), last=True)
    assert losses.sum() == 0.0
    assert strategy.step(1e-3).wait().grad_norm == 0.0
    predictions = word_predictions(logits.argmax(-1), batch.word_places, default_id=0)
    assert predictions.tolist() == []


def test_batches_come_one_ahead_and_in_order(prepared: Prepared) -> None:
    made: list[int] = []

    def numbers() -> Iterator[int]:
        for number in range(4):
            made.append(number)
            yield number

    seen = []
    for number in ahead(numbers()):
        seen.append(number)
    assert seen == made == [0, 1, 2, 3]


def test_what_fails_ahead_fails_where_it_is_used() -> None:
    def failing() -> Iterator[int]:
        yield 1
        raise ValueError("no second")

    coming = ahead(failing())
    assert next(coming) == 1
    with pytest.raises(ValueError, match="no second"):
        next(coming)


def test_word_predictions() -> None:
    pieces = torch.tensor([9, 1, 2, 3, 9, 9, 4, 5, 9, 9])
    places = torch.tensor([1, 3, NO_PIECE, 7, NO_PIECE])
    assert word_predictions(pieces, places, default_id=6).tolist() == [1, 3, 6, 5, 6]


def test_every_word_of_a_split_has_a_place(prepared: Prepared) -> None:
    split = prepared.splits["train"]
    batch = batch_of(prepared, *range(split.windows.num_rows))
    words = sum(len(sentence) for sentence in SENTENCES)
    assert len(batch.word_places) == batch.num_words.sum() == words
    assert int((batch.word_places == NO_PIECE).sum()) == split.words_without_pieces == 5
