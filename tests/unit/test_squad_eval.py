"""Question answering: reading, windows, best spans, planted scores, and the official scores."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bigner.data.batches import PADDING_ROW
from bigner.distributed import World
from bigner.errors import DataError, GatherError, RunError
from tests.question_answering import SPECIAL, characters_tokenizer, words_tokenizer
from tests.scripts import script
from tests.unit.helpers import tiny_tokenizer

squad = script("squad")
squad_eval = script("squad_eval")

CONTEXT = "zero one two three four five six seven eight nine ten eleven"
WORDS = CONTEXT.split()


def question(answer: str, context: str = CONTEXT, text: str = "what is", *also: str) -> Any:
    return squad.Question(f"{answer}?", text, context, (answer, *also), context.index(answer))


# ---------------------------------------------------------------- the official scores


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The  Quick, brown\tfox!", "quick brown fox"),
        ("An apple a day", "apple day"),
        ("theatre and banana", "theatre and banana"),
        ("Theatre à la carte", "theatre à la carte"),
        ("U.S. dollars", "us dollars"),
        ("don't", "dont"),
        # Punctuation goes first, so what it held apart is one word.
        ("on-the-job", "onthejob"),
        ("the-end", "theend"),
        # Punctuation is ASCII's.
        ("1185\u20131226", "1185\u20131226"),
        ("\u201cThe\u201d end", "\u201c \u201d end"),
        ("non\u00a0breaking", "non breaking"),
        ("The.", ""),
        ("", ""),
    ],
)
def test_normalisation(text: str, expected: str) -> None:
    assert squad.normalise(text) == expected


@pytest.mark.parametrize(
    ("answer", "gold", "exact", "f1"),
    [
        ("Denver Broncos", "the Denver Broncos!", True, 1.0),
        # 2 of 3 found words are right, and both wanted ones found: 2 * 2 / (3 + 2).
        ("Denver Broncos won", "Denver Broncos", False, 0.8),
        # Order does not count for F1.
        ("Broncos Denver", "Denver Broncos", False, 1.0),
        # A word counts as often as it is in both: 2 * 2 / (3 + 2), and 2 * 1 / (3 + 1).
        ("New New York", "New York", False, 0.8),
        ("New New New", "New", False, 0.5),
        ("Carolina", "Denver", False, 0.0),
        ("", "Denver", False, 0.0),
        # Nothing is left of either: the same text, and no shared word.
        ("the", "a", True, 0.0),
    ],
)
def test_exact_match_and_f1_by_hand(answer: str, gold: str, exact: bool, f1: float) -> None:
    assert squad.exact_match(answer, gold) is exact
    assert squad.f1(answer, gold) == pytest.approx(f1)


def test_scores_are_means_of_the_best_gold_answer() -> None:
    questions = [
        question("three four", CONTEXT, "what", "four five", "nine"),
        question("ten"),
        question("one two three"),
    ]
    # Best: exact with the third gold; nothing; 2 * 2 / (2 + 3).
    scores = squad.score(questions, ["Nine.", "eleven", "one two"])
    assert scores.exact_match == pytest.approx(100 / 3)
    assert scores.f1 == pytest.approx(100 * (1 + 0 + 0.8) / 3)


# ---------------------------------------------------------------- the file


def document(**changed: Any) -> dict[str, Any]:
    asked = {
        "id": "q",
        "question": "which?",
        "answers": [{"text": "two three", "answer_start": CONTEXT.index("two")}],
    }
    paragraph = {"context": CONTEXT, "qas": [asked | changed]}
    return {"version": "1.1", "data": [{"title": "t", "paragraphs": [paragraph]}]}


def read(folder: Path, content: Any) -> Any:
    path = folder / "squad.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content), "utf-8")
    return squad.read_squad(path)


def test_a_file_is_read(tmp_path: Path) -> None:
    expected = squad.Question("q", "which?", CONTEXT, ("two three",), 9)
    assert read(tmp_path, document()) == [expected]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is no JSON in UTF-8"),
        ("[" * 100_000, "is no JSON in UTF-8"),
        ("[]", "the file has no list 'data', as SQuAD v1.1 has"),
        ({"data": []}, "holds no question"),
        ({"data": [{"paragraphs": [{}]}]}, r"data\[0\].paragraphs\[0\] has no text 'context'"),
        (document(answers=[]), r"qas\[0\] has no answer; SQuAD v1.1 scores answers alone"),
        (document(id=7), r"qas\[0\] has no text 'id'"),
        (document(question="half \ud800"), "'question' has half of a surrogate pair"),
        (
            document(answers=[{"text": "two", "answer_start": 8}]),
            r"answers\[0\] is 'two' at character 8, and the context has ' tw' there",
        ),
        (document(answers=[{"text": "even", "answer_start": -4}]), "at character -4"),
        (document(answers=[{"text": " ", "answer_start": 4}]), "at character 4"),
        (document(answers=[{"text": "two"}]), r"answers\[0\] has no number 'answer_start'"),
    ],
)
def test_another_file_is_one_message(content: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"squad.json: .*{message}") as raised:
        read(tmp_path, content)
    assert "\n" not in str(raised.value)


def test_an_id_that_stands_there_twice(tmp_path: Path) -> None:
    content = document()
    content["data"] *= 2
    with pytest.raises(DataError, match="1 ids stand there twice, such as 'q'"):
        read(tmp_path, content)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none.json: cannot be read: No such file"):
        squad.read_squad(tmp_path / "none.json")


# ---------------------------------------------------------------- windows


def texts(windows: Sequence[Any], context: str) -> list[str]:
    """The stretch of the context that each window has."""
    return [context[w.offsets[0, 0] : w.offsets[-1, 1]] for w in windows]


def cut(questions: Sequence[Any], tokenizer: Any, max_length: int, stride: int) -> Any:
    return squad.cut_windows(questions, tokenizer, max_length=max_length, stride=stride)


def test_windows_by_hand() -> None:
    """10 pieces: 3 special ones, 2 of the question, 5 of the context, 2 of them shared."""
    windows = cut([question("four")], words_tokenizer(), 10, 2)
    assert texts(windows, CONTEXT) == [
        "zero one two three four",
        "three four five six seven",
        "six seven eight nine ten",
        "nine ten eleven",
    ]
    unk, cls, sep = (SPECIAL[name] for name in ("[UNK]", "[CLS]", "[SEP]"))
    assert windows[-1].inputs == {
        "input_ids": [cls, unk, unk, sep, unk, unk, unk, sep],
        "token_type_ids": [0, 0, 0, 0, 1, 1, 1, 1],
        "attention_mask": [1] * 8,
    }
    assert [window.first for window in windows] == [4] * 4
    assert [window.question for window in windows] == [0] * 4
    assert windows[-1].offsets.tolist() == [[45, 49], [50, 53], [54, 60]]


def test_a_context_that_fits_is_one_window() -> None:
    assert texts(cut([question("four")], words_tokenizer(), 17, 2), CONTEXT) == [CONTEXT]
    assert len(cut([question("four")], words_tokenizer(), 16, 2)) == 2


def test_windows_of_several_questions_follow_each_other(monkeypatch: Any) -> None:
    questions = [question(word) for word in WORDS]
    expected = [i for i in range(len(questions)) for _ in range(4)]
    assert [w.question for w in cut(questions, words_tokenizer(), 10, 2)] == expected
    monkeypatch.setattr(squad, "TEXTS_AT_ONCE", 5)
    assert [w.question for w in cut(questions, words_tokenizer(), 10, 2)] == expected


def test_a_context_without_pieces() -> None:
    """As a tokenizer has it that drops characters without width."""
    asked = question("\u200b", "\u200b", "Anna")
    (window,) = cut([asked], tiny_tokenizer(), 16, 2)
    assert len(window.offsets) == 0
    collate = squad.Collator([window], tiny_tokenizer(), torch.device("cpu"))
    predict = squad_eval.Planted([asked], [window], [(0, 1)], max_answer=5)
    how = {"batch_size": 2, "max_answer": 5}
    assert squad.predict_answers([asked], [window], predict, collate, World(), **how) == [""]
    assert predict.told([""])["out_of_reach"] == [asked.id]


def test_a_question_that_leaves_no_room() -> None:
    asked = [question("four", CONTEXT, "which of these is it")]
    with pytest.raises(
        DataError, match=r"'four\?' has 5 pieces, .* room for 2 .* --stride 2"
    ) as no:
        cut(asked, words_tokenizer(), 10, 2)
    advised = int(re.findall(r"--max-length to (\d+)", str(no.value))[0])
    assert advised == 11
    assert texts(cut(asked, words_tokenizer(), advised, 2), CONTEXT)[0] == "zero one two"


@given(
    words=st.lists(st.sampled_from(["Anna", "Žilina", "a", "Bratislava,", "word7"]), min_size=1),
    room=st.integers(2, 12),
    shared=st.data(),
)
def test_every_piece_is_in_a_window(words: list[str], room: int, shared: st.DataObject) -> None:
    context = " ".join(words)
    stride = shared.draw(st.integers(1, room - 1))
    windows = cut([question(words[0], context)], words_tokenizer(), room + 5, stride)
    places = [[context[:begin].count(" ") for begin in w.offsets[:, 0]] for w in windows]
    assert sorted({place for own in places for place in own}) == list(range(len(words)))
    for own, following in pairwise(places):
        assert own == list(range(own[0], own[0] + room))
        assert len(set(own) & set(following)) == stride


# ---------------------------------------------------------------- best spans


def brute_force(
    logits: torch.Tensor, context: torch.Tensor, max_answer: int
) -> tuple[float, list[int]]:
    """Best score and span of one row, every span tried in order of start and length."""
    best: tuple[float, list[int]] = (-torch.inf, [squad.NO_SPAN] * 2)
    for first in range(len(context)):
        for last in range(first, min(first + max_answer, len(context))):
            if not (context[first] and context[last]):
                continue
            score = float(logits[first, 0] + logits[last, 1])
            if best[1][0] == squad.NO_SPAN or score > best[0]:
                best = score, [first, last]
    return best


@pytest.mark.parametrize("max_answer", [1, 2, 3, 7, 40])
@pytest.mark.parametrize("draws", ["real", "ties", "holes"])
def test_best_spans_are_those_of_trying_all(draws: str, max_answer: int) -> None:
    random = np.random.default_rng(max_answer)
    rows, pieces = 200, 13
    values = random.normal(size=(rows, pieces, 2)).astype(np.float32)
    if draws != "real":
        # Few different scores: most rows have several best spans.
        values = np.round(values)
    if draws == "holes":
        values[random.random(values.shape) < 0.7] = -np.inf
    context = torch.zeros(rows, pieces, dtype=torch.bool)
    for row in range(rows):
        first, last = sorted(random.integers(0, pieces + 1, 2))
        context[row, first:last] = True
    # What is outside of the context is higher than anything within.
    logits = torch.from_numpy(values) + 50 * ~context.unsqueeze(2)
    scores, places = squad.best_spans(logits, context, max_answer)
    expected = [brute_force(logits[row], context[row], max_answer) for row in range(rows)]
    assert places.tolist() == [place for _, place in expected]
    assert scores.tolist() == pytest.approx([score for score, _ in expected])
    if draws == "holes":
        # Rows of nothing else are among them, and rows of no context.
        assert any(s == -torch.inf and p[0] != squad.NO_SPAN for s, p in expected)
        assert any(p[0] == squad.NO_SPAN for _, p in expected)


def test_best_spans_of_low_precision_are_added_in_fp32() -> None:
    """In fp16 both sums would be 2048."""
    logits = torch.tensor([[[2048.0, 0.0], [0.0, 0.5], [0.0, 1.0]]], dtype=torch.float16)
    scores, places = squad.best_spans(logits, torch.ones(1, 3, dtype=torch.bool), 3)
    assert scores.tolist() == [2049.0]
    assert places.tolist() == [[0, 2]]


# ---------------------------------------------------------------- from scores to answers


class Setup:
    """Questions, their windows, and scores planted in them."""

    def __init__(
        self,
        questions: Sequence[Any],
        plant: str = "gold",
        *,
        tokenizer: Any = None,
        max_length: int = 10,
        stride: int = 2,
        max_answer: int = 4,
        every: int = 1,
    ) -> None:
        tokenizer = tokenizer or words_tokenizer()
        self.questions = questions
        self.windows = cut(questions, tokenizer, max_length, stride)
        spans = squad_eval.spans_to_plant(questions, plant, every)
        self.max_answer = max_answer
        self.planted = squad_eval.Planted(questions, self.windows, spans, max_answer=max_answer)
        self.collate = squad.Collator(self.windows, tokenizer, torch.device("cpu"))

    def answers(self, batch_size: int = 3, predict: Any = None) -> list[str]:
        found: list[str] = squad.predict_answers(
            self.questions,
            self.windows,
            predict or self.planted,
            self.collate,
            World(),
            batch_size=batch_size,
            max_answer=self.max_answer,
        )
        return found


def test_batches_are_padded_to_their_longest() -> None:
    setup = Setup([question("four"), question("one", "zero one")], max_length=12)
    batch = setup.collate(np.array([0, PADDING_ROW, len(setup.windows) - 1]))
    assert batch.index.tolist() == [0, len(setup.windows) - 1]
    assert batch.inputs["input_ids"].shape == (2, 12)
    assert batch.inputs["input_ids"][1].tolist() == [1, 0, 0, 2, 0, 0, 2] + [SPECIAL["[PAD]"]] * 5
    assert batch.inputs["attention_mask"].sum(dim=1).tolist() == [12, 7]
    assert batch.context.sum(dim=1).tolist() == [7, 2]
    assert batch.context[1].nonzero().flatten().tolist() == [4, 5]


def test_a_batch_of_nothing_is_a_row_of_padding() -> None:
    setup = Setup([question("four"), question("one", "zero one")])
    batch = setup.collate(np.array([PADDING_ROW, PADDING_ROW]))
    assert batch.index.tolist() == [PADDING_ROW]
    assert batch.inputs["attention_mask"].tolist() == [[1] * 7]
    assert not batch.context.any()


def test_planted_answers_come_back() -> None:
    golds = ["zero", "three four five", "six", "nine ten eleven", "eleven", "four five six seven"]
    setup = Setup([question(gold) for gold in golds])
    assert len(setup.windows) == 4 * len(golds)
    # Four words are in no window whole but the second: it ends with the seventh.
    for batch_size in (1, 3, 100):
        assert setup.answers(batch_size) == golds
    told = setup.planted.told(golds)
    assert (told["every_letter"], told["after_normalisation"]) == (6, 0)
    assert told["within_reach"] == {"exact_match": 100.0, "f1": 100.0}


def test_the_best_window_gives_the_answer() -> None:
    """And of equal ones the first."""
    setup = Setup([question("four")])
    places = {0: (5.0, "one"), 1: (7.0, "five"), 2: (7.0, "eight"), 3: (6.0, "eleven")}

    def predict(batch: Any) -> torch.Tensor:
        logits = torch.zeros(*batch.context.shape, 2)
        for row, window in enumerate(batch.index.tolist()):
            if window >= 0:
                score, word = places[window]
                begins = setup.windows[window].offsets[:, 0].tolist()
                place = setup.windows[window].first + begins.index(CONTEXT.index(word))
                logits[row, place] = score / 2
        return logits

    assert [setup.answers(size, predict) for size in (1, 2, 3, 4)] == [["five"]] * 4


def test_what_pieces_cannot_give_is_told() -> None:
    context = "in (2014), a 24-yard run of 1 2 3 4 5 6 7 yards"
    golds = ["2014", "24", "run of", "1 2 3 4 5", "24-yard run"]
    setup = Setup([question(gold, context) for gold in golds])
    answers = setup.answers()
    assert [answers[0], answers[1], answers[2], answers[4]] == [
        "(2014),",
        "24-yard",
        "run of",
        "24-yard run",
    ]
    told = setup.planted.told(answers)
    assert (told["every_letter"], told["after_normalisation"]) == (2, 1)
    # One ends inside a piece, one is longer than an answer may be.
    assert told["out_of_reach"] == ["24?", "1 2 3 4 5?"]
    assert told["within_reach"] == {"exact_match": 100.0, "f1": 100.0}
    assert squad.score(setup.questions, answers).exact_match == pytest.approx(60.0)


def test_space_around_a_span_is_no_part_of_it() -> None:
    """Pieces that are a space, or begin with one, as the bare piece of XLM-R may."""
    (window,) = cut([question("two")], characters_tokenizer(), 80, 2)
    begin = window.first + CONTEXT.index(" two three ")
    assert squad.text_of(CONTEXT, window, begin, begin + 10) == "two three"
    assert squad.text_of(CONTEXT, window, begin, begin) == ""


def test_an_answer_that_no_window_holds() -> None:
    setup = Setup([question("four five six seven eight nine")], max_answer=12)
    assert setup.planted.places == {}
    assert setup.planted.told(setup.answers())["within_reach"] is None


def test_characters_reach_every_answer() -> None:
    context = "in (2014), a 24-yard run of 1 2 3 4 5 6 7 yards"
    golds = ["2014", "24", "run of", "1 2 3 4 5", "24-yard run", "ard"]
    setup = Setup(
        [question(gold, context) for gold in golds],
        tokenizer=characters_tokenizer(),
        max_length=35,
        stride=11,
        max_answer=11,
    )
    assert len(setup.windows) > len(golds)
    assert setup.answers() == golds


@pytest.mark.parametrize(
    ("gold", "context", "expected"),
    [
        ("Rome", "in Rome they met", "Rome they"),
        ("Rome", "to Rome, which fell", "Rome, which"),
        ("24", "a 24-yard run", "24-yard run"),
        # Nothing follows.
        ("Rome", "met in Rome", "in Rome"),
        ("Rome", "met in (Rome).", "in (Rome"),
        ("Rome", "Rome", "Rome"),
    ],
)
def test_a_word_more(gold: str, context: str, expected: str) -> None:
    assert context[slice(*squad_eval.longer(question(gold, context)))] == expected


@pytest.mark.parametrize(
    ("context", "also", "expected"),
    [
        ("The Rome of 1990 old. Then Athens rose", (), "of"),
        ("Rome, the city Of Rome", ("city of",), None),
        ("Rome has a city, and hills", ("has",), "and"),
    ],
)
def test_a_word_elsewhere(context: str, also: tuple[str, ...], expected: str | None) -> None:
    asked = question("Rome", context, "where", *also)
    if expected is None:
        with pytest.raises(DataError, match="no word that is not in an answer"):
            squad_eval.misplaced(asked)
    else:
        assert context[slice(*squad_eval.misplaced(asked))] == expected


def test_every_second_question_is_corrupted() -> None:
    golds = ["one", "two three", "four", "five", "six seven"]
    questions = [question(gold) for gold in golds]
    setup = Setup(questions, "misplaced", every=2)
    assert setup.answers() == ["zero", "two three", "zero", "five", "zero"]
    assert squad.score(questions, setup.answers()) == squad.Scores(40.0, 40.0)
    setup = Setup(questions, "longer", every=2)
    assert setup.answers() == ["one two", "two three", "four five", "five", "six seven eight"]
    # 2 * 1 / (2 + 1) twice, and 2 * 2 / (3 + 2).
    expected = 100 * (2 + 2 / 3 + 2 / 3 + 4 / 5) / 5
    assert squad.score(questions, setup.answers()).f1 == pytest.approx(expected)


def test_noise_does_not_depend_on_the_batch() -> None:
    setup = Setup([question(word) for word in WORDS], "noise")
    answers = setup.answers(1)
    assert setup.answers(5) == setup.answers(100) == answers
    assert len(set(answers)) > 6


# ---------------------------------------------------------------- what must not pass


def gathered(setup: Setup) -> tuple[Any, ...]:
    """As two ranks would leave it: every window once, one row of padding, one of the gather's."""
    rows = len(setup.windows)
    index = np.arange(rows + 2).reshape(2, -1)
    index[1, -2:] = PADDING_ROW, -100
    return index, np.zeros(index.shape, np.float32), np.full((*index.shape, 2), 4)


def test_rows_of_all_ranks_are_put_in_order() -> None:
    setup = Setup([question(word) for word in ("one", "two")])
    index, scores, places = gathered(setup)
    scores[index == 1] = scores[index == 7] = 1.0
    scores[index < 0] = 5.0
    answers = squad._assemble(setup.questions, setup.windows, index, scores, places)
    assert answers == ["three", "nine"]


@pytest.mark.parametrize(
    ("rank", "row", "value", "message"),
    [
        (0, 2, PADDING_ROW, "1 windows .*window 2 0 times"),
        (1, -1, 2, "1 windows .*window 2 2 times"),
        (0, 2, 3, "2 windows .*window 2 0 times, window 3 2 times"),
        (1, -1, 8, "window 8 1 times"),
    ],
)
def test_a_window_that_is_not_there_once(rank: int, row: int, value: int, message: str) -> None:
    setup = Setup([question(word) for word in ("one", "two")])
    index, scores, places = gathered(setup)
    index[rank, row] = value
    with pytest.raises(GatherError, match=message):
        squad._assemble(setup.questions, setup.windows, index, scores, places)


def test_scores_that_are_not_numbers() -> None:
    setup = Setup([question("one")])

    def predict(batch: Any) -> torch.Tensor:
        logits: torch.Tensor = setup.planted(batch)
        logits[batch.index == 2, 5, 0] = torch.nan
        return logits

    with pytest.raises(RunError, match="1 of 4 windows have scores that are not numbers"):
        setup.answers(predict=predict)


# ---------------------------------------------------------------- the command line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "one of the arguments --model --planted is required"),
        (["--model", "m", "--planted", "gold"], "not allowed with argument"),
        (["--planted", "gold"], "--planted needs --tokenizer"),
        (["--planted", "gold", "--tokenizer", "t", "--strategy", "fsdp"], "belong to --model"),
        (["--planted", "gold", "--tokenizer", "t", "--every", "2"], "--every belongs to"),
        (["--model", "m", "--every", "2"], "--every belongs to"),
        (["--model", "m", "--stride", "-1"], "must be a whole number"),
        (["--model", "m", "--batch-size", "0"], "must be 1 or more"),
    ],
)
def test_options_that_do_not_go_together(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        squad_eval._options(["data.json", *arguments])
    assert left.value.code == 2
    assert message in capsys.readouterr().err
