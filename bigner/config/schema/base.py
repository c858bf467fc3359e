"""What all sections of a run file have in common."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Strict

Precision = Literal["fp32", "bf16", "fp16"]
Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")


def _possible_path(value: object) -> object:
    # Path("") is the working directory, which nobody means by an empty string.
    if value == "":
        raise ValueError("must be a path and is empty")
    if isinstance(value, str):
        try:
            possible = b"\0" not in os.fsencode(value)
        except UnicodeEncodeError:
            possible = False
        if not possible:
            raise ValueError("must be a path, and has a character that no path can have")
    return value


FilePath = Annotated[Path, Strict(False), BeforeValidator(_possible_path)]


def default_cache_root() -> Path:
    """Where what was prepared is kept, unless a run file says otherwise."""
    return Path(os.environ.get("BIGNER_CACHE") or Path.home() / ".cache" / "bigner")


class Section(BaseModel):
    """A part of the run config: frozen, typed strictly, closed to unknown keys."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        use_attribute_docstrings=True,
        allow_inf_nan=False,
        validate_default=True,
        protected_namespaces=(),
    )


def is_given(section: Section, field: str) -> bool:
    """Whether a field says something of its own; a resolved config, which writes all, says no more
    than the file it was made from.
    """
    value: object = getattr(section, field)
    return bool(value != type(section).model_fields[field].default)
