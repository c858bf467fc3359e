"""What the fuzz tests share: settings, broken files, and what holds of every error."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Sequence

from hypothesis import settings
from hypothesis import strategies as st

from bigner.errors import ConfigError, UserError

FUZZED = settings.get_profile("fuzz")
"""For every fuzz test; see ``--fuzz-cases`` in tests/conftest.py."""

MIB = 2**20

ODD_TEXTS = (
    "",
    " ",
    "\0",
    "\n",
    "\r",
    "\t",
    "\x1b[31m",
    "\x85",
    "\xa0",
    "\u200b",
    "\u2028",
    "\u202e",
    "\ufeff",
    "\ufffe",
    "e\u0301",
    "ﷺ",
    "東",
    "😀",
    "\U0010ffff",
    "'",
    '"',
    "\\",
    "{}",
    "%s",
    "x" * 300,
)
HALF_CHARACTERS = ("\ud800", "\udc80", "\udfff")
"""Half surrogate pairs, which JSON and YAML can spell and UTF-8 cannot."""

odd_texts = st.text(max_size=6) | st.sampled_from(ODD_TEXTS + HALF_CHARACTERS)
odd_numbers = (
    st.integers()
    | st.floats()
    | st.sampled_from([0, 1, -1, 2**31, 2**63, 2**64, -(2**64), 10**400, 10**4299, 0.1, 1e308])
)
odd_scalars = st.none() | st.booleans() | odd_numbers | odd_texts


def nested(scalars: st.SearchStrategy[object], names: st.SearchStrategy[str]) -> st.SearchStrategy:
    """Any values that JSON has, with ``names`` as keys."""
    return st.recursive(
        scalars,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=4),
        max_leaves=12,
    )


@st.composite
def mutated(draw: st.DrawFn, valid: Sequence[bytes], snippets: Sequence[bytes]) -> bytes:
    """A valid file with a few places cut out, replaced or filled in."""
    content = draw(st.sampled_from(valid))
    fillings = st.sampled_from(snippets) | st.binary(max_size=4) | st.just(b"")
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(content)))
        end = draw(st.integers(start, min(len(content), start + 12)))
        filling = draw(fillings) * draw(st.sampled_from([1, 1, 1, 2, 100]))
        content = content[:start] + filling + content[end:]
    return content


def out_of(tokens: Sequence[str], most: int = 30) -> st.SearchStrategy[bytes]:
    """Texts that are put together from the words of a language."""
    return st.lists(st.sampled_from(tokens) | odd_texts, max_size=most).map(
        lambda parts: "".join(parts).encode("utf-8", "surrogatepass")
    )


def require_plain(error: UserError, *places: str) -> None:
    """An error's message is short printable lines, each of which begins with one of ``places``."""
    lines = str(error).split("\n")
    assert len(lines) == (len(error.problems) if isinstance(error, ConfigError) else 1)
    for line in lines:
        assert line.startswith(places), f"{line!r} names none of {places}"
        assert line.isprintable(), f"{line!r} cannot be printed"
        assert len(line) < 3000
        assert any(line.removeprefix(place).strip(" :.") for place in places)


def peak_of(action: Callable[[], object]) -> int:
    """The bytes that Python held at most while ``action`` ran, beyond those before it."""
    tracemalloc.start()
    try:
        action()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
