"""What a checkpoint says of itself, checked before a byte of it is believed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    FailFast,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from bigner.config.schema import RunConfig
from bigner.errors import CheckpointError, one_line
from bigner.tensor_files import numel_of

FORMAT_VERSION = 2
MANIFEST = "manifest.json"

TensorKind = Literal["master", "exp_avg", "exp_avg_sq", "average"]
KINDS: tuple[TensorKind, ...] = ("master", "exp_avg", "exp_avg_sq", "average")
"""What is kept of a range: the fp32 values, AdamW's moments and, where a run keeps one, the moving
average of the values."""

# A name and no path: a manifest cannot point out of its folder.
_FileName = Annotated[str, Field(pattern=r"^shards-[0-9]{5}\.safetensors$")]
_Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
_Count = Annotated[int, Field(ge=0, lt=2**63)]


def _has_what_is_read(scores: dict[str, Any]) -> dict[str, Any]:
    names = ("step", "f1", "precision", "recall", "accuracy", "loss")
    numbers = {name: scores.get(name) for name in names}
    if (strict := scores.get("strict")) is not None:
        # Which a head of classes does not have.
        numbers["strict.f1"] = isinstance(strict, dict) and strict.get("f1")
    for name, number in numbers.items():
        # A loss that is no number is one: of a model that diverged.
        if isinstance(number, bool) or not isinstance(number, int | float):
            raise ValueError(f"scores have no number for {name}")
    return scores


_SavedScores = Annotated[dict[str, Any], AfterValidator(_has_what_is_read)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class SavedRange(_Part):
    """Where the values ``[offset, offset + numel)`` of a flattened parameter lie."""

    file: _FileName
    offset: _Count
    numel: Annotated[int, Field(ge=1, lt=2**63)]
    sha256: dict[TensorKind, _Sha256]
    """Of the bytes of each tensor kept; a frozen parameter has no moments."""

    @property
    def stop(self) -> int:
        """The first value beyond the range."""
        return self.offset + self.numel


class SavedParameter(_Part):
    """A parameter and the ranges that make it up."""

    shape: Annotated[tuple[_Count, ...], Field(max_length=16)]
    ranges: Annotated[tuple[SavedRange, ...], FailFast()]
    """In order, without overlap or gap."""

    @model_validator(mode="after")
    def _ranges_make_up_the_parameter(self) -> SavedParameter:
        reached = 0
        for part in self.ranges:
            if part.offset != reached:
                fault = "overlap" if part.offset < reached else "are absent"
                between = sorted((part.offset, reached))
                raise ValueError(f"values {between[0]} to {between[1]} {fault}")
            if "master" not in part.sha256:
                raise ValueError(f"range at {part.offset} has no master")
            reached = part.stop
        if reached != numel_of(self.shape):
            raise ValueError(f"ranges end at {reached} of {numel_of(self.shape)} values")
        return self


class _Format(BaseModel):
    """The one thing that is asked of a manifest of any format."""

    model_config = ConfigDict(strict=True)

    format_version: int


class Manifest(_Part):
    """The run at the step of the checkpoint, and where its values lie."""

    format_version: Literal[2]
    step: _Count
    epoch: Annotated[float, Field(ge=0)]
    skipped_steps: _Count
    skipped_in_a_row: _Count
    history: Annotated[tuple[_SavedScores, ...], FailFast()]
    """The validation scores so far, each with its step."""
    best: dict[str, Any] | None
    """Step and value of the best of them, by ``evaluation.metric``."""
    labels: tuple[str, ...]
    config: dict[str, Any]
    """The resolved run config."""
    world_size: Annotated[int, Field(ge=1)]
    versions: dict[str, str]
    scalars: dict[str, float]
    """Optimizer step, under fp16 the loss scale, and the steps of the moving average, if any."""
    files: dict[_FileName, _Count]
    """Bytes of each file."""
    parameters: dict[str, SavedParameter]

    @property
    def keeps_average(self) -> bool:
        """Whether the run keeps a moving average of its weights."""
        return self.scalars.get("average_steps", 0.0) > 0

    @field_validator("scalars")
    @classmethod
    def _scalars_are_whole(cls, scalars: dict[str, float]) -> dict[str, float]:
        needed = {"optimizer_step"}
        if "loss_scale" in scalars:
            needed.add("steps_since_overflow")
        if absent := sorted(needed - scalars.keys()):
            raise ValueError(f"has no {absent[0]}")
        if scalars.get("loss_scale", 1.0) <= 0.0:
            raise ValueError("loss_scale must be more than 0")
        if scalars.get("average_steps", 0.0) < 0.0:
            raise ValueError("average_steps must be 0 or more")
        return scalars

    @model_validator(mode="after")
    def _files_of_ranges_are_listed(self) -> Manifest:
        named = {part.file for saved in self.parameters.values() for part in saved.ranges}
        if strange := sorted(named ^ self.files.keys()):
            raise ValueError(f"files and ranges do not agree on {strange[0]}")
        return self


def read_manifest(folder: Path) -> Manifest:
    """What a checkpoint says of itself.

    Raises:
        CheckpointError: there is no whole checkpoint, or one of another format.
    """
    path = folder / MANIFEST
    try:
        # Not a pipe or a device, which might never end.
        data = path.read_bytes() if path.is_file() else None
    except OSError:
        data = None
    if data is None:
        raise CheckpointError(f"{folder} is no whole checkpoint: no readable {MANIFEST}")
    try:
        version = _Format.model_validate_json(data).format_version
        if version == FORMAT_VERSION:
            return Manifest.model_validate_json(data)
        reason = f"format {version}, and this bigner reads {FORMAT_VERSION}"
    except ValidationError as error:
        reason = _told(error)
    raise CheckpointError(one_line(f"{path} cannot be used", reason))


def config_of(folder: Path, manifest: Manifest) -> RunConfig:
    """The run config a checkpoint was written under.

    Raises:
        CheckpointError: this bigner cannot read it.
    """
    try:
        return RunConfig.model_validate(manifest.config)
    except ValidationError as error:
        raise CheckpointError(
            one_line(f"{folder}: its run config cannot be read", _told(error))
        ) from None


def _told(error: ValidationError) -> str:
    """The first thing that is wrong, and where."""
    first = error.errors(include_url=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    reason = first["msg"].removeprefix("Value error, ")
    return f"{place}: {reason}" if place else reason
