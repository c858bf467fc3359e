"""The call that goes on with a run that was stopped."""

from __future__ import annotations

from pathlib import Path

from bigner.config.load import ConfigSource
from bigner.config.schema import RunConfig


def going_on(verb: str, source: ConfigSource, config: RunConfig, arguments: str = "") -> str:
    """As Python code.

    Args:
        verb: such as ``bigner.train``.
        source: what it was called with.
        config: what that says.
        arguments: the others, as they are written behind the first.
    """
    overrides = []
    # What the run was started with may say to start elsewhere, or to stop again.
    if config.checkpoint.resume != "auto":
        overrides.append("checkpoint.resume=auto")
    if config.training.stop_after is not None:
        overrides.append("training.stop_after=null")
    first = repr(str(source)) if isinstance(source, str | Path) else "config"
    if overrides:
        first = f"bigner.load_config({first}, {overrides})"
    return f"{verb}({first}{arguments})"
