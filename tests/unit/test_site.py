"""The pages of docs/ as a site: no broken link, no network, everything in reach."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted((ROOT / "docs").glob("*.md"))
DOCUMENTS = [*PAGES, ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def links_of(page: Path) -> Iterator[Path]:
    """Where a document's links lead, as files; what is not on the disk is left out."""
    text = re.sub(
        r"^```.*?^```$|`[^`\n]*`", "", page.read_text(encoding="utf-8"), flags=re.M | re.S
    )
    for target in _LINK.findall(text):
        parts = urlsplit(target)
        if not parts.scheme and parts.path:
            yield (page.parent / parts.path).resolve()


@pytest.mark.parametrize("page", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_to_files_in_the_repository(page: Path) -> None:
    assert [str(target) for target in links_of(page) if not target.exists()] == []


def test_readme_reaches_every_page_in_two_clicks() -> None:
    first = {target for target in links_of(ROOT / "README.md") if target.suffix == ".md"}
    second = {target for page in first for target in links_of(page)}
    assert [page.name for page in PAGES if page not in first | second] == []


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if importlib.util.find_spec("material") is None:
        pytest.skip("mkdocs-material is not installed: pip install 'bigner[docs]'")
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_the_site_builds_strictly_and_has_every_page(site: Path) -> None:
    assert {page.with_suffix(".html").name for page in PAGES} <= {p.name for p in site.iterdir()}


def test_the_site_asks_the_network_for_nothing(site: Path) -> None:
    loaded = re.compile(r"<(?:script|link|img|iframe|source)\b[^>]*\b(?:src|href)=\"([^\"]*)\"")
    for page in site.glob("*.html"):
        addresses = loaded.findall(page.read_text(encoding="utf-8"))
        assert [one for one in addresses if urlsplit(one).netloc] == [], page.name
    for sheet in site.rglob("*.css"):
        assert re.search(r"url\([\"']?(https?:)?//", sheet.read_text(encoding="utf-8")) is None


def test_marks_for_tests_and_links_out_of_the_site_are_not_shown(site: Path) -> None:
    for page in site.glob("*.html"):
        text = re.sub(r"<!--.*?-->", "", page.read_text(encoding="utf-8"), flags=re.S)
        assert "not run:" not in text
        assert 'href="../' not in text
