"""The words of running text, and where they stand in it.

Models are trained on words, so text is cut into such before anything else:

1. White space separates words, and so do U+200B and U+FEFF, the spaces without width.
2. Each Chinese ideograph and each kana is a word, with the marks that belong to it.
3. Of what is left, punctuation and symbols at either end are words of their own: ``(Anna,`` is
   three. A run of one sign (``...``) is one word, and so is an emoji of several code points. What
   stands inside (``Jean-Pierre``, ``3.5``, ``l'eau``) is left there, and an ``@`` or ``#`` right
   before a word belongs to it. Characters at either end that show nothing belong to no word.

The rule ``whitespace`` is the first of these alone. Nothing is normalised: words are ranges of
characters of the text as it was given.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from unicodedata import category

from bigner.prediction.options import WordRule

Span = tuple[int, int]
"""First character and the one behind the last."""

_CHUNK = re.compile(r"[^\s\u200b\ufeff]+")
_IDEOGRAPH = re.compile(
    r"[\u3005\u3007\u3041-\u3096\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff\u3400-\u4dbf"
    r"\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff]"
    r"[\u3099\u309a\ufe00-\ufe0f\U000e0100-\U000e01ef]*"
)
# Marks over a sign, variation selectors, skin tones, the letters of flags.
_MARKS = (
    r"[\u0300-\u036f\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe00-\ufe0f\ufe20-\ufe2f"
    r"\U0001f3fb-\U0001f3ff\U000e0020-\U000e007f]*"
)
_SIGN = re.compile(rf"[\U0001f1e6-\U0001f1ff]{{2}}|(.)\1*{_MARKS}(?:\u200d.{_MARKS})*", re.DOTALL)


@dataclass(frozen=True, slots=True)
class SplitText:
    """A text and its words, which are in order and do not overlap."""

    text: str
    words: Sequence[Span]

    @classmethod
    def of(cls, text: str, rule: WordRule) -> SplitText:
        """Running text, by one of the rules of this module."""
        return cls(text, list(_RULES[rule](text)))

    @classmethod
    def joined(cls, words: Sequence[str]) -> SplitText:
        """Words that somebody else has found, with a space between."""
        ends = list(accumulate(len(word) + 1 for word in words))
        spans = [(end - 1 - len(word), end - 1) for word, end in zip(words, ends, strict=True)]
        return cls(" ".join(words), spans)

    def strings(self) -> list[str]:
        """The words themselves."""
        return [self.text[start:end] for start, end in self.words]


def _by_whitespace(text: str) -> Iterator[Span]:
    return (chunk.span() for chunk in _CHUNK.finditer(text))


def _by_punctuation(text: str) -> Iterator[Span]:
    for chunk in _CHUNK.finditer(text):
        start, end = chunk.span()
        if (found := chunk.group()).isascii():
            if found.isalnum():
                yield start, end
            else:
                yield from _without_signs(text, start, end)
            continue
        for ideograph in _IDEOGRAPH.finditer(text, start, end):
            yield from _without_signs(text, start, ideograph.start())
            yield ideograph.span()
            start = ideograph.end()
        yield from _without_signs(text, start, end)


_RULES: dict[WordRule, Callable[[str], Iterator[Span]]] = {
    "punctuation": _by_punctuation,
    "whitespace": _by_whitespace,
}


def _without_signs(text: str, start: int, end: int) -> Iterator[Span]:
    """The words of a stretch without white space: signs, what stands between, signs."""
    first = start
    while first < end and (_is_sign(text[first]) or (first > start and _is_mark(text[first]))):
        first += 1
    last = end
    while last > first:
        base = last - 1
        while base > first and _is_mark(text[base]):
            base -= 1
        if not _is_sign(text[base]):
            break
        last = base
    if start < first < last and text[first - 1] in "@#":
        first -= 1
    yield from _signs(text, start, first)
    if first < last:
        yield first, last
    yield from _signs(text, last, end)


def _signs(text: str, start: int, end: int) -> Iterator[Span]:
    for sign in _SIGN.finditer(text, start, end):
        if category(text[sign.start()]) not in ("Cc", "Cf"):
            yield sign.span()


def _is_sign(char: str) -> bool:
    """Whether it is punctuation, a symbol, or nothing that shows."""
    return category(char)[0] in "PSC"


def _is_mark(char: str) -> bool:
    """Whether it combines with the character before it."""
    return category(char)[0] == "M"
