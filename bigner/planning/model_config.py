"""Where the config of a model is found without loading anything: a folder, by name, the Hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bigner.config.checks import is_file, missing_folder
from bigner.config.schema import ModelConfig, RunConfig
from bigner.config.text_file import read_object
from bigner.errors import ConfigError, ModelError
from bigner.planning.known import known_config
from bigner.planning.shapes import ModelShape, shape_of

ASSUMED_LABELS = 9
"""Of a head whose labels the run file does not list: O and four types, as CoNLL-2003 has them."""


def find_shape(
    config: RunConfig,
    *,
    model_config: Path | None = None,
    rows: int | None = None,
    ask_hub: bool = False,
) -> ModelShape:
    """The shape of a run's model, with what of it is frozen.

    Args:
        config: names the model.
        model_config: a ``config.json`` to take instead of the model's.
        rows: of the embedding table that are in use.
        ask_hub: whether the Hub may be asked for a config that is not at hand.

    Raises:
        ModelError: there is no config, or it is of no family that is known here.
    """
    model = config.model
    if model_config is not None:
        values: dict[str, Any] | None = _read(model_config)
    else:
        values = _config_of(model, ask_hub=ask_hub)
    if values is None:
        raise ModelError(
            f"model.name_or_path {model.name_or_path!r}: its config is not at hand; give its "
            f"config.json with --model-config FILE"
        )
    shape = shape_of(values, num_labels=num_labels(config), rows=rows, dropout=model.dropout)
    return shape.frozen(
        body=model.training_type == "transfer_learning",
        embeddings=model.freeze.embeddings,
        layers=model.freeze.layers,
    )


def num_labels(config: RunConfig) -> int:
    """Rows of all heads together; ``ASSUMED_LABELS`` for one whose labels the data will tell."""
    rows = 0
    for head in config.data.resolved_heads().values():
        if head.labels is None:
            rows += ASSUMED_LABELS
        else:
            rows += 2 * len(head.labels) + 1 if head.kind == "tags" else len(head.labels)
    return rows


def _config_of(model: ModelConfig, *, ask_hub: bool) -> dict[str, Any] | None:
    name = model.name_or_path
    in_folder = Path(name) / "config.json"
    if is_file(in_folder):
        return _read(in_folder)
    if missing_folder(name):
        raise ModelError(f"model.name_or_path {name!r}: there is no such folder")
    if (known := known_config(name)) is not None:
        return known
    path = _from_hub(name, model.revision, ask_hub=ask_hub)
    return None if path is None else _read(path)


def _from_hub(name: str, revision: str | None, *, ask_hub: bool) -> Path | None:
    """A config in the cache of the Hub's client, or fetched."""
    from huggingface_hub import hf_hub_download  # noqa: PLC0415
    from huggingface_hub.errors import (  # noqa: PLC0415
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
    )

    try:
        return Path(
            hf_hub_download(
                name,
                "config.json",
                revision=revision,
                local_files_only=not ask_hub,
                # Seconds: without a network the answer shall come all the same.
                etag_timeout=3,
            )
        )
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError):
        return None


def _read(path: Path) -> dict[str, Any]:
    try:
        return read_object(path, "model config")
    except ConfigError as error:
        raise ModelError(str(error)) from None
