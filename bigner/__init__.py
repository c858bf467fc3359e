"""bigner: sharded fine-tuning of token-classification models, with exact scores."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bigner.api.launch import launch as launch
    from bigner.api.run import evaluate as evaluate
    from bigner.api.run import train as train
    from bigner.config.load import load_config as load_config
    from bigner.prediction.tagger import Tagger as Tagger
else:
    _HOMES = {
        "Tagger": "bigner.prediction.tagger",
        "evaluate": "bigner.api.run",
        "launch": "bigner.api.launch",
        "load_config": "bigner.config.load",
        "train": "bigner.api.run",
    }

    def __getattr__(name: str) -> object:
        # When it is asked for: some of it loads torch, and most commands never need that.
        if name in _HOMES:
            from importlib import import_module  # noqa: PLC0415

            return getattr(import_module(_HOMES[name]), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})


__all__ = ["Tagger", "__version__", "evaluate", "launch", "load_config", "train"]

__version__ = "0.1.0"
