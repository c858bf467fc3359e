"""The checkpoints of a run: written between its steps, and gone on from."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bigner.checkpoint import folders
from bigner.checkpoint.load import damage, load
from bigner.checkpoint.manifest import Manifest, config_of, read_manifest
from bigner.checkpoint.save import FAILED, IDLE, Saver
from bigner.config.schema import RunConfig
from bigner.distributed import World
from bigner.errors import CheckpointError, ConfigError, Problem
from bigner.log import inform, warn
from bigner.run_dir import RunDir, differences
from bigner.strategies import Strategy
from bigner.table import TableFolder, UsedRows


@dataclass
class Checkpoints:
    """What is saved of a run, at most one checkpoint being written; every verb is collective."""

    config: RunConfig
    world: World
    run_dir: RunDir
    strategy: Strategy
    rows: UsedRows | None
    """The rows of the embedding table that are trained, if not all are."""
    labels: tuple[str, ...]
    """The names of the logits."""
    total_steps: int
    saved_step: int = field(default=0, init=False)
    """The step of the last checkpoint that was begun, or gone on from."""

    def __post_init__(self) -> None:
        self._saver = Saver(
            self.run_dir.checkpoints,
            self.strategy,
            self.world,
            background=self.config.checkpoint.background,
        )

    # ------------------------------------------------------------ saving

    @property
    def writer(self) -> int:
        """How far this rank's writer is, one of ``checkpoint.save``'s numbers."""
        return self._saver.status

    def begin(self, step: int, state: Mapping[str, Any], *, with_best: bool) -> None:
        """Begin to write a checkpoint; ``finish`` the one before first.

        Args:
            step: done by then.
            state: all but the shards.
            with_best: whether the best weights so far lie in ``model/``.
        """
        links = {folders.PLAIN: self.run_dir.plain}
        if with_best:
            links[folders.BEST] = self.run_dir.model
        if self.rows is not None:
            links[folders.TABLE] = self.run_dir.table
        self._saver.begin(step, state, links)
        self.saved_step = step
        if not self.config.checkpoint.background:
            self.finish()

    def finish(self) -> None:
        """Make the checkpoint that was begun whole, if there is one.

        Raises:
            CheckpointError: it could not be written.
        """
        if not self._saver.unfinished:
            return
        saved = self._saver.commit()
        if self.world.is_main:
            self._keep_last()
            inform(
                f"checkpoint of step {saved.step}: {saved.num_bytes / 1e6:,.1f} MB in "
                f"{saved.seconds:.2f} s ({saved.num_bytes / 1e6 / saved.seconds:,.0f} MB/s), "
                f"training paused for {saved.pause:.3f} s"
            )

    def finish_if_written(self, writer: int) -> None:
        """Make it whole once all ranks have written, or one could not.

        Args:
            writer: how far the ranks' writers are, the greatest of their numbers.
        """
        if writer in (IDLE, FAILED):
            self.finish()

    def _keep_last(self) -> None:
        try:
            folders.keep_last(self.run_dir.checkpoints, self.config.checkpoint.keep_last)
        except OSError as error:
            # Too many are no reason to end a run.
            warn(f"an old checkpoint cannot be deleted: {error}")

    # ------------------------------------------------------------ resuming

    def go_on(self) -> Manifest | None:
        """Load the checkpoint that ``checkpoint.resume`` means, if it means one.

        Raises:
            ConfigError: it is not one this run can go on from.
            CheckpointError: it is damaged, and so is every other that could take its place.
        """
        folder = self._sound()
        if folder is None:
            return None
        manifest = read_manifest(folder)
        self.world.main_first(lambda: self._check_and_tell(folder, manifest))
        load(folder, manifest, self.strategy)
        self.saved_step = manifest.step
        self.world.main_first(lambda: folders.restore_best(folder, self.run_dir.model))
        return manifest

    def _sound(self) -> Path | None:
        """The checkpoint to go on from: under ``auto`` the newest that is not damaged."""
        resume, checkpoints = self.config.checkpoint.resume, self.run_dir.checkpoints
        found: list[Path] = []
        self.world.main_first(lambda: found.extend(folders.candidates(resume, checkpoints)))
        problems: list[tuple[Path, str]] = []
        for folder in self.world.share_object(found):
            if not (problem := damage(folder, self.world)):
                self.world.main_first(lambda: self._set_damaged_aside(problems))
                return Path(folder)
            problems.append((folder, problem))
        if problems:
            advice = "checkpoint.resume=none starts over" if resume == "auto" else "name another"
            raise CheckpointError(f"{problems[0][1]}; no sound checkpoint is left: {advice}")
        return None

    def _set_damaged_aside(self, problems: list[tuple[Path, str]]) -> None:
        for folder, problem in problems:
            warn(f"{problem}; going back to the checkpoint before")
            inform(f"the damaged checkpoint is now {folders.set_aside(folder, 'damaged')}")

    def _check_and_tell(self, folder: Path, manifest: Manifest) -> None:
        """Make sure that the run can go on from a checkpoint, and tell of it; for rank 0."""
        folders.check_fits(folder, manifest, self.labels, self.total_steps)
        self._take_table(folder)
        for name, before, now in differences(config_of(folder, manifest), self.config):
            warn(f"{name} was {before!r} when {folder} was written and is {now!r} now")
        for aside in folders.set_newer_aside(self.run_dir.checkpoints, manifest.step):
            inform(f"goes beyond the step that is gone back to: now {aside}")
        inform(f"going on from step {manifest.step} ({folder})")

    def _take_table(self, folder: Path) -> None:
        """Make sure that a checkpoint trained the same rows of the embedding table; for rank 0."""
        there = folder / folders.TABLE
        if message := TableFolder(there).why_not(self.rows):
            raise ConfigError([Problem(str(folder), "", message)])
        if self.rows is not None:
            shutil.rmtree(self.run_dir.table, ignore_errors=True)
            folders.link_folder(there, self.run_dir.table)
