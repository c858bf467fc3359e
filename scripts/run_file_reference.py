"""Write docs/run_file.md, the reference of every field, from the schema's own sentences.

python scripts/run_file_reference.py            rewrites the file
python scripts/run_file_reference.py --check    fails if it is not what the schema says
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from bigner.config.schema import RunConfig

TARGET = Path(__file__).resolve().parents[1] / "docs" / "run_file.md"
HEAD = """\
# The run file

Every field of a run file, with its default. Values are YAML 1.2: `1e-5` is a number, `no` is text.
Paths are relative to the working directory. Any field can be overridden on the command line by
its dotted name: `training.learning_rate=1e-5`. Written by `scripts/run_file_reference.py`.
"""


def reference() -> str:
    """The whole page."""
    schema = RunConfig.model_json_schema()
    sections = [HEAD, _table("The run", "", schema, schema)]
    for name, field in schema["properties"].items():
        for definition in _sections_of(field, schema):
            kind = definition["properties"].get("kind", {}).get("const")
            title = f"`{name}`" + (f" with `kind: {kind}`" if kind else "")
            sections.append(_table(title, f"{name}.", definition, schema))
            for inner, value in definition["properties"].items():
                for nested in _sections_of(value, schema):
                    place = f"{name}.{inner}" + (".NAME" if _sections_by_name(value) else "")
                    sections.append(_table(f"`{place}`", f"{place}.", nested, schema))
    return "\n".join(sections)


def _sections_of(field: dict[str, Any], schema: dict[str, Any]) -> list[dict[str, Any]]:
    """The sections a field can hold: one, several told apart by their kind, or none."""
    options = [field, *field.get("oneOf", []), *field.get("anyOf", []), *field.get("allOf", [])]
    options += _sections_by_name(field)
    names = [option["$ref"].rsplit("/", 1)[1] for option in options if "$ref" in option]
    return [schema["$defs"][name] for name in names]


def _sections_by_name(field: dict[str, Any]) -> list[dict[str, Any]]:
    """What a field holds under names of the user's own, if these are sections."""
    patterns = [option.get("patternProperties", {}) for option in (field, *field.get("anyOf", []))]
    return [inner for held in patterns for inner in held.values() if "$ref" in inner]


def _table(title: str, prefix: str, definition: dict[str, Any], schema: dict[str, Any]) -> str:
    lines = [f"## {title}", ""]
    if prefix:
        lines += [definition.get("description", ""), ""]
    lines += ["| field | values | default | |", "| --- | --- | --- | --- |"]
    required = definition.get("required", [])
    for name, field in definition["properties"].items():
        default = "needed" if name in required else _show(field.get("default"))
        values = _values(field)
        if _sections_of(field, schema):
            values = "sections by name, below" if _sections_by_name(field) else "a section, below"
        description = field.get("description", "").replace("\n", " ").replace("|", "\\|")
        lines.append(f"| `{prefix}{name}` | {values} | {default} | {description} |")
    return "\n".join([*lines, ""])


def _values(field: dict[str, Any]) -> str:
    if "anyOf" in field:
        options = [_values(option) for option in field["anyOf"] if option.get("type") != "null"]
        return " or ".join(options)
    if "enum" in field:
        return ", ".join(f"`{value}`" for value in field["enum"])
    if "const" in field:
        return f"`{field['const']}`"
    kind = {"integer": "whole number", "string": "text", "boolean": "`true`, `false`"}.get(
        field.get("type", ""), field.get("type", "")
    )
    if kind in ("array", "object"):
        return {"array": "list", "object": "map"}[kind]
    bounds = [
        f"{sign} {field[key]:g}"
        for key, sign in (
            ("minimum", "≥"),
            ("exclusiveMinimum", ">"),
            ("maximum", "≤"),
            ("exclusiveMaximum", "<"),
        )
        if key in field
    ]
    return " ".join([kind, ", ".join(bounds)]).strip()


def _show(default: Any) -> str:
    if default is None:
        return ""
    if default in ([], {}):
        return "none"
    if isinstance(default, dict):
        return "all defaults"
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    return f"`{default}`"


def main() -> int:
    """Write the page, or compare it."""
    if "--check" not in sys.argv:
        TARGET.write_text(reference(), encoding="utf-8")
        return 0
    if TARGET.read_text(encoding="utf-8") == reference():
        return 0
    print(f"{TARGET} is not what the schema says; run python scripts/run_file_reference.py")
    return 1


if __name__ == "__main__":
    sys.exit(main())
