"""A card as text: the facts, put into the template."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

import yaml

from bigner.card import markdown, scores, usage
from bigner.card.facts import Facts
from bigner.card.front_matter import front_matter
from bigner.config.schema import ONLY_HEAD, DataConfig, ModelConfig, Split

_TEMPLATE = "card.md.jinja"
_LABELS_SHOWN = 200


def render(facts: Facts, model: str) -> str:
    """The whole card.

    Args:
        facts: what is known.
        model: what the code in it loads.
    """
    # Here, for a run whose card cannot be written is a run all the same.
    from jinja2 import Environment, StrictUndefined  # noqa: PLC0415

    # What is put in is Markdown already, made by functions that escape it; Jinja knows HTML alone.
    environment = Environment(
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    environment.filters["text"] = markdown.text
    template = (files("bigner.card") / _TEMPLATE).read_text(encoding="utf-8")
    return environment.from_string(template).render(_values(facts, model))


def _values(facts: Facts, model: str) -> dict[str, Any]:
    config = facts.config.model_dump(mode="json")
    return {
        "front_matter": _yaml(front_matter(facts)),
        "name": facts.name,
        "what_it_is": _what_it_is(facts),
        "labels": _labels(facts),
        "data_table": _data_table(facts),
        "data_note": _data_note(facts.config.data),
        "scores": scores.shown_splits(facts),
        "scores_note": scores.note(facts),
        "training_table": markdown.table(["", ""], _training(facts)),
        "config": markdown.fenced(_yaml(config), "yaml"),
        "versions_table": markdown.table(["", ""], _versions(facts)),
        "use_note": usage.note(facts),
        "code": markdown.fenced(usage.code(facts, model), "python"),
        "long_texts": usage.long_texts(facts),
        "limits": usage.limits(facts),
    }


def _yaml(values: dict[str, Any]) -> str:
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)


_HOW_TRAINED: dict[str, str] = {
    "fine_tuning": "{model} was fine-tuned",
    "transfer_learning": "The head alone was trained, on the frozen encoder {model}",
    "from_scratch": "A model of the architecture of {model} was trained from scratch",
}


def _what_it_is(facts: Facts) -> str:
    model: ModelConfig = facts.config.model
    kinds = {head.kind for head in facts.config.data.resolved_heads().values()}
    tells = {"tags": "named entities", "classes": "classes of words"}
    what = " and ".join(told for kind, told in tells.items() if kind in kinds)
    trained = _HOW_TRAINED[model.training_type].format(model=markdown.text(model.name_or_path))
    return (
        f"A token-classification model for {what}. {trained} with bigner "
        f"{markdown.text(facts.summary.versions.get('bigner', ''))}; the weights are "
        f"{facts.dtype}. This card was written from the run alone."
    )


def _labels(facts: Facts) -> str:
    """A line for each head."""
    heads = facts.config.data.resolved_heads()
    lines = []
    for name in heads:
        prefix = "" if name == ONLY_HEAD or len(heads) == 1 else f"{name}:"
        labels = facts.summary.labels
        own = [label.removeprefix(prefix) for label in labels if label.startswith(prefix)]
        shown = ", ".join(markdown.text(label) for label in own[:_LABELS_SHOWN])
        more = f" and {len(own) - _LABELS_SHOWN:,} more" if len(own) > _LABELS_SHOWN else ""
        of_head = f"{markdown.text(name)}: " if prefix else ""
        lines.append(f"{of_head}{len(own):,} labels: {shown}{more}.")
    return "\n\n".join(lines)


def _data_table(facts: Facts) -> str:
    data, sizes = facts.config.data, facts.summary.data
    rows: list[list[object]] = []
    for split in data.splits():
        size = sizes.get(split)
        counts = (size.sentences, size.words, size.windows) if size else (None,) * 3
        rows.append([split, _source(data, split), *map(markdown.number, counts)])
    return markdown.table(["split", "source", "texts", "words", "windows"], rows)


def _source(data: DataConfig, split: Split) -> str:
    source = data.source(split) or ""
    if data.dataset is None:
        return source
    return ", ".join(part for part in (data.dataset, data.subset, source) if part)


def _data_note(data: DataConfig) -> str:
    return f"Format {data.format}; a text is one {data.unit}. Sources are named as in the run file."


def _training(facts: Facts) -> list[list[object]]:
    """What was done, and what of it is known."""
    config, summary = facts.config, facts.summary
    training = config.training
    known: dict[str, object] = {
        "strategy": summary.strategy,
        "processes": summary.world_size,
        "precision": summary.precision,
        "master weights": "fp32",
        "optimizer": f"AdamW, learning rate {training.learning_rate:g}, {training.schedule}, "
        f"weight decay {training.weight_decay:g}",
        "global batch": f"{training.global_batch_size:,} windows"
        if training.global_batch_tokens is None
        else f"{training.global_batch_tokens:,} sub-words",
        "optimizer steps": f"{summary.steps:,}{', stopped early' * summary.stopped_early}",
        "skipped steps": summary.skipped_steps or None,
        "weights of step": summary.best_step,
        "chosen by": _chosen_by(facts),
        "seed": str(config.seed),
        "time": None if summary.seconds is None else f"{summary.seconds:,.0f} s",
        "speed": None
        if summary.tokens_per_second is None
        else f"{summary.tokens_per_second:,.0f} sub-words a second",
        "peak memory of a process": None
        if summary.peak_memory_bytes is None
        else f"{summary.peak_memory_bytes / 2**30:,.1f} GiB",
    }
    return [[name, _said(value)] for name, value in known.items() if value is not None]


def _said(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


def _chosen_by(facts: Facts) -> str | None:
    """Which score made these weights the best, if one did."""
    if facts.summary.best_step is None or facts.summary.validation is None:
        return None
    metric, head = facts.config.evaluation.metric, facts.config.chosen_head()
    return f"{metric} on validation" + (f", head {head}" if head != ONLY_HEAD else "")


def _versions(facts: Facts) -> list[list[object]]:
    hardware = facts.summary.hardware
    known = {} if hardware is None else {"hardware": hardware}
    return [[name, value] for name, value in {**known, **facts.summary.versions}.items()]
