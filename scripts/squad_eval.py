"""Extractive question answering through bigner's evaluation: exact match and F1 of SQuAD v1.1.

The plan of batches, the strategies and the gather are those of the tagger; only what stands in a
row and what is kept of it are this script's own. Each question and its context become windows that
overlap by ``--stride`` pieces. Every rank predicts its share of them, reduces the start and end
scores to the best span of each window on the device, and the spans are gathered by the index of
their window: padded to the longest rank with -100, rows of padding carrying -1, every window
exactly once or an error. The best window of a question gives its answer.

    python scripts/squad_eval.py DATA.json --tokenizer DIR --planted gold
    torchrun --nproc-per-node 2 scripts/squad_eval.py DATA.json --model DIR --strategy fsdp

``--model`` takes a transformers question-answering folder. It is built as shapes, filled shard by
shard and spread by a strategy as a tagger is; a forward hook stacks its start and end scores into
the ``logits`` that a strategy returns.

``--planted`` takes no model: scores are planted whose right result is known. ``gold`` plants the
first gold answer of each question among noise; ``misplaced`` a word elsewhere in the context,
``longer`` the gold answer and one more word, both at every K-th question alone with ``--every K``;
``noise`` plants nothing. Outside of the context every planted score is higher than inside. A span
of whole pieces cannot end inside one, so the result also says of how many planted texts the pieces
give every letter, of how many the same text after normalisation, and which are out of reach.

The result is one JSON object on standard output. Scores are those of the official definition:
lower case, no punctuation, no articles, single spaces; the best over a question's gold answers;
means over all questions times 100.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, NoReturn

import numpy as np
import torch
from squad import (
    Batch,
    Collator,
    Question,
    Window,
    cut_windows,
    exact_match,
    normalise,
    predict_answers,
    read_squad,
    score,
    text_of,
)
from transformers import AutoModelForQuestionAnswering, PreTrainedModel, PreTrainedTokenizerFast
from transformers.modeling_outputs import TokenClassifierOutput

from bigner.__main__ import leave, report
from bigner.config.checks import launched_world_size
from bigner.config.schema import RunConfig
from bigner.data.batches import PADDING_ROW
from bigner.distributed import World, start
from bigner.errors import DataError
from bigner.modeling import (
    check_fits,
    load_model_config,
    load_tokenizer,
    loading,
    parameters_on_meta,
)
from bigner.run_dir import write_text
from bigner.strategies import Strategy, open_strategy
from bigner.weights import InitialWeights

Plant = Literal["gold", "misplaced", "longer", "noise"]


def main() -> NoReturn:
    """Score what the command line names; exit codes as those of bigner."""
    try:
        run(_options())
        code = 0
    except (Exception, KeyboardInterrupt) as error:
        code = report(error)
    leave(code)


def run(options: argparse.Namespace) -> None:
    """One evaluation, from the files to the printed result; collective."""
    config = _run_config(options)
    tokenizer = load_tokenizer(config.model, split_words=False)
    questions = read_squad(options.data)
    windows = cut_windows(
        questions, tokenizer, max_length=options.max_length, stride=options.stride
    )
    sharded = launched_world_size() > 1 if options.planted else config.strategy.needs_process_group
    world = start(sharded=sharded)
    collate = Collator(windows, tokenizer, world.device)
    how = {"batch_size": options.batch_size, "max_answer": options.max_answer}
    result: dict[str, Any] = {}
    if options.planted:
        spans = spans_to_plant(questions, options.planted, options.every)
        planted = Planted(questions, windows, spans, max_answer=options.max_answer)
        answers = predict_answers(questions, windows, planted, collate, world, **how)
        if options.planted != "noise":
            result["planted"] = planted.told(answers)
    else:
        strategy = open_model(config, tokenizer, world, max_length=options.max_length)
        answers = predict_answers(
            questions, windows, lambda batch: strategy.predict(batch.inputs), collate, world, **how
        )
        strategy.close()
    if not world.is_main:
        return
    if options.predictions:
        by_id = {q.id: text for q, text in zip(questions, answers, strict=True)}
        write_text(options.predictions, json.dumps(by_id, ensure_ascii=False, indent=0))
    sizes = {"questions": len(questions), "windows": len(windows), "world_size": world.size}
    print(json.dumps({**asdict(score(questions, answers)), **sizes, **result}))


# ---------------------------------------------------------------- planted scores


_PEAK = 10.0
"""Start and end score of what is planted; noise is below 1."""
_OUTSIDE = 100.0
"""Added to every score outside of the context, where no span may begin or end."""

CharSpan = tuple[int, int]


def spans_to_plant(
    questions: Sequence[Question], plant: Plant, every: int
) -> list[CharSpan | None]:
    """Characters of the context to plant for each question; None where nothing is.

    Args:
        questions: what is asked.
        plant: see the top of this script.
        every: corrupt the questions number 0, ``every``, 2 ``every``, ...

    Raises:
        DataError: a context has no word that could stand for a wrong answer.
    """
    corrupted = {"gold": gold_span, "misplaced": misplaced, "longer": longer}
    if plant == "noise":
        return [None] * len(questions)
    return [
        corrupted[plant](question) if i % every == 0 else gold_span(question)
        for i, question in enumerate(questions)
    ]


def gold_span(question: Question) -> CharSpan:
    """Where the first gold answer stands."""
    return question.first_answer, question.first_answer + len(question.answers[0])


def misplaced(question: Question) -> CharSpan:
    """The first word of the context that shares nothing with any gold answer."""
    gold = {word for answer in question.answers for word in normalise(answer).split()}
    for word in re.finditer(r"(?<!\S)[A-Za-z]+(?!\S)", question.context):
        if normalise(word[0]) and normalise(word[0]) not in gold:
            return word.span()
    raise DataError(f"question {question.id!r}: its context has no word that is not in an answer")


def longer(question: Question) -> CharSpan:
    """The first gold answer, on to the end of the next word; of the last word, from the one before.

    Words are what white space separates.
    """
    begin, end = gold_span(question)
    if following := re.compile(r"\S*\s+\S+").match(question.context, end):
        return begin, following.end()
    before = re.search(r"\S+\s+\S*\Z", question.context[:begin])
    return (before.start() if before else 0), end


@dataclass(slots=True)
class Planted:
    """Stands for a model: gives scores whose best span is known.

    A span is planted in every window that has all its pieces; a window that has only some, or
    none, has noise alone.

    Args:
        questions: what is asked.
        windows: all windows.
        spans: what to plant for each question.
        max_answer: pieces of the longest span that will be looked for.
    """

    questions: Sequence[Question]
    windows: Sequence[Window]
    spans: Sequence[CharSpan | None]
    max_answer: int
    places: dict[int, tuple[int, int]] = field(init=False)
    """First and last place of what is planted in a window."""
    texts: dict[int, str] = field(init=False, default_factory=dict)
    """What the planted pieces stand for, by question."""

    def __post_init__(self) -> None:
        covers: dict[int, list[tuple[int, int, int]]] = {}
        places = {}
        for i, window in enumerate(self.windows):
            if (cover := _cover(window, self.spans[window.question])) is not None:
                places[i] = cover
                begin = window.offsets[cover[0] - window.first, 0]
                end = window.offsets[cover[1] - window.first, 1]
                covers.setdefault(window.question, []).append((int(begin), int(end), i))
        self.places = {}
        for question, found in covers.items():
            # A window has all of a span if no other one has more.
            whole = min(begin for begin, _, _ in found), max(end for _, end, _ in found)
            for begin, end, i in found:
                first, last = places[i]
                if (begin, end) == whole and last - first < self.max_answer:
                    self.places[i] = first, last
                    text = text_of(self.questions[question].context, self.windows[i], first, last)
                    self.texts[question] = text

    def __call__(self, batch: Batch) -> torch.Tensor:
        logits = np.full((*batch.context.shape, 2), _OUTSIDE, dtype=np.float32)
        for row, i in enumerate(batch.index.tolist()):
            if i == PADDING_ROW:
                continue
            window = self.windows[i]
            context = slice(window.first, window.first + len(window.offsets))
            # Of the window alone, so that it is the same in every batch and on every rank.
            noise = np.random.default_rng(i).random((len(window.offsets), 2), dtype=np.float32)
            logits[row, context] = noise
            if i in self.places:
                first, last = self.places[i]
                logits[row, first, 0] += _PEAK
                logits[row, last, 1] += _PEAK
        return torch.from_numpy(logits).to(batch.context.device)

    def told(self, answers: Sequence[str]) -> dict[str, Any]:
        """What pieces could give of the planted texts, and the scores where they could."""
        letters, normalised, out_of_reach, within = 0, 0, [], []
        for i, (question, span) in enumerate(zip(self.questions, self.spans, strict=True)):
            if span is None:
                continue
            wanted, text = question.context[slice(*span)], self.texts.get(i)
            if text is None or not exact_match(text, wanted):
                out_of_reach.append(question.id)
                continue
            within.append(i)
            letters += text == wanted
            normalised += text != wanted
        reached = score([self.questions[i] for i in within], [answers[i] for i in within])
        return {
            "every_letter": letters,
            "after_normalisation": normalised,
            "out_of_reach": out_of_reach,
            "within_reach": asdict(reached) if within else None,
        }


def _cover(window: Window, span: CharSpan | None) -> tuple[int, int] | None:
    """First and last place of the window's pieces that have some of the span."""
    if span is None:
        return None
    begins, ends = window.offsets[:, 0], window.offsets[:, 1]
    places = np.flatnonzero((begins < span[1]) & (ends > span[0]) & (begins < ends))
    if not len(places):
        return None
    return int(places[0]) + window.first, int(places[-1]) + window.first


# ---------------------------------------------------------------- a model


def open_model(
    config: RunConfig, tokenizer: PreTrainedTokenizerFast, world: World, *, max_length: int
) -> Strategy:
    """The question-answering model that the config names, spread as the config says; collective.

    Raises:
        BignerError: the model cannot be had, or the machine cannot compute it as asked.
    """
    model = _build(config)
    check_fits(model, tokenizer, max_length)
    weights = InitialWeights(
        config.model,
        model,
        seed=config.seed,
        cache_root=config.data.cache_root(),
        new_head=False,
    )
    strategy = open_strategy(config, world, model, training=False)
    weights.fill(strategy.shards())
    strategy.publish()
    return strategy


def _build(config: RunConfig) -> PreTrainedModel:
    """The model as shapes, with ``logits`` in its output."""
    model_config = load_model_config(config.model)
    model_config.num_labels = 2
    failure = f"{config.model.name_or_path!r} cannot be built for question answering"
    with loading(failure), parameters_on_meta():
        model = AutoModelForQuestionAnswering.from_config(model_config, dtype=torch.float32)
    # Before any of a strategy's own hooks, which then see one tensor as they do of a tagger.
    model.register_forward_hook(_stack_scores)
    return model


def _stack_scores(module: Any, inputs: Any, output: Any) -> TokenClassifierOutput:  # noqa: ARG001
    return TokenClassifierOutput(
        logits=torch.stack((output.start_logits, output.end_logits), dim=-1)
    )


# ---------------------------------------------------------------- the command line


def _run_config(options: argparse.Namespace) -> RunConfig:
    """What strategies and loaders read of a run file; nothing is trained."""
    # Without a model only the tokenizer is loaded.
    model = {"name_or_path": str(options.model or options.tokenizer)}
    if options.tokenizer:
        model["tokenizer"] = str(options.tokenizer)
    return RunConfig.model_validate(
        {
            "run_dir": ".",
            "precision": options.precision or "fp32",
            "model": model,
            "data": {"train": str(options.data)},
            "strategy": {"kind": options.strategy or "single"},
        }
    )


def _options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, metavar="DATA.json", help="in the format of SQuAD v1.1")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--model", type=Path, metavar="DIR", help="a question-answering folder")
    what.add_argument("--planted", choices=["gold", "misplaced", "longer", "noise"])
    parser.add_argument("--tokenizer", type=Path, metavar="DIR", help="by default the model's")
    parser.add_argument("--every", type=_positive, metavar="K", help="corrupt every K-th question")
    parser.add_argument("--strategy", choices=["single", "fsdp", "zero"], help="by default single")
    parser.add_argument("--precision", choices=["fp32", "bf16", "fp16"], help="by default fp32")
    for name, kind, default, text in (
        ("batch-size", _positive, 32, "windows that one rank predicts at once"),
        ("max-length", _positive, 384, "pieces in a window (data.max_length)"),
        ("stride", _not_negative, 128, "pieces of context that neighbouring windows share"),
        ("max-answer", _positive, 30, "pieces in the longest answer"),
    ):
        parser.add_argument(
            f"--{name}",
            type=kind,
            default=default,
            metavar="N",
            help=f"{text}; by default {default}",
        )
    parser.add_argument("--predictions", type=Path, metavar="FILE", help="write {id: answer} there")
    options = parser.parse_args(arguments)
    if options.planted and not options.tokenizer:
        parser.error("--planted needs --tokenizer DIR, for there is no model to have one")
    if options.planted and (options.strategy or options.precision):
        parser.error("--strategy and --precision belong to --model")
    if options.every and options.planted not in ("misplaced", "longer"):
        parser.error("--every belongs to --planted misplaced and --planted longer")
    options.every = options.every or 1
    return options


def _not_negative(text: str) -> int:
    if not (text.isascii() and text.isdecimal()):
        raise argparse.ArgumentTypeError(f"must be a whole number, 0 or more, and is {text!r}")
    return int(text)


def _positive(text: str) -> int:
    if (number := _not_negative(text)) < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return number


if __name__ == "__main__":
    main()
