"""The trials of a search as a table on standard output."""

from __future__ import annotations

import json
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from bigner.log import table_box
from bigner.search.study import Trial


def show_trials(trials: Sequence[Trial], metric: str) -> None:
    """Print the trials, the best first.

    Args:
        trials: in that order.
        metric: the name of their score.
    """
    fields = list(dict.fromkeys(field for trial in trials for field in trial.values))
    table = Table(title="trials", title_justify="left", box=table_box())
    for name in ("trial", metric, "evaluations"):
        table.add_column(name, justify="right")
    table.add_column("outcome")
    for field in fields:
        # A whole section takes the line, and its last name tells enough.
        table.add_column(Text(field.rpartition(".")[2]))
    for trial in trials:
        score = "-" if trial.score is None else f"{trial.score:.4f}"
        values = (_short(trial.values.get(field)) for field in fields)
        numbers = (str(trial.number), score, str(trial.evaluations))
        table.add_row(*numbers, trial.outcome, *(Text(value) for value in values))
    Console(highlight=False, soft_wrap=True).print(table)


def _short(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3g}"
    return value if isinstance(value, str) else json.dumps(value)
