"""`bigner lint` by the real command: what it prints, what it leaves, how it ends."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.conftest import main
from tests.ranks.launch import environment

ROOT = Path(__file__).resolve().parents[2]
DEV = "Anna B-PER\nruns O\n. O\n\nLee B-PER\nsleeps O\nin O\nOslo B-LOC\n"


@pytest.fixture
def corpus(project: Path) -> Path:
    """The sound project with other sentences to validate on."""
    (project / "dev.conll").write_text(DEV)
    return project


def lint(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bigner", "lint", "run.yaml", *arguments],
        capture_output=True,
        text=True,
        env=environment(),
        check=False,
    )


def test_sound_data(corpus: Path) -> None:
    before = sorted(corpus.rglob("*"))
    done = lint()
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    # Neither colours nor frames nor anything else for a terminal.
    assert not {"\x1b", "│", "┃"} & set(done.stdout)
    lines = done.stdout.splitlines()
    assert "  sentences           3            2  " in lines
    assert "    PER               2            2  " in lines
    assert "pieces in a sentence" in lines
    assert "pass     scheme: all tags keep to the scheme iob2 (recognised)" in lines
    assert lines[-1].startswith("0 failures, ")
    assert sorted(corpus.rglob("*")) == before


def test_json(corpus: Path) -> None:
    (corpus / "train.conll").write_text("Anna B-PER\nsleeps O\nin O\nOslo I-LOC\n")
    done = lint("--json")
    assert (done.returncode, done.stderr) == (0, "")
    report = json.loads(done.stdout)
    assert report["splits"] == {
        "train": {"sentences": 1, "documents": 1, "words": 4},
        "validation": {"sentences": 2, "documents": 1, "words": 7},
    }
    head = report["heads"]["tags"]
    assert (head["kind"], head["scheme"]) == ("tags", "iob2")
    assert head["splits"]["train"] == {"total": 2, "labels": {"LOC": 1, "PER": 1}, "o_words": 2}
    lengths = report["lengths"]
    assert (lengths["what"], lengths["unit"], lengths["max_length"]) == ("sentence", "pieces", 16)
    # A piece a letter, and the two that frame a sentence.
    assert lengths["splits"]["train"]["max"] == len("AnnasleepsinOslo") + 2
    assert lengths["splits"]["train"]["windows"] == 2
    assert [bucket["to"] for bucket in lengths["histogram"]] == [8, 16, 32]
    (scheme,) = [one for one in report["findings"] if one["check"] == "scheme"]
    assert scheme["level"] == "warning"
    assert scheme["places"] == [
        {"file": "train.conll", "line": 4, "text": "I-LOC between O and end"}
    ]
    levels = [one["level"] for one in report["findings"]]
    assert report["totals"] == {
        level: levels.count(level) for level in ("pass", "skipped", "warning", "failure")
    }


def test_overrides_are_heeded(corpus: Path) -> None:
    report = json.loads(lint("data.max_length=64", "data.scheme=iob2", "--json").stdout)
    assert report["lengths"]["max_length"] == 64
    (scheme,) = [one for one in report["findings"] if one["check"] == "scheme"]
    assert "(as given)" in scheme["message"]


@pytest.mark.parametrize("option", [[], ["--json"]])
def test_data_that_training_refuses_is_2_and_reported_all_the_same(
    corpus: Path, option: list[str]
) -> None:
    (corpus / "train.conll").write_text("Anna B-PER\nsleeps\n")
    done = lint(*option)
    assert done.returncode == 2
    assert done.stderr == (
        "bigner: error: the data has 1 failure (reading); the report says where\n"
    )
    if option:
        report = json.loads(done.stdout)
        assert report["splits"]["train"] is None
        assert report["findings"][0]["places"] == [{"file": "train.conll", "line": 2, "text": ""}]
    else:
        assert "  sentences          -            2  " in done.stdout.splitlines()
        (line,) = [line for line in done.stdout.splitlines() if line.startswith("failure")]
        assert line.startswith("failure  reading: train cannot be read: 1 column, and 2 expected")
        assert line.endswith(": train.conll:2")
    # Training refuses it at that place.
    assert main(["train", "run.yaml"]) == 2


def test_the_same_sentences_in_two_splits(project: Path) -> None:
    done = lint()
    assert done.returncode == 2
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("failure")]
    assert "3 of 3 sentences of validation are in train too" in line
    assert line.endswith(
        "dev.conll:1 as train.conll:1; dev.conll:6 as train.conll:6; dev.conll:10 as train.conll:10"
    )


def test_without_a_tokenizer(corpus: Path) -> None:
    done = lint("model.name_or_path=./nothing")
    assert done.returncode == 0, done.stderr
    assert "words in a sentence" in done.stdout.splitlines()
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("skipped")]
    assert "model.name_or_path './nothing': there is no such folder" in line


@pytest.mark.parametrize(
    ("arguments", "phrase"),
    [
        (["lint"], "RUN.YAML"),
        (["lint", "none.yaml"], "none.yaml"),
        (["lint", "run.yaml", "data.scheme=iob3"], "data.scheme"),
        (["lint", "run.yaml", "--jsno"], "--jsno"),
    ],
)
def test_wrong_use(
    project: Path, arguments: list[str], phrase: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    output = capsys.readouterr()
    assert phrase in output.err
    assert "Traceback" not in output.err
    assert output.out == ""


def test_the_sample_has_no_failure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "project"
    assert main(["init", str(folder)]) == 0
    capsys.readouterr()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["lint", "run_fsdp.yaml", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    levels = {(one["check"], one["level"]) for one in report["findings"]}
    assert ("scheme", "pass") in levels
    assert ("words without pieces", "pass") in levels


def test_the_example_of_the_documents(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The files in docs/data.md give the output that stands there."""
    text = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
    section = text[text.index("## Check it first") :]
    _, mine, check, output = re.findall(r"```(?:bash)?\n(.*?)```", section, flags=re.DOTALL)[:4]
    (arguments,) = re.findall(r"^`bigner (lint run_fsdp.yaml .*)`$", section, flags=re.MULTILINE)
    folder = tmp_path / "project"
    assert main(["init", str(folder)]) == 0
    (folder / "data" / "mine.conll").write_text(mine)
    (folder / "data" / "check.conll").write_text(check)
    capsys.readouterr()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(arguments.split()) == 0
    printed = capsys.readouterr().out.splitlines()
    shown = [line.rstrip() for line in printed if not line.startswith("pass")]
    assert shown == output.splitlines()
