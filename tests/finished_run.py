"""A finished run, as `train` leaves it, without the training."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from bigner.config.schema import RunConfig
from bigner.evaluation.metrics import score_tag_ids
from bigner.predictions import write_predictions
from tests.unit.helpers import word_labels

Tags = Sequence[Sequence[str]]


def write_run(
    folder: Path,
    words: Tags,
    gold: Tags,
    predicted: Tags,
    *,
    confidences: Tags | None = None,
    split: str = "test",
    head: str | None = None,
    summary: dict[str, Any] | None = None,
    **config: Any,
) -> Path:
    """Write config, summary, log and predictions; the scores are those of the predictions.

    Args:
        folder: of the run.
        words: of each sentence.
        gold: IOB2 tags of each sentence.
        predicted: as many.
        confidences: as text, of each word; none are written if not given.
        split: that was predicted.
        head: whose predictions they are, where there are several.
        summary: in place of what it would hold.
        config: sections of the run config.
    """
    folder.mkdir(parents=True)
    values = {
        "run_dir": str(folder),
        "model": {"name_or_path": "xlm-roberta-base"},
        "data": {"train": "train.conll", "test": "test.conll"},
        **config,
    }
    resolved = RunConfig.model_validate(values).model_dump(mode="json")
    (folder / "config.yaml").write_text(yaml.safe_dump(resolved, sort_keys=False))
    labels = word_labels(gold, predicted)
    scores = score_tag_ids(labels, loss=0.25, words_without_pieces=0).as_dict()
    written = {
        "steps": 40,
        "stopped_early": False,
        "skipped_steps": 1,
        "best_step": 20,
        "validation": None,
        "test": None,
        split: scores,
        "world_size": 2,
        "versions": {"bigner": "0.1.0", "torch": "2.11"},
        **(summary or {}),
    }
    (folder / "summary.json").write_text(json.dumps(written))
    (folder / "metrics.jsonl").write_text("".join(map(_line, logged())))
    name = f"{split}-{head}.tsv" if head else f"{split}.tsv"
    told = [gold, predicted] if confidences is None else [gold, predicted, confidences]
    write_predictions(folder / "predictions" / name, words, {"tags": told})
    return folder


def logged(steps: int = 40, every: int = 10) -> list[dict[str, Any]]:
    """Lines of a log: each step, the first skipped, and each evaluation."""
    lines: list[dict[str, Any]] = []
    for step in range(1, steps + 1):
        lines.append(
            {
                "step": step,
                "loss": None if step == 1 else 2.0 / step,
                "learning_rate": 1e-5 * min(step, 10),
                "loss_scale": 65536.0 if step == 1 else 32768.0,
                "skipped": step == 1,
            }
        )
        if step % every == 0:
            f1 = 0.5 + step / 100
            lines.append({"step": step, "split": "validation", "f1": f1, "loss": 1.0 / step})
    return lines


def _line(values: dict[str, Any]) -> str:
    return json.dumps(values) + "\n"
