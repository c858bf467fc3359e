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
from bigner.data.formats import read_sentences
from bigner.data.formats.folds import fold_numbers
from bigner.errors import RunError
from bigner.evaluation.metrics import ClassScores, Scores, score_class_ids, score_tag_ids
from bigner.evaluation.word_labels import WordLabels
from bigner.predictions import TaggedLines, read_predictions, write_predictions
from bigner.run_dir import RunDir, write_json, write_text

JOINED = "joined"
"""Name of the folder beside those of the folds."""

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
    sentences = list(read_sentences(config.data, "train"))
    words = [sentence.words for sentence in sentences]
    numbers = fold_numbers([sentence.document for sentence in sentences], len(folds))
    heads = config.data.resolved_heads()
    scores, columns = {}, {}
    for name, head in heads.items():
        own = name if len(heads) > 1 else None
        files = [RunDir(fold.run_dir).predictions("test", own) for fold in folds]
        gold, predicted, sure = _in_order(files, numbers, words)
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
        write_json(joined.summary, summary)
    except OSError as error:
        raise RunError(f"{joined.path} cannot be written: {error}") from None
    return summary


def _in_order(
    files: Sequence[Path], numbers: Sequence[int], words: _Tags
) -> tuple[_Tags, _Tags, _Tags | None]:
    """Gold tags, predicted tags and confidences of each sentence, in the order of the data."""
    lines = [read_predictions(file) for file in files]
    of_folds = [_sentences(one) for one in lines]
    found = []
    for number, sentence in zip(numbers, words, strict=True):
        tagged = next(of_folds[number - 1], None)
        if tagged is None or len(tagged[0]) != len(sentence):
            raise RunError(
                f"{files[number - 1]} is not of this training data: it has changed since the fold "
                f"was trained; train all folds again in another run_dir"
            )
        found.append(tagged)
    gold, predicted, sure = (list(column) for column in zip(*found, strict=True))
    return gold, predicted, sure if all(one.confidences for one in lines) else None


def _sentences(lines: TaggedLines) -> Iterator[tuple[list[str], list[str], list[str]]]:
    """Gold tags, predicted tags and confidences of each sentence of a file."""
    sure = lines.confidences or [np.nan] * len(lines.gold)
    start = 0
    for end in [*(i for i, tag in enumerate(lines.gold) if not tag), len(lines.gold)]:
        texts = ["" if np.isnan(one) else f"{one:.4f}" for one in sure[start:end]]
        yield lines.gold[start:end], lines.predicted[start:end], texts
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
    loss = sum(one["loss"] * one["words"] for one in folds) / len(words.gold)
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
