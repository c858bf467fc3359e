"""A run file and dotted overrides become a RunConfig, or a list of everything that is wrong.

Python code may hand over a mapping in place of the file and of the overrides, or a RunConfig to be
varied.
"""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from bigner.config import schema
from bigner.config.checks import is_file
from bigner.config.deepspeed import check_tuning_file
from bigner.config.overrides import Overrides, apply_overrides, as_plain, cut
from bigner.config.schema import RunConfig, Section
from bigner.config.text_file import read_text
from bigner.config.yaml_file import Document, FieldPath, parse_yaml
from bigner.errors import MOST_PROBLEMS, ConfigError, Problem

ConfigSource = str | Path | Mapping[str, Any] | RunConfig
"""What a run config is made from: a run file, the sections as a mapping, or another config."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where the values of a run config come from."""

    document: Document
    overridden: Mapping[FieldPath, str]

    def where(self, field: str) -> str:
        """``file:line`` of a dotted field or of the section it is missing in, or the override."""
        return self.place(tuple(field.split(".")))

    def place(self, path: FieldPath) -> str:
        """The override that set ``path`` or a section around it, else its line in the file."""
        for end in range(len(path), 0, -1):
            if path[:end] in self.overridden:
                return self.overridden[path[:end]]
        inside = [where for place, where in self.overridden.items() if place[: len(path)] == path]
        if inside and path not in self.document.lines:
            return inside[0]
        return self.document.where(path)


def load_config(config: ConfigSource, overrides: Overrides = ()) -> RunConfig:
    """Read a run file, apply overrides and validate the whole.

    A ds_configs file that the run names is checked along with it. Paths in a config are relative to
    the working directory.

    Args:
        config: a run file, what stands in one as a mapping, or a config to vary.
        overrides: ``["training.learning_rate=1e-5"]``, the values being YAML, or
            ``{"training.learning_rate": 1e-5}``. One that names a section replaces all of it.

    Raises:
        ConfigError: holds every problem found, each with file and line or the override.
    """
    return load_with_source(config, overrides)[0]


def load_with_source(config: ConfigSource, overrides: Overrides = ()) -> tuple[RunConfig, Source]:
    """As ``load_config``, and where each field was set, for problems that are found later.

    Raises:
        ConfigError: as for ``load_config``.
    """
    document = _document(config)
    if not isinstance(document.value, dict):
        hint = (
            "a run file is a mapping of sections (run_dir, model, data, ...); `bigner init DIR` "
            "writes one to start from"
        )
        raise ConfigError([Problem(document.where(()), "", hint)])
    overridden, problems = apply_overrides(document.value, overrides)
    source = Source(document, overridden)
    resolved = None
    try:
        resolved = RunConfig.model_validate(document.value)
    except ValidationError as error:
        problems += _explain(error, source)
    problems += _check_deepspeed_file(source)
    if problems or resolved is None:
        raise ConfigError(problems)
    return resolved, source


def _document(config: object) -> Document:
    """The values of a config as a run file would have them."""
    if isinstance(config, RunConfig):
        return Document("config", config.model_dump(mode="json"), has_lines=False)
    if isinstance(config, Mapping):
        return Document("config", as_plain(config), has_lines=False)
    if isinstance(config, str | Path):
        return parse_yaml(read_text(Path(config), "run file"), str(config))
    message = f"a config is a run file, a mapping or another config; got {cut(repr(config), 80)}"
    raise ConfigError([Problem("config", "", message)])


def _check_deepspeed_file(source: Source) -> list[Problem]:
    strategy = source.document.value.get("strategy")
    name = strategy.get("deepspeed_config") if isinstance(strategy, dict) else None
    if not isinstance(name, str) or not name or strategy.get("kind") != "zero":
        return []
    if not is_file(name):
        field = "strategy.deepspeed_config"
        message = f"there is no file {name!r} (paths are relative to the working directory)"
        return [Problem(source.where(field), field, message)]
    stage = strategy.get("stage", 3)
    return check_tuning_file(Path(name), stage if stage in (1, 2) else 3)


# --- from pydantic's errors to sentences ------------------------------------------------------


def _explain(error: ValidationError, source: Source) -> list[Problem]:
    values = source.document.value
    rules: dict[FieldPath, list[str]] = {}
    details = error.errors(include_url=False)
    for detail in details[:MOST_PROBLEMS]:
        path = _field_path(detail)
        rules.setdefault(path, []).append(_rule(detail, path, values))
    problems = []
    for path, alternatives in rules.items():
        # The members of a union fail one by one: the field may be any of them.
        message = " or ".join(dict.fromkeys(alternatives)).replace(" or must be", " or")
        if message.startswith("must"):
            message += f"; got {_show(_value_at(values, path))}"
        problems.append(Problem(source.place(path), ".".join(map(str, path)), message))
    if len(details) > MOST_PROBLEMS:
        problems.append(Problem(source.document.name, "", "and more; correct these first"))
    return problems


def _field_names() -> frozenset[str]:
    sections = [cls for cls in vars(schema).values() if isinstance(cls, type)]
    return frozenset(
        name for cls in sections if issubclass(cls, BaseModel) for name in cls.model_fields
    )


_FIELD_NAMES = _field_names()


def _field_path(detail: ErrorDetails) -> FieldPath:
    """The error's place without the names pydantic puts in for members of a union."""
    place = detail["loc"]
    last = len(place) - 1
    return tuple(
        part
        for i, part in enumerate(place)
        if isinstance(part, int)
        or part in _FIELD_NAMES
        or place[i - 1 : i] == ("heads",)
        or (i == last and detail["type"] == "extra_forbidden")
    )


def _rule(detail: ErrorDetails, path: FieldPath, values: Any) -> str:  # noqa: PLR0911
    """What the field must be, as the words after its name."""
    context = detail.get("ctx", {})
    match detail["type"]:
        case "missing":
            return f"is needed and not given ({_description(path, values)})"
        case "extra_forbidden":
            return f"is not a field here; {_suggest_field(path, values)}"
        case "literal_error":
            return f"must be {context['expected']}"
        case "union_tag_invalid" | "union_tag_not_found":
            return "must have a kind: 'single', 'fsdp' or 'zero'"
        case "model_type" | "model_attributes_type" | "dict_type":
            return "must be a section of fields"
        case "string_pattern_mismatch":
            return "must begin with a letter and hold letters, digits, - and _ alone"
        case "value_error":
            return str(context["error"])
        case kind if kind in _TYPE_RULES:
            return _TYPE_RULES[kind]
        case _:
            return detail["msg"].replace("Input should be", "must be")


_TYPE_RULES = {
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "bool_type": "must be true or false",
    "string_type": "must be text",
    "string_too_short": "must not be empty",
    "path_type": "must be a path",
    "tuple_type": "must be a list",
    "too_short": "must not be empty",
    "finite_number": "must be a finite number",
}


def _section_class(path: FieldPath, values: Any) -> type[Section] | None:
    """The schema of the section at ``path``, as far as the values tell which one it is."""
    cls: type[Section] = RunConfig
    for i, part in enumerate(path):
        if path[i - 1 : i] == ("heads",):
            # Its name is the user's own; the section of `heads` is that of one head already.
            continue
        if not isinstance(part, str) or part not in cls.model_fields:
            return None
        if cls is RunConfig and part == "strategy":
            strategy = values.get("strategy")
            kind = strategy.get("kind") if isinstance(strategy, dict) else None
            cls = _STRATEGIES.get(str(kind), schema.SingleStrategy)
            continue
        candidates = _types_in(cls.model_fields[part].annotation)
        found = [c for c in candidates if isinstance(c, type) and issubclass(c, Section)]
        if not found:
            return None
        cls = found[0]
    return cls


_STRATEGIES: dict[str, type[Section]] = {
    "single": schema.SingleStrategy,
    "fsdp": schema.FsdpStrategy,
    "zero": schema.ZeroStrategy,
}


def _types_in(annotation: Any) -> list[Any]:
    """A type and all that it is put together from."""
    inner = getattr(annotation, "__args__", ())
    return [annotation, *(found for part in inner for found in _types_in(part))]


def _description(path: FieldPath, values: Any) -> str:
    cls = _section_class(path[:-1], values)
    info = cls.model_fields.get(str(path[-1])) if cls else None
    text = info.description if info and info.description else "a field of the run config"
    return text.rstrip(".").replace("\n", " ")


def _suggest_field(path: FieldPath, values: Any) -> str:
    """The nearest name in the same section, the same name elsewhere, or all names."""
    name = str(path[-1])
    cls = _section_class(path[:-1], values)
    here = sorted(cls.model_fields) if cls else []
    near = difflib.get_close_matches(name, here, n=1, cutoff=0.6)
    if near:
        return f"did you mean {near[0]}?"
    elsewhere = [
        f"{section}.{name}"
        for section in RunConfig.model_fields
        if (other := _section_class((section,), values)) and name in other.model_fields
    ]
    if elsewhere:
        return f"did you mean {elsewhere[0]}?"
    return f"the fields here are {', '.join(here)}"


def _value_at(values: Any, path: FieldPath) -> Any:
    for part in path:
        try:
            values = values[part]
        except (KeyError, IndexError, TypeError):
            return None
    return values


def _show(value: Any) -> str:
    # Neither looks at the whole of a value that aliases have made large.
    text = f"the text {value[:80]!r}" if isinstance(value, str) else _SHORT.repr(value)
    return cut(text, 80)


_SHORT = reprlib.Repr()
_SHORT.maxlist = _SHORT.maxdict = 20
_SHORT.maxstring = _SHORT.maxlong = 80
