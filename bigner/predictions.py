"""Predictions on disk: a line for each word, and a blank line between sentences.

    Anna<TAB>B-PER<TAB>B-PER
    sleeps<TAB>O<TAB>O

A line is word, gold tag and predicted tag, tags in IOB2. Words that only JSON can spell, with line
breaks or tabs inside, have spaces for these.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bigner.errors import DataError, RunError
from bigner.run_dir import write_parts

_BREAKS = str.maketrans("\t\n\r", "   ")
_TAG = re.compile("O|[BI]-.+", re.DOTALL)

Sentences = Iterable[Sequence[str]]


@dataclass(frozen=True, slots=True)
class TaggedLines:
    """A file of predictions, line by line; a blank line has three empty strings."""

    path: Path
    asked: list[str]
    """What was to be predicted: word and gold tag, with a tab between."""
    gold: list[str]
    predicted: list[str]

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
    path: Path, words: Sentences, heads: Mapping[str, tuple[Sentences, Sentences]]
) -> None:
    """Write words with both tags, sentence by sentence; a file is there whole or not at all.

    Args:
        path: of the file; of several heads each has its own, with ``-HEAD`` behind the stem.
        words: of each sentence; gone through once for each head.
        heads: gold and predicted tags of each sentence, by head; gone through once.

    Raises:
        RunError: it cannot be written.
    """
    for head, tags in heads.items():
        file = path if len(heads) == 1 else path.with_stem(f"{path.stem}-{head}")
        try:
            file.parent.mkdir(exist_ok=True)
            write_parts(file, _as_columns(words, *tags))
        except OSError as error:
            raise RunError(f"{file} cannot be written: {error}") from None


def _as_columns(words: Sentences, gold: Sentences, predicted: Sentences) -> Iterator[str]:
    between = ""
    for columns in zip(words, gold, predicted, strict=True):
        yield between + "".join(column_line(*word) for word in zip(*columns, strict=True))
        between = "\n"


def column_line(*fields: str) -> str:
    """Fields with tabs between, as one line whatever is in them."""
    return "\t".join(field.translate(_BREAKS) for field in fields) + "\n"


def read_predictions(path: Path) -> TaggedLines:
    """Read what ``write_predictions`` wrote.

    Raises:
        DataError: it cannot be read, or a line is not word, gold tag and predicted tag in IOB2.
    """
    try:
        # By line feeds alone: words may hold what else Unicode calls a line boundary.
        lines = path.read_bytes().decode("utf-8").removesuffix("\n").split("\n")
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 (byte {error.start})") from None
    asked, gold, predicted = [], [], []
    tags = {"O"}
    for number, line in enumerate(lines, start=1):
        fields = line.rsplit("\t", 2) if line else [""] * 3
        if len(fields) != 3:
            raise DataError.at(path, number, f"not word, gold tag, predicted tag: {line!r:.80}")
        if line and not tags.issuperset(fields[1:]):
            tags.update(_require_iob2(tag, path, number) for tag in fields[1:])
        asked.append(f"{fields[0]}\t{fields[1]}" if line else "")
        gold.append(fields[1])
        predicted.append(fields[2])
    return TaggedLines(path, asked, gold, predicted)


def _require_iob2(tag: str, path: Path, line: int) -> str:
    if not _TAG.fullmatch(tag):
        raise DataError.at(path, line, f"{tag!r:.80} is no tag of IOB2 (O, B-TYPE, I-TYPE)")
    return tag
