"""Asked to stop by a scheduler or by Ctrl-C: noted at once, heeded at the end of a step."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
"""Preemption, Ctrl-C, and what schedulers send as an early warning."""


class StopSignals:
    """While entered, the signals that would end the process are only noted.

    Ctrl-C once more ends a process that no launcher started: launchers pass on the Ctrl-C that
    their processes had from the terminal already. A thread beside the main one cannot be signalled:
    there nothing is noted.

    Args:
        tell: say so at once on rank 0's standard error; what it waits for may take long.
    """

    def __init__(self, *, tell: bool = True) -> None:
        self.received = 0
        """Number of the first signal, or 0."""
        self._alone = "RANK" not in os.environ
        self._tells = tell and os.environ.get("RANK", "0") == "0"
        self._interrupted = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        if number == signal.SIGINT and self._alone:
            if self._interrupted:
                raise KeyboardInterrupt
            self._interrupted = True
        if self.received:
            return
        self.received = number
        if self._tells:
            again = "; Ctrl-C again ends it at once" if self._interrupted else ""
            name = signal.Signals(number).name
            # Past all buffers: the signal may have come in the midst of a print.
            os.write(2, f"bigner: {name}: saving and stopping after this step{again}\n".encode())
