"""The state of a training run, and what is done with it between its steps."""

from bigner.training.machine import versions
from bigner.training.run import GoesOn, TrainingRun

__all__ = ["GoesOn", "TrainingRun", "versions"]
