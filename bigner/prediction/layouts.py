"""How tagged texts are written: JSON lines, columns, or a page to look at."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from bigner.prediction.entities import Entity
from bigner.prediction.options import OutputFormat
from bigner.prediction.page import PAGE_BEGINS, PAGE_ENDS, section
from bigner.prediction.sources import ENTITIES, InputText
from bigner.prediction.tagger import Tagged
from bigner.prediction.words import SplitText
from bigner.predictions import column_line

# JSON allows them in strings, and some readers take them for the end of a line.
_LINE_BREAKS = {0x85: "\\u0085", 0x2028: "\\u2028", 0x2029: "\\u2029"}


@dataclass(frozen=True, slots=True)
class Layout:
    """What stands in a file before, for each of and behind all texts."""

    text: Callable[[InputText, SplitText, Tagged], str]
    begin: str = ""
    end: str = ""


def json_line(given: InputText, split: SplitText, tagged: Tagged) -> str:
    """The object that the text came in, or one of its own, with the entities."""
    found = [_rounded(entity) for entity in tagged.entities]
    entities = json.dumps(found, ensure_ascii=False)
    if given.record is not None:
        # Not a byte of what else is in it changes, be it numbers that Python would write otherwise.
        line = f'{given.record[:-1].rstrip()}, "{ENTITIES}": {entities}}}\n'
    else:
        place: dict[str, Any] = {"source": given.source}
        if given.line is not None:
            place["line"] = given.line
        values = place | {"text": split.text, ENTITIES: found}
        line = json.dumps(values, ensure_ascii=False) + "\n"
    return line.translate(_LINE_BREAKS)


def columns(given: InputText, split: SplitText, tagged: Tagged) -> str:  # noqa: ARG001
    """A line for each word with its tag, and a blank line; nothing for a text without words."""
    if not split.words:
        return ""
    rows = zip(split.strings(), tagged.tags, strict=True)
    return "".join(column_line(word, tag) for word, tag in rows) + "\n"


def html_section(given: InputText, split: SplitText, tagged: Tagged) -> str:
    """The text with its entities marked."""
    title = given.source if given.line is None else f"{given.source}:{given.line}"
    return section(title, split.text, tagged.entities)


def _rounded(entity: Entity) -> dict[str, Any]:
    return {**asdict(entity), "score": round(entity.score, 6)}


LAYOUTS: dict[OutputFormat, Layout] = {
    "jsonl": Layout(json_line),
    "columns": Layout(columns),
    "html": Layout(html_section, PAGE_BEGINS, PAGE_ENDS),
}
