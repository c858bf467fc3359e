"""JSON lines: one object a line with a list of words and a list of tags.

Each line is a document of its own, unless it has a field ``document`` (a string or a whole number,
such as a file name or an id): neighbouring lines of a file with the same value are one document.
"""

from __future__ import annotations

from collections.abc import Iterator

from bigner.config.schema import DataConfig, Split
from bigner.data.formats.files import read_objects, source_files
from bigner.data.formats.sentence import Sentence, checked_sentence, field_of


class DocumentCounter:
    """Numbers documents from 0 as records go by."""

    def __init__(self) -> None:
        self._number = -1
        self._key: object = None

    def next_file(self) -> None:
        """Make the next record begin a document, whatever its key."""
        self._key = None

    def number(self, key: object) -> int:
        """The number of a record's document; ``key`` is its field ``document``, or None."""
        if key is None or key != self._key:
            self._number += 1
        self._key = key
        return self._number


def read(data: DataConfig, split: Split) -> Iterator[Sentence]:
    """The sentences of JSON lines files; the config names their fields.

    Raises:
        DataError: with file and line, where a line is not such an object.
    """
    documents = DocumentCounter()
    for path in source_files(data, split):
        documents.next_file()
        for line, record in read_objects(path):
            words, *tags = (
                field_of(
                    record,
                    str(name),
                    role=f"set {field} to the field that holds the {role}",
                    file=str(path),
                    line=line,
                )
                for field, role, name in _fields(data)
            )
            yield checked_sentence(
                words,
                dict(zip(data.resolved_heads(), tags, strict=True)),
                document=documents.number(record.get("document")),
                file=str(path),
                line=line,
            )


def _fields(data: DataConfig) -> list[tuple[str, str, int | str]]:
    """The config's field, what it is for, and the record's field, for words and each head."""
    tags = [(field, "tags", name) for field, name in data.tag_fields().values()]
    return [("data.columns.words", "words", data.words_column()), *tags]
