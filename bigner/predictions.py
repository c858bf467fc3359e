"""Predictions on disk: a line for each word, and a blank line between sentences.

    Anna<TAB>B-PER<TAB>B-PER<TAB>0.9987
    sleeps<TAB>O<TAB>O<TAB>1.0000

A line is word, gold tag, predicted tag and confidence: tags in IOB2, and the probability that the
model gave to the predicted tag, to four decimals. A word without pieces has none, and files of
earlier versions have no such column. Words that only JSON can spell, with line breaks or tabs
inside, have spaces for these.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bigner.errors import DataError, RunError
from bigner.run_dir import write_parts

_BREAKS = str.maketrans("\t\n\r", "   ")
_TAG = re.compile("O|[BI]-.+", re.DOTALL)
_CONFIDENCE = re.compile(r"0(\.[0-9]+)?|1(\.0+)?")
_NAMES = ("word", "gold tag", "predicted tag", "confidence")

Sentences = Iterable[Sequence[str]]


@dataclass(frozen=True, slots=True)
class TaggedLines:
    """A file of predictions, line by line; a blank line has empty strings."""

    path: Path
    asked: list[str]
    """What was to be predicted: word and gold tag, with a tab between."""
    gold: list[str]
    predicted: list[str]
    confidences: list[float] | None = None
    """nan where there is none; None if the file has no such column."""

    def difference(self, other: TaggedLines) -> str:
        """Where the two do not ask the same of a model: both places and what is there, or ""."""
        if self.asked == other.asked:
            return ""
        lines = zip([*self.asked, None], [*other.asked, None], strict=False)
        line = next(i for i, (here, there) in enumerate(lines, start=1) if here != there)
        return f"{self._at(line)}, where {other._at(line)}"

    def _at(self, line: int) -> str:
        if line > len(self.asked):
            return f"{self.path} ends before line {line}"
        word, _, tag = self.asked[line - 1].rpartition("\t")
        found = f"{word!r:.80} tagged {tag}" if tag else "the end of a sentence"
        return f"{self.path}:{line} has {found}"


def write_predictions(
    path: Path, words: Sentences, heads: Mapping[str, Sequence[Sentences]]
) -> None:
    """Write words with what is told of them, sentence by sentence; a file is there whole or not at
    all.

    Args:
        path: of the file; of several heads each has its own, with ``-HEAD`` behind the stem.
        words: of each sentence; gone through once for each head.
        heads: of each sentence gold tags, predicted tags and, if they are known, confidences as
            text; by head, gone through once.

    Raises:
        RunError: it cannot be written.
    """
    for head, columns in heads.items():
        file = path if len(heads) == 1 else path.with_stem(f"{path.stem}-{head}")
        try:
            file.parent.mkdir(exist_ok=True)
            write_parts(file, _as_lines(words, *columns))
        except OSError as error:
            raise RunError(f"{file} cannot be written: {error}") from None


def _as_lines(*columns: Sentences) -> Iterator[str]:
    between = ""
    for sentence in zip(*columns, strict=True):
        yield between + "".join(column_line(*word) for word in zip(*sentence, strict=True))
        between = "\n"


def column_line(*fields: str) -> str:
    """Fields with tabs between, as one line whatever is in them."""
    return "\t".join(field.translate(_BREAKS) for field in fields) + "\n"


def read_predictions(path: Path, *, are_tags: bool = True) -> TaggedLines:
    """Read what ``write_predictions`` wrote.

    Args:
        path: the file.
        are_tags: whether it is of a head of tags, which are IOB2; classes may be any text.

    Raises:
        DataError: it cannot be read, or a line is not word, gold tag and predicted tag in IOB2 with
            a confidence, which all lines have or none.
    """
    try:
        # By line feeds alone: words may hold what else Unicode calls a line boundary.
        lines = path.read_bytes().decode("utf-8").removesuffix("\n").split("\n")
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 (byte {error.start})") from None
    columns = _columns_of(lines)
    asked, gold, predicted = [], [], []
    confidences: list[float] = []
    tags = {"O"}
    # Of a million lines there are but ten thousand.
    numbers = {"": math.nan}
    for number, line in enumerate(lines, start=1):
        fields = line.split("\t") if line else [""] * columns
        if len(fields) != columns:
            raise DataError.at(path, number, f"not {', '.join(_NAMES[:columns])}: {line!r:.80}")
        if are_tags and line and not tags.issuperset(fields[1:3]):
            tags.update(_require_iob2(tag, path, number) for tag in fields[1:3])
        asked.append(f"{fields[0]}\t{fields[1]}" if line else "")
        gold.append(fields[1])
        predicted.append(fields[2])
        if columns == len(_NAMES):
            if fields[3] not in numbers:
                numbers[fields[3]] = _require_probability(fields[3], path, number)
            confidences.append(numbers[fields[3]])
    return TaggedLines(path, asked, gold, predicted, confidences or None)


def _columns_of(lines: Sequence[str]) -> int:
    """How many columns a file has, by its first word."""
    first = next(filter(None, lines), "")
    return len(_NAMES) if first.count("\t") == len(_NAMES) - 1 else len(_NAMES) - 1


def _require_iob2(tag: str, path: Path, line: int) -> str:
    if not _TAG.fullmatch(tag):
        raise DataError.at(path, line, f"{tag!r:.80} is no tag of IOB2 (O, B-TYPE, I-TYPE)")
    return tag


def _require_probability(text: str, path: Path, line: int) -> float:
    if not _CONFIDENCE.fullmatch(text):
        raise DataError.at(path, line, f"{text!r:.80} is no probability (0 to 1, or nothing)")
    return float(text)
