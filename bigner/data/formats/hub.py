"""Datasets of the Hub, and those that the library `datasets` saved to a folder.

A row is a sentence, and a document of its own unless the dataset has a field ``document`` (see
`bigner.data.formats.jsonl`). Code that comes with a dataset is never run.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bigner.config.schema import DataConfig, Split
from bigner.data.formats.jsonl import DocumentCounter
from bigner.data.formats.sentence import Sentence, checked_sentence, nearest
from bigner.errors import DataError

_ROWS_AT_ONCE = 1000


def read(data: DataConfig, split: Split) -> Iterator[Sentence]:
    """The sentences of one split of a dataset; ``lines`` are rows, counted from 1.

    Raises:
        DataError: the dataset cannot be loaded, has no such split or fields, or its tags are
            numbers without names.
    """
    dataset = _load(data, split)
    words, heads = str(data.words_column()), data.tag_fields()
    for field, name in (("data.columns.words", words), *heads.values()):
        if name not in dataset.column_names:
            raise DataError(
                f"{field}: {_place(data, split)} has no field {name!r}; "
                f"{nearest(str(name), list(dataset.column_names))}"
            )
    names = {head: _tag_names(dataset.features[str(name)]) for head, (_, name) in heads.items()}
    documents = DocumentCounter()
    # Other fields, images for one, would be decoded for nothing.
    wanted = [words, "document", *(str(name) for _, name in heads.values())]
    needed = [name for name in wanted if name in dataset.column_names]
    for row, record in enumerate(_rows(dataset.select_columns(needed)), start=1):
        tags = {
            head: _named(record[str(name)], names[head], field, _place(data, split), row)
            for head, (field, name) in heads.items()
        }
        yield checked_sentence(
            record[words],
            tags,
            document=documents.number(record.get("document")),
            file=_place(data, split),
            line=row,
        )


def _place(data: DataConfig, split: Split) -> str:
    return f"{data.dataset}[{data.source(split)}]"


def _load(data: DataConfig, split: Split) -> Any:
    # Imported here: `bigner validate` reads this module, and `datasets` takes seconds to start.
    import datasets  # noqa: PLC0415

    assert data.dataset is not None
    source = data.source(split)
    try:
        if Path(data.dataset).is_dir():
            loaded = datasets.load_from_disk(data.dataset)
        else:
            loaded = datasets.load_dataset(data.dataset, data.subset, split=source)
    # Upstream raises a dozen unrelated classes for a dataset it cannot get: no network, no such
    # name, no such split, a configuration to choose, a damaged file.
    except Exception as error:
        raise DataError(_cannot_load(data, split, error)) from error
    if isinstance(loaded, datasets.DatasetDict):
        if source not in loaded:
            raise DataError(
                f"data.{split}: {data.dataset!r} has no split {source!r}; "
                f"{nearest(str(source), list(loaded))}"
            )
        return loaded[source]
    if Path(data.dataset).is_dir() and str(loaded.split) != source:
        raise DataError(
            f"data.{split}: the folder {data.dataset!r} holds one dataset without splits or of "
            f"the split {str(loaded.split)!r}, and {source!r} is asked for; save a DatasetDict"
        )
    return loaded


def _cannot_load(data: DataConfig, split: Split, error: Exception) -> str:
    reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
    subset = f", subset {data.subset!r}" if data.subset else ""
    return (
        f"data.{split}: dataset {data.dataset!r}{subset}, split {data.source(split)!r} cannot be "
        f"loaded: {reason}. Check data.dataset, data.subset and the name of the split; without a "
        f"connection to the Hub, give the folder of a dataset saved with save_to_disk"
    )


def _rows(dataset: Any) -> Iterator[dict[str, Any]]:
    # Batches, because a row at a time costs ten times as much.
    for batch in dataset.iter(batch_size=_ROWS_AT_ONCE):
        for values in zip(*batch.values(), strict=True):
            yield dict(zip(batch, values, strict=True))


def _tag_names(feature: Any) -> list[str] | None:
    """The names of the tags where they are stored as numbers that have names (ClassLabel)."""
    inner = feature[0] if isinstance(feature, list) else getattr(feature, "feature", None)
    names: list[str] | None = getattr(inner, "names", None)
    return names


def _named(tags: object, names: list[str] | None, field: str, file: str, row: int) -> object:
    if not isinstance(tags, list) or not any(isinstance(tag, int) for tag in tags):
        return tags
    if names is None:
        raise DataError.at(
            file,
            row,
            f"the tags are numbers without names ({tags[0]}, ...); cast the field to "
            f"List(ClassLabel(names=[...])) and save the dataset with save_to_disk, or name a "
            f"field of strings in {field}",
        )
    for tag in tags:
        if not isinstance(tag, int) or not 0 <= tag < len(names):
            raise DataError.at(
                file, row, f"tag {tag!r} is none of the numbers 0 to {len(names) - 1}"
            )
    return [names[tag] for tag in tags]
