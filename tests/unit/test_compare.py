"""Finished runs compared: found, told apart, named, scored; from folders as `train` leaves them."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from bigner.cli import run as bigner
from bigner.commands.compare import compare
from bigner.comparison import tables
from bigner.comparison.groups import group
from bigner.comparison.runs import find_runs
from bigner.comparison.scores import Comparison
from bigner.config.schema import RunConfig
from bigner.errors import DataError, UserError
from bigner.evaluation.bootstrap import paired_difference, resampled_f1
from bigner.evaluation.counts import count
from bigner.evaluation.metrics import score_tags
from bigner.predictions import write_predictions

SENTENCES = [
    (["Anna", "sleeps", "in", "Oslo"], ["B-PER", "O", "O", "B-LOC"]),
    (["Anna", "Berg"], ["B-PER", "I-PER"]),
    (["It", "rains"], ["O", "O"]),
    (["Oslo", "|", "Bergen"], ["B-LOC", "O", "B-LOC"]),
] * 5
WORDS = [words for words, _ in SENTENCES]
GOLD = [tags for _, tags in SENTENCES]
TAGS = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def predictions(seed: int, mistakes: float = 0.2) -> list[list[str]]:
    random = np.random.default_rng(seed)
    return [
        [str(random.choice(TAGS)) if random.random() < mistakes else tag for tag in tags]
        for tags in GOLD
    ]


def config_of(path: str, seed: int, **fields: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        "run_dir": path,
        "seed": seed,
        "model": {"name_or_path": "xlm-roberta-base"},
        "data": {"train": "train.conll", "test": "test.conll"},
    }
    for name, value in fields.items():
        *sections, key = name.split("__")
        place = values
        for section in sections:
            place = place.setdefault(section, {})
        place[key] = value
    return RunConfig.model_validate(values).model_dump(mode="json")


def finished(
    path: str,
    seed: int = 1,
    *,
    predicted: list[list[str]] | None = None,
    gold: list[list[str]] = GOLD,
    head: str | None = None,
    kept: bool = True,
    summary: dict[str, Any] | None = None,
    **fields: Any,
) -> Path:
    """A finished run, as `train` leaves it; its scores are those of its predictions."""
    folder = Path(path)
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(config_of(path, seed, **fields)))
    predicted = predicted or predictions(seed)
    scores = score_tags(gold, predicted, loss=0.5, words_without_pieces=0).as_dict()
    values = {
        "steps": 100,
        "validation": None,
        "test": scores,
        "world_size": 1,
        "tokens_per_second": 1000.0 + seed,
        "peak_memory_bytes": 10**9 + seed,
        "versions": {"torch": "2.11"},
        **(summary or {}),
    }
    (folder / "summary.json").write_text(json.dumps(values))
    if kept:
        name = f"test-{head}.tsv" if head else "test.tsv"
        write_predictions(folder / "predictions" / name, WORDS, {"tags": (gold, predicted)})
    return folder


def names(comparison: Comparison) -> list[str]:
    return [scored.group.name for scored in comparison.groups]


# ---------------------------------------------------------------- what is found


def test_runs_are_found_in_folders() -> None:
    finished("runs/b/seed-10")
    finished("runs/b/seed-9")
    finished("runs/b/seed-9.1")
    finished("runs/a")
    finished("runs/c/deeper/seed-1")
    Path("runs/notes.txt").write_text("mine")

    def found(*folders: str) -> list[str]:
        return [str(run) for run in find_runs([Path(folder) for folder in folders])[0]]

    assert found("runs/a") == ["runs/a"]
    assert found("runs/b") == ["runs/b/seed-9", "runs/b/seed-10"]
    assert found("runs") == ["runs/a", "runs/b/seed-9", "runs/b/seed-10"]
    # Each once, however it is named.
    twice = found("runs/b/seed-10", "runs/b", "./runs/a/../b", os.path.abspath("runs/a"))  # noqa: PTH100
    assert twice == ["runs/b/seed-10", "runs/b/seed-9", str(Path("runs/a").resolve())]


def test_a_run_with_seeds_in_its_folder_is_all_of_them() -> None:
    finished("run", 42)
    finished("run/seed-1", 1)
    runs, _ = find_runs([Path("run")])
    assert [run.seed for run in runs] == [42, 1]
    assert len(group(runs)) == 1


def test_unfinished_runs_are_left_out_and_named() -> None:
    finished("a/seed-1")
    (finished("a/seed-2", 2) / "summary.json").unlink()
    comparison = compare([Path("a")])
    assert comparison.warnings == ["a/seed-2 is not finished: left out"]
    assert len(comparison.groups[0].runs) == 1


# ---------------------------------------------------------------- groups and their names


def grouped(*runs: dict[str, Any]) -> dict[str, list[int]]:
    for i, fields in enumerate(runs):
        finished(f"{i}", **{"seed": i, **fields})
    found, _ = find_runs([Path(f"{i}") for i in range(len(runs))])
    return {members.name: [run.seed for run in members.runs] for members in group(found)}


def test_seeds_and_what_changes_no_result_do_not_tell_runs_apart() -> None:
    free = {
        "training__log_every": 7,
        "data__cache_dir": "cache",
        "evaluation__batch_size": 3,
        "checkpoint__every_steps": 5,
        "collective_timeout": 9.0,
        "tracking": ["tensorboard"],
    }
    assert list(grouped({}, {}, free).values()) == [[0, 1, 2]]


def test_groups_are_named_by_what_differs() -> None:
    low, high = {"training__learning_rate": 1e-5}, {"training__learning_rate": 0.001}
    assert grouped(high, low, high) == {
        "training.learning_rate=0.001": [0, 2],
        "training.learning_rate=1e-05": [1],
    }


def test_a_strategy_is_named_by_its_kind() -> None:
    assert grouped(
        {"strategy": {"kind": "zero", "stage": 2}},
        {"strategy": {"kind": "fsdp"}},
        {"precision": "bf16"},
    ) == {
        "precision=fp32\nstrategy.kind=zero": [0],
        "precision=fp32\nstrategy.kind=fsdp": [1],
        "precision=bf16\nstrategy.kind=single": [2],
    }


def test_two_stages_are_two_groups() -> None:
    stages = ({"strategy": {"kind": "zero", "stage": stage}} for stage in (2, 3))
    assert list(grouped({"strategy": {"kind": "fsdp"}}, *stages)) == [
        "strategy.kind=fsdp",
        "strategy.kind=zero\nstrategy.stage=2",
        "strategy.kind=zero\nstrategy.stage=3",
    ]


def test_world_sizes_are_told_apart() -> None:
    found = grouped({}, {"summary": {"world_size": 8}})
    assert found == {"world_size=1": [0], "world_size=8": [1]}


def test_long_values_are_shown_by_their_end() -> None:
    long = "corpora/a/folder/with/a/long/name"
    found = grouped({"data__train": f"{long}/a.conll"}, {"data__train": f"{long}/b.conll"})
    assert list(found) == [
        "data.train=...lder/with/a/long/name/a.conll",
        "data.train=...lder/with/a/long/name/b.conll",
    ]


def test_names_differ_where_values_do() -> None:
    end = "/a/folder/with/quite/a/long/name/train.conll"
    found = grouped({"data__train": f"x{end}"}, {"data__train": f"y{end}"})
    name = "data.train=...quite/a/long/name/train.conll"
    assert list(found) == [f"{name} (1)", f"{name} (2)"]


def test_the_only_group_is_named_by_its_folder() -> None:
    finished("runs/a/seed-1", 1)
    assert names(compare([Path("runs/a")])) == ["runs/a/seed-1"]
    finished("runs/a/seed-2", 2)
    assert names(compare([Path("runs/a")])) == ["runs/a"]


def test_one_seed_twice_is_told() -> None:
    finished("a", 1)
    finished("b", 1)
    (warning,) = compare([Path("a"), Path("b")]).warnings
    assert "a and b are one config with one seed (1)" in warning


def test_other_versions_are_told() -> None:
    finished("a", 1)
    finished("b", 2, summary={"versions": {"torch": "2.12"}})
    (warning,) = compare([Path("a"), Path("b")]).warnings
    assert warning == "the runs were made with different versions of torch: 2.11, 2.12"


# ---------------------------------------------------------------- what is compared


def two_groups() -> dict[str, list[list[list[str]]]]:
    """Learning rate -> the predictions of its seeds, whose runs lie in ``low`` and ``high``."""
    said = {"low": [predictions(1), predictions(2)], "high": [predictions(3, 0.6)]}
    for seed, predicted in enumerate(said["low"], start=1):
        finished(f"low/seed-{seed}", seed, predicted=predicted)
    finished("high/seed-1", 1, predicted=said["high"][0], training__learning_rate=1e-3)
    return said


def flat(sentences: list[list[str]]) -> list[str]:
    return [tag for sentence in sentences for tag in ("", *sentence)][1:]


def test_numbers_are_those_of_the_runs() -> None:
    said = two_groups()
    comparison = compare([Path("low"), Path("high")], resamples=500)
    assert comparison.warnings == []
    assert comparison.split == "test"
    low, high = comparison.groups
    of_low = [score_tags(GOLD, run, loss=0.0, words_without_pieces=0) for run in said["low"]]
    for name in ("f1", "precision", "recall", "accuracy"):
        values = [getattr(scores, name) for scores in of_low]
        assert low.mean(lambda run, name=name: getattr(run, name)) == pytest.approx(np.mean(values))
    assert low.f1_deviation == pytest.approx(np.std([run.f1 for run in of_low], ddof=1))
    assert high.f1_deviation is None
    for name in ("LOC", "PER"):
        expected = np.mean([scores.per_type[name].f1 for scores in of_low])
        assert low.f1_of_type[name] == pytest.approx(expected)

    assert low.difference is None
    counts = [count(flat(GOLD), flat(run)) for run in (*said["low"], *said["high"])]
    resampled = resampled_f1(counts, 500)
    means = [counts[2].f1, (counts[0].f1 + counts[1].f1) / 2]
    assert high.difference == paired_difference(*means, resampled[:, 2:], resampled[:, :2])
    # The same each time.
    again = compare([Path("low"), Path("high")], resamples=500)
    assert tables.as_json(again) == tables.as_json(comparison)


def test_the_baseline_may_be_another() -> None:
    two_groups()
    first = compare([Path("low"), Path("high")])
    other = compare([Path("low")], baseline=Path("high"))
    assert names(other) == names(first)[::-1]
    forward, backward = first.groups[1].difference, other.groups[1].difference
    assert forward is not None
    assert backward is not None
    assert backward.f1 == -forward.f1
    assert backward.p_value == forward.p_value


def test_the_split_is_test_where_there_is_one() -> None:
    for seed in (1, 2):
        finished(f"{seed}", seed, summary={"validation": {"f1": 0.5}})
    assert compare([Path("1"), Path("2")]).split == "test"
    scores = {"f1": 0.25, "precision": 0.5, "recall": 0.5, "accuracy": 1.0}
    finished("3", 3, kept=False, summary={"test": None, "validation": scores})
    found = compare([Path("3")])
    assert (found.split, found.groups[0].runs[0].f1) == ("validation", 0.25)
    left_out = compare([Path("1"), Path("3")])
    assert left_out.warnings == ["3 has no scores on test: left out"]


def test_another_test_set_is_told_and_not_compared() -> None:
    two_groups()
    gold = [["B-LOC", *tags[1:]] if i == 2 else tags for i, tags in enumerate(GOLD)]
    finished("other", 1, gold=gold, training__learning_rate=1e-4)
    comparison = compare([Path("low"), Path("high"), Path("other")], resamples=100)
    assert comparison.warnings == [
        "training.learning_rate=0.0001: no significance, not the same test set: "
        "other/predictions/test.tsv:9 has 'It' tagged B-LOC, where "
        "low/seed-1/predictions/test.tsv:9 has 'It' tagged O"
    ]
    assert [scored.difference is None for scored in comparison.groups] == [True, False, True]


def test_seeds_on_different_test_sets_are_told() -> None:
    gold = [["B-LOC", *tags[1:]] if i == 2 else tags for i, tags in enumerate(GOLD)]
    finished("a/seed-1", 1)
    finished("a/seed-2", 2, gold=gold)
    (warning,) = compare([Path("a")]).warnings
    assert "not the same test set: a/seed-2/predictions/test.tsv:9" in warning


def test_runs_without_predictions_are_compared_without_significance() -> None:
    two_groups()
    finished("old", 1, kept=False, training__learning_rate=1e-4)
    comparison = compare([Path("low"), Path("high"), Path("old")], resamples=100)
    assert comparison.warnings == [
        "training.learning_rate=0.0001: no significance, old left no predictions of one head "
        "of tags"
    ]
    old = comparison.groups[2]
    assert old.runs[0].f1 == json.loads(Path("old/summary.json").read_text())["test"]["f1"]
    assert comparison.groups[1].difference is not None
    assert old.difference is None
    # Nothing to compare with, then.
    backward = compare([Path("low"), Path("high")], baseline=Path("old"))
    assert [scored.difference for scored in backward.groups] == [None] * 3


def test_files_with_and_without_confidences_are_compared() -> None:
    finished("a", 1)
    finished("b", 2, precision="bf16")
    before = compare([Path("a"), Path("b")])
    sure = [["0.9000"] * len(sentence) for sentence in WORDS]
    columns = {"tags": (GOLD, predictions(2), sure)}
    write_predictions(Path("b/predictions/test.tsv"), WORDS, columns)
    after = compare([Path("a"), Path("b")])
    assert after.groups[1].difference == before.groups[1].difference
    assert after.groups[1].difference is not None


def test_predictions_that_are_not_the_summarys_are_told() -> None:
    folder = finished("a", 1)
    write_predictions(folder / "predictions" / "test.tsv", WORDS, {"tags": (GOLD, GOLD)})
    comparison = compare([Path("a")])
    (warning,) = comparison.warnings
    assert warning.startswith("a: the predictions give F1 1.000000 and the summary says 0.")
    assert comparison.groups[0].runs[0].f1 == 1.0


def two_heads(path: str, seed: int) -> Path:
    """A run of two heads, of which that of classes chose the weights."""
    data = {
        "data__columns": {"words": 0},
        "data__heads": {"ner": {"column": 1}, "pos": {"column": 2, "kind": "classes"}},
    }
    ner = score_tags(GOLD, predictions(seed), loss=0.5, words_without_pieces=0).as_dict()
    pos = {"precision": 0.9, "recall": 0.8, "f1": 0.85, "accuracy": 0.95, "per_type": {}}
    scores = {**pos, "heads": {"ner": ner, "pos": pos}}
    return finished(path, seed, head="ner", summary={"test": scores}, **data)


def test_heads() -> None:
    two_heads("a", 1)
    chosen = compare([Path("a")])
    (warning,) = chosen.warnings
    assert warning.startswith("a has several heads (ner, pos): scores are those of the head that")
    assert (chosen.groups[0].runs[0].f1, chosen.groups[0].runs[0].counts) == (0.85, None)
    assert compare([Path("a")], head="pos").groups[0].runs[0].f1 == 0.85
    found = compare([Path("a")], head="ner")
    assert found.warnings == []
    assert found.groups[0].runs[0].f1 == count(flat(GOLD), flat(predictions(1))).f1
    with pytest.raises(UserError, match="a has no head 'x'; it has ner, pos"):
        compare([Path("a")], head="x")


def test_one_head_against_the_same_beside_another() -> None:
    two_heads("both", 2)
    finished("alone", 1, data__columns={"words": 0}, data__heads={"ner": {"column": 1}})
    found = compare([Path("alone"), Path("both")], head="ner", resamples=100)
    assert found.warnings == []
    assert found.groups[1].difference is not None
    first, second = names(found)
    assert 'data.heads=["ner"]' in first
    assert 'data.heads=["ner", "pos"]' in second


def test_a_head_of_classes_is_compared_without_significance() -> None:
    data = {
        "data__columns": {"words": 0},
        "data__heads": {"pos": {"column": 1, "kind": "classes"}},
    }
    finished("a", 1, **data)
    finished("b", 1, training__learning_rate=1e-4, **data)
    found = compare([Path("a"), Path("b")], resamples=100)
    assert [run.counts for scored in found.groups for run in scored.runs] == [None, None]
    assert len(found.warnings) == 2


# ---------------------------------------------------------------- what is printed and written


def run(*arguments: str) -> int:
    return bigner(["compare", *arguments])


def test_tables_are_whole_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    two_groups()
    assert run("low", "high", "--resamples", "100") == 0
    out = capsys.readouterr().out
    comparison = compare([Path("low"), Path("high")], resamples=100)
    low, high = comparison.groups
    assert f"{low.mean(lambda run: run.f1):.4f} ± {low.f1_deviation:.4f}" in out
    assert "training.learning_rate=1e-05" in out
    assert high.difference is not None
    difference = high.difference
    assert f"{difference.f1:+.4f}" in out
    assert f"{difference.low:+.4f} to {difference.high:+.4f}" in out
    assert "1.00 GB" in out
    assert "1,002" in out
    assert "…" not in out


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    two_groups()
    assert run("low", "high", "--json", "--resamples", "100", "--output", "table.json") == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads(Path("table.json").read_text())
    low, high = printed["groups"]
    assert low["fields"] == {"training.learning_rate": 1e-5}
    assert [run["seed"] for run in low["runs"]] == [1, 2]
    assert low["peak_memory_bytes"] == 10**9 + 2
    assert low["tokens_per_second"] == 1001.5
    assert low["steps"] == 100
    assert low["difference"] is None
    assert set(high["difference"]) == {"f1", "low", "high", "p_value"}


def test_csv_and_markdown() -> None:
    two_groups()
    for name in ("table.csv", "table.md"):
        assert run("low", "high", "--output", name, "--resamples", "100") == 0
    comparison = compare([Path("low"), Path("high")], resamples=100)
    with Path("table.csv").open(newline="") as stream:
        low, high = csv.DictReader(stream)
    assert float(low["f1"]) == comparison.groups[0].mean(lambda run: run.f1)
    assert (low["difference_p_value"], low["runs"]) == ("", "2")
    assert comparison.groups[1].difference is not None
    assert float(high["difference_f1"]) == comparison.groups[1].difference.f1
    assert float(high["f1 PER"]) == comparison.groups[1].f1_of_type["PER"]
    markdown = Path("table.md").read_text().splitlines()
    header = markdown.index(next(line for line in markdown if line.startswith("| runs of")))
    assert markdown[header + 1].count("|") == markdown[header].count("|")
    assert markdown[header + 2].startswith("| training.learning_rate=1e-05 | 2 | ")


def test_bars_in_names_do_not_break_markdown() -> None:
    finished("a", 1, data__train="a|b")
    finished("b", 1)
    text = tables.as_file(compare([Path("a"), Path("b")], resamples=100), Path("t.md"))
    assert "| data.train=a\\|b | 1 |" in text


# ---------------------------------------------------------------- wrong input


def broken(name: str, text: str | bytes) -> Callable[[], object]:
    def prepare() -> None:
        folder = finished("a")
        path = folder / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())

    return prepare


def of_several_configs() -> None:
    finished("a/seed-1")
    finished("a/seed-2", 2, precision="bf16")


WRONG: list[tuple[Callable[[], object], list[str], str]] = [
    (lambda: None, ["nowhere"], "there is no folder 'nowhere'; name folders of finished runs"),
    (lambda: Path("f").write_text(""), ["f"], "there is no folder 'f'"),
    (lambda: Path("empty").mkdir(), ["empty"], "empty holds no run: neither it nor a folder in it"),
    (
        lambda: finished("a").joinpath("summary.json").unlink(),
        ["a"],
        "no run is finished: a",
    ),
    (lambda: finished("a"), ["a", "--split", "train"], "--split must be test, validation"),
    (lambda: finished("a"), ["a", "--split", "validation"], "no run has scores on validation"),
    (lambda: finished("a"), ["a", "--output", "t.txt"], "--output must end in .md, .json, .csv"),
    (lambda: finished("a"), ["a", "--output", "no/t.md"], "--output 'no/t.md' cannot be written"),
    (lambda: finished("a"), ["a", "--head", "x"], "a has no head 'x'; it has tags"),
    (lambda: finished("a"), ["a", "--baseline", "b"], "there is no folder 'b'"),
    (
        of_several_configs,
        ["a", "--baseline", "a"],
        "--baseline a holds runs of 2 configs (precision=fp32 and precision=bf16); name the",
    ),
    (broken("summary.json", "{"), ["a"], "a/summary.json cannot be read"),
    (broken("summary.json", "[]"), ["a"], "a/summary.json is not the summary of a run"),
    (
        broken("summary.json", '{"test": {"f1": "good"}}'),
        ["a"],
        "a/summary.json: test.f1 must be a number; got 'good'",
    ),
    (broken("config.yaml", "a: ["), ["a"], "a/config.yaml: cannot be read; leave this run out"),
    (broken("config.yaml", "run_dir: x"), ["a"], "a/config.yaml: cannot be read"),
    (broken("predictions/test.tsv", "Anna O"), ["a"], "test.tsv:1: not word, gold tag"),
    (broken("predictions/test.tsv", b"\xff"), ["a"], "a/predictions/test.tsv is not UTF-8"),
]


@pytest.mark.parametrize(
    ("prepare", "arguments", "told"),
    WRONG,
    ids=[" ".join(case[1]) + case[2][:20] for case in WRONG],
)
def test_wrong_input_is_one_message(
    prepare: Callable[[], object], arguments: list[str], told: str
) -> None:
    prepare()
    with pytest.raises(UserError) as caught:
        run(*arguments)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    "damaged", [None, 7, "ner", [], {}, {"ner": None}, {"ner": [0.5]}], ids=str
)
@pytest.mark.parametrize("command", ["compare", "report"])
def test_a_summary_whose_heads_are_damaged(command: str, damaged: object) -> None:
    path = two_heads("a", 1) / "summary.json"
    summary = json.loads(path.read_text())
    summary["test"]["heads"] = damaged
    path.write_text(json.dumps(summary))
    with pytest.raises(UserError) as caught:
        bigner([command, "a", "--head", "ner"])
    assert str(caught.value) == "a/summary.json: test.heads has no scores of ner"
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("command", ["compare", "report"])
def test_a_summary_of_no_end(command: str) -> None:
    (finished("a") / "summary.json").write_text("[" * 100_000)
    with pytest.raises(UserError, match=r"a/summary\.json cannot be read: maximum recursion"):
        bigner([command, "a"])


def test_a_summary_without_scores() -> None:
    finished("a", kept=False, summary={"test": {"f1": 0.5}})
    with pytest.raises(UserError, match=r"a/summary\.json has no test\.precision"):
        compare([Path("a")])


@pytest.mark.parametrize(
    "arguments",
    [[], ["a", "--resamples", "0"], ["a", "--resamples", "x"], ["a", "--splitt", "test"]],
)
def test_wrong_use(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*arguments) == 2
    assert "Error" in capsys.readouterr().err


def test_data_errors_are_user_errors() -> None:
    assert issubclass(DataError, UserError)
