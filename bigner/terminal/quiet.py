"""``--quiet``, the same on every command that tells of its course."""

from __future__ import annotations

from typing import Annotated

import typer


def _be_quiet(ctx: typer.Context, wanted: bool) -> None:
    if not wanted or ctx.resilient_parsing:
        return
    # rich takes longer to load than a wrong command line takes to be told of.
    from bigner import log  # noqa: PLC0415

    log.set_quiet(True)
    ctx.call_on_close(lambda: log.set_quiet(False))


Quiet = Annotated[
    bool,
    typer.Option(
        "--quiet",
        "-q",
        callback=_be_quiet,
        expose_value=False,
        help="Only warnings, errors and results: no bars, no lines about the course.",
    ),
]
