"""The head of a card, which the Hub reads: what kind of model it is, and its scores."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from bigner.card.facts import Facts, HeadScores, Numbers
from bigner.config.schema import ONLY_HEAD, DataConfig, HeadConfig, Split
from bigner.errors import printable

_TASK = "token-classification"
_NOT_OF_IDS = re.compile(r"[^A-Za-z0-9._/-]+")


def front_matter(facts: Facts) -> dict[str, Any]:
    """As YAML has it; language and licence nobody told bigner."""
    values: dict[str, Any] = {"library_name": "transformers", "pipeline_tag": _TASK}
    heads = facts.config.data.resolved_heads()
    of_entities = any(head.kind == "tags" for head in heads.values())
    values["tags"] = [_TASK, *["named-entity-recognition"] * of_entities, "bigner"]
    if (base_model := facts.summary.hub.model) is not None:
        values["base_model"] = base_model
    if (dataset := facts.summary.hub.dataset) is not None:
        values["datasets"] = [dataset]
    if results := list(_results(facts, heads)):
        values["metrics"] = ["precision", "recall", "f1", "accuracy"]
        values["model-index"] = [{"name": printable(facts.name), "results": results}]
    return values


def _results(facts: Facts, heads: Mapping[str, HeadConfig]) -> Iterator[dict[str, Any]]:
    """Of each split and head."""
    for split, scores in facts.summary.scores().items():
        of_heads: Mapping[str, HeadScores] = scores.heads or {chosen_head(facts): scores}
        for name, of_head in of_heads.items():
            metrics = list(_metrics(of_head))
            if metrics:
                yield {
                    "task": {"type": _TASK, "name": _task_name(name, heads[name])},
                    "dataset": _dataset(facts.config.data, split, facts.summary.hub.dataset),
                    "metrics": metrics,
                }


def chosen_head(facts: Facts) -> str:
    """The head whose scores stand for the split."""
    return facts.config.chosen_head()


def _task_name(name: str, head: HeadConfig) -> str:
    kind = "Named-entity recognition" if head.kind == "tags" else "Classes of words"
    return kind if name == ONLY_HEAD else f"{kind}: {name}"


def _dataset(data: DataConfig, split: Split, on_hub: str | None) -> dict[str, Any]:
    source = printable(data.source(split) or split)
    if data.dataset is None:
        # Not on the Hub, which wants a type all the same.
        return {"name": source, "type": _NOT_OF_IDS.sub("-", source), "split": split}
    dataset = {
        "name": printable(data.dataset),
        "type": on_hub or _NOT_OF_IDS.sub("-", data.dataset),
    }
    subset = {"config": data.subset} if data.subset else {}
    return {**dataset, **subset, "split": source}


def _metrics(scores: HeadScores) -> Iterator[dict[str, Any]]:
    """The numbers as they are in the summary, to the last digit."""
    how = "macro" if scores.strict is None else "seqeval, default mode"
    yield from _three(scores, how)
    if scores.strict is not None:
        yield from _three(scores.strict, "seqeval, strict IOB2")
    if scores.accuracy is not None:
        yield {"type": "accuracy", "value": scores.accuracy, "name": "Accuracy of words"}


def _three(numbers: Numbers, how: str) -> Iterator[dict[str, Any]]:
    for name, shown in (("f1", "F1"), ("precision", "Precision"), ("recall", "Recall")):
        value = getattr(numbers, name)
        if value is not None:
            yield {"type": name, "value": value, "name": f"{shown} ({how})"}
