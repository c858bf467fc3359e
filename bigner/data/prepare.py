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
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from datasets import Dataset, Features, Value
from datasets import Sequence as ListOf
from datasets.arrow_writer import ArrowWriter
from filelock import FileLock
from transformers import PreTrainedTokenizerFast

from bigner.config.schema import SPLITS, DataConfig, Split
from bigner.data.corpus import read_corpus
from bigner.data.encode import TEXTS_AT_ONCE, Text, WindowEncoder, special_tokens, texts_of
from bigner.data.formats import Sentence, source_files
from bigner.data.labels import LabelSet
from bigner.errors import DataError
from bigner.log import progress

# Raised whenever the same input would be prepared differently.
FORMAT_VERSION = 1
# Fields that say where, or which of the splits there is; the splits in hand are hashed below.
_NOT_CONTENT = {"cache_dir", *SPLITS}

_SENTENCES = Features(
    {"words": ListOf(Value("string")), "tags": ListOf(Value("int16")), "document": Value("int64")}
)
_WINDOWS = Features(
    {
        "input_ids": ListOf(Value("int32")),
        "labels": ListOf(Value("int16")),
        "first_word": Value("int64"),
        "word_places": ListOf(Value("int32")),
        "length": Value("int64"),
        "num_labels": Value("int64"),
        "num_words": Value("int64"),
    }
)


@dataclass(frozen=True, slots=True)
class SplitData:
    """One prepared split, memory-mapped."""

    split: Split
    sentences: Dataset
    """``words``, ``tags`` (ids of the LabelSet) and ``document`` of each sentence."""
    windows: Dataset
    """What a model computes: see ``encode.Window``; with ``length``, ``num_labels``,
    ``num_words``."""
    words_without_pieces: int
    words_cut: int

    def column(self, name: str) -> np.ndarray[Any, np.dtype[np.int64]]:
        """A number of each window: ``length``, ``num_labels``, ``first_word`` or ``num_words``."""
        values: np.ndarray[Any, np.dtype[np.int64]] = self.windows.data.column(name).to_numpy()
        return values


@dataclass(frozen=True, slots=True)
class Prepared:
    """A prepared corpus."""

    folder: Path
    labels: LabelSet
    scheme: str
    splits: dict[Split, SplitData]
    pad_id: int
    empty_row: list[int]
    """Special tokens around nothing: what a rank without windows computes."""
    warnings: tuple[str, ...]
    type_counts: dict[Split, dict[str, int]]


def prepare(
    data: DataConfig, tokenizer: PreTrainedTokenizerFast, splits: Sequence[Split]
) -> Prepared:
    """Read and encode some splits, or find that done already.

    Raises:
        DataError: the data cannot be read as the config says, or the cache cannot be written.
    """
    root = data.cache_root()
    folder = root / _content_hash(data, tokenizer, splits)
    if not (folder / "meta.json").exists():
        try:
            root.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{folder}.lock"):
                if not (folder / "meta.json").exists():
                    _prepare_into(folder, data, tokenizer, splits)
        except (OSError, NotImplementedError) as error:
            # The second: a file system without locks.
            reason = getattr(error, "strerror", None) or error
            raise DataError(
                f"prepared data cannot be written to {root}: {reason}; set "
                f"data.cache_dir or $BIGNER_CACHE to a folder that can be"
            ) from None
    return _open(folder, splits)


def _content_hash(
    data: DataConfig, tokenizer: PreTrainedTokenizerFast, splits: Sequence[Split]
) -> str:
    digest = hashlib.sha256()
    settings = data.model_dump(mode="json", exclude=_NOT_CONTENT)
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
) -> None:
    corpus = read_corpus(data, splits)
    # The lock is ours, so these are what killed processes left.
    for leftover in folder.parent.glob(f".{folder.name}-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    # Written beside and renamed whole, so that a folder that exists is complete.
    working = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        counts = {
            split: _write_split(
                working, split, corpus.sentences[split], corpus.labels, data, tokenizer
            )
            for split in splits
        }
        prefix, suffix = special_tokens(tokenizer)
        meta = {
            "labels": list(corpus.labels.types),
            "scheme": corpus.scheme,
            "warnings": list(corpus.warnings),
            "type_counts": corpus.type_counts,
            "pad_id": tokenizer.pad_token_id or 0,
            "empty_row": [*prefix, *suffix] or [tokenizer.pad_token_id or 0],
            "splits": counts,
        }
        (working / "meta.json").write_text(json.dumps(meta, ensure_ascii=False), encoding="utf-8")
        working.chmod(0o755)
        working.replace(folder)
    finally:
        shutil.rmtree(working, ignore_errors=True)


def _write_split(
    folder: Path,
    split: Split,
    sentences: list[Sentence],
    labels: LabelSet,
    data: DataConfig,
    tokenizer: PreTrainedTokenizerFast,
) -> dict[str, int]:
    """Write the Arrow files of one split; returns the counts worth telling."""
    encoder = WindowEncoder(
        tokenizer,
        labels,
        max_length=data.max_length,
        stride=data.stride,
        alignment=data.alignment,
    )
    with ArrowWriter(features=_SENTENCES, path=str(folder / f"{split}-sentences.arrow")) as writer:
        for sentence in sentences:
            ids = [labels.id_of(tag) for tag in sentence.tags]
            writer.write({"words": sentence.words, "tags": ids, "document": sentence.document})
        writer.finalize()
    texts = list(texts_of(sentences, labels, data.unit))
    with ArrowWriter(features=_WINDOWS, path=str(folder / f"{split}-windows.arrow")) as writer:
        for batch in progress(list(_batches(texts)), f"preparing {split}"):
            for window in encoder.encode(batch):
                writer.write(
                    {
                        **asdict(window),
                        "length": len(window.input_ids),
                        "num_labels": sum(label >= 0 for label in window.labels),
                        "num_words": len(window.word_places),
                    }
                )
        writer.finalize()
    return {
        "words_without_pieces": encoder.words_without_pieces,
        "words_cut": encoder.words_cut,
    }


def _batches(texts: list[Text]) -> Iterator[list[Text]]:
    for start in range(0, len(texts), TEXTS_AT_ONCE):
        yield texts[start : start + TEXTS_AT_ONCE]


def _open(folder: Path, splits: Sequence[Split]) -> Prepared:
    meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
    data = {
        split: SplitData(
            split,
            Dataset.from_file(str(folder / f"{split}-sentences.arrow")),
            Dataset.from_file(str(folder / f"{split}-windows.arrow")),
            **meta["splits"][split],
        )
        for split in splits
    }
    prepared = Prepared(
        folder=folder,
        labels=LabelSet.of_types(meta["labels"]),
        scheme=meta["scheme"],
        splits=data,
        pad_id=meta["pad_id"],
        empty_row=meta["empty_row"],
        warnings=tuple(meta["warnings"]),
        type_counts=meta["type_counts"],
    )
    for split in data.values():
        _check_words_owned_once(split)
    return prepared


def _check_words_owned_once(split: SplitData) -> None:
    """Assert that the windows own the words of the split one after the other, each once."""
    first, counts = split.column("first_word"), split.column("num_words")
    assert (first == np.concatenate([[0], np.cumsum(counts)[:-1]])).all(), "words not owned once"


def rows_of(windows: Dataset, indices: Sequence[int]) -> dict[str, list[Any]]:
    """Columns of some windows, by index, as plain lists."""
    table: pa.Table = windows.with_format("arrow")[list(indices)]
    return {name: table.column(name).to_pylist() for name in table.column_names}
