"""Extractive question answering: the file, its windows, the best spans, and the scores.

What ``squad_eval.py`` is made of, and all of it that is not a model, a planted score or a command
line. The plan of batches and the gather are bigner's own.
"""

from __future__ import annotations

import json
import re
import string
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from transformers import PreTrainedTokenizerFast

from bigner.data.batches import PADDING_ROW, Rows, evaluation_batches
from bigner.data.encode import TEXTS_AT_ONCE
from bigner.distributed import World
from bigner.errors import DataError, RunError, one_line
from bigner.evaluation.gather import check_each_once, gather_padded
from bigner.log import progress

Ids = npt.NDArray[np.int64]
Kind = TypeVar("Kind", str, int, list[Any])

NO_SPAN = -1
"""Start and end where a window has no piece of the context."""

_PUNCTUATION = str.maketrans("", "", string.punctuation)


# ---------------------------------------------------------------- the file


@dataclass(frozen=True, slots=True)
class Question:
    """A question, the text it asks about, and the answers that count as right."""

    id: str
    text: str
    context: str
    answers: tuple[str, ...]
    first_answer: int
    """Where the first answer begins in the context, in characters."""


def read_squad(path: Path) -> list[Question]:
    """The questions of a file in the format of SQuAD v1.1, in order.

    Raises:
        DataError: the file cannot be read, is of another format, or an answer does not stand where
            the file says.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise DataError(one_line(str(path), f"cannot be read: {error.strerror}")) from None
    except (ValueError, RecursionError) as error:
        raise DataError(one_line(str(path), f"is no JSON in UTF-8: {error}")) from None
    try:
        questions = list(_questions(document))
        counts = Counter(question.id for question in questions)
        if twice := [name for name, count in counts.items() if count > 1]:
            raise ValueError(f"{len(twice)} ids stand there twice, such as {twice[0]!r}")
        if not questions:
            raise ValueError("holds no question")
    except ValueError as error:
        raise DataError(one_line(str(path), str(error))) from None
    return questions


def _questions(document: Any) -> Iterator[Question]:
    for i, article in enumerate(_get(document, "data", list, "the file")):
        for j, paragraph in enumerate(_get(article, "paragraphs", list, f"data[{i}]")):
            where = f"data[{i}].paragraphs[{j}]"
            context = _get(paragraph, "context", str, where)
            for k, asked in enumerate(_get(paragraph, "qas", list, where)):
                yield _question(asked, context, f"{where}.qas[{k}]")


def _question(asked: Any, context: str, where: str) -> Question:
    answers = _get(asked, "answers", list, where)
    if not answers:
        raise ValueError(
            f"{where} has no answer; SQuAD v1.1 scores answers alone, so leave unanswerable "
            f"questions out"
        )
    texts, starts = [], []
    for i, answer in enumerate(answers):
        place = f"{where}.answers[{i}]"
        text, begin = _get(answer, "text", str, place), _get(answer, "answer_start", int, place)
        if not text.strip() or begin < 0 or context[begin : begin + len(text)] != text:
            raise ValueError(
                f"{place} is {text!r} at character {begin}, and the context has "
                f"{context[max(begin, 0) : max(begin, 0) + len(text)]!r} there"
            )
        texts.append(text)
        starts.append(begin)
    name, text = _get(asked, "id", str, where), _get(asked, "question", str, where)
    return Question(name, text, context, tuple(texts), starts[0])


def _get(holder: Any, key: str, kind: type[Kind], where: str) -> Kind:
    value = holder.get(key) if isinstance(holder, dict) else None
    if not isinstance(value, kind):
        named = {list: "list", str: "text", int: "number"}[kind]
        raise ValueError(f"{where} has no {named} {key!r}, as SQuAD v1.1 has")
    if isinstance(value, str) and any("\ud800" <= char <= "\udfff" for char in value):
        raise ValueError(f"{where}: {key!r} has half of a surrogate pair, which is no character")
    return value


# ---------------------------------------------------------------- windows


@dataclass(frozen=True, slots=True)
class Window:
    """A question and a stretch of its context: what a model reads at once."""

    question: int
    """Position of the question in the file."""
    inputs: dict[str, list[int]]
    """``input_ids`` and whatever else the model is given, a number for each piece."""
    first: int
    """Place of the context's first piece."""
    offsets: Ids
    """``[pieces of the context, 2]``: where each begins and ends in the context's characters."""

    @property
    def length(self) -> int:
        return len(self.inputs["input_ids"])


def cut_windows(
    questions: Sequence[Question],
    tokenizer: PreTrainedTokenizerFast,
    *,
    max_length: int,
    stride: int,
) -> list[Window]:
    """The windows of all questions; those of a question are neighbours, in the context's order.

    Args:
        questions: what is asked.
        tokenizer: a fast tokenizer.
        max_length: pieces in a window: special tokens, the question, a stretch of the context.
        stride: pieces of the context that neighbouring windows share.

    Raises:
        DataError: a question leaves no room for its context.
    """
    windows = []
    for first in range(0, len(questions), TEXTS_AT_ONCE):
        some = questions[first : first + TEXTS_AT_ONCE]
        _check_room(some, tokenizer, max_length, stride)
        encoded = tokenizer(
            [question.text for question in some],
            [question.context for question in some],
            truncation="only_second",
            max_length=max_length,
            stride=stride,
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
        )
        names = [name for name in tokenizer.model_input_names if name in encoded]
        for i, question in enumerate(encoded["overflow_to_sample_mapping"]):
            context = np.array([part == 1 for part in encoded.sequence_ids(i)])
            windows.append(
                Window(
                    first + question,
                    {name: encoded[name][i] for name in names},
                    int(context.argmax()),
                    np.array(encoded["offset_mapping"][i], dtype=np.int64)[context],
                )
            )
    return windows


def _check_room(
    questions: Sequence[Question], tokenizer: PreTrainedTokenizerFast, max_length: int, stride: int
) -> None:
    texts = [question.text for question in questions]
    asked = tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
    longest = max(range(len(asked)), key=lambda i: len(asked[i]))
    pieces = len(asked[longest])
    room = max_length - tokenizer.num_special_tokens_to_add(pair=True) - pieces
    if room <= stride:
        raise DataError(
            f"question {questions[longest].id!r} has {pieces} pieces, so a window of --max-length "
            f"{max_length} has room for {max(room, 0)} of its context, and neighbours share "
            f"--stride {stride}; set --max-length to {max_length + stride - room + 1} or more, or "
            f"--stride to less"
        )


@dataclass(frozen=True, slots=True)
class Batch:
    """Some windows on their device."""

    index: torch.Tensor
    """``[rows]``, the window of each row; -1 for a row of padding."""
    inputs: dict[str, torch.Tensor]
    """What the model is given, ``[rows, pieces]``."""
    context: torch.Tensor
    """``[rows, pieces]``, whether it is a piece of the context; one stretch in each row, and in a
    row of padding none."""


class Collator:
    """Makes batches, padded to their longest window."""

    def __init__(
        self, windows: Sequence[Window], tokenizer: PreTrainedTokenizerFast, device: torch.device
    ) -> None:
        self._windows = windows
        # Real pieces and not nothing: attention over an empty row would be 0 / 0.
        self._padding_row = min(windows, key=lambda window: window.length)
        self._pad = {
            "input_ids": tokenizer.pad_token_id or 0,
            "token_type_ids": tokenizer.pad_token_type_id,
        }
        self._device = device

    def __call__(self, rows: Rows) -> Batch:
        """The batch of some windows; of one row of padding if there are none.

        Args:
            rows: indices of windows; -1 stands for none.
        """
        index = rows[rows != PADDING_ROW]
        windows = [self._windows[i] for i in index]
        if not windows:
            index, windows = np.array([PADDING_ROW]), [self._padding_row]
        inputs = {
            name: self._padded([window.inputs[name] for window in windows], self._pad.get(name, 0))
            for name in windows[0].inputs
        }
        context = torch.zeros(inputs["input_ids"].shape, dtype=torch.bool)
        for row, window in enumerate(windows):
            context[row, window.first : window.first + len(window.offsets)] = bool(index[row] >= 0)
        return Batch(torch.from_numpy(index).to(self._device), inputs, context.to(self._device))

    def _padded(self, rows: list[list[int]], value: int) -> torch.Tensor:
        tensors = [torch.tensor(row) for row in rows]
        padded = torch.nn.utils.rnn.pad_sequence(tensors, batch_first=True, padding_value=value)
        return padded.to(self._device)


# ---------------------------------------------------------------- spans


Predict = Callable[[Batch], torch.Tensor]
"""Start and end scores of a batch, ``[rows, pieces, 2]``."""


def best_spans(
    logits: torch.Tensor, context: torch.Tensor, max_answer: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The span of highest start and end score in each row, where the tensors are.

    A span lies in the context, does not end before it begins, and has at most ``max_answer``
    pieces. Of equal ones the first is taken, and of those the shortest.

    Args:
        logits: ``[rows, pieces, 2]``, start and end scores.
        context: ``[rows, pieces]``, as in ``Batch``.
        max_answer: pieces in the longest span.

    Returns:
        scores ``[rows]``, not a number where one of the row's spans has such a score; first and
        last place of each span ``[rows, 2]``, ``NO_SPAN`` where there is none.
    """
    begin, end = logits.float().unbind(dim=-1)
    width = min(max_answer, context.shape[1])

    def following(values: torch.Tensor) -> torch.Tensor:
        """``[rows, pieces, width]``: the value of each place and of the next ones."""
        return F.pad(values, (0, width - 1)).unfold(1, width, 1)

    # The context is one stretch, so what lies between two of its pieces is of it, too.
    valid = (context.unsqueeze(2) & following(context)).flatten(1)
    scores = (begin.unsqueeze(2) + following(end)).flatten(1).masked_fill(~valid, -torch.inf)
    best = scores.argmax(dim=1, keepdim=True)
    # Where every score is -inf, invalid spans are as good: the first valid one it is.
    best = torch.where(
        scores.gather(1, best) == -torch.inf, valid.byte().argmax(dim=1, keepdim=True), best
    )
    first = best // width
    places = torch.cat((first, first + best % width), dim=1)
    return (
        scores.gather(1, best).squeeze(1),
        places.masked_fill(~valid.any(dim=1, keepdim=True), NO_SPAN),
    )


def predict_answers(
    questions: Sequence[Question],
    windows: Sequence[Window],
    predict: Predict,
    collate: Collator,
    world: World,
    *,
    batch_size: int,
    max_answer: int,
) -> list[str]:
    """The answer to every question, on every rank; collective.

    Args:
        questions: what is asked.
        windows: all windows, as ``cut_windows`` gave them.
        predict: gives the scores of a batch; collective if the model is sharded.
        collate: makes the batches.
        world: all ranks.
        batch_size: windows that one rank predicts at once.
        max_answer: pieces in the longest answer.

    Raises:
        GatherError: the gathered spans do not cover each window exactly once.
        RunError: a score is not a number.
    """
    lengths = np.array([window.length for window in windows])
    batches = evaluation_batches(
        lengths, batch_size=batch_size, rank=world.rank, world_size=world.size
    )
    local = []
    for rows in progress(batches, "answering", world.is_main):
        batch = collate(rows)
        # Of all scores only the best span is kept, two small numbers and its score.
        local.append((batch.index, *best_spans(predict(batch), batch.context, max_answer)))
    gathered = [
        gather_padded(torch.cat(parts), world).numpy() for parts in zip(*local, strict=True)
    ]
    return _assemble(questions, windows, *gathered)


def _assemble(
    questions: Sequence[Question],
    windows: Sequence[Window],
    index: Ids,
    scores: npt.NDArray[np.float32],
    places: Ids,
) -> list[str]:
    """Put the gathered rows back into the order of the windows, and take each question's best.

    Args:
        questions: what is asked.
        windows: all windows.
        index: ``[ranks, rows]``, the window of each row; negative for padding.
        scores: ``[ranks, rows]``.
        places: ``[ranks, rows, 2]``.
    """
    real = index >= 0
    check_each_once(index[real], len(windows), "question answering")
    order = np.argsort(index[real])
    scores, places = scores[real][order], places[real][order]
    if broken := int(np.isnan(scores).sum()):
        raise RunError(f"{broken} of {len(windows)} windows have scores that are not numbers")
    best: dict[int, int] = {}
    for i, window in enumerate(windows):
        # Of equal windows the first, whoever computed them.
        if window.question not in best or scores[i] > scores[best[window.question]]:
            best[window.question] = i
    return [
        text_of(question.context, windows[best[i]], *places[best[i]].tolist())
        for i, question in enumerate(questions)
    ]


def text_of(context: str, window: Window, first: int, last: int) -> str:
    """What a span of pieces stands for in the context."""
    if first == NO_SPAN:
        return ""
    begin, end = window.offsets[first - window.first, 0], window.offsets[last - window.first, 1]
    # A piece may be a space, or begin with one.
    return context[begin:end].strip()


# ---------------------------------------------------------------- scores


@dataclass(frozen=True, slots=True)
class Scores:
    """Means over questions, times 100."""

    exact_match: float
    f1: float


def score(questions: Sequence[Question], answers: Sequence[str]) -> Scores:
    """Exact match and F1, for each question over its best gold answer."""
    exact = [
        max(exact_match(answer, gold) for gold in question.answers)
        for question, answer in zip(questions, answers, strict=True)
    ]
    overlap = [
        max(f1(answer, gold) for gold in question.answers)
        for question, answer in zip(questions, answers, strict=True)
    ]
    return Scores(*(100 * sum(values) / max(1, len(values)) for values in (exact, overlap)))


def normalise(text: str) -> str:
    """Lower case, without ASCII punctuation, without articles, words a single space apart."""
    bare = text.lower().translate(_PUNCTUATION)
    return " ".join(re.sub(r"\b(?:a|an|the)\b", " ", bare).split())


def exact_match(answer: str, gold: str) -> bool:
    """Whether two texts are the same after normalisation."""
    return normalise(answer) == normalise(gold)


def f1(answer: str, gold: str) -> float:
    """F1 of the words that two texts share after normalisation, each as often as in both."""
    found, wanted = normalise(answer).split(), normalise(gold).split()
    shared = sum((Counter(found) & Counter(wanted)).values())
    return 2 * shared / (len(found) + len(wanted)) if shared else 0.0
