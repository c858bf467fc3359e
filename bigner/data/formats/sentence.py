"""The noun that every reader produces."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import chain

from bigner.errors import DataError

_MOST_NAMES = 50


@dataclass(frozen=True, slots=True)
class Sentence:
    """Words with their tags, and where they came from; never empty."""

    words: list[str]
    tags: list[list[str]]
    """``[heads][words]``: in the scheme of the file or, out of a `Corpus`, in IOB2."""
    document: int
    """Number of the document, counted from 0 over the split."""
    file: str
    """The file, or ``name[split]`` for a dataset of the Hub."""
    lines: list[int]
    """Line of each word in ``file``, counted from 1; the row of the sentence for the Hub."""


def checked_sentence(
    words: object, tags: Mapping[str, object], *, document: int, file: str, line: int
) -> Sentence:
    """A sentence from a record's fields.

    Args:
        words: the field of the words.
        tags: the field of each head's tags.
        document: number of the document.
        file: what the record is from.
        line: where in it.

    Raises:
        DataError: they are not lists of strings of one length, or hold no word or an empty one.
    """
    texts = _strings(words, "words", file, line)
    labels = []
    for head, field in tags.items():
        what = "tags" if len(tags) == 1 else f"tags of {head}"
        labels.append(_strings(field, what, file, line))
        if len(texts) != len(labels[-1]):
            raise DataError.at(
                file,
                line,
                f"{len(texts)} words and {len(labels[-1])} {what}; each word needs one tag",
            )
    if not texts:
        raise DataError.at(file, line, "no words; take the line out or give it words")
    if "" in texts:
        raise DataError.at(
            file, line, f"word {texts.index('')} (from 0) is empty; take it and its tag out"
        )
    require_text("".join(texts), file, line)
    require_text("".join(chain.from_iterable(labels)), file, line)
    return Sentence(texts, labels, document, file, [line] * len(texts))


def field_of(record: Mapping[str, object], name: str, *, role: str, file: str, line: int) -> object:
    """The value of a record's field.

    Args:
        role: what the user should do about a missing field, said at the end of the message.

    Raises:
        DataError: there is no such field; the message names the nearest one.
    """
    if name in record:
        return record[name]
    raise DataError.at(file, line, f"no field {name!r}; {nearest(name, list(record))}; {role}")


def nearest(name: str, known: list[str]) -> str:
    """Half a sentence that points from an unknown name to those there are."""
    known, others = known[:_MOST_NAMES], len(known) - _MOST_NAMES
    listed = [f"{one!r:.80}" for one in known] + [f"{others} more"] * (others > 0)
    there_are = "there are " + ", ".join(listed) if known else "there are none"
    close = get_close_matches(name, known, n=1)
    return f"did you mean {close[0]!r}? ({there_are})" if close else there_are


def require_text(text: str, file: str, line: int) -> None:
    """Refuse half surrogate pairs, which JSON can spell and no tokenizer can encode.

    Raises:
        DataError: ``text`` cannot be encoded as UTF-8.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        half = ascii(text[error.start])
        raise DataError.at(
            file, line, f"{half} is half a surrogate pair and no character; repair the export"
        ) from None


def _strings(value: object, what: str, file: str, line: int) -> list[str]:
    if not isinstance(value, list):
        raise DataError.at(
            file, line, f"the {what} must be a list of strings, and are of type {_kind(value)}"
        )
    for position, item in enumerate(value):
        if not isinstance(item, str):
            raise DataError.at(
                file,
                line,
                f"the {what} must be strings, and number {position} (from 0) is {item!r:.80} "
                f"of type {_kind(item)}",
            )
    return value


def _kind(value: object) -> str:
    return "null" if value is None else type(value).__name__
