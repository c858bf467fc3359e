"""What is to be tagged: text files, JSON lines and column files, read text by text."""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast, get_args

from bigner.config.checks import is_file, is_folder, require_choice
from bigner.data.formats.columns import read_words
from bigner.data.formats.files import decoded, files_of, parsed_object
from bigner.data.formats.sentence import field_of, require_text
from bigner.errors import DataError, UserError, one_line
from bigner.prediction.options import InputFormat, WordRule
from bigner.prediction.words import SplitText

STANDARD = Path("-")
"""Standard input or output."""

ENTITIES = "entities"
"""The field of an output line that predictions are in."""

_FORMAT_OF: dict[str, InputFormat] = {
    ".txt": "text",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    **dict.fromkeys((".conll", ".conllu", ".conllup", ".tsv", ".iob", ".iob2", ".bio"), "columns"),
}


@dataclass(frozen=True, slots=True)
class InputText:
    """A text and where it is from."""

    source: str
    text: str
    line: int | None = None
    """Where it begins, counted from 1; None for a file that is one text."""
    words: tuple[str, ...] | None = None
    """Where somebody has found them already."""
    record: str | None = None
    """The JSON object that it is a field of, as it was written."""

    def split(self, rule: WordRule) -> SplitText:
        """The text with its words."""
        if self.words is not None:
            return SplitText.joined(self.words)
        return SplitText.of(self.text, rule)


@dataclass(frozen=True, slots=True)
class Source:
    """All that is to be tagged; every process of a run has the same.

    Args:
        path: a file, a folder, or ``STANDARD``.
        format: of all its files; by the suffix of each, if not given.
        lines: each line of a text file is a text of its own.
        column: of the words in column files: its number from 0, or its name in the header.
    """

    path: Path
    format: InputFormat | None = None
    lines: bool = False
    column: int | str = 0
    standard_input: str | None = None
    """What stands on standard input, once it was read."""

    def files(self) -> list[tuple[Path, InputFormat]]:
        """The files, sorted, each with its format; none for standard input.

        Raises:
            DataError: nothing is there, or the format of a file is not known.
        """
        if self.path == STANDARD:
            if self.format not in (None, "text"):
                raise UserError(
                    f"standard input is plain text, and the input format {self.format}; name a file"
                )
            return []
        if not is_folder(self.path) and not is_file(self.path):
            raise DataError(
                one_line(
                    "INPUT", f"no file or folder at {str(self.path)!r} (seen from {Path.cwd()})"
                )
            )
        files = sorted(files_of(self.path))
        if not files:
            raise DataError(f"INPUT: the folder {str(self.path)!r} holds no file")
        return [(file, self._format_of(file)) for file in files]

    def _format_of(self, file: Path) -> InputFormat:
        found = self.format or _FORMAT_OF.get(file.suffix.lower())
        if found is None:
            raise DataError(
                f"{file}: the suffix {file.suffix!r} says nothing of what is in it "
                f"({', '.join(_FORMAT_OF)} do); set --input-format to "
                f"{', '.join(get_args(InputFormat))}"
            )
        return found

    def with_standard_input(self) -> Source:
        """With what stands on standard input, where that is the source; only once in a run."""
        if self.path != STANDARD:
            return self
        given = decoded(sys.stdin.buffer.read(), "standard input")
        return replace(self, standard_input=given)

    def texts(self) -> Iterator[InputText]:
        """All texts, in order.

        Raises:
            DataError: with file and line, where something cannot be read.
        """
        if self.path == STANDARD:
            assert self.standard_input is not None, "not read yet"
            yield from self._texts_in(self.standard_input, str(STANDARD))
            return
        for file, kind in self.files():
            if kind == "jsonl":
                yield from _records(file)
            elif kind == "columns":
                for line, words in read_words(file, self.column):
                    text = SplitText.joined(words).text
                    yield InputText(str(file), text, line, words=tuple(words))
            else:
                yield from self._texts_in(decoded(_read(file), file), str(file))

    def _texts_in(self, text: str, source: str) -> Iterator[InputText]:
        if not self.lines:
            yield InputText(source, text)
            return
        lines = text.split("\n")
        if not lines[-1]:
            # What ends with a line feed has no line behind it.
            lines.pop()
        for number, line in enumerate(lines, start=1):
            yield InputText(source, line.removesuffix("\r"), number)

    def surveyed(self) -> Survey:
        """Go through all of it, so that nothing wrong in it is met only after hours.

        Raises:
            DataError: as ``texts``.
        """
        digest = hashlib.sha256()
        count = 0
        for one in self.texts():
            digest.update(repr((one.source, one.line, one.text, one.words, one.record)).encode())
            count += 1
        return Survey(count, digest.hexdigest())


def source_of(
    path: Path, input_format: str | None = None, *, lines: bool = False, column: str = "0"
) -> Source:
    """The source that a command line names; its files are looked for, and not read yet.

    Raises:
        UserError: nothing is there, or it is not known how to read it.
    """
    if input_format is not None:
        require_choice("--input-format", input_format, InputFormat)
    place = int(column) if re.fullmatch("-?[0-9]{1,9}", column) else column
    source = Source(path, cast("InputFormat | None", input_format), lines, place)
    source.files()
    return source


@dataclass(frozen=True, slots=True)
class Survey:
    """What there is to be tagged."""

    texts: int
    digest: str
    """Of all of it, by which it is known again."""


def _records(file: Path) -> Iterator[InputText]:
    for number, line in _lines(file):
        if not (record := line.strip(" \t\r\n")):
            continue
        values = parsed_object(record, file, number)
        role = "the text to tag has to be in a field 'text'"
        text = field_of(values, "text", role=role, file=str(file), line=number)
        if not isinstance(text, str):
            kind = "null" if text is None else type(text).__name__
            raise DataError.at(
                file, number, f"the field 'text' must be a string, and is of type {kind}"
            )
        require_text(text, str(file), number)
        if ENTITIES in values:
            raise DataError.at(
                file,
                number,
                f"there is a field {ENTITIES!r} already, which predictions would be in; give it "
                f"another name",
            )
        yield InputText(str(file), text, number, record=record)


def _lines(file: Path) -> Iterator[tuple[int, str]]:
    """The lines of a file, one in memory at a time, each with its number."""
    try:
        with file.open("rb") as stream:
            for number, line in enumerate(stream, start=1):
                text = decoded(line, file, number)
                yield number, text.removeprefix("\ufeff") if number == 1 else text
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error.strerror}") from None


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error.strerror}") from None
