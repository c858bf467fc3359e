"""``bigner doctor``: what this machine can do, what is missing, and how to get it."""

from __future__ import annotations

from collections.abc import Iterator

from bigner.doctor import disk, limits, packages, processors, variables
from bigner.doctor.findings import Finding
from bigner.doctor.report import Report


def doctor() -> Report:
    """Look at the machine and at the environment; writes nothing.

    Returns:
        what was found, in the order of the checks.
    """
    return Report(
        [
            *packages.look(),
            *_of_torch(),
            *processors.look(),
            *limits.look(),
            *disk.look(),
            *variables.look(),
        ]
    )


def _of_torch() -> Iterator[Finding]:
    """What torch is asked for, or why it cannot be."""
    try:
        import torch  # noqa: PLC0415
    except (ImportError, OSError) as error:
        yield not_imported(error)
        return
    from bigner.distributed import choose_device  # noqa: PLC0415
    from bigner.doctor import (  # noqa: PLC0415
        attention,
        collectives,
        deepspeed_ops,
        gpus,
        number_formats,
    )

    device = choose_device(0)
    yield from gpus.look()
    yield from collectives.look()
    yield from deepspeed_ops.look(has_gpus=torch.cuda.is_available())
    yield from number_formats.look(device)
    yield from attention.look(device)


def not_imported(error: Exception) -> Finding:
    """torch is installed, or not, and does not load."""
    return Finding(
        "a torch that loads",
        "missing",
        str(error).partition("\n")[0],
        "no run, and GPUs and number formats are not looked at",
        "pip install --force-reinstall torch, of the version above",
        needed=True,
    )
