"""What a card is written from: what a run, or a checkpoint of one, knows of its weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, ValidationError

from bigner.config.checks import is_file, is_folder
from bigner.config.schema import RunConfig, Split
from bigner.errors import CheckpointError, UserError, one_line
from bigner.run_dir import RunDir

if TYPE_CHECKING:
    # It loads torch, and cards of finished runs need none.
    from bigner.checkpoint.manifest import Manifest


class _Part(BaseModel):
    # What a later bigner adds to a summary is nothing to stumble over.
    model_config = ConfigDict(frozen=True, extra="ignore", protected_namespaces=())


class Numbers(_Part):
    """Of a type, of a class, or of all together; None for what was no number."""

    precision: float | None
    recall: float | None
    f1: float | None
    support: int | None = None


class HeadScores(Numbers):
    """Of one head."""

    accuracy: float | None
    loss: float | None
    per_type: dict[str, Numbers] = {}
    strict: Numbers | None = None
    """By strict IOB2; None for a head of classes."""
    strict_per_type: dict[str, Numbers] = {}


class SplitScores(HeadScores):
    """Of one split: those of the head that chose the weights, and of several heads each."""

    sentences: int
    words: int
    words_without_pieces: int
    heads: dict[str, HeadScores] = {}


class Size(_Part):
    """Of a split."""

    sentences: int
    words: int
    windows: int


class OnHub(_Part):
    """Names that were looked up on the Hub."""

    model: str | None = None
    """The pretrained weights."""
    dataset: str | None = None


class Summary(_Part):
    """What a summary tells; what an earlier bigner did not note is left out of the card."""

    steps: int
    best_step: int | None = None
    stopped_early: bool = False
    skipped_steps: int = 0
    validation: SplitScores | None = None
    test: SplitScores | None = None
    labels: tuple[str, ...]
    strategy: str
    precision: str
    world_size: int
    seconds: float | None = None
    tokens_per_second: float | None = None
    peak_memory_bytes: int | None = None
    versions: dict[str, str] = {}
    data: dict[Split, Size] = {}
    hardware: str | None = None
    hub: OnHub = OnHub()

    def scores(self) -> dict[Split, SplitScores]:
        """Of the splits that were scored."""
        found: dict[Split, SplitScores | None] = {
            "validation": self.validation,
            "test": self.test,
        }
        return {split: scores for split, scores in found.items() if scores is not None}


# What a run notes once, and is so of the weights of every step.
_OF_ALL_WEIGHTS = ("data", "hardware", "hub")


@dataclass(frozen=True, slots=True)
class Facts:
    """All that a card tells."""

    name: str
    """Of the run."""
    config: RunConfig
    summary: Summary
    dtype: str = "fp32"
    """Of the exported weights."""


def of_run(run_dir: RunDir, config: RunConfig) -> Facts:
    """Of a finished run's best weights.

    Raises:
        CheckpointError: the summary cannot be read or is none.
    """
    return Facts(run_name(config.run_dir), config, _checked(run_dir.read_summary(), run_dir))


def of_finished(folder: Path) -> Facts:
    """Of the best weights of the run in a folder that a user named.

    Raises:
        UserError: there is no finished run, or what it left cannot be read.
    """
    run_dir = RunDir(folder)
    if not is_folder(folder):
        raise UserError(f"there is no folder {str(folder)!r}; name the run_dir of a finished run")
    for path in (run_dir.config, run_dir.summary):
        if not is_file(path):
            raise UserError(
                f"{folder} is no finished run: it has no {path.name}, which `bigner train` leaves "
                f"in run_dir"
            )
    if not is_folder(run_dir.model):
        raise UserError(f"{folder} has lost its folder {run_dir.model.name}")
    try:
        return of_run(run_dir, run_dir.read_config("write the card with the bigner that made it"))
    except CheckpointError as error:
        raise UserError(str(error)) from None
    except OSError as error:
        raise UserError(f"{run_dir.config} cannot be read: {error.strerror}") from None


def of_checkpoint(checkpoint: Path, manifest: Manifest, config: RunConfig, dtype: str) -> Facts:
    """Of a checkpoint's weights, which have scores of their own or none.

    Raises:
        CheckpointError: the summary of the run, if it is finished, cannot be read or is none.
    """
    run_dir = RunDir(checkpoint.resolve().parent.parent)
    known: dict[str, Any] = {}
    if run_dir.summary.exists():
        summary = run_dir.read_summary()
        names = [*_OF_ALL_WEIGHTS, *["test"] * (summary.get("best_step") == manifest.step)]
        known = {name: summary[name] for name in names if name in summary}
    known |= {
        "steps": manifest.step,
        "skipped_steps": manifest.skipped_steps,
        "validation": next((s for s in manifest.history if s["step"] == manifest.step), None),
        "labels": manifest.labels,
        "strategy": config.strategy.kind,
        "precision": config.precision,
        "world_size": manifest.world_size,
        "versions": manifest.versions,
    }
    return Facts(run_name(config.run_dir), config, _checked(known, run_dir), dtype)


def _checked(values: Mapping[str, Any], run_dir: RunDir) -> Summary:
    try:
        return Summary.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        what = ": ".join([*[".".join(map(str, first["loc"]))] * bool(first["loc"]), first["msg"]])
        raise CheckpointError(
            one_line(str(run_dir.summary), f"{what}; it is no run's summary")
        ) from None


def run_name(folder: Path) -> str:
    """A name of a run, by its folder; of one of several seeds with the folder around it."""
    folder = folder.absolute()
    if folder.name.startswith("seed-"):
        return f"{folder.parent.name}-{folder.name}"
    return folder.name
