"""Finished runs, found in the folders a user names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bigner.config.checks import is_file, is_folder
from bigner.config.schema import ONLY_HEAD
from bigner.errors import CheckpointError, UserError
from bigner.run_dir import RunDir, compared_fields

_SEED_FOLDER = re.compile(r"seed-(\d+)")


@dataclass(frozen=True, slots=True)
class FinishedRun:
    """A run that has come to its end."""

    run_dir: RunDir
    seed: int
    fields: dict[str, Any]
    """Dotted names and values of all that tells it from other runs but its seed."""
    summary: dict[str, Any]

    def __str__(self) -> str:
        return str(self.run_dir.path)

    def has(self, split: str) -> bool:
        """Whether it was scored on a split."""
        return isinstance(self.summary.get(split), dict)

    @property
    def heads(self) -> dict[str, str]:
        """Names of its heads -> ``tags`` or ``classes``; one without a name is ``tags``."""
        names = self.fields.get("data.heads") or []
        return {name: self.fields[f"data.heads.{name}.kind"] for name in names} or {
            ONLY_HEAD: "tags"
        }

    def scores(self, split: str, head: str | None = None) -> dict[str, Any]:
        """The scores of a split: of one of several heads, or of the one that chose the weights.

        Raises:
            UserError: the summary has something else there.
        """
        scores: dict[str, Any] = self.summary[split]
        if head is None or "heads" not in scores:
            return scores
        heads = scores["heads"]
        of_head = heads.get(head) if isinstance(heads, dict) else None
        if not isinstance(of_head, dict):
            raise UserError(f"{self.run_dir.summary}: {split}.heads has no scores of {head}")
        return of_head

    def number(self, name: str, split: str | None = None, head: str | None = None) -> float | None:
        """A number of the summary or of a split's scores; None where an earlier bigner left none.

        Raises:
            UserError: it is no number, or the head has no scores.
        """
        values = self.scores(split, head) if split else self.summary
        value = values.get(name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            place = f"{split}.{name}" if split else name
            raise UserError(f"{self.run_dir.summary}: {place} must be a number; got {value!r:.80}")
        return value

    def f1_of_type(self, split: str, head: str | None = None) -> dict[str, float]:
        """F1 of each entity type on a split.

        Raises:
            UserError: the summary has something else there.
        """
        try:
            types = self.scores(split, head).get("per_type", {})
            return {name: float(scores["f1"]) for name, scores in types.items()}
        except (AttributeError, KeyError, TypeError, ValueError):
            raise UserError(
                f"{self.run_dir.summary}: {split}.per_type has no F1 of types"
            ) from None


def find_runs(folders: Sequence[Path]) -> tuple[list[FinishedRun], list[Path]]:
    """The finished runs in some folders, each once, and the folders of those that are not finished.

    A folder is a run's own, or holds those of ``--seeds`` in ``seed-N``; else the folders in it are
    looked at in the same way.

    Raises:
        UserError: a folder is not there or holds no run, or what is in it cannot be read.
    """
    found: dict[Path, Path] = {}
    for folder in folders:
        for path in _folders_of_runs(folder):
            found.setdefault(path.resolve(), path)
    finished = [_read(RunDir(path)) for path in found.values() if _is_finished(path)]
    return finished, [path for path in found.values() if not _is_finished(path)]


def _folders_of_runs(folder: Path) -> list[Path]:
    if not is_folder(folder):
        raise UserError(f"there is no folder {str(folder)!r}; name folders of finished runs")
    try:
        found = _with_seeds(folder) or [
            path for child in sorted(folder.iterdir()) for path in _with_seeds(child)
        ]
    except OSError as error:
        raise UserError(f"{folder} cannot be read: {error.strerror}") from None
    if not found:
        raise UserError(
            f"{folder} holds no run: neither it nor a folder in it has the config.yaml and "
            f"summary.json that `bigner train` leaves in run_dir"
        )
    return found


def _with_seeds(folder: Path) -> list[Path]:
    """The folder, if it is a run's, and those of the runs of several seeds in it."""
    if not is_folder(folder):
        return []
    seeds = {
        int(match[1]): path
        for path in folder.iterdir()
        if (match := _SEED_FOLDER.fullmatch(path.name)) and _is_run(path)
    }
    return [folder] * _is_run(folder) + [seeds[seed] for seed in sorted(seeds)]


def _is_run(folder: Path) -> bool:
    return is_file(RunDir(folder).config)


def _is_finished(folder: Path) -> bool:
    return is_file(RunDir(folder).summary)


def _read(run_dir: RunDir) -> FinishedRun:
    try:
        config = run_dir.read_config("leave this run out, or compare with the bigner that made it")
        summary = run_dir.read_summary()
    except CheckpointError as error:
        raise UserError(str(error)) from None
    except OSError as error:
        raise UserError(f"{run_dir.config} cannot be read: {error.strerror}") from None
    if not isinstance(summary, dict):
        raise UserError(f"{run_dir.summary} is not the summary of a run")
    fields = compared_fields(config)
    # It changes speed and memory as the strategy does, and stands in no config.
    fields["world_size"] = summary.get("world_size")
    return FinishedRun(run_dir, config.seed, fields, summary)


def suspicions(runs: Iterable[FinishedRun]) -> list[str]:
    """What makes runs less comparable than their configs say, a sentence each."""
    versions: dict[str, set[str]] = {}
    for run in runs:
        found = run.summary.get("versions")
        for name, version in found.items() if isinstance(found, dict) else ():
            versions.setdefault(name, set()).add(str(version))
    return [
        f"the runs were made with different versions of {name}: {', '.join(sorted(different))}"
        for name, different in versions.items()
        if len(different) > 1
    ]
