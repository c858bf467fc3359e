"""The fenced blocks of the documents, and how their commands are run.

A ``bash`` block is run by a test unless the line before it is ``<!-- not run: REASON -->``.
Neither GitHub nor the site shows that.
"""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.ranks.launch import environment

ROOT = Path(__file__).resolve().parents[1]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))

REASONS = {
    "a GPU": "runs on GPUs",
    "a cluster": "runs on several machines",
    "as in commands.md": "is run as one of the examples there",
    "minutes": "takes longer than a test may",
    "several processes": "starts a launcher",
    "the network": "downloads or uploads something",
    "your files": "names files that the reader has",
}

_BLOCK = re.compile(
    r"(?P<marks>(?:^<!--[^\n]*-->\n)*)^```(?P<kind>bash|console)\n(?P<text>.*?)^```$", re.M | re.S
)
_MARK = re.compile(r"^<!-- not run: (.*) -->$", re.M)

# The sample is cut down as soon as it is made; what is learnt from it is not looked at.
_CUT = """
import sys
from pathlib import Path
for path in Path(sys.argv[1], "data").iterdir():
    sentences = path.read_text(encoding="utf-8").split("\\n\\n")
    path.write_text("\\n\\n".join(sentences[:400]) + "\\n", encoding="utf-8")
"""
_SHELL = """
set -euo pipefail
bigner() {
    # Whatever it stands before or behind: set -e heeds no function there.
    command bigner "$@" || return
    if [ "$1" = init ]; then python -c "$CUT" "$2"; fi
}
"""


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block of shell commands."""

    page: str
    line: int
    """Of the fence, from 1."""
    text: str
    not_run: str | None
    """The reason, where it is not run."""

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks_of(page: str, text: str) -> list[Block]:
    """All blocks of a page in order; of consoles what stands behind ``$``, which is not run."""
    found = []
    for match in _BLOCK.finditer(text):
        reasons = _MARK.findall(match["marks"])
        commands = match["text"]
        if match["kind"] == "console":
            lines = commands.splitlines()
            commands = "\n".join(line[2:] for line in lines if line.startswith("$ "))
            reasons = ["minutes"]
        found.append(
            Block(
                page=page,
                line=text.count("\n", 0, match.end("marks")) + 1,
                text=commands,
                not_run=reasons[0] if reasons else None,
            )
        )
    return found


def run_blocks(blocks: list[Block], folder: Path) -> None:
    """Run the blocks one after the other in one shell, each where the one before it left off.

    Raises:
        AssertionError: one ends with an error; which, and what was printed.
    """
    script = _SHELL
    for block in blocks:
        script += f"echo '@@ {block}'\n{block.text}\n"
    path = f"{Path(sys.executable).parent}:{environment()['PATH']}"
    offline = {"HF_HUB_OFFLINE": "1", "BIGNER_CACHE": str(folder / ".cache")}
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=folder,
        env=environment() | offline | {"PATH": path, "CUT": _CUT},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    block = done.stdout.rpartition("@@ ")[2].partition("\n")[0]
    assert done.returncode == 0, f"{block} ends with {done.returncode}:\n{done.stdout[-4000:]}"
