"""The runs of a cross-validation put together: every sentence predicted by the model that did not
see it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bigner.config.schema import RunConfig
from bigner.config.yaml_file import as_yaml
from bigner.data.corpus import read_corpus
from bigner.data.formats.folds import fold_numbers
from bigner.errors import RunError
from bigner.evaluation.metrics import ClassScores, Scores, score_class_ids, score_tag_ids
from bigner.evaluation.word_labels import WordLabels
from bigner.log import plain
from bigner.predictions import TaggedLines, column_line, read_predictions, write_predictions
from bigner.run_dir import RunDir, write_json, write_text

JOINED = "joined"
"""Name of the folder beside those of the folds."""

_Words = list[str]
_Tags = list[list[str]]


def join_folds(config: RunConfig, folds: Sequence[RunConfig]) -> dict[str, Any]:
    """Put the predictions of finished folds together, in the order of the training data.

    ``joined/`` in the run's folder gets them with their scores as a finished run has its test set,
    so that ``bigner report`` and ``bigner compare`` take it.

    Args:
        config: the run config that the folds were made of.
        folds: of each run, in the order of their numbers.

    Returns:
        what its ``summary.json`` holds; ``test`` has the scores of the whole.

    Raises:
        DataError: the training data or predictions cannot be read.
        RunError: they do not belong together, or cannot be written.
    """
    joined = RunDir(config.run_dir / JOINED)
    summaries = [RunDir(fold.run_dir).read_summary() for fold in folds]
    # With the splits that the folds read, for the tag scheme follows from all of them.
    corpus = read_corpus(config.data.model_copy(update={"test": None}))
    sentences = corpus.sentences["train"]
    words = [sentence.words for sentence in sentences]
    numbers = fold_numbers([sentence.document for sentence in sentences], len(folds))
    heads = config.data.resolved_heads()
    scores, columns = {}, {}
    for place, (name, head) in enumerate(heads.items()):
        own = name if len(heads) > 1 else None
        files = [RunDir(fold.run_dir).predictions("test", own) for fold in folds]
        lines = [read_predictions(file, are_tags=head.kind == "tags") for file in files]
        expected = [(one.words, one.tags[place]) for one in sentences]
        gold, predicted, sure = _in_order(lines, numbers, expected)
        columns[name] = [gold, predicted, *([] if sure is None else [sure])]
        of_folds = [
            summary["test"].get("heads", {name: summary["test"]})[name] for summary in summaries
        ]
        scores[name] = _score(gold, predicted, of_folds, kind=head.kind)
    summary = _summary(config, summaries, scores, joined.path)
    try:
        joined.path.mkdir(parents=True, exist_ok=True)
        # A run that trained on nothing of what it is tested on, as each fold did.
        whole = config.data.model_copy(update={"test": config.data.train})
        values = config.model_copy(update={"data": whole, "run_dir": joined.path})
        write_text(joined.config, as_yaml(values.model_dump(mode="json")))
        write_predictions(joined.predictions("test"), words, columns)
        write_json(joined.summary, plain(summary))
    except OSError as error:
        raise RunError(f"{joined.path} cannot be written: {error}") from None
    return summary


def _in_order(
    folds: Sequence[TaggedLines], numbers: Sequence[int], expected: Sequence[tuple[_Words, _Words]]
) -> tuple[_Tags, _Tags, _Tags | None]:
    """Gold tags, predicted tags and confidences of each sentence, in the order of the data.

    Args:
        folds: the predictions of each fold.
        numbers: ``[sentences]``, the fold of each, counted from 1.
        expected: ``[sentences]``, words and gold tags.

    Raises:
        RunError: the predictions are not of these sentences.
    """
    of_folds = [_sentences(lines) for lines in folds]
    found = []
    for number, (words, tags) in zip(numbers, expected, strict=True):
        asked, *tagged = next(of_folds[number - 1], ([],))
        if asked != [column_line(*word).rstrip("\n") for word in zip(words, tags, strict=True)]:
            raise _changed(folds[number - 1].path)
        found.append(tagged)
    for lines, rest in zip(folds, of_folds, strict=True):
        if next(rest, None) is not None:
            raise _changed(lines.path)
    gold, predicted, sure = (list(column) for column in zip(*found, strict=True))
    return gold, predicted, sure if all(lines.confidences for lines in folds) else None


def _changed(path: Path) -> RunError:
    return RunError(
        f"{path} is not of this training data, which has changed since the fold was trained; train "
        f"all folds again in another run_dir"
    )


def _sentences(lines: TaggedLines) -> Iterator[tuple[_Words, ...]]:
    """Of each sentence of a file: words with gold tags, gold tags, predicted tags, confidences."""
    sure = lines.confidences or [np.nan] * len(lines.gold)
    start = 0
    for end in [*(i for i, tag in enumerate(lines.gold) if not tag), len(lines.gold)]:
        texts = ["" if np.isnan(one) else f"{one:.4f}" for one in sure[start:end]]
        columns = (lines.asked, lines.gold, lines.predicted)
        yield (*(column[start:end] for column in columns), texts)
        start = end + 1


def _score(
    gold: _Tags, predicted: _Tags, folds: Sequence[dict[str, Any]], *, kind: str
) -> Scores | ClassScores:
    labels = tuple(dict.fromkeys(tag for tags in (*gold, *predicted) for tag in tags))
    place = {label: i for i, label in enumerate(labels)}
    gold_ids, predicted_ids = (
        np.array([place[tag] for tags in sentences for tag in tags])
        for sentences in (gold, predicted)
    )
    lengths = np.array([len(tags) for tags in gold])
    words = WordLabels(gold_ids, predicted_ids, labels, labels, lengths)
    # A fold's loss is the mean over its labelled tokens, of which there is about one to a word.
    # That of a model that diverged is null in a summary.
    losses = [np.nan if one["loss"] is None else one["loss"] * one["words"] for one in folds]
    loss = float(sum(losses)) / len(words.gold)
    without = sum(one["words_without_pieces"] for one in folds)
    score = score_tag_ids if kind == "tags" else score_class_ids
    return score(words, loss=loss, words_without_pieces=without)


def _summary(
    config: RunConfig,
    folds: Sequence[dict[str, Any]],
    scores: dict[str, Scores | ClassScores],
    folder: Path,
) -> dict[str, Any]:
    chosen = scores[config.chosen_head()]
    seconds = sum(fold["test"]["seconds"] for fold in folds)
    heads = {name: one.as_dict() for name, one in scores.items()}
    return {
        "folds": [fold["test"]["f1"] for fold in folds],
        "steps": sum(fold["steps"] for fold in folds),
        "validation": None,
        "test": {
            **chosen.as_dict(),
            **({"heads": heads} if len(heads) > 1 else {}),
            "seconds": round(seconds, 3),
            "words_per_second": round(chosen.words / max(seconds, 1e-3), 1),
        },
        "model": None,
        "run_dir": str(folder),
        **{name: folds[0][name] for name in ("labels", "strategy", "precision", "world_size")},
        "versions": folds[0]["versions"],
    }
