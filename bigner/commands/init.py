"""``bigner init DIR``: a ready-to-run project on the embedded sample."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from bigner.errors import UserError
from bigner.sample.project import write_project


def init_project(folder: Path) -> None:
    """Make ``folder`` a project with data, a model's shape and run files; whole or not at all.

    Raises:
        UserError: there is something in ``folder`` already, or it cannot be written.
    """
    _refuse_unless_free(folder)
    try:
        _write_and_move(folder.resolve())
    except OSError as error:
        raise UserError(f"{folder}: cannot make a project here: {error}") from error


def _refuse_unless_free(folder: Path) -> None:
    if folder.is_dir():
        if any(folder.iterdir()):
            raise UserError(
                f"{folder}: the folder is not empty; name a new one, nothing was changed"
            )
    elif os.path.lexists(folder):
        raise UserError(f"{folder}: is not a folder; name a new one, nothing was changed")


def _write_and_move(folder: Path) -> None:
    # The project grows on the file system it belongs to, so that moving it is only renaming, and
    # in a scratch folder, so that a Ctrl-C leaves nothing behind. A folder that is there stays the
    # same folder: it may be a shell's working directory or a mounted volume.
    is_there = folder.is_dir()
    home = folder if is_there else folder.parent
    home.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=home) as scratch:
        project = Path(scratch) / "project"
        project.mkdir()
        write_project(project)
        if is_there:
            for entry in sorted(project.iterdir()):
                entry.rename(folder / entry.name)
        else:
            project.rename(folder)
