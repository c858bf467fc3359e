"""The scores of a card: a table of totals for each split, and one by type for each head."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from bigner.card import markdown
from bigner.card.facts import Facts, HeadScores, Numbers, SplitScores
from bigner.config.schema import ONLY_HEAD

_TYPES_SHOWN = 200


@dataclass(frozen=True, slots=True)
class ShownSplit:
    """A split as the template has it."""

    title: str
    totals: str
    by_type: list[str]
    counts: str


def shown_splits(facts: Facts) -> list[ShownSplit]:
    """Of all splits that were scored."""
    return [_shown(name, scores, facts) for name, scores in facts.summary.scores().items()]


def note(facts: Facts) -> str:
    """How the numbers are meant; empty where there are none of entities."""
    splits = facts.summary.scores().values()
    if not any(one.strict for split in splits for one in of_heads(split, facts).values()):
        return ""
    return (
        "An entity counts where type and both boundaries match; precision, recall and F1 of all "
        "are micro averages. seqeval's default mode reads stray `I-` tags as conlleval does; "
        "strict IOB2 does not. Every word of a split is predicted exactly once, long texts in "
        "windows, and all are scored together."
    )


def of_heads(scores: SplitScores, facts: Facts) -> Mapping[str, HeadScores]:
    """The scores of each head by its name."""
    return scores.heads or {facts.config.chosen_head(): scores}


def _shown(name: str, scores: SplitScores, facts: Facts) -> ShownSplit:
    heads = of_heads(scores, facts)
    header = ["scoring", "precision", "recall", "F1", "accuracy of words", "loss"]
    rows = [row for head, one in heads.items() for row in _totals(head, one)]
    return ShownSplit(
        name.capitalize(),
        markdown.table(header, rows),
        [_by_type(head, one) for head, one in heads.items() if one.per_type],
        f"{scores.words:,} words in {scores.sentences:,} texts, {scores.words_without_pieces:,} "
        f"of the words without sub-words.",
    )


def _totals(head: str, scores: HeadScores) -> Iterator[list[object]]:
    name = "" if head == ONLY_HEAD else f"{head}: "
    how = "macro average" if scores.strict is None else "seqeval, default mode"
    rest = [markdown.number(scores.accuracy), markdown.number(scores.loss)]
    yield [f"{name}{how}", *_numbers(scores), *rest]
    if scores.strict is not None:
        yield [f"{name}seqeval, strict IOB2", *_numbers(scores.strict), *rest]


def _by_type(head: str, scores: HeadScores) -> str:
    header = ["type" if scores.strict else "class", "precision", "recall", "F1"]
    if head != ONLY_HEAD:
        header[0] = f"{head}: {header[0]}"
    strict = scores.strict_per_type
    header += ["F1, strict IOB2"] * bool(strict) + ["support"]
    rows: list[list[object]] = []
    for name, one in list(scores.per_type.items())[:_TYPES_SHOWN]:
        of_strict = [markdown.number(strict[name].f1 if name in strict else None)] * bool(strict)
        rows.append([name, *_numbers(one), *of_strict, markdown.number(one.support)])
    more = len(scores.per_type) - len(rows)
    shown = markdown.table(header, rows)
    return f"{shown}\n\nand {more:,} more." if more else shown


def _numbers(scores: Numbers) -> list[object]:
    return [markdown.number(value) for value in (scores.precision, scores.recall, scores.f1)]
