"""One tracker behind a thread of its own: what it waits for, the run does not wait for."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable

from bigner.errors import hide_users, one_line
from bigner.log import inform, warn
from bigner.tracking.base import Outcome, Point, Tracker
from bigner.tracking.kept import Kept
from bigner.tracking.secrets import hide_secrets

_FIRST_PAUSE = 5.0
_LONGEST_PAUSE = 300.0
_MOST_WAITING = 100_000
"""Points; beyond that the oldest are in metrics.jsonl alone."""
_MOST_AT_ONCE = 100
_LONGEST_REASON = 300


class Feed:
    """Hands points over in the background, and tries again after a failure.

    Args:
        name: of the tracker, for messages.
        open_tracker: called on the thread, again after each time that it failed.
        kept: what the tracker has already; None for one that is told every point as it comes.
        pause: seconds until the first try after a failure; each further one is twice as long.
    """

    def __init__(
        self,
        name: str,
        open_tracker: Callable[[], Tracker],
        kept: Kept | None,
        *,
        pause: float = _FIRST_PAUSE,
    ) -> None:
        self.name = name
        self.kept = kept
        self._open = open_tracker
        self._pause = pause
        self._waiting: deque[Point] = deque(maxlen=_MOST_WAITING)
        self._taken: list[Point] = []
        self._outcome: Outcome | None = None
        self._changed = threading.Condition()
        self._warned = self._failing = self._left = False
        self._thread = threading.Thread(target=self._run, name=f"{name} tracker", daemon=True)
        self._thread.start()

    def put(self, points: Iterable[Point]) -> None:
        """Have points handed over; returns at once."""
        with self._changed:
            self._waiting.extend(points)
            self._changed.notify()

    def end(self, outcome: Outcome) -> None:
        """Have the tracker closed after the points that wait; returns at once."""
        with self._changed:
            self._outcome = outcome
            self._changed.notify()

    def join(self, deadline: float) -> None:
        """Wait, until a time of ``time.monotonic``, for the tracker to be closed."""
        self._thread.join(max(0.0, deadline - time.monotonic()))
        if self._thread.is_alive():
            self._warn("does not answer; what it did not take is in metrics.jsonl")
        self._left = True

    def _run(self) -> None:
        tracker: Tracker | None = None
        while True:
            last_try = self._outcome is not None
            try:
                if tracker is None:
                    tracker = self._open()
                self._hand_over(tracker)
                return
            except Exception as error:
                self._tell_failure(error)
            if last_try:
                return
            with self._changed:
                self._changed.wait_for(lambda: self._outcome is not None, self._pause)
            self._pause = min(2 * self._pause, _LONGEST_PAUSE)

    def _hand_over(self, tracker: Tracker) -> None:
        """Give the tracker all points until the run ends, and close it.

        A run that is no longer waited for may be resumed elsewhere by now: it is let be.
        """
        while not self._left and self._take():
            points = self._taken if self.kept is None else self.kept.missing(self._taken)
            if points:
                tracker.log(points)
                if self.kept is not None:
                    self.kept.note(points)
                self._tell_success()
            self._taken = []
        if not self._left:
            assert self._outcome is not None
            tracker.close(self._outcome)

    def _take(self) -> bool:
        """Wait for points, unless some that were taken are left; False at the end of the run."""
        with self._changed:
            if not self._taken:
                self._changed.wait_for(lambda: self._waiting or self._outcome is not None)
                count = min(len(self._waiting), _MOST_AT_ONCE)
                self._taken = [self._waiting.popleft() for _ in range(count)]
        return bool(self._taken)

    def _tell_failure(self, error: Exception) -> None:
        self._failing = True
        # Before it is cut, for half a password is not recognised.
        reason = hide_secrets(hide_users(f"{type(error).__name__}: {error}"))
        if len(reason) > _LONGEST_REASON:
            reason = f"{reason[: _LONGEST_REASON - 3]}..."
        self._warn(f"failed ({reason}); training goes on, and it is tried again meanwhile")

    def _warn(self, what: str) -> None:
        # Once: whoever reads it needs no reminder at every logged step.
        if not self._warned and not self._left:
            self._warned = True
            warn(one_line(f"tracking {self.name}", what))

    def _tell_success(self) -> None:
        if self._failing and not self._left:
            inform(f"tracking {self.name} works again")
        self._failing = False
