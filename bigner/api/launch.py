"""Training in processes of its own, from a notebook or a script."""

from __future__ import annotations

import os
from typing import cast

from bigner.api.displays import Display, display
from bigner.api.going_on import going_on
from bigner.api.processes import LaunchedRun
from bigner.api.results import Summary
from bigner.commands.validate import require_sound
from bigner.config.advice import advice
from bigner.config.load import ConfigSource, load_with_source
from bigner.errors import LaunchError, Stopped
from bigner.run_dir import RunDir

_SECONDS_BETWEEN = 0.25


def launch(config: ConfigSource, *, nproc: int = 1, progress: bool = True) -> Summary:
    """Train in processes of this machine, sharded over them by the config's strategy, and wait.

    The run shows how far it has come in the notebook or terminal. Ctrl-C, and a notebook's stop
    button, have it save and stop; once more ends it at once. It stops itself, saved, if this
    process is ended.

    Args:
        config: of ``bigner.load_config``, or what that takes.
        nproc: processes: GPUs to use, or on a machine without one as many as it has cores for.
        progress: show how far the run has come; without it nothing is printed.

    Returns:
        what ``summary.json`` holds.

    Raises:
        UserError: the config, the data, the model or the machine is wrong; of the config before
            any process is started.
        Stopped: it was asked to stop, and saved; the message says how to go on.
        RunError: it failed; the message is that of the rank that did.
        KeyboardInterrupt: it was ended at once, or before it trained.
    """
    _require_place(nproc)
    resolved, source = load_with_source(config)
    require_sound(resolved, source.where, nproc)
    warnings = [str(warning) for warning in advice(resolved, source.where)]
    with LaunchedRun(resolved, nproc) as run, display(progress=progress) as shown:
        shown.show([{"kind": "message", "text": text, "warning": True} for text in warnings])
        _follow(run, shown)
    failure = run.failure()
    if isinstance(failure, Stopped):
        failure.go_on = going_on("bigner.launch", config, resolved, f", nproc={nproc}")
    if failure is not None:
        raise failure
    return cast(Summary, RunDir(resolved.run_dir).read_summary())


def _require_place(nproc: int) -> None:
    if isinstance(nproc, bool) or not isinstance(nproc, int) or nproc < 1:
        raise LaunchError(f"nproc must be a number of processes, 1 or more; got {nproc!r:.80}")
    if "RANK" in os.environ:
        raise LaunchError(
            "this process was launched with others, each of which would launch a run; call "
            "bigner.train instead, which is for every rank of a launch, or unset RANK"
        )


def _follow(run: LaunchedRun, shown: Display) -> None:
    """Show what a run tells until it has ended; the first interrupt is passed on to it."""
    interrupted = False
    while not run.is_over:
        try:
            shown.show(run.events())
            run.wait(_SECONDS_BETWEEN)
        except KeyboardInterrupt:
            if interrupted:
                raise
            interrupted = True
            run.stop()
            text = "stopping after this step, saved; interrupt again to end it at once"
            shown.show([{"kind": "message", "text": text, "warning": True}])
    shown.show(run.events())
