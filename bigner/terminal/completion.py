"""What a shell completes: run files, fields of a run file with their values, choices of options.

Commands and options are completed by typer. Nothing here loads more than a run file's schema.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, get_args

from bigner.config.schema import RunConfig

Completions = list[tuple[str, str]]

# Bash takes "=" for the end of a word, so `strategy.kind=fs` comes as three words, and only what
# stands behind "=" is replaced. After a name that goes on, such as `training.`, there is no space.
_BASH = r"""
%(complete_func)s() {
    local IFS=$'\n' word before="" i
    local -a words=()
    for ((i = 0; i <= COMP_CWORD; i++)); do
        word=${COMP_WORDS[i]}
        if [[ $i -gt 1 && ( $word == =* || $before == *= ) \
            && ( $i -lt $COMP_CWORD || ${COMP_LINE:COMP_POINT-1:1} != " " ) ]]; then
            words[${#words[@]}-1]+=$word
        else
            words+=("$word")
        fi
        before=$word
    done
    word=${words[${#words[@]}-1]}
    COMPREPLY=( $( env COMP_WORDS="${words[*]}" COMP_CWORD=$((${#words[@]} - 1)) \
        %(autocomplete_var)s=complete_bash $1 ) )
    if [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *[=/.] ]]; then
        compopt -o nospace
    fi
    if [[ $word == *=* ]]; then
        COMPREPLY=( "${COMPREPLY[@]#"${word%%%%=*}="}" )
    fi
    return 0
}

complete -o default -F %(complete_func)s %(prog_name)s
"""


def use_bash_script() -> None:
    """Let ``--show-completion`` and ``--install-completion`` give bash the script above.

    typer has no other door to it; a version without this one has its own script.
    """
    with suppress(ImportError, AttributeError):
        from typer import _completion_shared  # noqa: PLC0415

        _completion_shared._completion_scripts["bash"] = _BASH


def one_of(choices: Any) -> Callable[[str], list[str]]:
    """A completion of an option that takes one of a Literal's values, or of some names."""
    names = get_args(choices) or tuple(choices)

    def complete(incomplete: str) -> list[str]:
        return [name for name in names if name.startswith(incomplete)]

    return complete


def run_files(incomplete: str) -> Completions:
    """YAML files, and folders on the way to them."""
    typed = Path(incomplete)
    folder, begun = (typed, "") if incomplete.endswith("/") else (typed.parent, typed.name)
    prefix = incomplete[: len(incomplete) - len(begun)]
    found: Completions = []
    with suppress(OSError):
        for path in sorted(folder.iterdir()):
            if not path.name.startswith(begun) or (path.name.startswith(".") and not begun):
                continue
            if path.is_dir():
                found.append((f"{prefix}{path.name}/", ""))
            elif path.suffix in (".yaml", ".yml"):
                found.append((f"{prefix}{path.name}", ""))
    return found


def overrides_of(incomplete: str) -> Completions:
    """Fields by their dotted names, a section at a time; behind ``=`` the values a field takes."""
    schema = RunConfig.model_json_schema()
    name, equals, _ = incomplete.partition("=")
    *sections, begun = name.split(".")
    fields = _fields_of(schema, schema, sections)
    if equals:
        completed = [f"{name}={value}" for value in _values(fields.get(begun, []))]
        return [(one, "") for one in completed if one.startswith(incomplete)]
    prefix = "".join(f"{section}." for section in sections)
    found: Completions = []
    for field, options in fields.items():
        if not field.startswith(begun):
            continue
        end = "." if any("properties" in option for option in options) else "="
        found.append((f"{prefix}{field}{end}", options[0].get("description", "")))
    return found


def _fields_of(
    schema: dict[str, Any], section: dict[str, Any], path: list[str]
) -> dict[str, list[dict[str, Any]]]:
    """The fields of a section, each with what it may hold; none where the path leads nowhere."""
    sections = [section]
    for name in path:
        fields = [one.get("properties", {}).get(name, {}) for one in sections]
        sections = [option for field in fields for option in _options(schema, field)]
    found: dict[str, list[dict[str, Any]]] = {}
    for one in sections:
        for name, field in one.get("properties", {}).items():
            found.setdefault(name, []).extend(_options(schema, field))
    return found


def _options(schema: dict[str, Any], field: dict[str, Any]) -> list[dict[str, Any]]:
    """A field's definition, and before it those of the sections it may hold."""
    choices = [*field.get("anyOf", []), *field.get("oneOf", []), *field.get("allOf", [])]
    names = [one["$ref"].rsplit("/", 1)[1] for one in (field, *choices) if "$ref" in one]
    plain = [one for one in choices if "$ref" not in one]
    return [field, *plain, *(schema["$defs"][name] for name in names)]


def _values(options: list[dict[str, Any]]) -> Iterator[str]:
    """The values that can be listed: choices, yes and no, a default."""
    found: dict[str, None] = {}
    for option in options:
        listed = [*option.get("enum", []), *([option["const"]] if "const" in option else [])]
        if option.get("type") == "boolean":
            listed = [True, False]
        found |= dict.fromkeys(_as_yaml(value) for value in listed)
    if not found:
        defaults = [one.get("default") for one in options]
        found = dict.fromkeys(str(one) for one in defaults if isinstance(one, int | float | str))
    yield from found


def _as_yaml(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
