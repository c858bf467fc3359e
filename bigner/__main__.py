"""``python -m bigner``, ``bigner``, and what the launchers start."""

from __future__ import annotations

import gc
import os
import sys
import time
import traceback
from typing import NoReturn

from bigner.errors import BignerError, LostRankError, Stopped
from bigner.relay import relay

SILENT_SECONDS = 5


def main() -> NoReturn:
    """Run the command line and leave with its exit code: 0 done, 1 failed, 2 wrong input,
    128 and a signal's number if that stopped it.
    """
    try:
        # Here, for Ctrl-C while it loads is no defect either.
        from bigner.cli import run  # noqa: PLC0415

        code = run()
    except (Exception, KeyboardInterrupt) as error:
        code = report(error)
    leave(code)


def report(error: BaseException) -> int:
    """Print an error the way its kind deserves; returns the exit code it stands for."""
    speaker = error.speaker if isinstance(error, LostRankError) else 0
    speaks = os.environ.get("RANK", "0") == str(speaker)
    if isinstance(error, KeyboardInterrupt):
        if speaks:
            _tell(error, "bigner: stopped by Ctrl-C")
        return 130
    if isinstance(error, Stopped):
        if speaks:
            _tell(error, f"bigner: {error}")
        return error.exit_code
    if isinstance(error, LostRankError) and not speaks:
        # The ranks that are left have agreed on who tells.
        return error.exit_code
    if isinstance(error, BignerError):
        if not speaks:
            # Ranks that read the same input fail alike, rank 0 tells, and the launcher ends this
            # one before it wakes. What only this rank saw, nobody else would tell.
            time.sleep(SILENT_SECONDS)
        name = "bigner" if speaks and not speaker else f"bigner: rank {os.environ['RANK']}"
        _tell(error, f"{name}: error: {error}")
        return error.exit_code
    _tell(error, "".join(traceback.format_exception(error)).removesuffix("\n"))
    return 1


def _tell(error: BaseException, text: str) -> None:
    print(text, file=sys.stderr)
    if relay is not None:
        relay.ended(error)


def leave(code: int) -> NoReturn:
    """Leave in order; torch, which most commands never load, has a hazard of its own there."""
    # Nothing is loaded for it: Ctrl-C may have come while that was half loaded.
    distributed = sys.modules.get("bigner.distributed")
    if distributed is not None:
        distributed.leave_group(code)
    # The collector's last round: a second where torch is loaded, and nothing is left to be freed.
    gc.freeze()
    sys.exit(code)


if __name__ == "__main__":
    main()
