"""Words of texts as windows, and those as batches: as in evaluation, but in memory."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path

import pyarrow as pa
import torch
from transformers import PreTrainedTokenizerFast

from bigner.data.collate import Collator
from bigner.data.encode import Text, WindowEncoder
from bigner.data.heads import Heads
from bigner.data.labels import LabelSet
from bigner.data.pieces import special_tokens
from bigner.data.prepare import Prepared, SplitData
from bigner.data.tables import Table
from bigner.packing import Packing

# The encoder learns each distinct word; a stream of texts would never end to bring new ones.
_WORDS_TO_LEARN_FROM = 5_000_000


class WindowMaker:
    """Makes windows of texts for one model.

    Args:
        tokenizer: of the model.
        max_length: pieces in a window.
        stride: words that neighbouring windows share.
        device: where batches go.
        packing: of the model; without it batches are padded.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerFast,
        *,
        max_length: int,
        stride: int,
        device: torch.device,
        packing: Packing | None,
    ) -> None:
        self._tokenizer = tokenizer
        self._max_length = max_length
        self._stride = stride
        self._device = device
        self._packing = packing
        prefix, suffix = special_tokens(tokenizer)
        pad_id = tokenizer.pad_token_id or 0
        self._prepared = Prepared(
            folder=Path(),
            # Nothing is known of any word; pieces that a window owns are labelled all the same.
            heads=Heads.single(LabelSet(("O",))),
            schemes={},
            splits={},
            pad_id=pad_id,
            empty_row=[*prefix, *suffix] or [pad_id],
            warnings=(),
            type_counts={},
        )
        self._encoder = self._new_encoder()
        self._words = 0

    def _new_encoder(self) -> WindowEncoder:
        return WindowEncoder(
            self._tokenizer,
            self._prepared.heads,
            max_length=self._max_length,
            stride=self._stride,
            alignment="all",
        )

    def windows(self, texts: Sequence[list[str]]) -> tuple[SplitData, Collator]:
        """The windows of some texts, and what makes batches of them.

        Every piece of a word that its window owns is labelled 0, all others ``IGNORED``.

        Args:
            texts: the words of each text, of one at least.
        """
        first_words = accumulate((len(words) for words in texts), initial=0)
        encoded = self._encoder.encode(
            [
                Text(words, [[0] * len(words)], first, [(0, len(words))])
                for words, first in zip(texts, first_words, strict=False)
            ]
        )
        split = SplitData(
            "test",
            Table(pa.table({})),
            Table(pa.Table.from_batches([encoded])),
            words_without_pieces=self._encoder.words_without_pieces,
            words_cut=self._encoder.words_cut,
        )
        self._words += sum(map(len, texts))
        if self._words > _WORDS_TO_LEARN_FROM:
            self._encoder, self._words = self._new_encoder(), 0
        return split, Collator(self._prepared, split, self._device, self._packing)
