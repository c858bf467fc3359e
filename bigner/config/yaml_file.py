"""YAML as a run file means it: plain data, and the line each value stands on.

The loader resolves scalars by YAML 1.2's core rules, so ``1e-5`` is a number and ``no`` is text,
but for ``010`` and ``0x10``, which are text; keys may not repeat.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import yaml

from bigner.errors import ConfigError, Problem

FieldPath = tuple[str | int, ...]

# Aliases can make a small file expand without end; no run file comes near this many values.
MAX_VALUES = 10_000
MAX_DEPTH = 64


class _CoreLoader(yaml.SafeLoader):
    """SafeLoader with the implicit types of YAML 1.2's core schema and no others.

    It stops at the limits above before it has built a tree that breaks them.
    """

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012
    nodes = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        self.nodes += 1
        # A field is two nodes.
        if self.nodes > 2 * MAX_VALUES:
            message = f"more than {MAX_VALUES} values in one file"
            raise yaml.composer.ComposerError(None, None, message, self.get_mark())
        return super().compose_node(parent, index)

    def fetch_flow_collection_start(self, TokenClass: type[yaml.Token]) -> None:  # noqa: N803
        # The scanner looks a thousand brackets ahead and goes through all of them at each.
        if self.flow_level >= MAX_DEPTH:
            raise RecursionError
        super().fetch_flow_collection_start(TokenClass)


class _Dumper(yaml.SafeDumper):
    """SafeDumper that quotes a text which is something else to YAML 1.1 or to the loader above, and
    escapes line breaks that only Unicode knows, which it would fold to spaces.
    """

    def represent_str(self, data: str) -> yaml.ScalarNode:
        style = '"' if re.search("[\x85\u2028\u2029]", data) else None
        return self.represent_scalar("tag:yaml.org,2002:str", data, style=style)


_Dumper.add_representer(str, _Dumper.represent_str)


for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?(0|[1-9][0-9]*)", list("-+0123456789")),
    (
        "float",
        # With a point or an exponent, so that `010` is no number: ten to some, eight to others.
        r"[-+]?(\.[0-9]+|[0-9]+\.[0-9]*)([eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+"
        r"|[-+]?\.inf|\.nan",
        list("-+.0123456789"),
    ),
):
    for _reader in (_CoreLoader, _Dumper):
        _reader.add_implicit_resolver(
            f"tag:yaml.org,2002:{_tag}", re.compile(rf"^(?:{_pattern})$"), _first
        )


def as_yaml(values: Any) -> str:
    """Plain values as a YAML text that ``parse_yaml`` reads as the same values."""
    text: str = yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True)
    return text


@dataclass
class Document:
    """The values of a YAML text and where each of them stands."""

    name: str
    value: Any = None
    lines: dict[FieldPath, int] = field(default_factory=dict)
    """Line, counted from 1, of each key or list item."""
    has_lines: bool = True
    """Whether it is a text at all, and no values that somebody else made."""

    def where(self, path: FieldPath) -> str:
        """``file:line`` of the value at ``path``, or of the nearest section that exists."""
        if not self.has_lines:
            return self.name
        while path and path not in self.lines:
            path = path[:-1]
        return f"{self.name}:{self.lines.get(path, 1)}"


def parse_yaml(text: str, name: str) -> Document:
    """Parse one YAML document.

    Raises:
        ConfigError: not YAML, a repeated key, or a key that is not text.
    """
    document = Document(name)
    try:
        loader = _CoreLoader(text)
        try:
            node = loader.get_single_node()
            if node is not None:
                document.value = _Builder(loader, document).build(node, ())
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        message = f"not valid YAML: {_reason(error)}"
        raise ConfigError([Problem(f"{name}:{line}", "", message)]) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        message = f"not valid YAML: the character U+{ord(text[error.position]):04X} has no place"
        raise ConfigError([Problem(f"{name}:{line}", "", message)]) from None
    except RecursionError:
        raise ConfigError([Problem(name, "", "values are nested too deeply")]) from None
    except (ValueError, OverflowError):
        # Of the scanner: `"\U00110000"`, `%YAML` with a number of 5000 digits.
        message = "not valid YAML: an escape or a %YAML version is out of range"
        raise ConfigError([Problem(f"{name}:{loader.line + 1}", "", message)]) from None
    return document


def _reason(error: yaml.MarkedYAMLError) -> str:
    if error.problem and "character '\\t'" in error.problem:
        return "a TAB where YAML wants spaces; indent with spaces"
    return ", ".join(part for part in (error.context, error.problem) if part)


class _Builder:
    """Turns a node tree into plain values, noting the line of each."""

    def __init__(self, loader: _CoreLoader, document: Document) -> None:
        self.loader = loader
        self.document = document
        self.values = 0

    def build(self, node: yaml.Node, path: FieldPath) -> Any:
        self.values += 1
        if self.values > MAX_VALUES:
            raise self._error(node, path, f"more than {MAX_VALUES} values in one file")
        if len(path) > MAX_DEPTH:
            raise RecursionError
        if node.tag not in _TAGS:
            raise self._error(node, path, f"the tag {node.tag} has no place in a run file")
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self._item(child, (*path, i)) for i, child in enumerate(node.value)]
        # A tag makes no value of what is none without it: `!!bool yes`, `!!int 1:30`, `!!int 0x10`.
        as_plain = (yaml.ScalarNode, node.value, (True, False))
        plain = self.loader.resolve(*as_plain)  # type: ignore[no-untyped-call]
        try:
            if node.tag not in (_STR, plain) and (node.tag, plain) != (_FLOAT, _INT):
                raise ValueError
            return self.loader.construct_object(node)
        except ValueError:  # also a number of 5000 digits
            shown = node.value if len(node.value) <= 40 else f"{node.value[:37]}..."
            kind = node.tag.rpartition(":")[2]
            raise self._error(node, path, f"{shown!r} is no YAML {kind}") from None

    def _item(self, node: yaml.Node, path: FieldPath) -> Any:
        self.document.lines[path] = node.start_mark.line + 1
        return self.build(node, path)

    def _mapping(self, node: yaml.MappingNode, path: FieldPath) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = key_node.value
            if not isinstance(key_node, yaml.ScalarNode):
                raise self._error(key_node, path, "a field's name must be plain text")
            if key in result:
                first = self.document.lines[(*path, key)]
                raise self._error(key_node, (*path, key), f"given twice, first on line {first}")
            self.document.lines[(*path, key)] = key_node.start_mark.line + 1
            result[key] = self.build(value_node, (*path, key))
        return result

    def _error(self, node: yaml.Node, path: FieldPath, message: str) -> ConfigError:
        where = f"{self.document.name}:{node.start_mark.line + 1}"
        return ConfigError([Problem(where, ".".join(map(str, path)), message)])


_STR, _INT, _FLOAT = (f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float"))
_TAGS = {
    f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "float", "str", "seq", "map")
}
