"""The card of a model: what it is, what it scored, how it was made; written from the run alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from bigner.card.facts import Facts
from bigner.card.render import render
from bigner.log import warn
from bigner.run_dir import write_text

CARD = "README.md"
"""Its name in an exported folder, which the Hub looks for."""


def write_card(folder: Path, facts: Facts, model: str | None = None) -> None:
    """Put the card into an exported folder; it is there whole or not at all.

    Args:
        folder: the exported folder.
        facts: what is known of its weights.
        model: what the code in it loads; the folder if not given.

    Raises:
        OSError: it cannot be written.
    """
    write_text(folder / CARD, render(facts, model or str(folder)))


def try_to_write_card(folder: Path, facts: Callable[[], Facts]) -> None:
    """The same, where the weights are what matters: whatever fails is a warning."""
    try:
        write_card(folder, facts())
    except Exception as error:
        warn(f"{folder / CARD} cannot be written: {error}")
