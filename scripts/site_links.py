"""A hook of mkdocs: links out of docs/, which GitHub follows, name files of the repository instead.

The site has the pages alone; ``[run_configs](../run_configs)`` becomes ``run_configs`` there. What
is linked must exist: a strict build fails on what this logs.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
LOG = logging.getLogger("mkdocs.hooks.site_links")
_OUTWARD = re.compile(r"\[([^\]]+)\]\(\.\./([^)#]+)(#[^)]*)?\)")


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Called by mkdocs with each page's text; returns what it shows."""

    def named(found: re.Match[str]) -> str:
        text, target, _anchor = found.groups()
        if not (ROOT / target).exists():
            LOG.warning("%s links to %s, which is not there", page.file.src_path, target)
        return f"{text} (`{target}` in the repository)" if text != target else f"`{target}`"

    return _OUTWARD.sub(named, markdown)
