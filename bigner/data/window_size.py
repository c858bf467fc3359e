"""How texts were cut into windows for a model, as its config says it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bigner.config.schema import DataConfig
from bigner.errors import ModelError

CONFIG_FIELD = "bigner_windows"
"""Field of a transformers config; a model that was trained elsewhere has none."""


@dataclass(frozen=True, slots=True)
class WindowSize:
    """What a model was trained and scored with."""

    max_length: int
    """Pieces of a window, special tokens included."""
    stride: int
    """Words that neighbouring windows share."""

    @classmethod
    def from_config(cls, described: object) -> WindowSize:
        """What a config has under ``CONFIG_FIELD``.

        Raises:
            ModelError: it is no size that training could have had.
        """
        values = described if isinstance(described, Mapping) else {}
        max_length, stride = values.get("max_length"), values.get("stride")
        if type(max_length) is not int or type(stride) is not int:
            raise ModelError(f"{CONFIG_FIELD} must be max_length and stride; got {described!r:.80}")
        try:
            DataConfig(train="any", max_length=max_length, stride=stride)
        except ValueError:
            raise ModelError(
                f"{CONFIG_FIELD}: there are no windows of max_length {max_length} with stride "
                f"{stride}"
            ) from None
        return cls(max_length, stride)

    def described(self) -> dict[str, int]:
        """What ``from_config`` reads."""
        return {"max_length": self.max_length, "stride": self.stride}
