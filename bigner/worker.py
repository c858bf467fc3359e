"""What ``bigner.launch`` starts: one process of a training run, told by a resolved run file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NoReturn

from bigner import collector
from bigner.__main__ import leave, report
from bigner.config.load import load_config
from bigner.relay import relay


def main() -> NoReturn:
    """Train, and leave as the command line does."""
    try:
        if relay is not None:
            relay.begin()
        _train(Path(sys.argv[1]))
        code = 0
    except (Exception, KeyboardInterrupt) as error:
        code = report(error)
    leave(code)


def _train(run_file: Path) -> None:
    config = load_config(run_file)
    with collector.loading():
        from bigner.commands.train import train  # noqa: PLC0415
        from bigner.distributed import start_for  # noqa: PLC0415

    train(config, start_for(config))


if __name__ == "__main__":
    main()
