"""One reader per data format; each turns a split into sentences.

A new format is a new file here with a function ``read(data, split)``, a line in ``_READERS``, and
its name in `DataConfig.format`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from bigner.config.schema import DataConfig, Split
from bigner.data.formats import columns, hub, jsonl, spans
from bigner.data.formats.files import source_files
from bigner.data.formats.folds import part_of
from bigner.data.formats.sentence import Sentence
from bigner.errors import DataError

__all__ = ["Sentence", "read_sentences", "source_files"]

_READERS: dict[str, Callable[[DataConfig, Split], Iterator[Sentence]]] = {
    "columns": columns.read,
    "jsonl": jsonl.read,
    "spans": spans.read,
    "hub": hub.read,
}


def read_sentences(data: DataConfig, split: Split) -> Iterator[Sentence]:
    """The sentences of ``split``, in the order of its files and of the lines in them.

    Tags are as the files have them; `bigner.data.corpus.read_corpus` checks and converts them.

    Raises:
        DataError: a file cannot be read as the config says, or the split has no sentence.
    """
    if data.fold is not None and split != "validation":
        yield from part_of(_read(data, split), data.fold, held_out=split == "test")
    else:
        yield from _read(data, split)


def _read(data: DataConfig, split: Split) -> Iterator[Sentence]:
    sentences = _READERS[data.format](data, split)
    first = next(sentences, None)
    if first is None:
        raise DataError(f"data.{split}: no sentence in {data.source(split)!r}")
    yield first
    yield from sentences
