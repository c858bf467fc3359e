"""``model``: which encoder, and how much of it is trained."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from bigner.config.schema.base import Section


class Freeze(Section):
    """Parts of a pretrained body that stay as they are: no gradients, no optimizer state."""

    embeddings: bool = False
    """Keep the embeddings, with whatever lies between them and the first layer."""

    layers: int = Field(default=0, ge=0)
    """Keep so many layers, counted from the embeddings."""


class ModelConfig(Section):
    """Which encoder is trained and how much of it."""

    name_or_path: str = Field(min_length=1)
    """The model on the Hub, or a folder that transformers can load."""

    tokenizer: str | None = Field(default=None, min_length=1)
    """Name or folder of the tokenizer where it does not lie with the model."""

    revision: str | None = None
    """Branch, tag or commit of the model on the Hub."""

    trust_remote_code: bool = False
    """Run the Python code that lies with the model, where transformers does not know its kind."""

    training_type: Literal["fine_tuning", "transfer_learning", "from_scratch"] = "fine_tuning"
    """`fine_tuning` moves every weight, `transfer_learning` only the head, `from_scratch` takes
    the architecture and no weights."""

    freeze: Freeze = Freeze()
    """Parts of a pretrained body that stay as they are: no gradients, no optimizer state."""

    packing: bool = True
    """Lay the windows of a batch end to end, so that no padding is computed; a family of models
    that is not known to allow it is padded, and the run says so."""

    embedding_rows: Literal["all", "used"] = "all"
    """`used` trains the rows of the embedding table that the run's data has pieces for; all others,
    which only weight decay would change, are put back on export. The result is the same, with less
    to gather, reduce, update and save."""

    dropout: float | None = Field(default=None, ge=0.0, lt=1.0)
    """Hidden, attention and classifier dropout; left as the model's own config has it if absent."""

    @model_validator(mode="after")
    def _what_is_frozen_was_learnt(self) -> ModelConfig:
        if self.freeze == Freeze():
            return self
        if self.training_type == "transfer_learning":
            raise ValueError(
                "training_type transfer_learning freezes the whole body, and model.freeze parts of "
                "it; take model.freeze out, or set model.training_type to fine_tuning"
            )
        if self.training_type == "from_scratch":
            # Embeddings and layers of noise, which nothing above them could make up for.
            raise ValueError(
                "training_type from_scratch draws every weight, and model.freeze would keep some "
                "as drawn; take model.freeze out, or set model.training_type to fine_tuning"
            )
        return self
