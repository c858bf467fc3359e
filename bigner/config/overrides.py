"""Overrides of a run config: ``key=value`` words or a mapping, written into its values."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bigner.config.yaml_file import MAX_DEPTH, FieldPath, parse_yaml
from bigner.errors import ConfigError, Problem

Overrides = Sequence[str] | Mapping[str, Any]
"""``["seed=3"]`` as on the command line, or ``{"seed": 3}``; names are dotted in both."""


_HOW = "an override is written field=value, such as training.learning_rate=1e-5"


@dataclass(frozen=True, slots=True)
class _Override:
    where: str
    """As it was given."""
    key: str
    value: Any

    @property
    def path(self) -> tuple[str, ...]:
        return tuple(self.key.split("."))


def apply_overrides(
    values: dict[str, Any], overrides: Overrides
) -> tuple[dict[FieldPath, str], list[Problem]]:
    """Write each override into ``values``; returns which override set which field, and problems."""
    applied: dict[FieldPath, str] = {}
    problems: list[Problem] = []
    for override_of, given in _given(overrides):
        try:
            override = override_of(*given)
            _write(values, override)
        except ConfigError as error:
            problems += error.problems
        else:
            applied[override.path] = override.where
    return applied, problems


def as_plain(value: Any, depth: int = 0) -> Any:
    """A copy of a value in the types that YAML has.

    Raises:
        ConfigError: it lies deeper in itself than a run file may.
    """
    if depth > MAX_DEPTH:
        message = f"is nested more than {MAX_DEPTH} deep"
        raise ConfigError([Problem("config", "", message)])
    if isinstance(value, Mapping):
        return {key: as_plain(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [as_plain(item, depth + 1) for item in value]
    return str(value) if isinstance(value, Path) else value


def cut(text: str, length: int) -> str:
    """A text, or its beginning where it is too long to be shown."""
    return text if len(text) <= length else f"{text[: length - 3]}..."


def _given(overrides: Any) -> list[tuple[Callable[..., _Override], tuple[Any, ...]]]:
    """What makes each override, and of what."""
    if isinstance(overrides, Mapping):
        return [(_of_pair, pair) for pair in overrides.items()]
    if isinstance(overrides, str):
        return [(_of_word, (overrides,))]
    if not isinstance(overrides, Iterable):
        message = "overrides are a list of field=value texts, or a mapping of fields"
        raise ConfigError([Problem(_place(overrides), "", message)])
    return [(_of_word, (word,)) for word in overrides]


def _of_word(word: Any) -> _Override:
    where = _place(word)
    if not isinstance(word, str):
        raise ConfigError([Problem(where, "", _HOW)])
    key, equals, text = word.partition("=")
    _require_name(key if equals else "", where)
    try:
        return _Override(where, key, parse_yaml(text, where).value)
    except ConfigError as error:
        messages = [problem.message for problem in error.problems]
        raise ConfigError([Problem(where, key, message) for message in messages]) from None


def _of_pair(key: Any, value: Any) -> _Override:
    where = _place(key)
    _require_name(str(key), where)
    return _Override(where, str(key), as_plain(value))


def _place(given: Any) -> str:
    # A problem for each of its values would repeat it.
    return f"override {cut(repr(given), 200)}"


def _require_name(key: str, where: str) -> None:
    path = key.split(".")
    if not all(path) or len(path) > MAX_DEPTH:
        raise ConfigError([Problem(where, "", _HOW)])


def _write(values: dict[str, Any], override: _Override) -> None:
    *sections, name = override.path
    section = values
    for depth, part in enumerate(sections, start=1):
        # `training:` with nothing below it is a section without fields.
        if section.get(part) is None:
            section[part] = {}
        section = section[part]
        if not isinstance(section, dict):
            message = f"is not a section, so {override.key} cannot be set inside it"
            raise ConfigError([Problem(override.where, ".".join(sections[:depth]), message)])
    section[name] = override.value
