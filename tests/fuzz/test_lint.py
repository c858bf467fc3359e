"""Whatever the data: a report, with a failure exactly where training would refuse it."""

from __future__ import annotations

import io
import json
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bigner.commands.lint import lint
from bigner.config.schema import RunConfig
from bigner.data.corpus import read_corpus
from bigner.errors import DataError
from tests.fuzz.hostile import FUZZED, mutated, odd_texts, out_of
from tests.fuzz.test_formats import (
    COLUMN_TOKENS,
    SNIPPETS,
    VALID_COLUMNS,
    VALID_JSONL,
    VALID_SPANS,
    columns,
    lines_of,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("lint")


def report_or_defect(folder: Path, content: bytes, **settings: Any) -> None:
    """Lint a file, and hold the report against what training says of it."""
    file = folder / "train"
    file.write_bytes(content)
    config = RunConfig.model_validate(
        {
            "run_dir": str(folder / "run"),
            "model": {"name_or_path": str(folder / "no-model")},
            "data": {"train": str(file), **settings},
            "training": {"epochs": 1, "global_batch_size": 1, "micro_batch_size": 1},
        }
    )
    report = lint(config)
    try:
        read_corpus(config.data)
        refused = False
    except DataError:
        refused = True
    assert (report.number("failure") > 0) == refused
    json.dumps(report.as_json(), allow_nan=False).encode()
    with redirect_stdout(io.StringIO()) as shown:
        report.show()
    assert shown.getvalue().replace("\n", "").isprintable()
    assert max(map(len, shown.getvalue().splitlines())) < 10_000


@FUZZED
@given(
    content=mutated(VALID_COLUMNS, SNIPPETS) | out_of(COLUMN_TOKENS),
    settings=columns,
)
def test_columns(folder: Path, content: bytes, settings: dict[str, Any]) -> None:
    report_or_defect(folder, content, **settings)


@FUZZED
@given(content=mutated(VALID_JSONL, SNIPPETS))
def test_jsonl(folder: Path, content: bytes) -> None:
    report_or_defect(folder, content, format="jsonl")


@FUZZED
@given(content=mutated(VALID_SPANS, SNIPPETS))
def test_spans(folder: Path, content: bytes) -> None:
    report_or_defect(folder, content, format="spans")


pairs = st.lists(
    st.tuples(
        odd_texts,
        odd_texts.map(lambda text: f"B-{text}")
        | st.sampled_from(["O", "B-PER", "I-PER", "I-LOC", "B-" + "X" * 5000, "B-[/red]"]),
    ),
    min_size=1,
    max_size=5,
)


@FUZZED
@given(sentences=st.lists(pairs, min_size=1, max_size=4), classes=st.booleans())
@example([[("a", "B-\x1b[31m"), ("\x1b[2J" * 3000, "I-\u200b")]], False)
@example([[("[/red]", "[/red]"), ("[bold]", "[bold]")]] * 2, True)
def test_odd_words_and_labels(
    folder: Path, sentences: list[list[tuple[str, str]]], classes: bool
) -> None:
    records = [{"words": [w for w, _ in one], "tags": [t for _, t in one]} for one in sentences]
    heads = {"only": {"column": "tags", "kind": "classes" if classes else "tags"}}
    columns = {"words": "words"}
    content = lines_of(records, ascii_only=True)
    report_or_defect(folder, content, format="jsonl", heads=heads, columns=columns)
