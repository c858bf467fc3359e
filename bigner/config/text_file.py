"""A run file or a ds_configs file as text, of a size that such a file may have."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bigner.errors import ConfigError, Problem

# The parsers take some hundred times as much memory, and none of these files comes near it.
MAX_BYTES = 256 * 1024


def read_text(path: Path, kind: str) -> str:
    """The text of a small UTF-8 file, with or without a BOM.

    Args:
        path: the file.
        kind: what it is to the user, such as "run file".

    Raises:
        ConfigError: it is not there, cannot be read, is too large or is not UTF-8.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise _error(path, f"larger than {MAX_BYTES // 1024} KiB, so it is no {kind}")
        return content.decode("utf-8-sig")
    except FileNotFoundError:
        raise _error(path, f"there is no such {kind}") from None
    except UnicodeDecodeError as error:
        message = f"not UTF-8 text (byte {error.start}); save the file as UTF-8"
        raise _error(path, message) from None
    except OSError as error:
        raise _error(path, f"cannot be read: {error.strerror}") from None


def read_object(path: Path, kind: str) -> dict[str, Any]:
    """The JSON object that a small file holds.

    Raises:
        ConfigError: as ``read_text``, or it is no JSON object.
    """
    try:
        values = json.loads(read_text(path, kind))
    except (ValueError, RecursionError) as error:
        raise _error(path, f"not valid JSON: {error}") from None
    if not isinstance(values, dict):
        raise _error(path, f"a {kind} is a JSON object")
    return values


def _error(path: Path, message: str) -> ConfigError:
    return ConfigError([Problem(str(path), "", message)])
