"""What training and evaluation return: plain dictionaries, as ``summary.json`` holds them."""

from __future__ import annotations

from typing import Any, NotRequired, TypedDict


class SpanScores(TypedDict):
    """Scores of the entities of a type, or of the words of a class."""

    precision: float
    recall: float
    f1: float
    support: int
    """Entities in gold; words, for classes."""


class Scores(TypedDict):
    """What was scored on a split: of the head that chooses the weights, where there are several."""

    precision: float
    recall: float
    f1: float
    accuracy: float
    """Of words."""
    loss: float
    per_type: dict[str, SpanScores]
    strict: NotRequired[SpanScores]
    """Of entities that strict IOB2 allows; heads of classes have none."""
    strict_per_type: NotRequired[dict[str, SpanScores]]
    sentences: int
    words: int
    words_without_pieces: int
    seconds: float
    words_per_second: float
    heads: NotRequired[dict[str, Any]]
    """The scores of each head, where there are several."""
    step: NotRequired[int]
    """After which it was scored; of validation in a summary."""


class Summary(TypedDict):
    """What a finished run's ``summary.json`` holds."""

    steps: int
    stopped_early: bool
    skipped_steps: int
    """Whose gradients were not finite."""
    best_step: int
    """After which the exported weights were there."""
    validation: Scores | None
    """Of the best weights; None where the config names no such split."""
    test: Scores | None
    model: str
    """Folder of the exported weights."""
    hub: dict[str, str | None]
    """What came from the Hub: model and dataset."""
    data: dict[str, dict[str, int]]
    labels: list[Any]
    strategy: str
    precision: str
    world_size: int
    seconds: float
    tokens_per_second: float | None
    peak_memory_bytes: int
    hardware: str
    versions: dict[str, str]
