"""The report of a run: what is wrong, how often, how sure, and that the page holds just that."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bigner.cli import run as bigner
from bigner.errors import DataError, UserError
from bigner.evaluation.bootstrap import paired_difference, resampled_f1
from bigner.evaluation.counts import TaggedWords, count
from bigner.evaluation.metrics import score_tags
from bigner.report.browser import script_json
from bigner.report.charts import charts, reliability_chart
from bigner.report.confidence import LineConfidences, calibration
from bigner.report.course import Curve, read_course
from bigner.report.matching import KINDS, Span, SpanError, errors_of
from bigner.report.scores import score_types
from bigner.report.sentences import WrongSentence, wrong_sentences
from bigner.report.tallies import confusion, kinds_of_errors, sure_errors
from tests.finished_run import logged, write_run

HOSTILE = "</script><img src=x onerror=document.title='pwned'>"
WORDS = [
    ["Anna", "Berg", "sleeps", "in", "New", "Oslo"],
    ["It", "rains", "\u2028"],
    ["Oslo", HOSTILE, "Bergen", "&amp;", "<!--"],
    ["Anna", "and", "Acme", "Ltd"],
]
GOLD = [
    ["B-PER", "I-PER", "O", "O", "B-LOC", "I-LOC"],
    ["O", "O", "O"],
    ["B-LOC", "O", "B-LOC", "O", "O"],
    ["B-PER", "O", "B-ORG", "I-ORG"],
]
# A boundary, a spurious one, a type and a missed one, and the last wrong in both.
FIRST = [
    ["B-PER", "I-PER", "O", "O", "O", "B-LOC"],
    ["B-PER", "O", "O"],
    ["B-PER", "O", "O", "O", "O"],
    ["B-PER", "O", "B-LOC", "O"],
]
# The first mended, the second still so, the third wrong in another way, the last as before.
SECOND = [
    GOLD[0],
    ["B-PER", "O", "O"],
    ["B-LOC", "O", "O", "O", "O"],
    ["B-PER", "O", "B-LOC", "O"],
]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def flat(sentences: list[list[str]]) -> list[str]:
    return [tag for sentence in sentences for tag in ("", *sentence)][1:]


def tagged(gold: list[list[str]], predicted: list[list[str]]) -> TaggedWords:
    return TaggedWords.of(flat(gold), flat(predicted))


def asked(words: list[list[str]], gold: list[list[str]]) -> list[str]:
    lines = zip(flat(words), flat(gold), strict=True)
    return [f"{word}\t{tag}" if word else "" for word, tag in lines]


def wrong(*predicted: list[list[str]]) -> list[WrongSentence]:
    runs = [tagged(GOLD, tags) for tags in predicted]
    return wrong_sentences(asked(WORDS, GOLD), runs, [None] * len(runs))


# ---------------------------------------------------------------- what is wrong


def spans(text: str) -> list[Span]:
    """``0-1 PER, 3-3 LOC`` as entities."""
    found = (part.split() for part in text.split(",") if part.strip())
    return [Span(*map(int, place.split("-")), kind) for place, kind in found]


@pytest.mark.parametrize(
    ("gold", "predicted", "expected"),
    [
        ("0-1 PER", "0-1 PER", []),
        ("0-1 PER", "", ["missed 0-1"]),
        ("", "0-1 PER", ["spurious 0-1"]),
        ("0-1 PER", "0-1 LOC", ["type 0-1 0-1"]),
        ("0-1 PER", "0-0 PER", ["boundary 0-1 0-0"]),
        ("0-1 PER", "1-2 LOC", ["boundary and type 0-1 1-2"]),
        # Neighbours share no word.
        ("0-1 PER", "2-3 PER", ["missed 0-1", "spurious 2-3"]),
        # One predicted as two: one of them is its partner, the other one too many.
        ("0-3 PER", "0-0 PER, 1-3 PER", ["spurious 0-0", "boundary 0-3 1-3"]),
        # The same type goes before more words in common.
        ("0-3 PER", "0-0 PER, 1-3 LOC", ["boundary 0-3 0-0", "spurious 1-3"]),
        # Of equals the earlier gold entity, then the earlier predicted one.
        ("0-1 PER, 2-3 PER", "1-2 PER", ["boundary 0-1 1-2", "missed 2-3"]),
        ("0-1 PER", "0-0 PER, 1-1 PER", ["boundary 0-1 0-0", "spurious 1-1"]),
        # What is correct is nobody's partner.
        ("0-0 PER, 1-2 LOC", "0-0 PER, 2-2 LOC", ["boundary 1-2 2-2"]),
        # Each is paired at most once, and the second choice is better than none.
        ("0-2 PER, 3-4 LOC", "2-3 PER, 4-4 PER", ["boundary 0-2 2-3", "boundary and type 3-4 4-4"]),
    ],
)
def test_errors(gold: str, predicted: str, expected: list[str]) -> None:
    def told(error: SpanError) -> str:
        sides = (span for span in (error.gold, error.predicted) if span)
        return " ".join([error.kind, *(f"{span.first}-{span.last}" for span in sides)])

    assert sorted(map(told, errors_of(spans(gold), spans(predicted)))) == sorted(expected)


TAGS = st.sampled_from(["O", *(f"{prefix}-{kind}" for prefix in "BI" for kind in ("A", "B", "C"))])
CORPUS = st.lists(st.lists(st.tuples(TAGS, TAGS), min_size=1, max_size=12), min_size=1, max_size=5)


# A busy machine is slow.
@settings(deadline=None)
@given(CORPUS)
def test_every_entity_is_counted_once(corpus: list[list[tuple[str, str]]]) -> None:
    gold, predicted = ([[pair[i] for pair in sentence] for sentence in corpus] for i in (0, 1))
    words = [["word"] * len(sentence) for sentence in corpus]
    run = tagged(gold, predicted)
    found = wrong_sentences(asked(words, gold), [run], [None])
    _, *types = score_types([run], resamples=10)
    rows = confusion(found, types, 0)
    for i, scored in enumerate(types):
        assert sum(cell.count for cell in rows[i]) == scored.runs[0].support
        assert sum(row[i].count for row in rows) == scored.runs[0].predicted
    kinds = kinds_of_errors(found, 0)
    support, said, correct = (
        sum(getattr(scored.runs[0], name) for scored in types)
        for name in ("support", "predicted", "correct")
    )
    pairs = kinds["boundary"] + kinds["type"] + kinds["boundary and type"]
    assert support == correct + pairs + kinds["missed"]
    assert said == correct + pairs + kinds["spurious"]
    for sentence in found:
        for error in sentence.errors[0]:
            assert error.gold != error.predicted
            assert error.gold is None or error.gold in sentence.gold
            assert error.predicted is None or error.predicted in sentence.predicted[0]


def test_sentences_by_hand() -> None:
    first, second, third, last = wrong(FIRST)
    assert [sentence.line for sentence in (first, second, third, last)] == [1, 8, 12, 18]
    assert [sentence.words for sentence in (first, second, third, last)] == WORDS
    assert first.errors == [[SpanError(Span(4, 5, "LOC"), Span(5, 5, "LOC"))]]
    kinds = [[error.kind for error in sentence.errors[0]] for sentence in wrong(FIRST)]
    assert kinds == [["boundary"], ["spurious"], ["type", "missed"], ["boundary and type"]]
    assert first.change is None


def test_what_a_second_run_changed() -> None:
    assert [sentence.change for sentence in wrong(FIRST, SECOND)] == [
        "fixed",
        None,
        "changed",
        None,
    ]
    assert [sentence.change for sentence in wrong(SECOND, FIRST)] == [
        "broken",
        None,
        "changed",
        None,
    ]
    assert wrong(GOLD, GOLD) == []


def test_other_tags_for_the_same_entities_change_nothing() -> None:
    stray = [["I-PER", "I-PER", "O", "O", "B-LOC", "I-LOC"], *FIRST[1:]]
    mended = [GOLD[0], *FIRST[1:]]
    assert [sentence.change for sentence in wrong(stray, mended)] == [None] * 3


def test_confusions_by_hand() -> None:
    sentences = wrong(FIRST)
    _, *types = score_types([tagged(GOLD, FIRST)], resamples=10)
    assert [scored.name for scored in types] == ["LOC", "ORG", "PER"]
    counts = [[cell.count for cell in row] for row in confusion(sentences, types, 0)]
    assert counts == [
        # LOC, ORG, PER, missed
        [1, 0, 1, 1],
        [1, 0, 0, 0],
        [0, 0, 2, 0],
        [0, 0, 1, 0],
    ]
    assert kinds_of_errors(sentences, 0) == dict(zip(KINDS, (1, 1, 1, 1, 1), strict=True))


# ---------------------------------------------------------------- how sure


def random_tags(seed: int, mistakes: float) -> list[list[str]]:
    random = np.random.default_rng(seed)
    tags = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
    return [
        [str(random.choice(tags)) if random.random() < mistakes else tag for tag in sentence]
        for sentence in GOLD * 25
    ]


def test_scores_are_those_of_the_run() -> None:
    predicted = random_tags(1, 0.3)
    expected = score_tags(GOLD * 25, predicted, loss=0.0, words_without_pieces=0)
    everything, *types = score_types([tagged(GOLD * 25, predicted)], resamples=200)
    assert [scored.name for scored in types] == list(expected.per_type)
    pairs = [(everything, expected), *((s, expected.per_type[s.name]) for s in types)]
    for scored, of_seqeval in pairs:
        found = scored.runs[0]
        for name in ("precision", "recall", "f1"):
            estimate = getattr(found, name)
            assert estimate.value == pytest.approx(getattr(of_seqeval, name), abs=1e-12)
            assert 0 <= estimate.low <= estimate.value <= estimate.high <= 1
        assert scored.difference is None
    assert types[0].runs[0].support == expected.per_type["LOC"].support


def test_intervals_are_the_bootstraps() -> None:
    first, second = (tagged(GOLD * 25, random_tags(seed, 0.3)) for seed in (1, 2))
    everything, *_ = score_types([first, second], resamples=300)
    counts = [count(flat(GOLD * 25), flat(random_tags(seed, 0.3))) for seed in (1, 2)]
    resampled = resampled_f1(counts, 300)
    for run, found in enumerate(everything.runs):
        low, high = np.quantile(resampled[:, run], [0.025, 0.975])
        assert (found.f1.low, found.f1.high) == pytest.approx((low, high), abs=1e-12)
    expected = paired_difference(
        everything.runs[1].f1.value,
        everything.runs[0].f1.value,
        resampled[:, 1:],
        resampled[:, :1],
    )
    assert everything.difference is not None
    assert everything.difference.f1 == expected.f1
    assert everything.difference.low == pytest.approx(expected.low, abs=1e-12)
    assert everything.difference.p_value == expected.p_value


def test_more_sentences_are_surer() -> None:
    def width(times: int) -> float:
        run = tagged(GOLD * times, FIRST * times)
        f1 = score_types([run], resamples=500)[0].runs[0].f1
        assert f1.low is not None
        assert f1.high is not None
        return f1.high - f1.low

    # By the root of their number.
    assert width(5) / width(20) == pytest.approx(2, rel=0.2)


def test_what_there_is_nothing_to_divide_by_is_nothing() -> None:
    everything, *types = score_types([tagged(GOLD, FIRST)], resamples=200)
    org = next(scored.runs[0] for scored in types if scored.name == "ORG")
    # Never predicted, and in one sentence of gold: precision has no interval, recall is always 0.
    assert (org.precision.value, org.precision.low, org.precision.high) == (0.0, None, None)
    assert (org.recall.value, org.recall.low, org.recall.high) == (0.0, 0.0, 0.0)
    nothing = [["O"], ["O"]]
    (everything,) = score_types([tagged(nothing, nothing)], resamples=10)
    assert everything.runs[0].f1.low is None


# ---------------------------------------------------------------- confidence

# Of FIRST; a word without pieces has none. The surest mistake is the missed Bergen.
SURE = [
    ["0.9000", "0.8000", "0.9900", "0.9900", "0.5000", "0.6000"],
    ["0.7000", "0.9999", ""],
    ["0.4000", "0.9990", "0.9800", "", "0.9000"],
    ["0.9500", "0.9990", "0.8500", "0.7500"],
]


def sure() -> LineConfidences:
    return LineConfidences([float(text or "nan") for text in flat(SURE)])


def test_confidences_of_stretches() -> None:
    found = LineConfidences([0.5, 0.25, np.nan, np.nan, 1.0])
    first, last = np.array([0, 1, 2, 0, 4]), np.array([1, 2, 3, 4, 4])
    expected = [0.375, 0.25, np.nan, 1.75 / 3, 1.0]
    assert found.means(first, last) == pytest.approx(expected, abs=1e-6, nan_ok=True)


def test_how_sure_a_run_was_of_its_errors() -> None:
    runs = [tagged(GOLD, FIRST), tagged(GOLD, SECOND)]
    found = wrong_sentences(asked(WORDS, GOLD), runs, [sure(), None])
    assert [sentence.sure[0] for sentence in found] == [[0.55], [0.7], [0.4, 0.98], [0.8]]
    assert [sentence.sure[1] for sentence in found] == [[], [None], [None], [None]]
    assert [sure_errors(found, run) for run in (0, 1)] == [1, 0]


@pytest.mark.parametrize(
    ("gold", "predicted", "expected"),
    [
        # The wrong tags alone.
        ("B-X I-X I-X O", "B-X I-X I-X I-X", [0.8]),
        ("B-X I-X O O", "B-Y I-Y O O", [0.4]),
        ("B-X I-X I-X O", "O O O O", [0.5]),
        ("O B-X I-X O", "B-X I-X O O", [0.5]),
        # What is too many has a right tag, and ends too soon or begins too late.
        ("B-X I-X I-X O", "B-X B-X I-X O", [0.5, 0.5]),
        ("B-X I-X I-X O", "B-X O I-X O", [0.5, 0.5]),
        ("B-X I-X I-X O", "B-X I-X O I-X", [0.7, 0.8]),
    ],
)
def test_how_sure_an_error_is(gold: str, predicted: str, expected: list[float]) -> None:
    """Of four words with 0.3, 0.5, 0.7 and 0.8, between sentences that are as right as they are
    sure."""
    around = ["B-X", "I-X"]
    there, here = [around, gold.split(), around], [around, predicted.split(), around]
    known = LineConfidences([1.0, 1.0, np.nan, 0.3, 0.5, 0.7, 0.8, np.nan, 1.0, 1.0])
    words = [["word"] * len(tags) for tags in there]
    (found,) = wrong_sentences(asked(words, there), [tagged(there, here)], [known])
    assert found.sure[0] == pytest.approx(expected)


@settings(deadline=None)
@given(CORPUS)
def test_every_error_has_a_confidence(corpus: list[list[tuple[str, str]]]) -> None:
    """For of the tags of its words and of those beside them one at least is wrong."""
    gold, predicted = ([[pair[i] for pair in sentence] for sentence in corpus] for i in (0, 1))
    words = [["word"] * len(sentence) for sentence in corpus]
    run = tagged(gold, predicted)
    values = LineConfidences(np.where(run.gold == run.predicted, 1.0, 0.25))
    for sentence in wrong_sentences(asked(words, gold), [run], [values]):
        assert sentence.sure[0] == [0.25] * len(sentence.errors[0])


def test_a_missed_entity_of_words_without_pieces() -> None:
    gold, predicted = [["B-LOC", "O"]], [["O", "O"]]
    known = [LineConfidences([np.nan, 0.9])]
    (found,) = wrong_sentences(asked([["a", "b"]], gold), [tagged(gold, predicted)], known)
    assert found.sure == [[None]]


def test_calibration_by_hand() -> None:
    found = calibration(tagged(GOLD, FIRST), sure())
    assert found is not None
    # The third sentence's Oslo, the first one's, It, Anna Berg with Acme, and Anna.
    assert [each.entities for each in found.bins] == [1, 1, 1, 2, 1]
    assert [each.confidence for each in found.bins] == pytest.approx([0.4, 0.6, 0.7, 0.85, 0.95])
    assert [each.correct for each in found.bins] == [0, 0, 0, 0.5, 1]
    assert found.entities == 6
    assert found.correct == pytest.approx(2 / 6)
    assert found.confidence == pytest.approx((0.4 + 0.6 + 0.7 + 2 * 0.85 + 0.95) / 6)
    assert found.expected_error == pytest.approx((0.4 + 0.6 + 0.7 + 2 * 0.35 + 0.05) / 6)


def test_calibration_of_nothing() -> None:
    nothing = [["O"], ["O"]]
    assert calibration(tagged(nothing, nothing), LineConfidences([0.9, np.nan, 0.9])) is None
    some = [["B-LOC"], ["O"]]
    assert calibration(tagged(some, some), LineConfidences([np.nan, np.nan, 0.9])) is None


def test_a_run_is_drawn_as_sure_as_it_is_right() -> None:
    chart = reliability_chart([None, calibration(tagged(GOLD, FIRST), sure())])
    assert chart is not None
    assert "var(--run-b)" in chart.svg
    assert "var(--run-a)" not in chart.svg
    assert re.findall(r"#[0-9a-f]{6}\b", chart.svg) == []
    assert reliability_chart([None, None]) is None


def test_the_page_of_a_run_that_knows_how_sure_it_was() -> None:
    a_run(confidences=SURE)
    page = page_of("a")
    errors = [error for one in page.data["sentences"] for error in one["runs"][0]["errors"]]
    assert [error[3] for error in errors] == [0.55, 0.7, 0.4, 0.98, 0.8]
    assert sum(tag == "svg" for tag, _ in page.tags) == 5
    assert "left no confidences" not in page.text
    assert ("option", {"value": "confidence"}) in page.tags


def test_a_run_of_an_earlier_version_beside_one_that_knows() -> None:
    a_run("a")
    a_run("b", SECOND, confidences=SURE)
    page = page_of("a", "b")
    assert "a left no confidences" in page.text
    assert "b left no confidences" not in page.text
    runs = page.data["sentences"][1]["runs"]
    assert [run["errors"][0][3] for run in runs] == [None, 0.7]
    page = page_of("a")
    assert ("option", {"value": "confidence"}) not in page.tags
    assert [a for _, a in page.tags if "data-order" in a] == []


# ---------------------------------------------------------------- the course


def test_a_course_is_read() -> None:
    Path("metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in logged()))
    course = read_course(Path("metrics.jsonl"))
    assert course is not None
    assert course.skipped == [1]
    assert np.isnan(course.loss.values[0])
    assert course.loss.values[1:] == [2.0 / step for step in range(2, 41)]
    assert course.validation_f1 == Curve([10, 20, 30, 40], [0.6, 0.7, 0.8, 0.9])
    assert course.is_scaled
    assert course.loss_scale.turns() == Curve([1, 2, 40], [65536.0, 32768.0, 32768.0])


def test_of_several_heads_one_is_drawn() -> None:
    line = {"step": 1, "split": "validation", "f1": 0.1, "ner/f1": 0.5, "pos/f1": 0.9}
    Path("metrics.jsonl").write_text(json.dumps(line) + "\n")
    course = read_course(Path("metrics.jsonl"), "ner")
    assert course is not None
    assert course.validation_f1.values == [0.5]


def test_long_courses_are_thinned_by_means() -> None:
    thin = Curve(list(range(1, 1001)), [1.0, 3.0] * 500).thinned(400)
    assert len(thin.steps) == 334
    assert thin.steps[:2] == [2.0, 5.0]
    assert thin.values[:2] == pytest.approx([5 / 3, 7 / 3])
    gap = Curve([1, 2, 3, 4], [np.nan, np.nan, 2.0, np.nan]).thinned(2)
    assert np.isnan(gap.values[0])
    assert gap.values[1] == 2.0


def test_charts_are_of_what_there_is_and_the_same_each_time() -> None:
    Path("metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in logged()))
    course = read_course(Path("metrics.jsonl"))
    assert course is not None
    drawn = charts([course, course])
    assert [chart.title for chart in drawn] == [
        "Loss",
        "Validation F1",
        "Learning rate",
        "Loss scale",
    ]
    assert charts([course, course]) == drawn
    ids = [found for chart in drawn for found in re.findall(r'\bid="([^"]+)"', chart.svg)]
    assert [name for name, times in Counter(ids).items() if times > 1] == []
    for chart in drawn:
        used = set(re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', chart.svg))
        assert {one or other for one, other in used} <= set(ids)
        assert "var(--run-a)" in chart.svg
        assert "var(--run-b)" in chart.svg
        # Every colour is the page's.
        assert re.findall(r"#[0-9a-f]{6}\b", chart.svg) == []
    assert charts([None]) == []
    # A colour is a run's, whatever the other one left.
    assert all("var(--run-a)" not in chart.svg for chart in charts([None, course]))


# ---------------------------------------------------------------- the page


class Page(HTMLParser):
    """What a page is made of."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data: str) -> None:
        if self.cdata_elem == "script":
            self.scripts[-1] += data
        elif self.cdata_elem is None:
            self.text += data

    @property
    def data(self) -> Any:
        return json.loads(self.scripts[0])


def a_run(name: str = "a", predicted: list[list[str]] = FIRST, **more: Any) -> Path:
    return write_run(Path(name), WORDS, GOLD, predicted, **more)


def page_of(*arguments: str) -> Page:
    assert bigner(["report", *arguments]) == 0
    return Page(Path("report.html").read_text(encoding="utf-8"))


def test_the_page_of_a_run(capsys: pytest.CaptureFixture[str]) -> None:
    a_run()
    page = page_of("a")
    assert capsys.readouterr().out == "report.html is the report; open it in a browser\n"
    summary = json.loads(Path("a/summary.json").read_text())["test"]
    for value in (summary["f1"], summary["precision"], summary["strict"]["f1"], summary["loss"]):
        assert f"{value:.4f}" in page.text
    for told in ("xlm-roberta-base", "single, world size 2", "fp32", "torch 2.11", "UTC"):
        assert told in page.text
    assert sum(tag == "svg" for tag, _ in page.tags) == 4
    assert page.data["types"] == ["LOC", "ORG", "PER"]
    assert [sentence["words"] for sentence in page.data["sentences"]] == WORDS
    third = page.data["sentences"][2]
    assert third["gold"] == [[0, 0, 0], [2, 2, 0]]
    assert third["runs"] == [{"spans": [[0, 0, 2]], "errors": [[1, 0, 0, None], [3, 1, -1, None]]}]
    assert third["change"] == -1


def test_the_same_run_is_the_same_page() -> None:
    a_run()
    page_of("a")
    first = Path("report.html").read_bytes()
    page_of("a", "--output", "again.html")
    assert Path("again.html").read_bytes() == first


def test_two_runs() -> None:
    a_run("a")
    a_run("b", SECOND, precision="bf16", summary={"versions": {"torch": "2.12"}})
    page = page_of("a", "b")
    assert [sentence["change"] for sentence in page.data["sentences"]] == [0, -1, 2, -1]
    assert len(page.data["sentences"][0]["runs"]) == 2
    assert "1 field differs" in page.text
    assert "the runs were made with different versions of torch: 2.11, 2.12" in page.text
    assert "p = " in page.text


def test_what_is_in_a_run_is_no_markup() -> None:
    kind = "<b>X"
    gold = [[tag.replace("ORG", kind) for tag in tags] for tags in GOLD]
    summary = {"test": {"f1": 0.5}, "versions": {"<script>alert(1)</script>": "<i>"}}
    model = {"name_or_path": HOSTILE}
    write_run(Path("a"), WORDS, gold, FIRST, summary=summary, model=model)
    page = page_of("a")
    assert {"img", "b>x"} & {tag for tag, _ in page.tags} == set()
    assert len(page.scripts) == 2
    assert HOSTILE in page.text
    assert kind in page.text
    assert page.data["types"] == [kind, "LOC", "PER"]
    assert page.data["sentences"][2]["words"][1] == HOSTILE
    assert "the summary says 0.500000; the predictions count" in page.text


@settings(deadline=None)
@given(st.recursive(st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_json_in_a_script_is_json(values: Any) -> None:
    text = script_json([values, HOSTILE, "\u2028\u2029<!--&"])
    assert set("<>&\u2028\u2029").isdisjoint(text)
    assert json.loads(text) == [values, HOSTILE, "\u2028\u2029<!--&"]


def test_the_page_asks_for_nothing() -> None:
    a_run()
    page = page_of("a")
    policy = next(a["content"] for _, a in page.tags if a.get("http-equiv"))
    assert policy is not None
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    digest = base64.b64encode(hashlib.sha256(page.scripts[1].encode()).digest()).decode()
    assert rules["script-src"] == f"'sha256-{digest}'"
    assert set(rules.values()) == {"'none'", rules["script-src"], "'unsafe-inline'"}
    links = [
        value
        for _, attributes in page.tags
        for name, value in attributes.items()
        if name in ("src", "href", "xlink:href", "srcset", "action", "data")
    ]
    assert [link for link in links if not str(link).startswith("#")] == []
    assert [a for _, a in page.tags if any(name.startswith("on") for name in a)] == []
    text = Path("report.html").read_text(encoding="utf-8")
    assert set(re.findall(r"https?://[^\s\"']*", text)) <= {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }
    assert "innerHTML" not in page.scripts[1]


def test_a_run_without_a_log() -> None:
    (a_run() / "metrics.jsonl").unlink()
    page = page_of("a")
    assert "a has no metrics.jsonl" in page.text
    assert [tag for tag, _ in page.tags if tag == "svg"] == []


def test_a_run_without_errors() -> None:
    a_run("a", GOLD)
    page = page_of("a")
    assert page.data["sentences"] == []
    assert "1.0000" in page.text


def test_a_run_without_entities() -> None:
    nothing = [["O"] * len(sentence) for sentence in WORDS]
    write_run(Path("a"), WORDS, nothing, nothing)
    assert page_of("a").data["types"] == []


def test_the_validation_split() -> None:
    a_run("a", split="validation")
    assert page_of("a").data["file"] == "validation.tsv"


def test_the_head_of_tags_is_reported() -> None:
    scores = {"f1": 0.5, "heads": {"ner": {"f1": 0.25}, "pos": {"f1": 0.5}}}
    a_run("a", head="ner", summary={"test": scores}, **heads(ner="tags", pos="classes"))
    page = page_of("a")
    assert "head ner" in page.text
    assert "the summary says 0.250000" in page.text
    assert page.data["file"] == "test-ner.tsv"


def test_a_run_whose_seeds_lie_in_it_is_meant_itself() -> None:
    a_run("a")
    a_run("a/seed-1", SECOND)
    assert len(page_of("a").data["sentences"]) == 4
    assert len(page_of("a/seed-1").data["sentences"]) == 3


# ---------------------------------------------------------------- wrong input


def heads(**kinds: str) -> dict[str, Any]:
    columns = {name: {"column": i, "kind": kind} for i, (name, kind) in enumerate(kinds.items(), 1)}
    return {"data": {"train": "a", "test": "b", "columns": {"words": 0}, "heads": columns}}


def broken(name: str, text: str | None) -> Callable[[], object]:
    """A run in which a file is something else, or absent."""

    def prepare() -> None:
        path = a_run() / name
        path.unlink() if text is None else path.write_text(text)

    return prepare


def of_other_words() -> None:
    a_run("a")
    write_run(Path("b"), [["Anne", *WORDS[0][1:]], *WORDS[1:]], GOLD, FIRST)


def of_two_seeds() -> None:
    a_run("a/seed-1")
    a_run("a/seed-2", seed=2)


WRONG: list[tuple[Callable[[], object], list[str], str]] = [
    (lambda: None, ["nowhere"], "there is no folder 'nowhere'"),
    (lambda: Path("empty").mkdir(), ["empty"], "empty holds no run"),
    (broken("summary.json", None), ["a"], "a is not finished: it has no summary.json yet"),
    (broken("predictions/test.tsv", None), ["a"], "there is no a/predictions/test.tsv"),
    (broken("predictions/test.tsv", "Anna O"), ["a"], "test.tsv:1: not word, gold tag"),
    (broken("metrics.jsonl", '{"step": 1}\n{"st'), ["a"], "a/metrics.jsonl:2: no line of a run's"),
    (broken("metrics.jsonl", '{"step": NaN}\n'), ["a"], "a/metrics.jsonl:1: no line of a run's"),
    (broken("summary.json", '{"test": {"f1": "x"}}'), ["a"], "test.f1 must be a number; got 'x'"),
    (a_run, ["a", "nowhere"], "there is no folder 'nowhere'"),
    (a_run, ["a", "--split", "validation"], "a has no scores on validation; try --split"),
    (a_run, ["a", "--split", "train"], "--split must be test, validation; got 'train'"),
    (a_run, ["a", "--head", "x"], "a has no head 'x'; it has tags"),
    (
        lambda: a_run(**heads(ner="tags", pos="classes")),
        ["a", "--head", "pos"],
        "head 'pos' of a is of classes; a report is of entities",
    ),
    (lambda: a_run(**heads(pos="classes")), ["a"], "a has no head of tags"),
    (
        lambda: a_run(**heads(ner="tags", chunks="tags")),
        ["a"],
        "a has several heads (ner, chunks); --head chooses one",
    ),
    (a_run, ["a", "--output", "a/config.yaml"], "--output must end in .html; got 'a/config.yaml'"),
    (a_run, ["a", "--output", "no/r.html"], "--output 'no/r.html' cannot be written"),
    (of_other_words, ["a", "b"], "not asked the same: b/predictions/test.tsv:1 has 'Anne'"),
    (of_two_seeds, ["a"], "a holds 2 runs, and a report is of one: name a/seed-1"),
]


@pytest.mark.parametrize(
    ("prepare", "arguments", "told"), WRONG, ids=[" ".join(case[1]) + case[2] for case in WRONG]
)
def test_wrong_input_is_one_message(
    prepare: Callable[[], object], arguments: list[str], told: str
) -> None:
    prepare()
    with pytest.raises(UserError) as caught:
        bigner(["report", *arguments])
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2
    assert not Path("report.html").exists()


def test_a_log_that_is_no_text() -> None:
    (a_run() / "metrics.jsonl").write_bytes(b"\xff")
    with pytest.raises(DataError, match=r"metrics\.jsonl is not UTF-8"):
        bigner(["report", "a"])
