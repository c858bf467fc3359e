"""``python -m bigner``, ``bigner``, and what the launchers start."""

from __future__ import annotations

import os
import sys
import time
import traceback
from typing import NoReturn

from bigner.cli import run
from bigner.errors import BignerError

SILENT_SECONDS = 5


def main() -> NoReturn:
    """Run the command line and leave with its exit code: 0 done, 1 failed, 2 wrong input."""
    try:
        code = run()
    except (Exception, KeyboardInterrupt) as error:
        code = report(error)
    leave(code)


def report(error: BaseException) -> int:
    """Print an error the way its kind deserves; returns the exit code it stands for."""
    speaks = os.environ.get("RANK", "0") == "0"
    if isinstance(error, KeyboardInterrupt):
        if speaks:
            print("bigner: stopped by Ctrl-C", file=sys.stderr)
        return 130
    if isinstance(error, BignerError):
        if not speaks:
            # Ranks that read the same input fail alike, rank 0 tells, and the launcher ends this
            # one before it wakes. What only this rank saw, nobody else would tell.
            time.sleep(SILENT_SECONDS)
        name = "bigner" if speaks else f"bigner: rank {os.environ['RANK']}"
        print(f"{name}: error: {error}", file=sys.stderr)
        return error.exit_code
    traceback.print_exception(error)
    return 1


def leave(code: int) -> NoReturn:
    """Leave in order; torch, which most commands never load, has a hazard of its own there."""
    if "torch.distributed" in sys.modules:
        from bigner.distributed import leave_group  # noqa: PLC0415

        leave_group(code)
    sys.exit(code)


if __name__ == "__main__":
    main()
