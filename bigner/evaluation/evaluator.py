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
from bigner.evaluation import confidence
from bigner.evaluation.confidence import NONE, TEXTS, Confidences, confidences_of
from bigner.evaluation.decoding import Iob2Decoder, begun_properly, decode_batch
from bigner.evaluation.gather import (
    PAD,
    WordPlaces,
    check_each_once,
    gather_stretches,
    put_in_order,
)
from bigner.evaluation.metrics import (
    ClassScores,
    Scores,
    score_class_ids,
    score_classes,
    score_tag_ids,
    score_tags,
)
from bigner.evaluation.spans import Ids, Ints
from bigner.evaluation.word_labels import WordLabels, by_sentence
from bigner.log import progress
from bigner.loss import token_losses
from bigner.packing import Packing, to_device
from bigner.strategies.base import Strategy

HeadScores = dict[str, Scores | ClassScores]
"""The scores of each head, in the order of the data's heads."""


# Arrays have no one answer to whether they are equal.
@dataclass(frozen=True, slots=True, eq=False)
class Predictions:
    """What the model says of a split, gathered from all ranks."""

    word_ids: Ids
    """``[heads, words]``: for each head of the data, a label id of the model for each word of the
    split, in order; small integers."""
    mean_losses: tuple[float, ...]
    """Of each head, cross-entropy over all labelled pieces."""
    confidences: Confidences | None = None
    """``[heads, words]``, the probability of each label, see ``confidence``; if they were asked
    for."""


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

    def predict(self, strategy: Strategy, *, confidences: bool = False) -> Predictions:
        """The prediction of every word, on every rank.

        Args:
            strategy: the model.
            confidences: gather also how sure it is of each.
        """
        shown = progress(self._batches, f"scoring {self._split.split}", self._world.is_main)
        coming = ahead(map(self._collate, self._batches))
        local = [
            self._predict_batch(strategy, batch, confidences=confidences)
            for _, batch in zip(shown, coming, strict=True)
        ]
        index, sizes, losses, ids, *sure = (torch.cat(parts) for parts in zip(*local, strict=True))
        return self._assemble(
            self._gathered(index),
            self._gathered(sizes),
            self._gathered(losses),
            # Every rank comes to have all words, but of copies of them one stretch at a time.
            (part.numpy() for part in gather_stretches(ids, self._world, self._no_id)),
            confidence.gather(self._world, *sure) if sure else None,
        )

    def _gathered(self, of_rows: torch.Tensor) -> npt.NDArray[Any]:
        """``[ranks, rows, ...]``."""
        parts = [part.numpy() for part in gather_stretches(of_rows, self._world)]
        return np.concatenate(parts, axis=1)

    def _predict_batch(
        self, strategy: Strategy, batch: Batch, *, confidences: bool
    ) -> list[torch.Tensor]:
        """Index, number of words and losses of each row, and the label ids of all their words; if
        wanted the confidences of all their words, and of each row that of its first one begun.

        Logits are given up for small integers here, on the device, before anything is kept.
        """
        logits = strategy.predict(batch.inputs).flatten(0, -2)
        losses, ids, sure, if_begun = [], [], [], []
        for i, head in enumerate(self._model):
            of_head = logits[..., head.logits]
            # Labels of the data become labels of the model; -100 picks the map's last entry.
            labels = self._to_model_label[i][batch.labels[i].clamp(min=-1)]
            of_pieces = token_losses(of_head, labels).double()
            # Unchecked: to look at lengths on a GPU the host would wait for it.
            sums = torch.segment_reduce(of_pieces, "sum", lengths=batch.num_pieces, unsafe=True)
            losses.append(sums)
            said = self._decode(i, of_head, batch)
            ids.append(said.to(self._id_dtype))
            if confidences:
                sure.append(confidences_of(of_head, said, batch.word_places))
                if_begun.append(self._if_begun(i, of_head, said, batch))
        index, sizes = torch.from_numpy(batch.index), torch.from_numpy(batch.num_words)
        of_heads = (losses, ids, sure, if_begun)
        return [index, sizes, *(torch.stack(parts, dim=1) for parts in of_heads if parts)]

    def _decode(self, i: int, logits: torch.Tensor, batch: Batch) -> torch.Tensor:
        decoder = self._decoders[i]
        if decoder is None:
            default = self._model[i].default_id
            return word_predictions(logits.argmax(dim=-1), batch.word_places, default)
        return decode_batch(decoder, logits, batch, self._first_word, self._begins)

    def _if_begun(
        self, i: int, logits: torch.Tensor, ids: torch.Tensor, batch: Batch
    ) -> torch.Tensor:
        """``[rows]``: the confidence of the first word of each row if its I- becomes a B-."""
        decoder = self._decoders[i]
        found = torch.full((len(batch.index),), NONE, dtype=torch.int16, device=logits.device)
        owning = np.flatnonzero(batch.num_words)
        if decoder is None or not len(owning):
            return found
        first = to_device((np.cumsum(batch.num_words) - batch.num_words)[owning], logits.device)
        begun = confidences_of(logits, decoder.begun[ids[first]], batch.word_places[first])
        return found.index_put((to_device(owning, logits.device),), begun)

    def _assemble(
        self,
        index: Ints,
        sizes: Ints,
        losses: npt.NDArray[np.float64],
        ids: Iterable[Ids],
        sure: confidence.Gathered | None = None,
    ) -> Predictions:
        """Put the gathered rows back into the order of the split.

        Args:
            index: ``[ranks, rows]``, window of each row; negative for padding.
            sizes: ``[ranks, rows]``, owned words of each row.
            losses: ``[ranks, rows, heads]``, summed over the labelled pieces of each row.
            ids: ``[ranks, words, heads]``, label ids of the owned words, row after row; in
                stretches of words, one after the other.
            sure: the confidences of the same words, if they were asked for.
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
        put_in_order(ids, places, word_ids)
        assert (word_ids != self._no_id).all(), "a word without a prediction"
        confidences = if_begun = None
        if sure is not None:
            confidences, if_begun = sure.in_order(places, index, num_words)
        self._begin_properly(word_ids, confidences, if_begun)
        # In the order of the split, so that the sum does not depend on who computed what.
        sums = row_losses.sum(axis=0)
        means = (sums[i] / max(1, self._count_labels(i)) for i in range(len(self._gold)))
        return Predictions(word_ids, tuple(map(float, means)), confidences)

    def _begin_properly(
        self, word_ids: Ids, confidences: Confidences | None, if_begun: Confidences | None
    ) -> None:
        """Mend, where tags were decoded, what windows did not know of one another.

        Args:
            word_ids: ``[heads, words]``, which is written to.
            confidences: ``[heads, words]``, which is written to.
            if_begun: ``[windows, heads]``, see ``confidence.Gathered``.
        """
        for i, decoder in enumerate(self._decoders):
            if decoder is None:
                continue
            tags = self._model[i].labels.tags
            begun = begun_properly(word_ids[i].astype(np.int64), self._begins, tags)
            if confidences is not None and if_begun is not None:
                owning = np.flatnonzero(self._split.column("num_words"))
                first = self._first_word[owning]
                changed = begun[first] != word_ids[i, first]
                confidences[i, first[changed]] = if_begun[owning[changed], i]
            word_ids[i] = begun

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

    def columns_of_heads(
        self, predictions: Predictions
    ) -> dict[str, tuple[Iterator[list[str]], ...]]:
        """Gold and predicted tags of each sentence, and confidences if there are, as they are
        written; by head, to go through once."""
        return {head.name: self._columns(predictions, i) for i, head in enumerate(self._gold)}

    def _columns(self, predictions: Predictions, i: int) -> tuple[Iterator[list[str]], ...]:
        words = self.word_labels(predictions, self._gold[i].name)
        tags = words.gold_tags(), words.predicted_tags()
        if predictions.confidences is None:
            return tags
        return *tags, by_sentence(predictions.confidences[i], TEXTS, words.sentence_lengths)

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


def timed_run(
    evaluator: ShardedEvaluator, strategy: Strategy, *, confidences: bool = False
) -> tuple[Timed, Predictions]:
    """Run an evaluation and take its time.

    Args:
        evaluator: of a split.
        strategy: the model.
        confidences: gather also how sure it is of each prediction.
    """
    start = time.perf_counter()
    predictions = evaluator.predict(strategy, confidences=confidences)
    scores = evaluator.score(predictions)
    return Timed(scores, time.perf_counter() - start), predictions
