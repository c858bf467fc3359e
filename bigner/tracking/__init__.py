"""Trackers: further places that the numbers of metrics.jsonl go to, one file for each."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import Any

from bigner.errors import Stopped
from bigner.tracking.base import About, Outcome, Point, Tracker
from bigner.tracking.feed import Feed
from bigner.tracking.kept import Kept

CLOSING_SECONDS: Mapping[Outcome, float] = {"finished": 30.0, "stopped": 10.0, "failed": 10.0}
"""How long the end of a run waits for its trackers, all together: who stops it may be waiting."""


class Tracking:
    """All trackers of a run; leaving the block closes them, and none of them ends a run."""

    def __init__(self, feeds: Sequence[Feed] = ()) -> None:
        self._feeds = feeds

    def log(self, line: Mapping[str, Any]) -> None:
        """Pass on a line of metrics.jsonl."""
        for feed in self._feeds:
            feed.put([Point.of(line)])

    def catch_up(self, lines: Callable[[], Iterable[Mapping[str, Any]]]) -> None:
        """Pass on what trackers miss of the lines that there were before, if any asks for them."""
        if feeds := [feed for feed in self._feeds if feed.kept is not None]:
            points = [Point.of(line) for line in lines()]
            for feed in feeds:
                feed.put(points)

    def __enter__(self) -> Tracking:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        outcome: Outcome = "finished"
        if kind is not None:
            outcome = "stopped" if issubclass(kind, Stopped) else "failed"
        for feed in self._feeds:
            feed.end(outcome)
        deadline = time.monotonic() + CLOSING_SECONDS[outcome]
        for feed in self._feeds:
            feed.join(deadline)


def open_tracking(about: About) -> Tracking:
    """The trackers that the config names; for the rank that writes."""
    return Tracking([_feed(name, about) for name in dict.fromkeys(about.config.tracking)])


def _feed(name: str, about: About) -> Feed:
    if name == "tensorboard":
        return Feed(name, partial(_open_tensorboard, about), kept=None)
    kept = Kept(about.run_dir.tracking(name))
    open_tracker = {"mlflow": _open_mlflow, "wandb": _open_wandb}[name]
    return Feed(name, partial(open_tracker, about, kept), kept)


# Each library is loaded where it is asked for alone, and by the thread that waits for it.


def _open_tensorboard(about: About) -> Tracker:
    from bigner.tracking.tensorboard import TensorBoard  # noqa: PLC0415

    return TensorBoard(about)


def _open_mlflow(about: About, kept: Kept) -> Tracker:
    from bigner.tracking.mlflow import Mlflow  # noqa: PLC0415

    return Mlflow(about, kept)


def _open_wandb(about: About, kept: Kept) -> Tracker:
    from bigner.tracking.wandb import Wandb  # noqa: PLC0415

    return Wandb(about, kept)
