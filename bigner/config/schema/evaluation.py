"""``evaluation``: when and how predictions are scored."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from bigner.config.schema.base import Section, is_given

Metric = Literal["f1", "precision", "recall", "accuracy", "loss", "strict_f1"]
Decoding = Literal["argmax", "iob2"]


class EvaluationConfig(Section):
    """When and how predictions are scored."""

    every: Literal["epoch"] | Annotated[int, Field(ge=1)] = "epoch"
    """Evaluate on validation after each `epoch`, or every so many optimizer steps."""

    batch_tokens: int = Field(default=8192, ge=8)
    """Pieces that one rank predicts at once, padding included; a longer sample goes by itself."""

    batch_size: int | None = Field(default=None, ge=1)
    """Instead of `batch_tokens`: samples (windows) that one rank predicts at once."""

    metric: Metric = "f1"
    """The validation score that makes weights the best; `loss` is plain cross-entropy there,
    whatever is trained by."""

    head: str | None = None
    """The head whose score that is; the first of `data.heads` if absent."""

    patience: int | None = Field(default=None, ge=1)
    """Stop early after so many evaluations in a row without a gain; never if absent."""

    min_gain: float = Field(default=0.0, ge=0.0)
    """For `patience`: what the score must gain on the last one that counted as a gain."""

    train_sample: int | None = Field(default=None, ge=1)
    """Score so many windows of the training data along with validation, to see what is learnt by
    heart; none if absent."""

    decoding: Decoding = "argmax"
    """`argmax` takes the best tag of each word; `iob2` the best sequence of tags in which no I-
    stands where it continues nothing."""

    scorer: Literal["vectorised", "seqeval"] = "vectorised"
    """`vectorised` counts entities for all words at once; `seqeval` has seqeval, and for heads of
    classes scikit-learn, compute the same numbers to the last digit, far more slowly."""

    on_collapse: Literal["warn", "stop"] = "warn"
    """What to do when, after warm-up, every word of validation gets the same tag: `warn`, or save
    and `stop`."""

    @model_validator(mode="after")
    def _one_measure_of_a_batch(self) -> EvaluationConfig:
        if self.batch_size is not None and is_given(self, "batch_tokens"):
            raise ValueError(
                f"evaluation.batch_size {self.batch_size} and evaluation.batch_tokens "
                f"{self.batch_tokens} are both given; keep one of them"
            )
        return self
