"""bigner: sharded fine-tuning of token-classification models, with exact scores."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bigner.prediction.tagger import Tagger as Tagger
else:

    def __getattr__(name: str) -> object:
        # When it is asked for: it loads torch, and most commands never need that.
        if name == "Tagger":
            from bigner.prediction.tagger import Tagger  # noqa: PLC0415

            return Tagger
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = ["Tagger", "__version__"]

__version__ = "0.1.0"
