"""Cross-validation by one command: every sentence of train is predicted by a model that did not
see it.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from bigner.config.load import load_config
from bigner.data.formats import read_sentences
from bigner.data.formats.folds import fold_numbers
from bigner.errors import DataError
from bigner.evaluation.counts import count
from bigner.predictions import read_predictions
from tests.e2e.conftest import main
from tests.e2e.running import TORCHRUN
from tests.ranks.launch import run_command

TRAIN = [
    "train",
    "run.yaml",
    "training.max_steps=12",
    "training.learning_rate=0.01",
    "--folds",
    "3",
]
NAMES = ("Anna", "Bert", "Carla", "Dora", "Emil", "Frida", "Greta")
CORPUS = "\n".join(
    f"# newdoc\n{name} B-PER\nsleeps O\n\nOslo B-LOC\nsaw O\n{name} B-PER\n" for name in NAMES
)
# A wrong label, so that not all is predicted right.
CORPUS = CORPUS.replace("Oslo B-LOC\nsaw O\nEmil", "Oslo B-PER\nsaw O\nEmil")


@pytest.fixture(autouse=True)
def _corpus(project: Path) -> None:
    (project / "train.conll").write_text(CORPUS)
    run = (project / "run.yaml").read_text().replace("  validation: dev.conll\n", "")
    (project / "run.yaml").write_text(run)


def _json(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def test_parts_are_whole_documents_of_equal_number() -> None:
    documents = [number // 3 for number in range(3 * 100)]
    numbers = fold_numbers(documents, 7)
    assert numbers == fold_numbers(documents, 7)
    of_documents = dict(zip(documents, numbers, strict=True))
    assert numbers == [of_documents[document] for document in documents]
    sizes = [list(of_documents.values()).count(fold) for fold in range(1, 8)]
    assert sum(sizes) == 100
    assert max(sizes) - min(sizes) <= 1
    # Not one after the other, which may be one source after the other.
    assert list(of_documents.values()) != [i % 7 + 1 for i in range(100)]


def test_more_parts_than_documents() -> None:
    with pytest.raises(DataError, match="too few documents for 3 folds: 2"):
        fold_numbers([0, 0, 1], 3)


def test_each_fold_trains_on_the_others(project: Path) -> None:
    """Together the tested parts are the training data, and a fold has nothing of both."""
    whole = [one.words for one in read_sentences(load_config("run.yaml").data, "train")]
    tested = []
    for number in (1, 2, 3):
        data = load_config("run.yaml", [f"data.fold={{number: {number}, of: 3}}"]).data
        assert data.splits() == ("train", "test")
        train, test = (list(read_sentences(data, split)) for split in ("train", "test"))
        assert {one.document for one in train} & {one.document for one in test} == set()
        assert len(train) + len(test) == len(whole)
        tested += [one.words for one in test]
    assert sorted(tested) == sorted(whole)


def test_all_folds_together(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(TRAIN) == 0
    printed = capsys.readouterr()
    assert "fold 2 (of 3), in run/fold-2" in printed.err
    joined = project / "run" / "joined"
    lines = read_predictions(joined / "predictions" / "test.tsv")
    words = "\n".join(line.partition("\t")[0] for line in lines.asked)
    whole = [one.words for one in read_sentences(load_config("run.yaml").data, "train")]
    assert words == "\n\n".join("\n".join(sentence) for sentence in whole)
    # Each fold's own predictions, all of them.
    of_folds = [
        read_predictions(project / "run" / f"fold-{number}" / "predictions" / "test.tsv")
        for number in (1, 2, 3)
    ]
    for part in of_folds:
        assert part.confidences is not None
    counts = [count(part.gold, part.predicted) for part in of_folds]
    summary = _json(joined / "summary.json")
    assert summary["folds"] == pytest.approx([part.f1 for part in counts])
    together = count(lines.gold, lines.predicted)
    assert together.correct.sum() == sum(part.correct.sum() for part in counts)
    assert together.predicted.sum() == sum(part.predicted.sum() for part in counts)
    for name in ("f1", "precision", "recall", "accuracy"):
        assert summary["test"][name] == pytest.approx(getattr(together, name))
    assert 0 < together.f1 < 1
    assert f"{together.f1:.4f}" in printed.out
    # What stands in place of a run's test set is taken for one.
    assert main(["report", "run/joined"]) == 0
    capsys.readouterr()
    assert main(["compare", "run/joined", "--json"]) == 0
    (group,) = json.loads(capsys.readouterr().out)["groups"]
    assert group["f1"] == pytest.approx(together.f1)

    # Finished folds are not trained again, and a stopped one goes on.
    before = (project / "run" / "fold-1" / "summary.json").stat().st_mtime_ns
    (project / "run" / "fold-3" / "summary.json").unlink()
    assert main(TRAIN) == 0
    assert (project / "run" / "fold-1" / "summary.json").stat().st_mtime_ns == before
    assert _json(joined / "summary.json")["test"] == summary["test"] | {
        name: _json(joined / "summary.json")["test"][name]
        for name in ("seconds", "words_per_second")
    }


def test_under_torchrun_as_in_one_process(project: Path) -> None:
    exact = ["model.dropout=0.0", "training.micro_batch_size=1"]
    assert main([*TRAIN, *exact]) == 0
    done = run_command(
        [*TORCHRUN, "-m", "bigner", *TRAIN, *exact, "strategy={kind: fsdp}", "run_dir=sharded"],
        project,
    )
    assert done.returncode == 0, done.stderr
    one, two = (
        read_predictions(project / run / "joined" / "predictions" / "test.tsv")
        for run in ("run", "sharded")
    )
    assert one.asked == two.asked
    assert one.predicted == two.predicted


def test_a_stopped_fold_names_the_command_that_goes_on(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*TRAIN, "training.stop_after=4"]) == 0
    assert "--folds 3 training.stop_after=null" in capsys.readouterr().err
    assert not (project / "run" / "joined").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--seeds", "1,2"], "--seeds and --folds are both given"),
        (
            ["checkpoint.resume=run/x"],
            "--folds begins several runs, and checkpoint.resume names one checkpoint",
        ),
        (
            ["data.fold={number: 1, of: 3}"],
            "--folds goes through all folds, and data.fold names one",
        ),
        (["--folds", "8"], "data.train has too few documents for 8 folds: 7"),
    ],
)
def test_wrong_folds(
    arguments: list[str], message: str, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*TRAIN, *arguments]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "data.fold={number: 4, of: 3}",
            "data.fold.number is 4 and data.fold.of is 3; set",
        ),
        ("data.fold={number: 1, of: 1}", "data.fold.of"),
    ],
)
def test_wrong_fields(
    override: str, message: str, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["validate", "run.yaml", override]) == 2
    assert message in capsys.readouterr().err


def test_a_fold_is_the_test_data(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    overrides = ["data.fold={number: 1, of: 3}", "data.test=train.conll"]
    assert main(["validate", "run.yaml", *overrides]) == 2
    assert "data.fold tests on a part of data.train" in capsys.readouterr().err


def test_data_that_changed_meanwhile(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(TRAIN) == 0
    told = "which has changed since the fold was trained"
    for changed in (
        CORPUS.replace("saw O\n", ""),
        CORPUS.replace("saw O\n", "met O\n"),
        # A label that was corrected.
        CORPUS.replace("Oslo B-PER", "Oslo B-LOC"),
        CORPUS.removesuffix("\n\nOslo B-LOC\nsaw O\nGreta B-PER\n") + "\n",
    ):
        (project / "train.conll").write_text(changed)
        assert main(TRAIN) == 1
        assert told in capsys.readouterr().err


def test_several_heads(project: Path) -> None:
    """Entities and plain classes are put together, each in a file of its own."""
    corpus = re.sub(r"^([A-Z]\w+ .+)$", r"\1 NOUN", CORPUS, flags=re.M)
    corpus = re.sub(r"^([a-z]\w+ .+)$", r"\1 VERB", corpus, flags=re.M)
    (project / "train.conll").write_text(corpus)
    heads = "data.heads={ner: {column: 1}, pos: {column: 2, kind: classes}}"
    assert main([*TRAIN, heads]) == 0
    joined = project / "run" / "joined"
    test = _json(joined / "summary.json")["test"]
    assert set(test["heads"]) == {"ner", "pos"}
    assert test["heads"]["pos"]["accuracy"] > 0.9
    assert (joined / "predictions" / "test-pos.tsv").read_text().count("\n\n") == 2 * len(NAMES) - 1
