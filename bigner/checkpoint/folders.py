"""The folders of a run's checkpoints: named, found, set aside, deleted; all for rank 0."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from bigner.checkpoint.manifest import MANIFEST, Manifest, read_manifest
from bigner.errors import CheckpointError, ConfigError, Problem

BEST = "best"
"""Inside a checkpoint: the best weights so far, exported."""
PLAIN = "plain"
"""Inside a checkpoint: model config and tokenizer, which make weights a transformers folder."""

TABLE = "table"
"""Inside a checkpoint: the whole embedding table, where some of its rows are trained."""


def folder_of(checkpoints: Path, step: int) -> Path:
    """The folder of the checkpoint after ``step`` steps."""
    return checkpoints / f"step-{step:08d}"


def whole(checkpoints: Path) -> list[Path]:
    """All whole checkpoints, the newest first."""
    return sorted((path.parent for path in checkpoints.glob(f"step-*/{MANIFEST}")), reverse=True)


def candidates(wanted: str, checkpoints: Path) -> list[Path]:
    """The checkpoints that ``checkpoint.resume`` means, the one to try first in front.

    Raises:
        ConfigError: a folder was named and is no whole checkpoint; that is wrong input, for nothing
            has run yet and trying again would not help.
    """
    if wanted == "none":
        return []
    if wanted == "auto":
        return whole(checkpoints)
    try:
        read_manifest(Path(wanted))
    except CheckpointError as error:
        advice = "give a folder such as RUN_DIR/checkpoints/step-00000500, or auto"
        raise ConfigError(
            [Problem("run config", "checkpoint.resume", f"{error}; {advice}")]
        ) from None
    return [Path(wanted)]


def check_fits(folder: Path, manifest: Manifest, tags: tuple[str, ...], total_steps: int) -> None:
    """Refuse a checkpoint that this run cannot go on from.

    Raises:
        ConfigError: its head means other labels than the data has, or it lies beyond the run's
            end.
    """
    message = ""
    if manifest.labels != tags:
        message = (
            f"was trained for the labels {list(manifest.labels)}, and the data has {list(tags)}"
        )
    elif manifest.step > total_steps:
        message = (
            f"is of step {manifest.step}, and this run ends at {total_steps}; raise "
            f"training.epochs or training.max_steps"
        )
    if message:
        raise ConfigError([Problem(str(folder), "", message)])


def set_newer_aside(checkpoints: Path, step: int) -> list[Path]:
    """Rename the checkpoints of a run that go beyond ``step``, on going back to it.

    Left where they are, ``auto`` would go on from one of them, and ``keep_last`` would keep them
    rather than those written from here on.

    Returns:
        what they are called now.

    Raises:
        CheckpointError: one cannot be renamed.
    """
    first_kept = folder_of(checkpoints, step).name
    newer = [path for path in whole(checkpoints) if path.name > first_kept]
    return [set_aside(path, "abandoned") for path in reversed(newer)]


def set_aside(folder: Path, why: str) -> Path:
    """Give a checkpoint a name that ``resume`` does not look for; returns the new one.

    Raises:
        CheckpointError: it cannot be renamed.
    """
    target = folder.with_name(f"{why}-{folder.name}")
    shutil.rmtree(target, ignore_errors=True)
    try:
        return folder.rename(target)
    except OSError as error:
        raise CheckpointError(f"{folder} cannot be set aside: {error}") from None


def keep_last(checkpoints: Path, count: int) -> None:
    """Delete all but the newest whole checkpoints, after a newer one is whole.

    Raises:
        OSError: the oldest cannot be deleted; it is as it was.
    """
    for folder in whole(checkpoints)[count:]:
        # Without its manifest a half-deleted folder is no checkpoint any more.
        (folder / MANIFEST).unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)


def restore_best(folder: Path, model: Path) -> None:
    """Make the best weights of a checkpoint those of the run again, if it has any.

    Raises:
        CheckpointError: they cannot be put there.
    """
    if (folder / BEST).is_dir():
        shutil.rmtree(model, ignore_errors=True)
        try:
            link_folder(folder / BEST, model)
        except OSError as error:
            raise CheckpointError(f"{model} cannot be written: {error}") from None


def link_folder(source: Path, target: Path) -> None:
    """Make ``target`` hold the files of ``source``: as hard links where the disk allows it.

    Such files are never written to again, only replaced by others.

    Raises:
        OSError: it cannot be written.
    """
    target.mkdir()
    for file in source.iterdir():
        try:
            os.link(file, target / file.name)
        except OSError:
            shutil.copyfile(file, target / file.name)
