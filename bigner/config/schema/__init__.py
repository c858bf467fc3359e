"""The schema of a run: what a run file may say, with a sentence under each field.

The sentences become the descriptions in the JSON Schema that ``bigner schema`` prints. Nothing in
here changes what a user wrote: validators accept or refuse, and derived numbers are methods.
"""

from __future__ import annotations

from bigner.config.schema.base import SPLITS, Precision, Section, Split, default_cache_root
from bigner.config.schema.checkpoint import CheckpointConfig
from bigner.config.schema.data import ONLY_HEAD, Columns, DataConfig, Fold, HeadConfig
from bigner.config.schema.evaluation import Decoding, EvaluationConfig
from bigner.config.schema.model import Freeze, ModelConfig
from bigner.config.schema.run import RunConfig
from bigner.config.schema.strategy import FsdpStrategy, SingleStrategy, StrategyConfig, ZeroStrategy
from bigner.config.schema.trackers import Tracker, TrackersConfig
from bigner.config.schema.training import LossConfig, Schedule, TrainingConfig

__all__ = [
    "ONLY_HEAD",
    "SPLITS",
    "CheckpointConfig",
    "Columns",
    "DataConfig",
    "Decoding",
    "EvaluationConfig",
    "Fold",
    "Freeze",
    "FsdpStrategy",
    "HeadConfig",
    "LossConfig",
    "ModelConfig",
    "Precision",
    "RunConfig",
    "Schedule",
    "Section",
    "SingleStrategy",
    "Split",
    "StrategyConfig",
    "Tracker",
    "TrackersConfig",
    "TrainingConfig",
    "ZeroStrategy",
    "default_cache_root",
]
