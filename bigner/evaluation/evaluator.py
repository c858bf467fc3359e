"""The sharding-aware evaluator: one prediction for every word, exactly once, then seqeval."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from bigner.data.batches import evaluation_batches
from bigner.data.collate import Batch, Collator, word_predictions
from bigner.data.labels import LabelSet
from bigner.data.prepare import Prepared, SplitData
from bigner.distributed import World
from bigner.errors import GatherError
from bigner.evaluation.gather import check_each_once, gather_padded
from bigner.evaluation.metrics import Scores, score
from bigner.log import progress
from bigner.optim import IGNORED, token_losses
from bigner.strategies.base import Strategy

Ids = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Predictions:
    """What the model says of a split, gathered from all ranks."""

    word_ids: Ids
    """``[words]``: a label id of the model for each word of the split, in order."""
    mean_loss: float
    """Cross-entropy over all labelled pieces."""


class ShardedEvaluator:
    """Scores one split under any strategy; every method is collective.

    Args:
        prepared: the corpus.
        split: the split to score.
        labels: the label set of the model; gold tags it does not know count as missed.
        world: all ranks.
        batch_size: windows that one rank predicts at once.
    """

    def __init__(
        self,
        prepared: Prepared,
        split: SplitData,
        labels: LabelSet,
        world: World,
        *,
        batch_size: int,
    ) -> None:
        self._split = split
        self._world = world
        self._labels = labels
        self._gold_labels = prepared.labels
        self._collate = Collator(prepared, split, world.device)
        self._batches = evaluation_batches(
            split.column("length"), batch_size=batch_size, rank=world.rank, world_size=world.size
        )
        self._to_model_label = _label_map(prepared.labels, labels).to(world.device)
        # gloo and nccl know no 16-bit integers.
        self._id_dtype = torch.int8 if len(labels) <= 127 else torch.int32

    def run(self, strategy: Strategy) -> Scores:
        """Predict, gather and score; the same Scores on every rank.

        Raises:
            GatherError: the gathered predictions do not cover each window exactly once.
        """
        return self.score(self.predict(strategy))

    def predict(self, strategy: Strategy) -> Predictions:
        """The prediction of every word, on every rank."""
        local = [
            self._predict_batch(strategy, self._collate(rows))
            for rows in progress(self._batches, f"scoring {self._split.split}", self._world.is_main)
        ]
        index, sizes, losses, ids = (torch.cat(parts) for parts in zip(*local, strict=True))
        return self._assemble(
            gather_padded(index, self._world).numpy(),
            gather_padded(sizes, self._world).numpy(),
            gather_padded(losses, self._world).numpy(),
            gather_padded(ids, self._world).numpy(),
        )

    def _predict_batch(
        self, strategy: Strategy, batch: Batch
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Index, number of words and loss of each row, and the label ids of all their words.

        Logits are given up for small integers here, on the device, before anything is kept.
        """
        logits = strategy.predict(batch.inputs)
        # Labels of the data become labels of the model; -100 picks the map's last entry.
        labels = self._to_model_label[batch.labels.clamp(min=-1)]
        losses = token_losses(logits, labels).double().sum(dim=1)
        o_id = self._labels.id_of("O")
        ids = word_predictions(logits.argmax(dim=-1), batch.word_places, o_id).to(self._id_dtype)
        sizes = (batch.word_places != IGNORED).sum(dim=1)
        return batch.index, sizes, losses, ids

    def _assemble(
        self, index: Ids, sizes: Ids, losses: npt.NDArray[np.float64], ids: Ids
    ) -> Predictions:
        """Put the gathered rows back into the order of the split.

        Args:
            index: ``[ranks, rows]``, window of each row; negative for padding.
            sizes: ``[ranks, rows]``, owned words of each row.
            losses: ``[ranks, rows]``, summed over the labelled pieces of each row.
            ids: ``[ranks, words]``, label ids of the owned words, row after row.
        """
        split = self._split
        first_word, num_words = split.column("first_word"), split.column("num_words")
        real = index >= 0
        check_each_once(index[real], split.windows.num_rows, split.split)
        if (sizes[real] != num_words[index[real]]).any():
            raise GatherError(f"{split.split}: a window came back with other words than it owns")
        word_ids = np.full(int(num_words.sum()), -1, dtype=np.int64)
        row_losses = np.zeros(len(num_words))
        for rank in range(len(index)):
            rows = index[rank][real[rank]]
            row_losses[rows] = losses[rank][real[rank]]
            places = np.concatenate(
                [np.arange(first_word[row], first_word[row] + num_words[row]) for row in rows]
                or [np.empty(0, dtype=np.int64)]
            )
            word_ids[places] = ids[rank][: len(places)]
        assert (word_ids >= 0).all(), "a word without a prediction"
        # In the order of the split, so that the sum does not depend on who computed what.
        count = self._count_labels()
        return Predictions(word_ids, float(row_losses.sum() / max(1, count)))

    def _count_labels(self) -> int:
        """Labelled pieces that the model has a label for."""
        known = self._to_model_label[:-1].cpu() != IGNORED
        if known.all():
            return int(self._split.column("num_labels").sum())
        ids = torch.as_tensor(self._split.windows.data.column("labels").combine_chunks().values)
        return int(known[ids[ids >= 0].long()].sum())

    def only_tag(self, predictions: Predictions) -> str | None:
        """The tag that every word was given, if it is one while gold has entities."""
        found = np.unique(predictions.word_ids)
        gold = self._split.sentences.data.column("tags").combine_chunks().flatten().unique()
        if len(found) != 1 or len(gold) < 2:
            return None
        tag: str = self._labels.tags[found[0]]
        return tag

    def score(self, predictions: Predictions) -> Scores:
        """Score gathered predictions, sentence by sentence; rank 0 does it and tells the others."""
        scores: Scores | None = None
        if self._world.is_main:
            gold, predicted = self.tags(predictions)
            scores = score(
                gold,
                predicted,
                loss=predictions.mean_loss,
                words_without_pieces=self._split.words_without_pieces,
            )
        shared: Scores = self._world.share_object(scores)
        return shared

    def tags(self, predictions: Predictions) -> tuple[list[list[str]], list[list[str]]]:
        """Gold and predicted tags of each sentence."""
        gold_ids = self._split.sentences.data.column("tags").to_pylist()
        names = np.array(self._labels.tags, dtype=object)[predictions.word_ids].tolist()
        gold_names = self._gold_labels.tags
        gold, predicted = [], []
        start = 0
        for ids in gold_ids:
            gold.append([gold_names[i] for i in ids])
            predicted.append(names[start : start + len(ids)])
            start += len(ids)
        return gold, predicted


def _label_map(data: LabelSet, model: LabelSet) -> torch.Tensor:
    """``[labels of the data + 1]``: the model's id of each, ``IGNORED`` where it has none.

    The last entry, which index -1 picks, is ``IGNORED`` too.
    """
    known = set(model.tags)
    ids = [model.id_of(tag) if tag in known else IGNORED for tag in data.tags]
    return torch.tensor([*ids, IGNORED])


@dataclass(frozen=True, slots=True)
class Timed:
    """Scores, and what they took."""

    scores: Scores
    seconds: float

    @property
    def words_per_second(self) -> float:
        """Words scored a second, over all ranks, gathering and seqeval included."""
        return self.scores.words / self.seconds


def timed_run(evaluator: ShardedEvaluator, strategy: Strategy) -> tuple[Timed, Predictions]:
    """Run an evaluation and take its time."""
    start = time.perf_counter()
    predictions = evaluator.predict(strategy)
    scores = evaluator.score(predictions)
    return Timed(scores, time.perf_counter() - start), predictions


def as_json(timed: Timed) -> dict[str, Any]:
    """Scores and speed as plain values."""
    return {
        **timed.scores.as_dict(),
        "seconds": round(timed.seconds, 3),
        "words_per_second": round(timed.words_per_second, 1),
    }
