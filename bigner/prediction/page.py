"""Entities to look at: one page of HTML that needs nothing else, in which texts are only text."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from zlib import crc32

from bigner.prediction.entities import Entity

PAGE_BEGINS = """\
<!DOCTYPE html>
<html>
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Entities</title>
<style>
body { font: 1rem/1.7 sans-serif; max-width: 50rem; margin: 2rem auto; padding: 0 1rem; }
h2 { font-size: .8rem; font-weight: normal; color: #666; margin: 2rem 0 0; }
p { white-space: pre-wrap; overflow-wrap: anywhere; margin: 0; }
mark { background: hsl(var(--hue) 80% 87%); color: #000; border-radius: .2rem; padding: .1rem; }
mark small { color: hsl(var(--hue) 90% 25%); margin-left: .3rem; user-select: none; }
</style>
</head>
<body>
"""
PAGE_ENDS = "</body>\n</html>\n"


def section(title: str, text: str, entities: Sequence[Entity]) -> str:
    """A text with its entities marked; the label of each, with its score, can be pointed at."""
    parts = [f"<section>\n<h2>{escape(title)}</h2>\n<p>"]
    at = 0
    for entity in entities:
        # Two of pieces may share a character.
        start = max(at, entity.start)
        parts += [escape(text[at:start]), _mark(entity, text[start : entity.end])]
        at = max(at, entity.end)
    return "".join([*parts, escape(text[at:]), "</p>\n</section>\n"])


def _mark(entity: Entity, shown: str) -> str:
    kind = escape(entity.type)
    # The same colour for a type on every page.
    hue = crc32(entity.type.encode()) % 360
    return (
        f'<mark style="--hue: {hue}" title="{kind} {entity.score:.3f}">{escape(shown)}'
        f"<small>{kind}</small></mark>"
    )
