"""A card made fit for others: folders of this machine are taken out, and edits stay."""

from __future__ import annotations

import json
import re
from pathlib import Path

import yaml

from bigner.config.checks import is_folder, missing_folder

_HEAD = re.compile(r"\A---\n(.*?\n)---\n", re.DOTALL)
# Names of models and data sets on the Hub, which it would otherwise take a folder for.
_FIELDS = ("base_model", "datasets")
_LOADED = re.compile(r'(\bmodel=|\bfrom_pretrained\()("(?:[^"\\\n]|\\.)*"|\'[^\'\\\n]*\')')


def for_others(card: str, folder: Path, repo: str) -> str:
    """The card without folders of this machine where a name on the Hub belongs.

    In its head, ``base_model`` and ``datasets`` lose them; code loads the model from where it will
    be, and so does all else that names its folder. Whatever else there is stays as it is.

    Args:
        card: the text.
        folder: of the model.
        repo: what it is called on the Hub.
    """
    match = _HEAD.match(card)
    head, body = (match[1], card[match.end() :]) if match else ("", card)
    ours = "bigner" in _values(head, "tags")
    body = _LOADED.sub(lambda found: _loading(found, repo, always=ours), body)
    for path in {str(folder.absolute()), str(folder.resolve())}:
        body = re.sub(rf"(?<![\w./~-]){re.escape(path)}(?![\w-])", repo, body)
    return f"---\n{_without_folders(head)}---\n{body}" if match else body


def _loading(found: re.Match[str], repo: str, *, always: bool) -> str:
    """What loads a model: ``always`` in a card of ours, whose code loads no other."""
    quoted = found[2]
    try:
        name = json.loads(quoted) if quoted.startswith('"') else quoted[1:-1]
    except ValueError:
        return found[0]
    return f'{found[1]}"{repo}"' if always or _is_local(name) else found[0]


def _without_folders(head: str) -> str:
    """The head of a card, of which all else keeps its every character."""
    for field in _FIELDS:
        values = _values(head, field)
        kept = [value for value in values if not _is_local(value)]
        if len(kept) < len(values):
            start, end = _place(head, field)
            head = head[:start] + (yaml.safe_dump({field: kept}) if kept else "") + head[end:]
    return head


def _fields(head: str) -> list[tuple[yaml.Node, yaml.Node]]:
    try:
        node = yaml.compose(head, yaml.SafeLoader)
    except yaml.YAMLError:
        # Which the Hub will say.
        return []
    return node.value if isinstance(node, yaml.MappingNode) and not node.flow_style else []


def _values(head: str, field: str) -> list[str]:
    """The texts of a field: one, or those of a list."""
    for key, value in _fields(head):
        if key.value == field:
            nodes = value.value if isinstance(value, yaml.SequenceNode) else [value]
            return [node.value for node in nodes if isinstance(node, yaml.ScalarNode)]
    return []


def _place(head: str, field: str) -> tuple[int, int]:
    """From where a field begins to where the next one does."""
    starts = [key.start_mark.index for key, _ in _fields(head)]
    names = [key.value for key, _ in _fields(head)]
    number = names.index(field)
    return starts[number], [*starts, len(head)][number + 1]


def _is_local(name: str) -> bool:
    """Whether it is a folder, be it of another machine."""
    return is_folder(name) or (missing_folder(name) and "://" not in name)
