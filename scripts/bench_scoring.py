"""How fast a million words are scored: seqeval in both of its modes, and label ids all at once.

Gold are the tags of a column file, again and again; predictions are these with some words in a
hundred tagged at random. Numbers that are not equal to the last digit end it with an error. Takes
about a minute; no part of the tests.

    python scripts/bench_scoring.py [wnut17train.conll] [--words 1000000]

Without a file it is that of the corpora in $BIGNER_TEST_DATA.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bigner.config.schema import DataConfig
from bigner.data.corpus import read_corpus
from bigner.evaluation.metrics import score_tag_ids, score_tags, span_scores, span_scores_of_ids
from bigner.evaluation.word_labels import WordLabels

WRONG = 0.02
"""Share of words that are given another tag."""
REPEATS = {"seqeval": 2, "vectorised": 5}
"""The fastest counts."""
TOLD: dict[str, Any] = {"loss": 0.0, "words_without_pieces": 0}


def main() -> int:
    """Print words a second, and what is faster by how much."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = (
        Path(os.environ.get("BIGNER_TEST_DATA", "../shared/data")) / "wnut17/wnut17train.conll"
    )
    parser.add_argument("file", nargs="?", type=Path, default=default, help="a column file of tags")
    parser.add_argument("--words", type=int, default=1_000_000)
    arguments = parser.parse_args()
    words = corrupted(arguments.file, arguments.words)
    # What seqeval is given; making it is part of what scoring by it takes, and told by itself.
    seconds, (gold, predicted) = timed(
        lambda: (list(words.gold_tags()), list(words.predicted_tags()))
    )
    print(f"{len(words.gold):,} words in {len(gold):,} sentences of {arguments.file.name}")
    print(f"label ids made lists of tags, for seqeval: {seconds:.2f} s")
    rows: list[tuple[str, Callable[[], Any], Callable[[], Any]]] = [
        (
            "default mode",
            lambda: span_scores(gold, predicted, strict=False),
            lambda: span_scores_of_ids(words),
        ),
        (
            "strict IOB2",
            lambda: span_scores(gold, predicted, strict=True),
            lambda: span_scores_of_ids(words, scheme="IOB2"),
        ),
        (
            "all scores",
            lambda: score_tags(gold, predicted, **TOLD),
            lambda: score_tag_ids(words, **TOLD),
        ),
    ]
    # Neither is told the time its imports take.
    span_scores([["B-X"]], [["B-X"]], strict=True)
    print("| words a second | seqeval | vectorised | ratio |\n| --- | --- | --- | --- |")
    for name, by_seqeval, by_ids in rows:
        slow, expected = fastest(by_seqeval, REPEATS["seqeval"])
        fast, found = fastest(by_ids, REPEATS["vectorised"])
        if found != expected:
            print(f"{name}: {found} is not {expected}", file=sys.stderr)
            return 1
        rates = (f"{len(words.gold) / taken:,.0f}" for taken in (slow, fast))
        print("|", " | ".join([name, *rates, f"{slow / fast:,.0f}"]), "|", flush=True)
    print(f"all numbers are equal; F1 {expected.f1:.6f}, strict {expected.strict.f1:.6f}")
    return 0


def corrupted(file: Path, num_words: int) -> WordLabels:
    """The tags of a file as often as they have so many words together, and a wrong copy of them."""
    corpus = read_corpus(DataConfig.model_validate({"train": str(file)}), ["train"])
    (head,) = corpus.heads.values()
    tags = head.labels.tags
    sentences = [sentence.tags[0] for sentence in corpus.sentences["train"]]
    lengths = np.array([len(sentence) for sentence in sentences])
    once = np.array([head.labels.id_of(tag) for sentence in sentences for tag in sentence])
    times = -(-num_words // len(once))
    lengths = np.tile(lengths, times)
    lengths = lengths[: int(np.searchsorted(np.cumsum(lengths), num_words)) + 1]
    gold = np.resize(once, int(lengths.sum())).astype(np.int16)
    random = np.random.default_rng(0)
    wrong = random.random(len(gold)) < WRONG
    predicted = np.where(wrong, random.integers(len(tags), size=len(gold)), gold).astype(np.int8)
    return WordLabels(gold, predicted, tags, tags, lengths)


def fastest(action: Callable[[], Any], repeats: int) -> tuple[float, Any]:
    """Seconds of the fastest of several times, and what came of it."""
    return min((timed(action) for _ in range(repeats)), key=lambda one: one[0])


def timed(action: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds, and what came of it."""
    start = time.perf_counter()
    result = action()
    return time.perf_counter() - start, result


if __name__ == "__main__":
    sys.exit(main())
