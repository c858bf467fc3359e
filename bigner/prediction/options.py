"""What can be chosen where texts are tagged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bigner.config.checks import require_choice
from bigner.config.schema import Decoding, Precision
from bigner.errors import UserError

Aggregation = Literal["word", "simple", "first", "average", "max"]
"""How the pieces of a word come to one label: ``word`` as in training and evaluation, the others as
in transformers' pipeline."""
WordRule = Literal["punctuation", "whitespace"]
"""How running text is cut into words, see ``bigner.prediction.words``."""
InputFormat = Literal["text", "jsonl", "columns"]
OutputFormat = Literal["jsonl", "columns", "html"]

SHORTEST_WINDOW = 8


@dataclass(frozen=True, slots=True)
class TaggerOptions:
    """How a model is asked.

    Raises:
        UserError: a value that is none of those there are.
    """

    head: str | None = None
    """The head that is asked; the first that tells tags, if not given."""
    aggregation: Aggregation = "word"
    decoding: Decoding = "argmax"
    """``argmax`` takes the best tag of each word, ``iob2`` the best sequence that IOB2 allows, as
    in evaluation; ``iob2`` is for aggregation ``word`` alone."""
    words: WordRule = "punctuation"
    max_length: int | None = None
    """Pieces in a window; if not given, as in training, which the model's config says, or else 256
    or what the model has positions for."""
    stride: int | None = None
    """Words that neighbouring windows of a text share, at most half a window; if not given, as in
    training, or else 32."""
    batch_tokens: int = 8192
    """Pieces that are computed at once; a longer window goes by itself."""
    precision: Precision = "fp32"
    trust_remote_code: bool = False

    def __post_init__(self) -> None:
        require_choice("aggregation", self.aggregation, Aggregation)
        require_choice("decoding", self.decoding, Decoding)
        require_choice("words", self.words, WordRule)
        require_choice("precision", self.precision, Precision)
        if self.decoding == "iob2" and self.aggregation != "word":
            raise UserError(
                f"decoding iob2 takes the best sequence of tags as in evaluation, where the first "
                f"piece of a word decides, and aggregation {self.aggregation} is none of that; "
                f"leave one of them out"
            )
        _require_at_least("max_length", self.max_length, SHORTEST_WINDOW)
        _require_at_least("stride", self.stride, 0)
        _require_at_least("batch_tokens", self.batch_tokens, SHORTEST_WINDOW)


def _require_at_least(name: str, value: int | None, least: int) -> None:
    if value is not None and value < least:
        raise UserError(f"{name} must be {least} or more; got {value}")
