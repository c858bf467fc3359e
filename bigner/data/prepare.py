"""A corpus on disk, ready to train on: read, checked and encoded once, then memory-mapped.

The first process to take the file lock prepares; the others, of this run or another, wait for the
lock (not in a collective, which would time out) and find the work done. What is prepared is named
by a hash of everything it depends on, so a changed file, tokenizer or setting is prepared anew.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from filelock import FileLock
from transformers import PreTrainedTokenizerFast

from bigner import collector
from bigner.config.schema import SPLITS, DataConfig, Split
from bigner.data.corpus import Corpus, read_corpus
from bigner.data.encode import TEXTS_AT_ONCE, Text, WindowEncoder, texts_of, window_schema
from bigner.data.formats import Sentence, source_files
from bigner.data.heads import Heads
from bigner.data.labels import LabelSet
from bigner.data.pieces import special_tokens
from bigner.data.tables import Table, lists, numbers, strings, to_numpy, write_table
from bigner.errors import DataError
from bigner.log import inform, progress

# Raised whenever the same input would be prepared differently.
FORMAT_VERSION = 2
# Fields that say where, or which of the splits there is; the splits in hand are hashed below.
_NOT_CONTENT = {"cache_dir", *SPLITS}

# Batches end with the text that brings so many words, however few texts they are: they are what is
# held beside the corpus itself.
_WORDS_AT_ONCE = 100_000


# Sentences whose words are strings at the same time.
_SENTENCES_AT_ONCE = 1000


@dataclass(frozen=True, slots=True)
class SentenceWords:
    """The words of each sentence, read from the table as often as they are gone through."""

    sentences: Table

    def __iter__(self) -> Iterator[list[str]]:
        column: pa.ChunkedArray = self.sentences.data.column("words")
        for first in range(0, len(column), _SENTENCES_AT_ONCE):
            yield from column.slice(first, _SENTENCES_AT_ONCE).to_pylist()


@dataclass(frozen=True, slots=True)
class SplitData:
    """One prepared split, memory-mapped."""

    split: Split
    sentences: Table
    """``words``, ``document`` and, for each head, ``tags_0`` ... (label ids) of each sentence."""
    windows: Table
    """What a model computes; see ``encode.window_schema``."""
    words_without_pieces: int
    words_cut: int

    def column(self, name: str) -> np.ndarray[Any, np.dtype[np.int64]]:
        """A number of each window: ``length``, ``first_word`` or ``num_words``."""
        return to_numpy(self.windows.data.column(name))

    @property
    def words(self) -> SentenceWords:
        """The words of each sentence."""
        return SentenceWords(self.sentences)

    def sentence_lengths(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """``[sentences]``: how many words each has."""
        chunks = self.sentences.data.column("tags_0").chunks
        return np.concatenate(
            [np.diff(to_numpy(chunk.offsets)) for chunk in chunks], dtype=np.int64
        )

    def sizes(self) -> dict[str, int]:
        """How many ``sentences`` (or documents, as ``data.unit`` says), ``words``, ``windows``."""
        return {
            "sentences": self.sentences.num_rows,
            "words": int(self.sentence_lengths().sum()),
            "windows": self.windows.num_rows,
        }

    def label_ids(self, head: int) -> np.ndarray[Any, np.dtype[np.int16]]:
        """``[words]``: the gold label of a head of each word, sentence after sentence."""
        column = self.sentences.data.column(f"tags_{head}").combine_chunks()
        return to_numpy(column.flatten())

    def sentence_begins(self) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """``[words]``: whether a word is the first of its sentence."""
        lengths = self.sentence_lengths()
        begins = np.zeros(int(lengths.sum()), dtype=bool)
        begins[np.cumsum(lengths) - lengths] = True
        return begins

    def label_counts(self, head: int, num_labels: int) -> np.ndarray[Any, np.dtype[np.int64]]:
        """``[num_labels]``: how many pieces are labelled with each label of a head."""
        counts = np.zeros(num_labels, dtype=np.int64)
        for labels, _ in self._labels(head):
            counts += np.bincount(labels[labels >= 0], minlength=num_labels)
        return counts

    def label_weights(
        self, head: int, weights: np.ndarray[Any, np.dtype[np.float32]]
    ) -> np.ndarray[Any, np.dtype[np.float64]]:
        """``[windows]``: the summed weights of each window's labels of a head."""
        sums = []
        for labels, offsets in self._labels(head):
            each = np.where(labels >= 0, weights[labels.clip(min=0)].astype(np.float64), 0.0)
            # A last 0, for a window without a piece may begin behind all others.
            of_windows = np.add.reduceat(np.append(each, 0.0), offsets[:-1])
            sums.append(np.where(np.diff(offsets) > 0, of_windows, 0.0))
        return np.concatenate(sums)

    def _labels(self, head: int) -> Iterator[tuple[Any, Any]]:
        """The labels of all windows and the edges between them, a stretch of windows at a time."""
        for chunk in self.windows.data.column(f"labels_{head}").chunks:
            offsets = to_numpy(chunk.offsets)
            yield to_numpy(chunk.values)[offsets[0] : offsets[-1]], offsets - offsets[0]


@dataclass(frozen=True, slots=True)
class Prepared:
    """A prepared corpus."""

    folder: Path
    heads: Heads
    schemes: dict[str, str | None]
    """Head -> the scheme of the files; None for classes."""
    splits: dict[Split, SplitData]
    pad_id: int
    empty_row: list[int]
    """Special tokens around nothing: what a rank without windows computes."""
    warnings: tuple[str, ...]
    type_counts: dict[str, dict[Split, dict[str, int]]]
    """Head -> split -> entity type or class -> how often."""

    def used_pieces(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """The ids of all pieces that a model can be given, rising."""
        found = [np.array([self.pad_id, *self.empty_row], dtype=np.int64)]
        for split in self.splits.values():
            chunks = split.windows.data.column("input_ids").chunks
            found += [np.unique(to_numpy(chunk.values)) for chunk in chunks]
        return np.unique(np.concatenate(found))


def prepare(
    data: DataConfig, tokenizer: PreTrainedTokenizerFast, splits: Sequence[Split]
) -> Prepared:
    """Read and encode some splits, or find that done already.

    Raises:
        DataError: the data cannot be read as the config says, or the cache cannot be written.
    """
    root = data.cache_root()
    folder = root / _content_hash(data, tokenizer, splits)
    told = None
    if not (folder / "meta.json").exists():
        try:
            root.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{folder}.lock"):
                if not (folder / "meta.json").exists():
                    with collector.paused():
                        told = _prepare_into(folder, data, tokenizer, splits)
        except (OSError, NotImplementedError) as error:
            # The second: a file system without locks.
            reason = getattr(error, "strerror", None) or error
            raise DataError(
                f"prepared data cannot be written to {root}: {reason}; set "
                f"data.cache_dir or $BIGNER_CACHE to a folder that can be"
            ) from None
    if told is not None:
        inform(told)
    return _open(folder, splits)


def _content_hash(
    data: DataConfig, tokenizer: PreTrainedTokenizerFast, splits: Sequence[Split]
) -> str:
    digest = hashlib.sha256()
    settings = data.model_dump(mode="json", exclude=_NOT_CONTENT)
    heads: dict[str, dict[str, Any]] = settings.pop("heads") or {}
    # In their order, which is that of the columns; what a head weighs in the loss is not content.
    settings["heads"] = [[name, {**head, "weight": None}] for name, head in heads.items()]
    digest.update(json.dumps([FORMAT_VERSION, settings], sort_keys=True).encode())
    digest.update(tokenizer.backend_tokenizer.to_str().encode())
    digest.update(f"\0{tokenizer.pad_token_id}".encode())
    for split in splits:
        # The name counts too: it appears in warnings and tells the splits of a Hub dataset apart.
        digest.update(f"\0{split}\0{data.source(split)}".encode())
        for file in _content_files(data, split):
            digest.update(f"\0{file}\0".encode())
            try:
                with file.open("rb") as stream:
                    digest.update(hashlib.file_digest(stream, "sha256").digest())
            except OSError as error:
                raise DataError(f"{file}: cannot be read: {error.strerror}") from None
    return digest.hexdigest()[:32]


def _content_files(data: DataConfig, split: Split) -> list[Path]:
    """The files a split is read from; none where it comes from the Hub, known by name alone."""
    if data.dataset is not None:
        return sorted(path for path in Path(data.dataset).rglob("*") if path.is_file())
    return source_files(data, split)


def _prepare_into(
    folder: Path, data: DataConfig, tokenizer: PreTrainedTokenizerFast, splits: Sequence[Split]
) -> str:
    """Prepare splits; returns what to tell of it."""
    started = time.perf_counter()
    corpus = read_corpus(data, splits)
    # The lock is ours, so these are what killed processes left.
    for leftover in folder.parent.glob(f".{folder.name}-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    # Written beside and renamed whole, so that a folder that exists is complete.
    working = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        counts = {split: _write_split(working, split, corpus, data, tokenizer) for split in splits}
        prefix, suffix = special_tokens(tokenizer)
        meta = {
            "heads": {
                name: {
                    "kind": head.kind,
                    "labels": head.labels.tags,
                    "scheme": head.scheme,
                    "type_counts": head.type_counts,
                }
                for name, head in corpus.heads.items()
            },
            "warnings": list(corpus.warnings),
            "pad_id": tokenizer.pad_token_id or 0,
            "empty_row": [*prefix, *suffix] or [tokenizer.pad_token_id or 0],
            "splits": counts,
        }
        (working / "meta.json").write_text(json.dumps(meta, ensure_ascii=False), encoding="utf-8")
        working.chmod(0o755)
        working.replace(folder)
    finally:
        shutil.rmtree(working, ignore_errors=True)
    seconds = time.perf_counter() - started
    words = sum(len(one.words) for one in chain.from_iterable(corpus.sentences.values()))
    return (
        f"prepared {words:,} words of {', '.join(splits)} in {seconds:.1f} s "
        f"({words / seconds:,.0f} words a second)"
    )


def _write_split(
    folder: Path,
    split: Split,
    corpus: Corpus,
    data: DataConfig,
    tokenizer: PreTrainedTokenizerFast,
) -> dict[str, int]:
    """Write the Arrow files of one split; returns the counts worth telling."""
    heads, sentences = corpus.label_sets(), corpus.sentences[split]
    encoder = WindowEncoder(
        tokenizer,
        heads,
        max_length=data.max_length,
        stride=data.stride,
        alignment=data.alignment,
        context=data.context,
    )
    schema = _sentence_schema(len(heads))
    write_table(folder / f"{split}-sentences.arrow", schema, _sentences(sentences, heads, schema))
    texts = texts_of(sentences, heads, data.unit, context=data.context > 0)
    batches = progress(list(_batches(texts)), f"preparing {split}")
    schema = window_schema(len(heads))
    write_table(folder / f"{split}-windows.arrow", schema, map(encoder.encode, batches))
    return {
        "words_without_pieces": encoder.words_without_pieces,
        "words_cut": encoder.words_cut,
    }


def _sentence_schema(num_heads: int) -> pa.Schema:
    columns = {"words": pa.list_(pa.string()), "document": pa.int64()}
    return pa.schema(columns | {f"tags_{i}": pa.list_(pa.int16()) for i in range(num_heads)})


def _sentences(
    sentences: list[Sentence], heads: Heads, schema: pa.Schema
) -> Iterator[pa.RecordBatch]:
    for start in range(0, len(sentences), TEXTS_AT_ONCE):
        batch = sentences[start : start + TEXTS_AT_ONCE]
        words = chain.from_iterable(one.words for one in batch)
        sizes = np.array([len(one.words) for one in batch])
        documents = np.array([one.document for one in batch])
        columns = [lists(strings(words), sizes), numbers(documents)]
        for i, head in enumerate(heads):
            ids = head.labels.ids_of(chain.from_iterable(one.tags[i] for one in batch))
            columns.append(lists(numbers(np.array(ids, np.int16)), sizes))
        yield pa.record_batch(columns, schema=schema)


def _batches(texts: Iterator[Text]) -> Iterator[list[Text]]:
    batch: list[Text] = []
    words = 0
    for text in texts:
        batch.append(text)
        words += len(text.words)
        if len(batch) == TEXTS_AT_ONCE or words >= _WORDS_AT_ONCE:
            yield batch
            batch, words = [], 0
    if batch:
        yield batch


def _open(folder: Path, splits: Sequence[Split]) -> Prepared:
    meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
    data = {
        split: SplitData(
            split,
            Table.open(folder / f"{split}-sentences.arrow"),
            Table.open(folder / f"{split}-windows.arrow"),
            **meta["splits"][split],
        )
        for split in splits
    }
    heads = meta["heads"]
    prepared = Prepared(
        folder=folder,
        heads=Heads(
            [(name, one["kind"], LabelSet(tuple(one["labels"]))) for name, one in heads.items()]
        ),
        schemes={name: one["scheme"] for name, one in heads.items()},
        splits=data,
        pad_id=meta["pad_id"],
        empty_row=meta["empty_row"],
        warnings=tuple(meta["warnings"]),
        type_counts={name: one["type_counts"] for name, one in heads.items()},
    )
    for split in data.values():
        _check_words_owned_once(split)
    return prepared


def _check_words_owned_once(split: SplitData) -> None:
    """Assert that the windows own the words of the split one after the other, each once."""
    first, counts = split.column("first_word"), split.column("num_words")
    assert (first == np.concatenate([[0], np.cumsum(counts)[:-1]])).all(), "words not owned once"
