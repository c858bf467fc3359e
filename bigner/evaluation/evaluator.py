"""The sharding-aware evaluator: one prediction for every word, exactly once, then scores."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from bigner.config.schema import EvaluationConfig
from bigner.data.batches import evaluation_batches
from bigner.data.collate import Batch, Collator, ahead, word_predictions
from bigner.data.heads import Head, Heads, paired
from bigner.data.labels import IGNORED, LabelSet
from bigner.data.prepare import Prepared, SplitData
from bigner.distributed import World
from bigner.errors import GatherError
from bigner.evaluation.decoding import Iob2Decoder, begun_properly
from bigner.evaluation.gather import PAD, WordPlaces, check_each_once, gather_stretches
from bigner.evaluation.metrics import (
    ClassScores,
    Scores,
    score_class_ids,
    score_classes,
    score_tag_ids,
    score_tags,
)
from bigner.evaluation.spans import Ids, Ints
from bigner.evaluation.word_labels import WordLabels
from bigner.log import progress
from bigner.loss import token_losses
from bigner.packing import Packing, to_device
from bigner.strategies.base import Strategy

HeadScores = dict[str, Scores | ClassScores]
"""The scores of each head, in the order of the data's heads."""


@dataclass(frozen=True, slots=True)
class Predictions:
    """What the model says of a split, gathered from all ranks."""

    word_ids: Ids
    """``[heads, words]``: for each head of the data, a label id of the model for each word of the
    split, in order; small integers."""
    mean_losses: tuple[float, ...]
    """Of each head, cross-entropy over all labelled pieces."""


class ShardedEvaluator:
    """Scores one split under any strategy; every method is collective.

    Args:
        prepared: the corpus.
        split: the split to score.
        heads: those of the model, see ``paired``; gold tags they do not know count as missed.
        world: all ranks.
        evaluation: how much one rank predicts at once; by ``argmax``, or by ``iob2`` for sequences
            that are IOB2 throughout; ``vectorised`` scores, or the same from ``seqeval`` itself.
        packing: the model's, if it has one.
        places: what the model calls each piece, see ``Collator``.

    Raises:
        ModelError: the model lacks a head that the data has.
    """

    def __init__(
        self,
        prepared: Prepared,
        split: SplitData,
        heads: Heads,
        world: World,
        *,
        evaluation: EvaluationConfig,
        packing: Packing | None,
        places: Ints | None = None,
    ) -> None:
        self._split = split
        self._world = world
        self._scorer = evaluation.scorer
        self._gold = list(prepared.heads)
        self._model = [model for _, model in paired(prepared.heads, heads)]
        self._collate = Collator(prepared, split, world.device, packing, places)
        self._batches = evaluation_batches(
            split.column("length"),
            batch_tokens=evaluation.batch_tokens,
            batch_size=evaluation.batch_size,
            rank=world.rank,
            world_size=world.size,
        )
        self._to_model_label = [
            _label_map(gold.labels, model.labels).to(world.device)
            for gold, model in zip(self._gold, self._model, strict=True)
        ]
        most = max(len(head.labels) for head in self._model)
        self._id_dtype, self._no_id = _integers_for(most)
        self._decoders = [
            Iob2Decoder(head.labels.tags, world.device)
            if evaluation.decoding == "iob2" and head.kind == "tags"
            else None
            for head in self._model
        ]

    @cached_property
    def _begins(self) -> npt.NDArray[np.bool_]:
        """``[words]``: where sentences begin, which decoding alone asks for."""
        return self._split.sentence_begins()

    @cached_property
    def _first_word(self) -> Ints:
        """``[windows]``, of the whole split: asked for in every batch that is decoded."""
        return self._split.column("first_word")

    def run(self, strategy: Strategy) -> HeadScores:
        """Predict, gather and score; the same scores on every rank.

        Raises:
            GatherError: the gathered predictions do not cover each window exactly once.
        """
        return self.score(self.predict(strategy))

    def predict(self, strategy: Strategy) -> Predictions:
        """The prediction of every word, on every rank."""
        shown = progress(self._batches, f"scoring {self._split.split}", self._world.is_main)
        coming = ahead(map(self._collate, self._batches))
        local = [
            self._predict_batch(strategy, batch) for _, batch in zip(shown, coming, strict=True)
        ]
        index, sizes, losses, ids = (torch.cat(parts) for parts in zip(*local, strict=True))
        return self._assemble(
            self._gathered(index),
            self._gathered(sizes),
            self._gathered(losses),
            # Every rank comes to have all words, but of copies of them one stretch at a time.
            (part.numpy() for part in gather_stretches(ids, self._world, self._no_id)),
        )

    def _gathered(self, of_rows: torch.Tensor) -> npt.NDArray[Any]:
        """``[ranks, rows, ...]``."""
        parts = [part.numpy() for part in gather_stretches(of_rows, self._world)]
        return np.concatenate(parts, axis=1)

    def _predict_batch(
        self, strategy: Strategy, batch: Batch
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Index, number of words and losses of each row, and the label ids of all their words.

        Logits are given up for small integers here, on the device, before anything is kept.
        """
        logits = strategy.predict(batch.inputs).flatten(0, -2)
        losses, ids = [], []
        for i, head in enumerate(self._model):
            of_head = logits[..., head.logits]
            # Labels of the data become labels of the model; -100 picks the map's last entry.
            labels = self._to_model_label[i][batch.labels[i].clamp(min=-1)]
            of_pieces = token_losses(of_head, labels).double()
            # Unchecked: to look at lengths on a GPU the host would wait for it.
            sums = torch.segment_reduce(of_pieces, "sum", lengths=batch.num_pieces, unsafe=True)
            losses.append(sums)
            ids.append(self._decode(i, of_head, batch).to(self._id_dtype))
        index, sizes = torch.from_numpy(batch.index), torch.from_numpy(batch.num_words)
        return index, sizes, torch.stack(losses, dim=1), torch.stack(ids, dim=1)

    def _decode(self, i: int, logits: torch.Tensor, batch: Batch) -> torch.Tensor:
        decoder = self._decoders[i]
        if decoder is None:
            default = self._model[i].default_id
            return word_predictions(logits.argmax(dim=-1), batch.word_places, default)
        words = np.arange(batch.num_words.max())
        owned = to_device(words < batch.num_words[:, None], logits.device)
        places = torch.full_like(owned, IGNORED, dtype=batch.word_places.dtype)
        places = places.masked_scatter(owned, batch.word_places)
        first = self._first_word[batch.index]
        # A row has fewer words than the longest, and the last one's would lie beyond the split.
        begins = self._begins[(first[:, None] + words).clip(max=len(self._begins) - 1)]
        return decoder(logits, places, to_device(begins, logits.device))

    def _assemble(
        self, index: Ints, sizes: Ints, losses: npt.NDArray[np.float64], ids: Iterable[Ids]
    ) -> Predictions:
        """Put the gathered rows back into the order of the split.

        Args:
            index: ``[ranks, rows]``, window of each row; negative for padding.
            sizes: ``[ranks, rows]``, owned words of each row.
            losses: ``[ranks, rows, heads]``, summed over the labelled pieces of each row.
            ids: ``[ranks, words, heads]``, label ids of the owned words, row after row; in
                stretches of words, one after the other.
        """
        split = self._split
        first_word, num_words = self._first_word, split.column("num_words")
        real = index >= 0
        check_each_once(index[real], split.windows.num_rows, split.split)
        if (sizes[real] != num_words[index[real]]).any():
            raise GatherError(f"{split.split}: a window came back with other words than it owns")
        row_losses = np.zeros((len(num_words), len(self._gold)))
        row_losses[index[real]] = losses[real]
        places = [
            WordPlaces(first_word[rows], num_words[rows])
            for rows in (of_rank[there] for of_rank, there in zip(index, real, strict=True))
        ]
        shape = len(self._gold), int(num_words.sum())
        word_ids = torch.full(shape, self._no_id, dtype=self._id_dtype).numpy()
        start = 0
        for stretch in ids:
            for rank, of_rank in enumerate(places):
                words = of_rank.between(start, start + stretch.shape[1])
                word_ids[:, words] = stretch[rank, : len(words)].T
            start += stretch.shape[1]
        assert (word_ids != self._no_id).all(), "a word without a prediction"
        for i, decoder in enumerate(self._decoders):
            if decoder is not None:
                tags = self._model[i].labels.tags
                word_ids[i] = begun_properly(word_ids[i].astype(np.int64), self._begins, tags)
        # In the order of the split, so that the sum does not depend on who computed what.
        sums = row_losses.sum(axis=0)
        means = (sums[i] / max(1, self._count_labels(i)) for i in range(len(self._gold)))
        return Predictions(word_ids, tuple(map(float, means)))

    def _count_labels(self, i: int) -> int:
        """Labelled pieces of a head that the model has a label for."""
        known = (self._to_model_label[i][:-1] != IGNORED).cpu().numpy()
        return int(self._split.label_counts(i, len(known))[known].sum())

    def only_tag(self, predictions: Predictions) -> str | None:
        """The one label of a head that every word was given, while gold has several of them."""
        for i, head in enumerate(self._model):
            found = np.unique(predictions.word_ids[i])
            if len(found) == 1 and len(np.unique(self._split.label_ids(i))) > 1:
                of_head = f" (head {head.name})" if len(self._model) > 1 else ""
                return f"{head.labels.tags[found[0]]}{of_head}"
        return None

    def score(self, predictions: Predictions) -> HeadScores:
        """Score gathered predictions, sentence by sentence; rank 0 does it and tells the others."""
        scores: HeadScores | None = None
        if self._world.is_main:
            scores = {head.name: self._score(predictions, head) for head in self._gold}
        shared: HeadScores = self._world.share_object(scores)
        return shared

    def _score(self, predictions: Predictions, head: Head) -> Scores | ClassScores:
        words = self.word_labels(predictions, head.name)
        loss = predictions.mean_losses[self._gold.index(head)]
        lost = self._split.words_without_pieces
        if self._scorer == "seqeval":
            tags = list(words.gold_tags()), list(words.predicted_tags())
            by_referee = score_tags if head.kind == "tags" else score_classes
            return by_referee(*tags, loss=loss, words_without_pieces=lost)
        by_ids = score_tag_ids if head.kind == "tags" else score_class_ids
        return by_ids(words, loss=loss, words_without_pieces=lost)

    def tags_of_heads(
        self, predictions: Predictions
    ) -> dict[str, tuple[Iterator[list[str]], Iterator[list[str]]]]:
        """Gold and predicted tags of each sentence, by head; to go through once."""
        heads = {head.name: self.word_labels(predictions, head.name) for head in self._gold}
        return {name: (words.gold_tags(), words.predicted_tags()) for name, words in heads.items()}

    def tags(
        self, predictions: Predictions, head: str | None = None
    ) -> tuple[list[list[str]], list[list[str]]]:
        """Gold and predicted tags of each sentence, for one head or the only one."""
        words = self.word_labels(predictions, head)
        return list(words.gold_tags()), list(words.predicted_tags())

    def word_labels(self, predictions: Predictions, head: str | None = None) -> WordLabels:
        """Gold and predicted label ids of each word, for one head or the only one."""
        names = [gold.name for gold in self._gold]
        i = 0 if head is None else names.index(head)
        return WordLabels(
            gold=self._split.label_ids(i),
            predicted=predictions.word_ids[i],
            gold_labels=self._gold[i].labels.tags,
            predicted_labels=self._model[i].labels.tags,
            sentence_lengths=self._split.sentence_lengths(),
        )


def _integers_for(labels: int) -> tuple[torch.dtype, int]:
    """The smallest integers that so many label ids fit in, and the one that stands for no label.

    gloo and nccl know none of 16 bits.
    """
    if labels <= 127:
        return torch.int8, PAD
    return (torch.uint8, 255) if labels <= 255 else (torch.int32, PAD)


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

    scores: HeadScores
    seconds: float

    def as_json(self, chosen: str) -> dict[str, Any]:
        """The scores of one head, with speed; of several heads also those of each."""
        scores = self.scores[chosen]
        heads = {name: one.as_dict() for name, one in self.scores.items()}
        return {
            **scores.as_dict(),
            **({"heads": heads} if len(heads) > 1 else {}),
            "seconds": round(self.seconds, 3),
            # Over all ranks, gathering and scoring included.
            "words_per_second": round(scores.words / self.seconds, 1),
        }


def timed_run(evaluator: ShardedEvaluator, strategy: Strategy) -> tuple[Timed, Predictions]:
    """Run an evaluation and take its time."""
    start = time.perf_counter()
    predictions = evaluator.predict(strategy)
    scores = evaluator.score(predictions)
    return Timed(scores, time.perf_counter() - start), predictions
