"""Which files a split is made of, and the lines and JSON objects in them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from glob import escape, glob
from pathlib import Path

from bigner.config.schema import DataConfig, Split
from bigner.errors import DataError, one_line

_BLANK = " \t\r"


def source_files(data: DataConfig, split: Split) -> list[Path]:
    """The files of ``split``, sorted; none for the Hub.

    A file is itself. A folder is every file below it at any depth, whatever its name, except hidden
    ones: nothing is guessed from names, so keep a README out or write a glob. A glob (``*``, ``?``,
    ``[]``, ``**``) is what it matches, and matched folders are read as folders. Links are followed.

    Raises:
        DataError: nothing is there, or a file is empty or cannot be read.
    """
    if data.format == "hub":
        return []
    source = data.source(split)
    assert source is not None, f"data.{split} is not given"
    try:
        matches = [source] if Path(source).exists() else _glob(source)
    except OSError as error:
        raise DataError(f"data.{split}: cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError):
        # NUL in a folder's name, a pattern of a thousand folders.
        matches = []
    if not matches:
        raise DataError(
            one_line(f"data.{split}", f"nothing at {source!r:.1000} (seen from {Path.cwd()})")
        )
    files = sorted({file for match in matches for file in files_of(Path(match))})
    if not files:
        raise DataError(f"data.{split}: the folder {source!r} holds no file")
    for file in files:
        _require_readable(file)
    return files


def read_lines(path: Path) -> list[str]:
    """The lines of a UTF-8 file without their ends (LF or CRLF) and without a BOM.

    Other line boundaries of Unicode, such as U+2028 and U+0085, stay inside their line: they occur
    within words.

    Raises:
        DataError: the file cannot be read, is not UTF-8, or has bare carriage returns.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    text = decoded(data, path).removeprefix("\ufeff").replace("\r\n", "\n")
    if "\r" in text:
        line = text.count("\n", 0, text.index("\r")) + 1
        raise DataError.at(
            path, line, "a carriage return without a line feed; convert the line ends to LF"
        )
    return text.split("\n")


def decoded(data: bytes, source: Path | str, first_line: int = 1) -> str:
    """UTF-8 as text, with whatever ends its lines and a BOM if there is one.

    Args:
        data: all of a file, or some of its lines.
        source: the file.
        first_line: number of the first line.

    Raises:
        DataError: it is not UTF-8.
    """
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + first_line
        raise DataError.at(
            source,
            line,
            f"byte 0x{data[error.start]:02x} is not UTF-8; convert the file, for example with "
            f"iconv",
        ) from None


def read_objects(path: Path) -> Iterator[tuple[int, dict[str, object]]]:
    """The JSON objects of a file that has one a line, each with its line; blank lines are skipped.

    Raises:
        DataError: a line is not JSON, or not an object.
    """
    for number, line in enumerate(read_lines(path), start=1):
        if not line.strip(_BLANK):
            continue
        yield number, parsed_object(line, path, number)


def parsed_object(line: str, path: Path, number: int) -> dict[str, object]:
    """The JSON object that a line is.

    Raises:
        DataError: it is not JSON, or not an object.
    """
    try:
        value = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError.at(
            path,
            number,
            f"not JSON: {error.msg} at character {error.colno}; "
            f"the file needs one whole JSON object a line",
        ) from None
    except (ValueError, RecursionError) as error:
        # Numbers of thousands of digits, brackets thousands deep.
        raise DataError.at(path, number, f"JSON that cannot be read: {error}") from None
    if not isinstance(value, dict):
        raise DataError.at(
            path,
            number,
            f"a JSON {type(value).__name__} where an object is needed; "
            f"the file needs one JSON object a line",
        )
    return value


def _glob(pattern: str) -> list[str]:
    # Unlike Path.glob, this takes absolute patterns and leaves hidden files out.
    return glob(pattern, recursive=True)  # noqa: PTH207


def files_of(path: Path) -> list[Path]:
    """A file, or all files below a folder but hidden ones."""
    if not path.is_dir():
        return [path]
    # Broken links are kept, so that they are reported and not passed over.
    below = map(Path, _glob(f"{escape(str(path))}/**"))
    return [file for file in below if not file.is_dir()]


def _require_readable(file: Path) -> None:
    if not file.is_file():
        raise DataError(f"{file}: not a file that can be read (a broken link, or no regular file)")
    if not os.access(file, os.R_OK):
        raise DataError(f"{file}: no permission to read it")
    if file.stat().st_size == 0:
        raise DataError(f"{file}: the file is empty")
