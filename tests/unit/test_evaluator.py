"""The evaluator: one prediction a word, the same scores whatever the batches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from seqeval.metrics import f1_score, precision_score, recall_score
from seqeval.scheme import IOB2
from transformers import PreTrainedModel

from bigner.config.schema import DataConfig, EvaluationConfig
from bigner.data.batches import PADDING_ROW
from bigner.data.heads import Heads
from bigner.data.labels import LabelSet
from bigner.data.prepare import Prepared, prepare
from bigner.distributed import World
from bigner.errors import GatherError
from bigner.evaluation.evaluator import HeadScores, Predictions, ShardedEvaluator, timed_run
from bigner.evaluation.gather import WordPlaces
from bigner.evaluation.metrics import Scores
from bigner.strategies import Strategy
from tests.unit.helpers import (
    SENTENCES,
    opened,
    run_config,
    tiny_tokenizer,
    tiny_xlmr,
    whole_model,
    write_columns,
)

# Enough of them for several batches of 32, in an order in which lengths alternate.
CORPUS = SENTENCES * 6


def only(scores: HeadScores) -> Scores:
    """The scores of the one head, which has tags."""
    (found,) = scores.values()
    assert isinstance(found, Scores)
    return found


@dataclass
class Setup:
    """A corpus, an untrained model and what scores it."""

    folder: Path
    prepared: Prepared
    model: PreTrainedModel
    labels: LabelSet

    @property
    def strategy(self) -> Strategy:
        config = run_config(self.folder, self.folder / "model")
        return opened(config, self.model, training=False)

    def evaluator(self, batch_size: int = 7, **choices: Any) -> ShardedEvaluator:
        # Another strategy is opened on the same model; as it is, it is computed padded.
        return ShardedEvaluator(
            self.prepared,
            self.prepared.splits["test"],
            Heads.single(self.labels),
            World(),
            evaluation=EvaluationConfig(batch_size=batch_size, **choices),
            packing=None,
        )

    def run(self, batch_size: int = 7) -> Scores:
        return only(self.evaluator(batch_size).run(self.strategy))


def set_up(
    folder: Path, *, labels: LabelSet | None = None, max_length: int = 12, **data: Any
) -> Setup:
    file = str(write_columns(folder / "test.conll", CORPUS))
    settings = {"max_length": max_length, "stride": 3, "cache_dir": folder / "cache", **data}
    config = DataConfig.model_validate({"train": file, "test": file, **settings})
    tokenizer = tiny_tokenizer()
    prepared = prepare(config, tokenizer, ["test"])
    tiny_xlmr(len(tokenizer)).save_pretrained(folder / "model")
    labels = labels or prepared.heads[0].labels
    model = whole_model(run_config(folder, folder / "model").model, labels.tags, seed=1)
    return Setup(folder, prepared, model, labels)


@pytest.mark.parametrize("max_length", [8, 11, 16, 64])
@pytest.mark.parametrize("unit", ["sentence", "document"])
def test_scores_are_seqevals_on_the_words_of_the_file(
    max_length: int, unit: str, tmp_path: Path
) -> None:
    setup = set_up(tmp_path, max_length=max_length, unit=unit)
    evaluator = setup.evaluator()
    predictions = evaluator.predict(setup.strategy)
    gold, predicted = evaluator.tags(predictions)
    assert gold == [[tag for _, tag in sentence] for sentence in CORPUS]
    assert [len(tags) for tags in predicted] == [len(tags) for tags in gold]
    # The untrained model says this and that, or there would be nothing to compare.
    assert len({tag for tags in predicted for tag in tags}) > 3

    scores = only(evaluator.run(setup.strategy))
    mode: dict[str, Any] = {"mode": "strict", "scheme": IOB2, "zero_division": 0}
    assert scores.precision == pytest.approx(precision_score(gold, predicted))
    assert scores.recall == pytest.approx(recall_score(gold, predicted))
    assert scores.f1 == pytest.approx(f1_score(gold, predicted))
    assert scores.strict.f1 == pytest.approx(f1_score(gold, predicted, **mode))
    assert scores.words == sum(map(len, gold))
    assert scores.words_without_pieces == 5 * 6


def test_windows_were_needed(tmp_path: Path) -> None:
    split = set_up(tmp_path, max_length=8).prepared.splits["test"]
    assert split.windows.num_rows > 1.5 * len(CORPUS)
    assert split.words_cut > 0
    assert split.column("length").max() == 8


def test_words_without_pieces_are_o(tmp_path: Path) -> None:
    setup = set_up(tmp_path)
    evaluator = setup.evaluator()
    _, predicted = evaluator.tags(evaluator.predict(setup.strategy))
    of_nothing = [
        tag
        for sentence, tags in zip(CORPUS, predicted, strict=True)
        for (word, _), tag in zip(sentence, tags, strict=True)
        if word in ("\u200b", "\ufeff")
    ]
    assert of_nothing == ["O"] * 30


def logits_one_by_one(setup: Setup) -> Iterator[tuple[dict[str, Any], torch.Tensor]]:
    """Each window, and the logits of its pieces by the model itself."""
    setup.model.eval()
    for window in setup.prepared.splits["test"].windows:
        with torch.no_grad():
            yield window, setup.model(input_ids=torch.tensor([window["input_ids"]])).logits[0]


def predicted_one_by_one(setup: Setup) -> tuple[list[str], float]:
    """Predicted tags and mean loss by the model itself, a window at a time."""
    names = dict(enumerate(setup.prepared.heads.names_of_logits))
    tags: list[str] = []
    losses: list[float] = []
    for window, logits in logits_one_by_one(setup):
        for place in window["word_places"]:
            tags.append("O" if place < 0 else setup.labels.tags[int(logits[place].argmax())])
        for place, label in enumerate(window["labels_0"]):
            if label >= 0 and names[label] in setup.labels.tags:
                target = torch.tensor(setup.labels.id_of(names[label]))
                losses.append(float(F.cross_entropy(logits[place], target)))
    return tags, sum(losses) / len(losses)


@pytest.mark.parametrize("alignment", ["first", "all"])
@pytest.mark.parametrize(
    ("known", "dtype"),
    [
        (("LOC", "ORG", "PER"), np.int8),
        (("PER",), np.int8),
        (("LOC", "NEW", "PER"), np.int8),
        # 127 and 255 labels are the most that the smaller integers hold.
        (("LOC", *map(str, range(62))), np.int8),
        (("LOC", *map(str, range(63))), np.uint8),
        (("LOC", *map(str, range(126))), np.uint8),
        (("LOC", *map(str, range(127))), np.int32),
    ],
)
def test_predictions_are_the_models_own(
    known: tuple[str, ...], dtype: type, alignment: str, tmp_path: Path
) -> None:
    setup = set_up(tmp_path, labels=LabelSet.of_types(known), alignment=alignment)
    evaluator = setup.evaluator()
    predictions = evaluator.predict(setup.strategy)
    assert predictions.word_ids.dtype == dtype
    tags, loss = predicted_one_by_one(setup)
    assert [tag for sentence in evaluator.tags(predictions)[1] for tag in sentence] == tags
    assert predictions.mean_losses == pytest.approx((loss,), rel=1e-5)


def confidences_one_by_one(setup: Setup, tags: list[str]) -> list[float]:
    """What the model itself gives to the tag of each word, a window at a time; -1 for no pieces."""
    places = [
        (logits, place)
        for window, logits in logits_one_by_one(setup)
        for place in window["word_places"]
    ]
    return [
        float(logits[place].softmax(dim=-1)[setup.labels.id_of(tag)]) if place >= 0 else -1.0
        for (logits, place), tag in zip(places, tags, strict=True)
    ]


@pytest.mark.parametrize("decoding", ["argmax", "iob2"])
@pytest.mark.parametrize("known", [("LOC", "ORG", "PER"), ("LOC", *map(str, range(63)))])
def test_confidences_are_the_models_own(
    known: tuple[str, ...], decoding: str, tmp_path: Path
) -> None:
    """Also of what is begun anew where windows meet within a sentence."""
    setup = set_up(tmp_path, labels=LabelSet.of_types(known), max_length=8)
    evaluator = setup.evaluator(decoding=decoding)
    predictions = evaluator.predict(setup.strategy, confidences=True)
    assert predictions.confidences is not None
    assert predictions.confidences.dtype == np.int16
    (columns,) = evaluator.columns_of_heads(predictions).values()
    gold, predicted, texts = map(list, columns)
    tags = [tag for sentence in predicted for tag in sentence]
    expected = confidences_one_by_one(setup, tags)
    found = [text for sentence in texts for text in sentence]
    assert [text == "" for text in found] == [value < 0 for value in expected]
    # Rounded, and within fp32's rounding of being rounded the other way.
    pairs = zip(found, expected, strict=True)
    assert max(abs(float(text) - value) for text, value in pairs if text) < 0.5e-4 + 1e-5
    assert list(map(len, texts)) == list(map(len, gold))


@pytest.mark.parametrize("decoding", ["argmax", "iob2"])
def test_confidences_change_no_score(decoding: str, tmp_path: Path) -> None:
    setup = set_up(tmp_path, max_length=8)
    evaluator = setup.evaluator(decoding=decoding)
    plain = evaluator.predict(setup.strategy)
    sure = evaluator.predict(setup.strategy, confidences=True)
    assert plain.confidences is None
    assert (plain.word_ids == sure.word_ids).all()
    assert evaluator.score(plain) == evaluator.score(sure)
    (columns,) = evaluator.columns_of_heads(plain).values()
    assert len(columns) == 2


def test_scores_do_not_depend_on_the_batch_size(tmp_path: Path) -> None:
    setup = set_up(tmp_path)
    one, seven, many = (setup.run(batch_size) for batch_size in (1, 7, 32))
    assert one == seven == many
    assert one.f1 > 0.0


@pytest.mark.parametrize("known", [("LOC", "ORG", "PER"), ("PER", "NEW")])
def test_seqeval_gives_the_same_scores(known: tuple[str, ...], tmp_path: Path) -> None:
    setup = set_up(tmp_path, labels=LabelSet.of_types(known))
    vectorised = setup.evaluator()
    predictions = vectorised.predict(setup.strategy)
    scores = only(vectorised.score(predictions))
    assert scores == only(setup.evaluator(scorer="seqeval").score(predictions))
    assert 0.0 < scores.f1 != scores.strict.f1


def test_unknown_gold_types_are_missed(tmp_path: Path) -> None:
    scores = set_up(tmp_path, labels=LabelSet.of_types(["LOC", "PER"])).run()
    assert scores.per_type["ORG"].support == 6
    assert scores.per_type["ORG"].recall == 0.0
    support = sum(s.support for s in scores.per_type.values())
    assert support == sum(tag[0] == "B" for sentence in CORPUS for _, tag in sentence)


def test_a_model_that_knows_no_type_of_the_data(tmp_path: Path) -> None:
    scores = set_up(tmp_path, labels=LabelSet.of_types(["A", "B", "C"])).run()
    assert scores.f1 == 0.0
    assert np.isfinite(scores.loss)


def test_label_ids_mean_what_the_model_says(tmp_path: Path) -> None:
    setup = set_up(tmp_path)
    expected = setup.run()
    order = [3, 0, 6, 2, 5, 1, 4]
    permuted = LabelSet(tuple(setup.labels.tags[i] for i in order))
    head = setup.model.classifier
    with torch.no_grad():
        head.weight.copy_(head.weight[order].clone())
        head.bias.copy_(head.bias[order].clone())
    assert Setup(tmp_path, setup.prepared, setup.model, permuted).run() == expected
    # With the names left as they were these would be other predictions.
    assert setup.run() != expected


# ---------------------------------------------------------------- gathered arrays


@dataclass
class Gathered:
    """What two ranks give for a split, one of them a window more and padding."""

    index: np.ndarray[Any, Any]
    sizes: np.ndarray[Any, Any]
    losses: np.ndarray[Any, Any]
    ids: np.ndarray[Any, Any]

    def assemble(self, evaluator: ShardedEvaluator, at_once: int = 1000) -> Predictions:
        starts = range(0, self.ids.shape[1], at_once)
        ids = (self.ids[:, start : start + at_once] for start in starts)
        return evaluator._assemble(self.index, self.sizes, self.losses, ids)


def gathered(setup: Setup) -> Gathered:
    """As ``gather_padded`` leaves it; word number i is predicted as i % 7."""
    split = setup.prepared.splits["test"]
    rows = split.windows.num_rows
    first, counts = split.column("first_word"), split.column("num_words")
    order = np.random.default_rng(0).permutation(rows)
    dealt = [order[0::2], order[1::2]]
    width = len(dealt[0]) + 1
    words = [
        np.concatenate([np.arange(first[row], first[row] + counts[row]) % 7 for row in own])
        for own in dealt
    ]
    # The last row of each rank is a row of padding, the rest what gathering fills up.
    padded = [np.append(own, PADDING_ROW) for own in dealt]

    def together(parts: list[np.ndarray[Any, Any]], length: int) -> np.ndarray[Any, Any]:
        return np.stack([np.pad(p, (0, length - len(p)), constant_values=-100) for p in parts])

    return Gathered(
        together(padded, width),
        together([np.append(counts[own], 0) for own in dealt], width),
        together([np.append(own * 0.5, 0.0) for own in dealt], width)[..., None],
        together(words, max(map(len, words)) + 3)[..., None],
    )


@pytest.mark.parametrize("at_once", [1, 7, 100, 1000])
def test_rows_of_all_ranks_come_back_in_order(at_once: int, tmp_path: Path) -> None:
    setup = set_up(tmp_path)
    predictions = gathered(setup).assemble(setup.evaluator(), at_once)
    words = sum(map(len, CORPUS))
    assert predictions.word_ids.tolist() == [[i % 7 for i in range(words)]]
    split = setup.prepared.splits["test"]
    total = 0.5 * sum(range(split.windows.num_rows))
    assert predictions.mean_losses == pytest.approx((total / split.label_counts(0, 7).sum(),))


@given(
    st.lists(st.tuples(st.integers(0, 500), st.integers(0, 9)), max_size=9),
    st.integers(0, 90),
    st.integers(0, 90),
)
def test_places_of_a_ranks_words(rows: list[tuple[int, int]], start: int, length: int) -> None:
    first, sizes = np.array(rows, dtype=np.int64).reshape(-1, 2).T
    expected = [place for begin, size in rows for place in range(begin, begin + size)]
    found = WordPlaces(first, sizes).between(start, start + length)
    assert found.tolist() == expected[start : start + length]


def test_a_rank_that_gave_fewer_words(tmp_path: Path) -> None:
    setup = set_up(tmp_path)
    doctored = gathered(setup)
    doctored.ids = doctored.ids[:, :-9]
    with pytest.raises(AssertionError, match="a word without a prediction"):
        doctored.assemble(setup.evaluator())


def test_a_lost_window(tmp_path: Path) -> None:
    setup = set_up(tmp_path)
    doctored = gathered(setup)
    lost = doctored.index[1, 4]
    doctored.index[1, 4] = PADDING_ROW
    with pytest.raises(GatherError, match=f"1 windows .*window {lost} 0 times"):
        doctored.assemble(setup.evaluator())


def test_a_window_that_came_twice(tmp_path: Path) -> None:
    setup = set_up(tmp_path)
    doctored = gathered(setup)
    # As a sampler does that fills up the last batch with windows from the start.
    doctored.index[0, -1] = doctored.index[0, 0]
    doctored.sizes[0, -1] = doctored.sizes[0, 0]
    with pytest.raises(GatherError, match=f"window {doctored.index[0, 0]} 2 times"):
        doctored.assemble(setup.evaluator())


def test_a_window_in_place_of_another(tmp_path: Path) -> None:
    setup = set_up(tmp_path)
    doctored = gathered(setup)
    doctored.index[0, 2] = doctored.index[1, 2]
    with pytest.raises(GatherError, match="2 windows were not predicted exactly once"):
        doctored.assemble(setup.evaluator())


def test_a_window_with_other_words(tmp_path: Path) -> None:
    setup = set_up(tmp_path)
    doctored = gathered(setup)
    doctored.sizes[0, 0] += 1
    with pytest.raises(GatherError, match="other words than it owns"):
        doctored.assemble(setup.evaluator())


def test_a_window_that_does_not_exist(tmp_path: Path) -> None:
    setup = set_up(tmp_path)
    doctored = gathered(setup)
    doctored.index[1, -1] = setup.prepared.splits["test"].windows.num_rows
    with pytest.raises(GatherError):
        doctored.assemble(setup.evaluator())


def test_speed_is_told_beside_the_scores(tmp_path: Path) -> None:
    setup = set_up(tmp_path)
    timed, predictions = timed_run(setup.evaluator(), setup.strategy)
    assert predictions.word_ids.shape == (1, only(timed.scores).words)
    told = timed.as_json("tags")
    assert told.pop("seconds") >= 0.0
    assert told.pop("words_per_second") > 0.0
    assert told == setup.run().as_dict()
