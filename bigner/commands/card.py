"""``bigner card RUN_DIR``: the card of a finished run's model, written again."""

from __future__ import annotations

from pathlib import Path

from bigner.card import CARD, write_card
from bigner.card.facts import of_finished
from bigner.errors import UserError
from bigner.run_dir import RunDir


def card(folder: Path) -> Path:
    """Write it; returns where it is.

    Args:
        folder: of the run.

    Raises:
        UserError: there is no finished run, what it left cannot be read, or the card cannot be
            written.
    """
    facts, model = of_finished(folder), RunDir(folder).model
    try:
        write_card(model, facts)
    except OSError as error:
        raise UserError(f"{model / CARD} cannot be written: {error.strerror}") from None
    return model / CARD
