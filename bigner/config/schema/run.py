"""A whole run file, and what its sections must agree on."""

from __future__ import annotations

from pydantic import Field, model_validator

from bigner.config.schema.base import FilePath, Precision, Section
from bigner.config.schema.checkpoint import CheckpointConfig
from bigner.config.schema.data import DataConfig
from bigner.config.schema.evaluation import EvaluationConfig
from bigner.config.schema.model import ModelConfig
from bigner.config.schema.strategy import SingleStrategy, StrategyConfig
from bigner.config.schema.trackers import Tracker, TrackersConfig
from bigner.config.schema.training import LossConfig, TrainingConfig


class RunConfig(Section):
    """One run: everything that decides its result stands in here."""

    run_dir: FilePath
    """Folder of the run; metrics, checkpoints, scores and the exported model go into it."""

    seed: int = Field(default=42, ge=0, lt=2**32)
    """Seeds the new weights, dropout and the order of the data."""

    collective_timeout: float = Field(default=600.0, gt=0.0, le=86_400.0)
    """Seconds that a rank waits for the others before it gives up: longer than the slowest thing
    that one rank does alone."""

    precision: Precision = "fp32"
    """Number format of the forward and backward computation; master weights are always fp32."""

    model: ModelConfig
    """Which encoder is trained and how much of it."""

    data: DataConfig
    """Which corpus is read, and how its sentences become windows of sub-words."""

    training: TrainingConfig = TrainingConfig()
    """How long and how fast the model learns."""

    loss: LossConfig = LossConfig()
    """What a wrong label costs."""

    strategy: StrategyConfig = SingleStrategy()
    """How the model is spread over processes: `single`, `fsdp` or `zero`, told apart by `kind`."""

    evaluation: EvaluationConfig = EvaluationConfig()
    """When and how predictions are scored."""

    checkpoint: CheckpointConfig = CheckpointConfig()
    """What is saved so that a run can go on."""

    tracking: tuple[Tracker, ...] = Field(default=(), strict=False)
    """Where the curves go besides metrics.jsonl: `tensorboard`, `mlflow`, `wandb`."""

    trackers: TrackersConfig = TrackersConfig()
    """What `mlflow` and `wandb` call the run."""

    @model_validator(mode="after")
    def _plateau_needs_validation(self) -> RunConfig:
        if self.training.schedule == "reduce_on_plateau" and self.data.validation is None:
            raise ValueError(
                "training.schedule reduce_on_plateau follows the validation score; "
                "give data.validation or take another schedule"
            )
        return self

    @model_validator(mode="after")
    def _layer_decay_needs_a_body_that_moves(self) -> RunConfig:
        if self.training.layer_decay != 1.0 and self.model.training_type == "transfer_learning":
            raise ValueError(
                f"training.layer_decay {self.training.layer_decay} is for the layers of the body, "
                f"which model.training_type transfer_learning freezes; take it out, or set "
                f"model.training_type to fine_tuning"
            )
        return self

    @model_validator(mode="after")
    def _zero_is_not_compiled(self) -> RunConfig:
        if self.training.compile and self.strategy.kind == "zero":
            raise ValueError(
                "training.compile is for strategies single and fsdp: DeepSpeed gathers weights in "
                "hooks within each layer; take it out or set strategy.kind to fsdp"
            )
        return self

    @model_validator(mode="after")
    def _windows_fit_token_budgets(self) -> RunConfig:
        training, longest = self.training, self.data.max_length
        if training.batching == "tokens" and training.micro_batch_tokens < longest:
            raise ValueError(
                f"training.micro_batch_tokens {training.micro_batch_tokens} is less than one "
                f"window of data.max_length {longest}; set it to {longest} or more"
            )
        if training.global_batch_tokens is not None and training.global_batch_tokens < 2 * longest:
            # Steps of equal size would be cut within a window.
            raise ValueError(
                f"training.global_batch_tokens {training.global_batch_tokens} is less than two "
                f"windows of data.max_length {longest}; set it to {2 * longest} or more"
            )
        return self

    @model_validator(mode="after")
    def _evaluation_needs_validation(self) -> RunConfig:
        evaluation = self.evaluation
        wanted = {"patience": evaluation.patience, "train_sample": evaluation.train_sample}
        for name, value in wanted.items():
            if value is not None and self.data.validation is None:
                raise ValueError(
                    f"evaluation.{name} {value} goes with the scoring of validation, which is not "
                    f"given; give data.validation or take {name} out"
                )
        if evaluation.min_gain and evaluation.patience is None:
            raise ValueError(
                f"evaluation.min_gain {evaluation.min_gain} is for evaluation.patience, which is "
                f"not given; give it or take min_gain out"
            )
        return self

    @model_validator(mode="after")
    def _head_is_one_of_the_heads(self) -> RunConfig:
        heads = self.data.resolved_heads()
        name = self.evaluation.head
        if name is not None and name not in heads:
            raise ValueError(
                f"evaluation.head {name!r} is none of the heads of the data: {', '.join(heads)}"
            )
        if self.evaluation.decoding == "iob2" and all(
            head.kind == "classes" for head in heads.values()
        ):
            raise ValueError(
                "evaluation.decoding iob2 is for tags, and every head has classes; take it out"
            )
        if self.evaluation.metric == "strict_f1" and heads[self.chosen_head()].kind == "classes":
            raise ValueError(
                f"evaluation.metric strict_f1 is of entities, and the head "
                f"{self.chosen_head()!r} has classes; take f1 (which is macro F1 there)"
            )
        return self

    def chosen_head(self) -> str:
        """The head whose score makes weights the best."""
        return self.evaluation.head or next(iter(self.data.resolved_heads()))
