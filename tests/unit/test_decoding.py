"""Decoding under IOB2, against every sequence there is."""

from __future__ import annotations

from itertools import chain, product

import numpy as np
import pytest
import torch

from bigner.data.encode import NO_PIECE
from bigner.data.labels import IGNORED, LabelSet, to_iob2
from bigner.evaluation.decoding import Iob2Decoder, begun_properly

TAGS = LabelSet.of_types(["X", "Y"]).tags
CPU = torch.device("cpu")


def is_sound(tags: list[str], begins: list[bool], known: tuple[str, ...] = TAGS) -> bool:
    """Whether no I- stands where it continues nothing; anything may precede a window's words."""
    for i, tag in enumerate(tags):
        if tag[0] != "I" or f"B-{tag[2:]}" not in known:
            continue
        if begins[i] or (i and tags[i - 1][2:] != tag[2:]):
            return False
    return True


def best_of_all(
    scores: torch.Tensor, begins: list[bool], known: tuple[str, ...] = TAGS
) -> list[int]:
    """The sound sequence of the highest sum, by trying them all."""
    sequences = (
        ids
        for ids in product(range(len(known)), repeat=len(scores))
        if is_sound([known[i] for i in ids], begins, known)
    )
    best = max(sequences, key=lambda ids: float(sum(scores[t, i] for t, i in enumerate(ids))))
    return list(best)


@pytest.mark.parametrize("known", [TAGS, ("I-X", "O", "I-Y", "B-Y")])
def test_the_best_of_all_sound_sequences(known: tuple[str, ...]) -> None:
    random = torch.Generator().manual_seed(0)
    lengths = [5, 1, 4]
    changed = 0
    for _ in range(8):
        scores = torch.randn(3, 5, len(known), generator=random) * 2
        begins = torch.rand(3, 5, generator=random) < 0.3
        # Pieces in another order than words, one more than there are words.
        places = torch.tensor([[5, 2, 1, 4, 3]]).repeat(3, 1)
        logits = torch.zeros(3, 6, len(known))
        for row in range(3):
            logits[row, places[row]] = scores[row]
        places += 6 * torch.arange(3)[:, None]
        for row in range(3):
            places[row, lengths[row] :] = IGNORED
        ids = Iob2Decoder(known, CPU)(logits.flatten(0, 1), places, begins).tolist()
        rows = [scores[row, :length] for row, length in enumerate(lengths)]
        best = [best_of_all(row, begins[i].tolist(), known) for i, row in enumerate(rows)]
        assert ids == list(chain.from_iterable(best))
        changed += ids != [int(word.argmax()) for row in rows for word in row]
    assert changed, "no case in which the rule says anything"


def test_a_word_without_pieces_is_o_and_ends_an_entity() -> None:
    logits = torch.full((3, 5), -5.0)
    logits[1, TAGS.index("B-X")] = 5.0
    logits[2, TAGS.index("I-X")] = 5.0
    logits[2, TAGS.index("B-X")] = 1.0
    begins = torch.tensor([[True, False, False]])
    decode = Iob2Decoder(TAGS, CPU)
    inside = decode(logits, torch.tensor([[1, 2, IGNORED]]), begins).tolist()
    assert [TAGS[i] for i in inside] == ["B-X", "I-X"]
    cut = decode(logits, torch.tensor([[1, NO_PIECE, 2]]), begins).tolist()
    assert [TAGS[i] for i in cut] == ["B-X", "O", "B-X"]


def test_rows_of_nothing() -> None:
    places = torch.empty(1, 0, dtype=torch.long)
    ids = Iob2Decoder(TAGS, CPU)(torch.zeros(2, 5), places, places.bool())
    assert ids.tolist() == []


def test_what_continues_nothing_begins() -> None:
    tags = ["O", "I-X", "I-X", "B-Y", "I-Y", "I-X", "I-Y", "B-X", "I-X", "I-X"]
    begins = np.zeros(len(tags), dtype=bool)
    begins[[0, 9]] = True
    ids = begun_properly(np.array([TAGS.index(tag) for tag in tags]), begins, TAGS)
    found = [TAGS[i] for i in ids]
    # As conlleval reads them, sentence by sentence.
    assert found == to_iob2(tags[:9], "iob2")[0] + to_iob2(tags[9:], "iob2")[0]
    assert found[0:3] == ["O", "B-X", "I-X"]


def test_a_model_without_a_b_keeps_its_i() -> None:
    known = ("O", "I-X")
    assert begun_properly(np.array([0, 1, 1]), np.array([True, False, False]), known).tolist() == [
        0,
        1,
        1,
    ]
