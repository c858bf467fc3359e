"""What the documents tell a reader to type works, in an empty folder, on the embedded sample."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from tests.command_lines import joined, parse_problems
from tests.documents import PAGES, REASONS, ROOT, Block, blocks_of, run_blocks

BLOCKS = [
    block
    for page in PAGES
    for block in blocks_of(str(page.relative_to(ROOT)), page.read_text(encoding="utf-8"))
]
# The first of these makes the project that the pages after it are for.
FROM_NOTHING = ("docs/commands.md", "docs/first_run.md")
IN_A_PROJECT = sorted({b.page for b in BLOCKS if b.not_run is None} - set(FROM_NOTHING))


def to_run(page: str) -> list[Block]:
    return [block for block in BLOCKS if block.page == page and block.not_run is None]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project in which each command was used."""
    folder = tmp_path_factory.mktemp("commands")
    run_blocks(to_run("docs/commands.md"), folder)
    return folder / "project"


def test_examples_of_all_commands(project: Path) -> None:
    assert {"report.html", "both.html", "out.html", "table.md", "exported", "runs"} <= {
        path.name for path in project.iterdir()
    }


def test_first_run(tmp_path: Path) -> None:
    run_blocks(to_run("docs/first_run.md"), tmp_path)
    assert (tmp_path / "project" / "report.html").is_file()


@pytest.mark.parametrize("page", IN_A_PROJECT)
def test_page_in_a_project(page: str, project: Path, tmp_path: Path) -> None:
    shutil.copytree(project, tmp_path / "project")
    run_blocks(to_run(page), tmp_path / "project")


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_every_call_of_bigner_parses(block: Block) -> None:
    assert [told for line in joined(block.text) for told in parse_problems(line)] == []


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.not_run is not None], ids=str)
def test_what_is_not_run_says_why(block: Block) -> None:
    assert block.not_run in REASONS


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_commands_in_the_text_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for command in re.findall(r"`bigner ([a-z]+)[ `]", text):
        assert parse_problems(f"bigner {command} --help") == []


# --- the test itself --------------------------------------------------------------------------


def page(body: str) -> list[Block]:
    return blocks_of("page.md", body)


def test_blocks_are_found_with_their_marks() -> None:
    first, second, third = page(
        "# Title\n\n```bash\nls\n```\n\n<!-- not run: the network -->\n```bash\ncurl x\n```\n"
        "```bash\ncat a\n```\n\n```yaml\na: 1\n```\n"
    )
    assert (first.line, first.text, first.not_run) == (3, "ls\n", None)
    assert (second.line, second.not_run) == (8, "the network")
    assert (third.line, third.not_run) == (11, None)


def test_a_block_that_cannot_run_fails(tmp_path: Path) -> None:
    run_blocks(page("```bash\ntouch a\n```\n\n```bash\nls a\n```\n"), tmp_path)
    with pytest.raises(AssertionError, match=r"page\.md:5 ends with 2:"):
        run_blocks(page("```bash\nls\n```\n\n```bash\nls nowhere\n```\n"), tmp_path)
    with pytest.raises(AssertionError, match=r"page\.md:1 ends with 2:"):
        run_blocks(page("```bash\nbigner validate nowhere.yaml | cat\n```\n"), tmp_path)
    with pytest.raises(AssertionError, match=r"page\.md:1 ends with 2:"):
        run_blocks(page("```bash\nbigner validate nowhere.yaml && ls\n```\n"), tmp_path)


@pytest.mark.parametrize(
    ("line", "sound"),
    [
        ("bigner train run.yaml training.learning_rate=1e-5  # a comment", True),
        ("cat x | bigner predict --model m - - > out 2>&1", True),
        ("deepspeed --num_gpus 8 --module bigner train run.yaml", True),
        ("torchrun --nproc-per-node 8 -m bigner train run.yaml && bigner report r", True),
        ("HF_TOKEN=... bigner push m owner/name", True),
        ("ls", True),
        ("python bench.py --contestants bigner --cases x", True),
        ("bigner tarin run.yaml", False),
        ("bigner train", False),
        ("bigner train run.yaml --sedes 1", False),
        ("bigner plan run.yaml --gpus many", False),
        ("torchrun -m bigner train run.yaml && bigner reprot r", False),
    ],
)
def test_lines_are_parsed(line: str, sound: bool) -> None:
    assert (parse_problems(line) == []) is sound


def test_a_line_that_goes_on_is_one() -> None:
    assert joined("# why\nbigner train \\\n    run.yaml\n\nls\n") == [
        "bigner train      run.yaml",
        "ls",
    ]
