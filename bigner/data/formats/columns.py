"""Column files: a word a line with its columns, a blank line between sentences.

CoNLL-2003, CoNLL-U and CoNLL-U Plus, and most files that call themselves CoNLL. What a line is:

- Empty, or spaces and TABs alone: the end of a sentence.
- With ``-DOCSTART-`` at its start, or as its word: the start of a document, and no word.
- With ``#`` at its start: see below.
- Else a row. Every row has as many columns as the first row of the file, or it is an error.

Only ASCII spaces, TABs and line ends separate; any other character, U+00A0, U+200B and U+FEFF
included, is part of its word. Spaces around a cell between TABs are not part of it.

``#`` begins comments in CoNLL-U, and it begins real words: ``#fun``, ``#``. Such a line is

1. a row, if it splits into the file's number of columns; if rows are split at TABs, by TABs;
2. a comment, if it stands before the first word of a sentence and is ``# key = value``,
   ``# newdoc ...`` or ``# newpar ...``; such a line without a TAB is a comment even if spaces split
   it into the right number of columns;
3. a comment, if it stands there, begins with ``# ``, has no cell that reads like a tag, and cannot
   be a damaged row: it has no TAB in a file with TABs, or comes before the first row of the file;
4. an error in every other case, and also where 2 holds but the line reads like a row with a tag.

So a row is never taken for a comment in silence, unless it lacks its tag.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from enum import Enum, auto
from itertools import chain
from pathlib import Path

from bigner.config.schema import DataConfig, Split
from bigner.data.formats.files import read_lines, source_files
from bigner.data.formats.sentence import Sentence, nearest
from bigner.errors import DataError

_DOCSTART = "-DOCSTART-"
_HEADER = re.compile(r"# *global\.columns *=(.*)")
_NEW_DOCUMENT = re.compile(r"# +newdoc\b")
_CONLLU_COMMENT = re.compile(r"# *global\.columns *=|# +(?:\S+ *=|newdoc\b|newpar\b)")
_READS_LIKE_A_TAG = re.compile(r"O|[BIESLU]-\S+")
_CELLS = re.compile(r"[^ \t]+")
# Whether rows are split at TABs -> what is in no lines that are rows if only they have the right
# number of cells, and whose cells need no stripping. By rule 1 a line with `#` and a TAB is a row.
_NOT_PLAIN = {
    True: (_DOCSTART, "\n ", " \n", "\t ", " \t"),
    False: (_DOCSTART, "\n ", " \n", "  ", "\t", "\n#"),
}
# Lines whose cells are held at once; no sentence has so many.
_PLAIN_LINES = 10_000


def read(data: DataConfig, split: Split) -> Iterator[Sentence]:
    """The sentences of column files.

    A document starts with each file, at ``-DOCSTART-`` and at ``# newdoc``.

    Raises:
        DataError: with file and line, where a line is not what this module's rules allow.
    """
    document = -1
    for path in source_files(data, split):
        lines = read_lines(path)
        table = _table(path, lines, _wanted(data), data.separator)
        if table is None:
            continue
        for starts_document, words, tags, numbers in _sentences(table, lines):
            document += starts_document
            yield Sentence(words, tags, document, table.file, numbers)


def read_words(path: Path, column: int | str) -> Iterator[tuple[int, list[str]]]:
    """The words of each sentence of a column file, with the line of the first.

    Args:
        path: of the file, which needs no other columns.
        column: of the words, from 0 or as the file's header names it.

    Raises:
        DataError: as ``read``.
    """
    lines = read_lines(path)
    table = _table(path, lines, [("the column of words", column)], "auto")
    if table is not None:
        for _, words, _, numbers in _sentences(table, lines):
            yield numbers[0], words


class _Kind(Enum):
    """What a line is."""

    ROW = auto()
    BLANK = auto()
    COMMENT = auto()
    DOCUMENT = auto()


@dataclass(frozen=True, slots=True)
class _Table:
    """How the rows of one file are built."""

    file: str
    first_row: int
    """Line of the first row, counted from 1."""
    width: int
    """Number of columns."""
    names: tuple[str, ...]
    """Names of the columns in the file's header; empty if it has none."""
    words: int
    """Column of the words, counted from 0."""
    tags: tuple[int, ...]
    """Column of each head's tags, counted from 0."""
    fields: tuple[str, ...]
    """The config's fields that name the columns of words and tags."""
    split_at_tabs: bool
    """Whether the first row was split at TABs."""
    split: Callable[[str], list[str]]

    def kind(self, line: str, number: int, *, in_sentence: bool) -> _Kind:
        """What a line is, by the rules of this module."""
        if not line.strip(" \t"):
            return _Kind.BLANK
        if _DOCSTART in line and self._is_docstart(line):
            return _Kind.DOCUMENT
        if line[0] == "#" and not self._is_row(line, number):
            self._require_comment(line, number, in_sentence=in_sentence)
            return _Kind.DOCUMENT if _NEW_DOCUMENT.match(line) else _Kind.COMMENT
        return _Kind.ROW

    def plain_rows(self, block: list[str]) -> list[list[str]] | None:
        """Words and each head's tags of lines that are rows beyond doubt; else None.

        Most blocks are, and are read at once, five times as fast as line by line.
        """
        if len(block) > _PLAIN_LINES:
            return None
        text = "\n".join(("", *block, ""))
        if any(mark in text for mark in _NOT_PLAIN[self.split_at_tabs]):
            return None
        separator = "\t" if self.split_at_tabs else " "
        rows = [line.split(separator) for line in block]
        if set(map(len, rows)) != {self.width}:
            return None
        columns = list(zip(*rows, strict=True))
        found = [list(columns[column]) for column in (self.words, *self.tags)]
        return None if any("" in column for column in found) else found

    def word_and_tags(self, line: str, number: int) -> list[str]:
        """The word of a row and each head's tag, none of which may be empty."""
        cells = self.split(line)
        if len(cells) != self.width:
            raise self.error(number, self._wrong_width(line, cells))
        columns = (self.words, *self.tags)
        found = [cells[column].strip(" ") for column in columns]
        if not all(found):
            place = found.index("")
            what = "tag" if place else "word"
            raise self.error(
                number,
                f"the {what} in column {columns[place]} (from 0) is empty: {_shown(line)}; fill it "
                f"in, take the line out, or correct {self.fields[place]}",
            )
        return found

    def error(self, number: int, reason: str) -> DataError:
        """An error at one line of this file."""
        return DataError.at(self.file, number, reason)

    def _fits(self, line: str) -> bool:
        has_separator = "\t" in line or not self.split_at_tabs
        return has_separator and len(self.split(line)) == self.width

    def _is_docstart(self, line: str) -> bool:
        if re.match(r"-DOCSTART-(?:[ \t]|$)", line):
            return True
        return self._fits(line) and self.split(line)[self.words] == _DOCSTART

    def _is_row(self, line: str, number: int) -> bool:
        """Rules 1 and 2 for a line that starts with ``#``."""
        if not self._fits(line):
            return False
        if "\t" in line or not _CONLLU_COMMENT.match(line):
            return True
        cells = self.split(line)
        if any(_READS_LIKE_A_TAG.fullmatch(cells[column]) for column in self.tags):
            raise self.error(
                number,
                f"can be a comment or the row of a word '#': {_shown(line)}; take the comment out, "
                f"or separate the columns of this file by TABs",
            )
        return False

    def _require_comment(self, line: str, number: int, *, in_sentence: bool) -> None:
        """Rules 2 to 4 for a line that starts with ``#`` and is no row."""
        is_conllu = _CONLLU_COMMENT.match(line) is not None
        if in_sentence:
            advice = "comments stand before the first word of a sentence; is a blank line missing?"
        elif is_conllu:
            self._require_same_header(line, number)
            return
        elif self._is_free_comment(line, number):
            return
        else:
            advice = "write a comment as '# key = value' before the first word of a sentence"
        raise self.error(
            number,
            f"starts with '#' and is neither a row of {self.width} columns nor surely a comment: "
            f"{_shown(line)}; {advice}",
        )

    def _is_free_comment(self, line: str, number: int) -> bool:
        no_row = number < self.first_row or (self.split_at_tabs and "\t" not in line)
        return no_row and line.startswith("# ") and not _has_tag(line)

    def _require_same_header(self, line: str, number: int) -> None:
        header = _HEADER.match(line)
        if header and tuple(_CELLS.findall(header[1])) != self.names:
            raise self.error(
                number,
                "a second header with other columns; put what follows into a file of its own",
            )

    def _wrong_width(self, line: str, cells: list[str]) -> str:
        if self.split_at_tabs and "\t" not in line:
            advice = "is there a space where a TAB should be?"
        elif not self.split_at_tabs and len(cells) > self.width:
            advice = "a cell with a space in it needs TABs between the columns of the whole file"
        else:
            advice = "is a cell or a separator missing, or one too many?"
        return (
            f"{_counted(len(cells))}, and {self.width} expected as in the first row of the file "
            f"(line {self.first_row}): {_shown(line)}; {advice}"
        )


_Found = tuple[bool, list[str], list[list[str]], list[int]]
"""A sentence as (starts a document, words, tags of each head, lines)."""


def _sentences(table: _Table, lines: list[str]) -> Iterator[_Found]:
    starts_document = True
    for first, block in _blocks(lines):
        plain = table.plain_rows(block)
        if plain is None:
            starts_document = yield from _line_by_line(table, block, first, starts_document)
            continue
        words, *tags = plain
        yield starts_document, words, tags, list(range(first, first + len(block)))
        starts_document = False


def _blocks(lines: list[str]) -> Iterator[tuple[int, list[str]]]:
    """The lines between blank ones, with the number of the first of them."""
    start = 0
    for end in (*(i for i, line in enumerate(lines) if not line.strip(" \t")), len(lines)):
        if start < end:
            yield start + 1, lines[start:end]
        start = end + 1


def _line_by_line(
    table: _Table, block: list[str], first: int, starts_document: bool
) -> Generator[_Found, None, bool]:
    """The sentences of a block; returns whether the next one starts a document."""
    columns: list[list[str]] = [[] for _ in (table.words, *table.tags)]
    numbers: list[int] = []
    # A blank line after the last one ends the last sentence.
    for number, line in enumerate(chain(block, [""]), start=first):
        kind = table.kind(line, number, in_sentence=bool(numbers))
        if kind is _Kind.ROW:
            for column, cell in zip(columns, table.word_and_tags(line, number), strict=True):
                column.append(cell)
            numbers.append(number)
            continue
        if numbers:
            words, *tags = columns
            yield starts_document, words, tags, numbers
            starts_document, columns, numbers = False, [[] for _ in columns], []
        starts_document |= kind is _Kind.DOCUMENT
    return starts_document


def _table(
    path: Path, lines: list[str], wanted: list[tuple[str, int | str]], separator: str
) -> _Table | None:
    """How the rows of a file are built, by its header and first row; None if it has no row.

    Raises:
        DataError: the columns that the config names are not there.
    """
    first_row = _first_row(lines)
    if first_row is None:
        return None
    row = lines[first_row - 1]
    split_at_tabs = separator != "whitespace" and (separator == "tab" or "\t" in row)
    split = _SPLITTERS[separator]
    headers = (_HEADER.match(line) for line in lines[: first_row - 1])
    names = next((tuple(_CELLS.findall(header[1])) for header in headers if header), ())
    width = len(split(row))
    if names and len(names) != width:
        reason = f"{_counted(width)}, and the header of the file names {len(names)}: {_shown(row)}"
        raise DataError.at(path, first_row, reason)
    words, *tags = _columns(wanted, names, width, f"{path}:{first_row}")
    return _Table(
        file=str(path),
        first_row=first_row,
        width=width,
        names=names,
        words=words,
        tags=tuple(tags),
        fields=tuple(field for field, _ in wanted),
        split_at_tabs=split_at_tabs,
        split=split,
    )


def _first_row(lines: list[str]) -> int | None:
    """Line of the row that shows how rows are built: one without ``#`` if there is any."""
    hashed = None
    for number, line in enumerate(lines, start=1):
        if not line.strip(" \t") or line.startswith(_DOCSTART):
            continue
        if line[0] != "#":
            return number
        if hashed is None and _can_be_row(line):
            hashed = number
    return hashed


def _can_be_row(line: str) -> bool:
    """Whether a line that starts with ``#`` can be a row, while nothing is known of the file."""
    if _CONLLU_COMMENT.match(line):
        return "\t" in line
    return not line.startswith("# ") or _has_tag(line)


def _wanted(data: DataConfig) -> list[tuple[str, int | str]]:
    """The config's fields that name columns, first that of the words, and what they say."""
    return [("data.columns.words", data.words_column()), *data.tag_fields().values()]


def _columns(
    wanted: list[tuple[str, int | str]], names: tuple[str, ...], width: int, place: str
) -> list[int]:
    """Columns of the words and of each head's tags, counted from 0."""
    found: dict[int, tuple[str, int | str]] = {}
    for field, said in wanted:
        column = _column(said, field, names, width, place)
        if column in found:
            other, before = found[column]
            raise DataError(
                f"{place}: {other} {before!r} and {field} {said!r} are the same column of {width}; "
                f"see data.columns and data.separator"
            )
        found[column] = field, said
    return list(found)


def _column(wanted: int | str, field: str, names: tuple[str, ...], width: int, place: str) -> int:
    if isinstance(wanted, int):
        if -width <= wanted < width:
            return wanted % width
        raise DataError(
            f"{place}: {field} is {wanted}, and the file has {width} columns: "
            f"0 to {width - 1}, or -{width} to -1 from the end"
        )
    if wanted in names:
        return names.index(wanted)
    if not names:
        raise DataError(
            f"{place}: {field} is the name {wanted!r}, and the file has no header "
            f"'# global.columns = ...'; give a number from 0 to {width - 1}"
        )
    raise DataError(
        f"{place}: {field} is {wanted!r}, which the header does not name; "
        f"{nearest(wanted, list(names))}"
    )


def _split_at_tabs(line: str) -> list[str]:
    return line.split("\t")


def _split_at_blanks(line: str) -> list[str]:
    return _CELLS.findall(line)


def _split(line: str) -> list[str]:
    return line.split("\t") if "\t" in line else _CELLS.findall(line)


_SPLITTERS: dict[str, Callable[[str], list[str]]] = {
    "auto": _split,
    "tab": _split_at_tabs,
    "whitespace": _split_at_blanks,
}


def _has_tag(line: str) -> bool:
    return any(map(_READS_LIKE_A_TAG.fullmatch, _CELLS.findall(line)))


def _counted(columns: int) -> str:
    return f"{columns} column" if columns == 1 else f"{columns} columns"


def _shown(line: str) -> str:
    """A line for a message: quoted, TABs visible, and not longer than a terminal is wide."""
    return repr(line if len(line) <= 60 else line[:57] + "...")
