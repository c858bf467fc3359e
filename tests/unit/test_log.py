"""What is printed for people."""

from __future__ import annotations

import pytest

from bigner.log import show_scores


def test_a_class_with_brackets_is_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    row = {"precision": 0.5, "recall": 0.25, "f1": 1 / 3, "support": 4}
    totals = {"precision": 0.5, "recall": 0.5, "f1": 0.5, "accuracy": 0.5, "loss": 1.0}
    counts = {"words": 8, "sentences": 2, "words_without_pieces": 0, "words_per_second": 1.0}
    classes = {"[/N][Nom]": row, "[bold]": row}
    show_scores("test", {**totals, **counts, "per_type": classes})
    shown = capsys.readouterr().out
    assert "\n  [/N][Nom] " in shown
    assert "\n  [bold] " in shown
