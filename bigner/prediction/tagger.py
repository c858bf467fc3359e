"""An exported model as something that is called with texts."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

import numpy as np
import torch

from bigner import collector
from bigner.config.checks import is_folder
from bigner.config.schema import Decoding, ModelConfig, Precision, default_cache_root
from bigner.data.heads import Head, Heads
from bigner.data.window_size import WindowSize
from bigner.distributed import World, choose_device
from bigner.errors import DataError, ModelError, UserError
from bigner.evaluation.decoding import Iob2Decoder
from bigner.modeling import (
    build_model,
    check_fits,
    heads_of,
    load_tokenizer,
    longest_window,
    windows_of,
)
from bigner.packing import pack_attention, padding_note
from bigner.prediction.chunks import chunks_of
from bigner.prediction.entities import Entity, EntityFinder, PieceSpans
from bigner.prediction.options import Aggregation, TaggerOptions, WordRule
from bigner.prediction.units import Units, ask, read_decoded, read_units
from bigner.prediction.windows import WindowMaker
from bigner.prediction.words import SplitText
from bigner.strategies import open_whole
from bigner.weights import InitialWeights

# Where a model does not say what it was trained with.
_MAX_LENGTH = 256
_STRIDE = 32


@dataclass(frozen=True, slots=True)
class Tagged:
    """What a model says of a text."""

    tags: list[str]
    """In IOB2, of each word; none where the pieces of a word were asked one by one."""
    entities: list[Entity]


class Tagger:
    """Finds entities in texts of any length, with the whole model in this process.

    Args:
        model_dir: a transformers folder whose labels are IOB2 tags, or those of its heads.
        options: how it is asked.
        device: where it computes; this process's GPU if there is one, if not given.

    Raises:
        UserError: the folder holds no such model, or it does not fit the options.
    """

    def __init__(
        self, model_dir: Path, options: TaggerOptions, device: torch.device | None = None
    ) -> None:
        if not is_folder(model_dir):
            raise ModelError(f"there is no model folder {model_dir}; name an exported model")
        heads = heads_of(model_dir)
        self.head = _chosen(heads, options.head)
        """The head that is asked."""
        self.options = options
        """How it is asked; of another aggregation or rule for words the next call knows."""
        described = ModelConfig(
            # Absolute, for transformers would look up a short relative name on the Hub.
            name_or_path=str(model_dir.resolve()),
            trust_remote_code=options.trust_remote_code,
        )
        with collector.paused():
            self._tokenizer = load_tokenizer(described)
        model = build_model(described, heads.names_of_logits)
        size = _size(longest_window(model), options, windows_of(model_dir))
        check_fits(model, self._tokenizer, size.max_length)
        weights = InitialWeights(
            described, model, seed=0, cache_root=default_cache_root(), new_head=False
        )
        self.padding_note = padding_note(model, wanted=True)
        """What to tell of windows that are padded; None where they are packed."""
        packing = pack_attention(model, wanted=True)
        device = device or choose_device(int(os.environ.get("LOCAL_RANK", "0")))
        self._strategy = open_whole(model, options.precision, World(device=device))
        weights.fill(self._strategy.shards())
        self._strategy.publish()
        self._windows = WindowMaker(
            self._tokenizer,
            max_length=size.max_length,
            stride=size.stride,
            device=device,
            packing=packing,
        )
        self._finder = EntityFinder(self.head.labels.tags)
        self._decoder = Iob2Decoder(self.head.labels.tags, device)

    @classmethod
    def load(  # noqa: PLR0913
        cls,
        model_dir: str | Path,
        *,
        head: str | None = None,
        aggregation: Aggregation = "word",
        decoding: Decoding = "argmax",
        words: WordRule = "punctuation",
        max_length: int | None = None,
        stride: int | None = None,
        batch_tokens: int = 8192,
        precision: Precision = "fp32",
        device: str | torch.device | None = None,
        trust_remote_code: bool = False,
    ) -> Tagger:
        """The tagger of an exported model; see ``TaggerOptions``.

        Raises:
            UserError: as the class.
        """
        options = TaggerOptions(
            head=head,
            aggregation=aggregation,
            decoding=decoding,
            words=words,
            max_length=max_length,
            stride=stride,
            batch_tokens=batch_tokens,
            precision=precision,
            trust_remote_code=trust_remote_code,
        )
        return cls(Path(model_dir), options, None if device is None else torch.device(device))

    @overload
    def __call__(self, texts: str) -> list[Entity]: ...  # type: ignore[overload-overlap]

    @overload
    def __call__(self, texts: Sequence[str]) -> list[list[Entity]]: ...

    def __call__(self, texts: str | Sequence[str]) -> list[Entity] | list[list[Entity]]:
        """The entities of a text, or of each of several, in order.

        Raises:
            DataError: a text has half a surrogate pair, which no tokenizer can encode.
        """
        if isinstance(texts, str):
            return self([texts])[0]
        given = list(texts)
        for number, text in enumerate(given):
            _require_text(text, number)
        split = (SplitText.of(text, self.options.words) for text in given)
        return [
            tagged.entities
            for chunk in chunks_of(split, lambda one: len(one.text))
            for tagged in self.tag(chunk)
        ]

    def tag(self, texts: Sequence[SplitText]) -> list[Tagged]:
        """Tags and entities of some texts, all at once."""
        words = [text.strings() for text in texts]
        if not any(words):
            return [Tagged([], []) for _ in texts]
        how = self.options.aggregation
        units = self._units([one for one in words if one])
        if how == "simple":
            found = self._finder.find(texts, units, PieceSpans(self._tokenizer))
            return [Tagged([], entities) for entities in found]
        all_words = units.of_all_words(sum(map(len, words)), self.head.default_id)
        # As in evaluation, a word without pieces is O; a pipeline has never heard of it.
        found = self._finder.find(texts, all_words if how == "word" else units, None)
        ids = iter(all_words.ids.tolist())
        names = self.head.labels.tags
        tags = [[names[next(ids)] for _ in one] for one in words]
        return [Tagged(*both) for both in zip(tags, found, strict=True)]

    def _units(self, texts: Sequence[list[str]]) -> Units:
        """What the model says of texts, of one word at least each."""
        split, collate = self._windows.windows(texts)
        asked = ask(self._strategy, self.head, split, collate, self.options.batch_tokens)
        if self.options.decoding == "argmax":
            return read_units(asked, self.options.aggregation)
        sizes = np.array([len(text) for text in texts])
        begins = np.zeros(int(sizes.sum()), dtype=bool)
        begins[np.cumsum(sizes) - sizes] = True
        first_word = split.column("first_word")
        return read_decoded(asked, self.head, self._decoder, first_word, begins)


def _chosen(heads: Heads, name: str | None) -> Head:
    """The head of a name, or the first that tells tags."""
    known = ", ".join(f"{head.name} ({head.kind})" for head in heads)
    if name is None:
        for head in heads:
            if head.kind == "tags":
                return head
        raise ModelError(f"no head of the model tells tags, so it finds no entities: {known}")
    for head in heads:
        if head.name == name:
            if head.kind == "tags":
                return head
            raise UserError(f"head {name!r} tells classes and no entities; the heads are {known}")
    raise UserError(f"the model has no head {name!r}; the heads are {known}")


def _size(limit: int | None, options: TaggerOptions, trained: WindowSize | None) -> WindowSize:
    """The windows that are asked for, or else those of training, or else what is usual.

    Args:
        limit: pieces that the model has positions for.
        options: what is asked for.
        trained: what the model says of its training.
    """
    wanted = options.max_length
    if limit is not None and wanted is not None and wanted > limit:
        raise ModelError(
            f"max_length {wanted} is more than the {limit} pieces this model has positions for; "
            f"set it to {limit} or less"
        )
    usual = trained or WindowSize(min(_MAX_LENGTH, limit or _MAX_LENGTH), _STRIDE)
    stride = usual.stride if options.stride is None else options.stride
    return WindowSize(wanted or usual.max_length, stride)


def _require_text(text: str, number: int) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"text {number} (from 0): {text[error.start]!a} at {error.start} is half a "
            f"surrogate pair and no character"
        ) from None
