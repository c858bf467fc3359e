"""``bigner predict``: beside transformers' pipeline, killed and gone on with, on wrong input."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer, XLMRobertaConfig, pipeline
from transformers.utils import logging as transformers_logging

from bigner import Tagger
from bigner.config.schema import ModelConfig
from bigner.modeling import longest_window
from bigner.prediction.entities import Entity
from tests.e2e.conftest import CORPUS, RUN_FILE, main
from tests.e2e.running import TORCHRUN
from tests.ranks.launch import environment, run_command
from tests.unit.helpers import TINY, whole_model

AGGREGATIONS = ("simple", "first", "average", "max")
TAGS = ("O", "B-LOC", "I-LOC", "B-PER", "I-PER")
TRAINING = ("training.max_steps=60", "training.learning_rate=0.01", "evaluation.every=30")
TEXTS = [
    "Anna sleeps in Oslo .",
    "Oslo Oslo Anna Anna",
    "Anna Oslo",
    "nothing in here at all",
    "OsloAnna reads",
    "A",
]


@pytest.fixture(autouse=True)
def quiet() -> None:
    transformers_logging.disable_progress_bar()


@pytest.fixture(scope="module")
def trained(tiny_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that a run has trained and exported."""
    folder = tmp_path_factory.mktemp("predicting")
    shutil.copytree(tiny_models, folder / "models")
    (folder / "run.yaml").write_text(RUN_FILE)
    for name in ("train.conll", "dev.conll"):
        (folder / name).write_text(CORPUS)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("DS_ACCELERATOR", "cpu")
        for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
            patch.delenv(name, raising=False)
        assert main(["train", "run.yaml", *TRAINING]) == 0
    return folder / "run" / "model"


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    monkeypatch.chdir(tmp_path)
    return tmp_path


# ---------------------------------------------------------------- beside the pipeline


class Beside:
    """A model that is asked by us and by transformers' pipeline."""

    def __init__(self, folder: Path) -> None:
        self._pipeline = pipeline("token-classification", model=str(folder))
        # It sees all of a text at once, whatever the model was trained with.
        longest = longest_window(self._pipeline.model)
        self._tagger = Tagger.load(folder, words="whitespace", max_length=longest)

    def compare(self, texts: Sequence[str], aggregation: Any) -> list[list[Entity]]:
        """Hold entities of texts against the pipeline's; returns those of each."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Tokenizer does not support real words")
            expected = [self._pipeline(text, aggregation_strategy=aggregation) for text in texts]
        # One that is loaded is asked in all ways.
        self._tagger.options = replace(self._tagger.options, aggregation=aggregation)
        found = self._tagger(list(texts))
        for entities, others in zip(found, expected, strict=True):
            assert [(e.type, e.start, e.end) for e in entities] == [
                (other["entity_group"], other["start"], other["end"]) for other in others
            ]
            scores = [float(other["score"]) for other in others]
            assert [e.score for e in entities] == pytest.approx(scores, abs=1e-5)
        return found


def test_entities_are_the_pipelines(trained: Path) -> None:
    beside = Beside(trained)
    for aggregation in AGGREGATIONS:
        found = beside.compare(TEXTS, aggregation)
        assert sum(map(len, found)) >= 3, aggregation


@pytest.mark.data
def test_entities_are_the_pipelines_with_the_tokenizer_of_xlmr(
    shared_data: Path, tmp_path: Path
) -> None:
    """Before a narrow model whose predictions vary from piece to piece."""
    tokenizer = AutoTokenizer.from_pretrained(shared_data / "xlmr-tokenizer")
    rows = sentences(shared_data)[:30]
    texts = [" ".join(row) for row in rows]
    # A pipeline takes a lone mark of a word's beginning for a word.
    marked = {word for row in rows for word in row if "▁" in tokenizer.tokenize(word)}
    plain = [" ".join(word for word in row if word not in marked) for row in rows]
    assert "." in marked
    shape = {**TINY, "vocab_size": len(tokenizer), "type_vocab_size": 1, "initializer_range": 0.1}
    XLMRobertaConfig(**shape).save_pretrained(tmp_path)
    described = ModelConfig(name_or_path=str(tmp_path), training_type="from_scratch")
    whole_model(described, TAGS, seed=3).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    beside = Beside(tmp_path)
    for aggregation in AGGREGATIONS:
        inside = False
        asked = texts if aggregation == "simple" else plain
        for text, entities in zip(asked, beside.compare(asked, aggregation), strict=True):
            assert entities
            inside |= any(text[e.end : e.end + 1].isalpha() for e in entities)
        assert inside == (aggregation == "simple")


def sentences(shared_data: Path) -> list[list[str]]:
    """The words of short Slovak sentences."""
    files = sorted((shared_data / "uner-slovak-snk").rglob("*test*"))
    blocks = files[0].read_text(encoding="utf-8").split("\n\n")[:200]
    rows = [[line.split("\t") for line in block.split("\n") if "\t" in line] for block in blocks]
    return [[row[1] for row in block] for block in rows if 4 < len(block) < 20]


# ---------------------------------------------------------------- the command

KILLED = """
import resource, signal
from bigner.__main__ import main
# Whoever writes more than so much is killed in the middle of it.
signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, {size}))
main()
"""


def test_a_killed_prediction_goes_on_in_two_processes(work: Path, trained: Path) -> None:
    words = ["Anna", "Oslo", "sleeps", "in", ".", "Annas", "nothing"]
    texts = [" ".join(words[(i + k) % 7] for k in range(1 + i % 13)) for i in range(2600)]
    lines = [json.dumps({"id": i, "text": text}) for i, text in enumerate(texts)]
    Path("in.jsonl").write_text("\n".join(lines))
    command = ["predict", "--model", str(trained), "--max-length", "20", "--stride", "3"]
    files = ["in.jsonl", "out.jsonl"]
    assert main([*command, "in.jsonl", "whole.jsonl"]) == 0
    whole = Path("whole.jsonl").read_text()
    first = len("".join(whole.splitlines(keepends=True)[:1000]))
    done = subprocess.run(
        [sys.executable, "-c", KILLED.format(size=first + 5000), *command, *files],
        env={**environment(), "PYTHONPATH": os.environ.get("PYTHONPATH", "")},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == -signal.SIGXFSZ, done.stderr
    assert Path("out.jsonl").stat().st_size == first + 5000
    assert main([*command, "--aggregation", "max", *files]) == 2

    launched = [*TORCHRUN, "-m", "bigner", *command, *files]
    done = run_command(launched, work)
    assert done.returncode == 0, done.stderr
    assert "going on behind the 1,000 texts" in done.stderr
    assert "done: 2,600 of 2,600 texts" in done.stderr
    assert sorted(path.name for path in work.iterdir()) == ["in.jsonl", "out.jsonl", "whole.jsonl"]
    out = Path("out.jsonl").read_text()
    # To the byte what the first attempt wrote, and the rest but for rounding.
    assert out[:first] == whole[:first]
    found, expected = ([json.loads(line) for line in one.splitlines()] for one in (out, whole))
    assert [without_scores(one) for one in found] == [without_scores(one) for one in expected]
    assert scores(found) == pytest.approx(scores(expected), abs=2e-6)
    assert [(one["id"], one["text"]) for one in found] == list(enumerate(texts))
    assert {entity["type"] for one in found for entity in one["entities"]} >= {"LOC", "PER"}


def without_scores(one: dict[str, Any]) -> dict[str, Any]:
    return {**one, "entities": [{**entity, "score": None} for entity in one["entities"]]}


def scores(found: Sequence[dict[str, Any]]) -> list[float]:
    return [entity["score"] for one in found for entity in one["entities"]]


def test_standard_input_and_output(
    work: Path, trained: Path, monkeypatch: pytest.MonkeyPatch, capfdbinary: Any
) -> None:
    given = "Anna sleeps\r\nin Oslo.\r\n"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(given.encode())))
    assert main(["predict", "--model", str(trained), "-", "-"]) == 0
    (line,) = capfdbinary.readouterr().out.splitlines()
    found = json.loads(line)
    assert (found["source"], found["text"]) == ("-", given)
    assert {(e["type"], e["start"], e["end"]) for e in found["entities"]} >= {("LOC", 16, 20)}
    assert list(work.iterdir()) == []


def test_columns_and_pages(work: Path, trained: Path) -> None:
    Path("in").mkdir()
    Path("in/a.txt").write_text("(Anna in <Oslo>)")
    Path("in/b.conll").write_text("Anna X\n. X\n\nOslo X\n")
    command = ["predict", "--model", str(trained), "in"]
    assert main([*command, "out.tsv", "--format", "columns"]) == 0
    blocks = Path("out.tsv").read_text().split("\n\n")
    words = [[line.split("\t")[0] for line in block.split("\n")] for block in blocks[:-1]]
    assert words == [["(", "Anna", "in", "<", "Oslo", ">", ")"], ["Anna", "."], ["Oslo"]]
    tags = [line.split("\t")[1] for line in blocks[1].split("\n") + blocks[2].split("\n")]
    assert tags == ["B-PER", "O", "B-LOC"]
    assert main([*command, "out.html", "--format", "html"]) == 0
    page = Path("out.html").read_text()
    assert page.startswith("<!DOCTYPE html>")
    assert page.endswith("</html>\n")
    assert page.count("<section>") == 3
    assert "&lt;" in page
    assert "<Oslo>" not in page
    assert sorted(path.name for path in work.iterdir()) == ["in", "out.html", "out.tsv"]


@pytest.mark.parametrize("decoding", ["argmax", "iob2"])
def test_tags_are_those_that_were_scored(
    decoding: str, trained: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(trained.parents[1])
    scored, found = tmp_path / "scored.tsv", tmp_path / "found.tsv"
    chosen = [f"evaluation.decoding={decoding}", "data.max_length=8", "data.stride=2"]
    evaluated = ["evaluate", "run.yaml", "--split", "validation", "--predictions", str(scored)]
    assert main([*evaluated, *chosen]) == 0
    options = ["--decoding", decoding, "--max-length", "8", "--stride", "2"]
    command = ["predict", "--model", str(trained), "dev.conll", str(found), *options]
    assert main([*command, "--format", "columns"]) == 0
    lines = [line.split("\t") for line in scored.read_text().splitlines()]
    told = [line.split("\t") for line in found.read_text().splitlines()]
    assert [line[::2] for line in lines] == [*told[:-1]]
    assert all(0 < float(line[3]) <= 1 for line in lines if len(line) > 1)


def test_nobody_reads_the_output(work: Path, trained: Path) -> None:
    Path("in.txt").write_text("Anna sleeps in Oslo .\n" * 2000)
    command = f"{sys.executable} -m bigner predict --lines --model {trained} in.txt -"
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command} | head -n 1"],
        env={**environment(), "PYTHONPATH": os.environ.get("PYTHONPATH", "")},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 1, done.stderr
    assert json.loads(done.stdout)["line"] == 1
    assert "bigner: error: standard output cannot be written: Broken pipe" in done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


WRONG: dict[str, tuple[list[str], str]] = {
    "no model": (["--model", "nowhere", "a.txt", "out"], "there is no model folder nowhere"),
    "no input": (["nothing.txt", "out"], "INPUT: no file or folder at 'nothing.txt'"),
    "a bad line": (["bad.jsonl", "out"], "bad.jsonl:2: no field 'text'"),
    "no place": (["a.txt", "no/where"], "OUTPUT 'no/where' cannot be written"),
    "an output in the input": (["in", "in/out"], "OUTPUT 'in/out' lies in INPUT"),
    "the input itself": (["a.txt", "a.txt"], "OUTPUT 'a.txt' lies in INPUT"),
    "a file of ours": (["a.txt", "mine"], "mine is there already, and no unfinished output"),
    "aggregation": (["--aggregation", "mean", "a.txt", "out"], "aggregation must be word"),
    "decoding": (["--decoding", "crf", "a.txt", "out"], "decoding must be argmax, iob2"),
    "format": (["--format", "xml", "a.txt", "out"], "--format must be jsonl, columns, html"),
    "precision": (["--precision", "fp8", "a.txt", "out"], "--precision must be fp32"),
    "simple columns": (
        ["--format", "columns", "--aggregation", "simple", "a.txt", "out"],
        "choose word, first, average or max",
    ),
    "head": (["--head", "ner", "a.txt", "out"], "the model has no head 'ner'"),
    "window": (["--max-length", "33", "a.txt", "out"], "33 is more than the 32 pieces"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_use_is_one_message(
    case: str, work: Path, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments, told = WRONG[case]
    Path("a.txt").write_text("Anna")
    Path("mine").write_text("mine")
    Path("in").mkdir()
    Path("in/a.txt").write_text("Anna")
    Path("bad.jsonl").write_text('{"text": "Anna"}\n{"txt": "Anna"}\n')
    before = contents(work)
    model = [] if "--model" in arguments else ["--model", str(trained)]
    assert main(["predict", *model, *arguments]) == 2
    output = capsys.readouterr()
    assert output.err.count("bigner: error: ") == 1
    assert output.err.count("\n") == 1
    assert told in output.err
    assert output.out == ""
    assert contents(work) == before


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
