"""Scoring an exported model under any strategy and world size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bigner.config.schema import ModelConfig, RunConfig, Split
from bigner.data.labels import LabelSet
from bigner.data.prepare import prepare
from bigner.distributed import World
from bigner.errors import UserError
from bigner.evaluation.evaluator import ShardedEvaluator, as_json, timed_run
from bigner.log import warn
from bigner.modeling import build_model, check_fits, load_tokenizer, tags_of
from bigner.predictions import write_predictions
from bigner.strategies import open_strategy
from bigner.strategies.precision import slow_precision_warning
from bigner.weights import InitialWeights


def evaluate(
    config: RunConfig,
    world: World,
    *,
    model_dir: Path,
    split: Split,
    predictions_file: Path | None = None,
) -> dict[str, Any]:
    """Score the model in ``model_dir`` on one split; collective.

    The data, precision and strategy are the config's; the model, its tokenizer and its labels are
    the folder's.

    Args:
        config: the run config.
        world: all ranks.
        model_dir: a transformers folder whose labels are IOB2 tags.
        split: the split to score.
        predictions_file: where rank 0 writes ``word<TAB>gold<TAB>predicted`` lines, if given.

    Returns:
        scores and speed; the same on every rank, but for the speed.

    Raises:
        BignerError: whatever a user can mend; see ``bigner.errors``.
    """
    if config.data.source(split) is None:
        raise UserError(f"the run config names no data.{split} to score")
    from_folder = ModelConfig(
        name_or_path=str(model_dir), trust_remote_code=config.model.trust_remote_code
    )
    tags = tags_of(model_dir)
    labels = LabelSet.from_id2label(dict(enumerate(tags)))
    tokenizer = load_tokenizer(from_folder)
    prepared = prepare(config.data, tokenizer, [split])
    data = prepared.splits[split]
    model = build_model(from_folder, labels.tags)
    check_fits(model, tokenizer, config.data.max_length)
    weights = InitialWeights(
        from_folder,
        model,
        seed=config.seed,
        cache_root=config.data.cache_root(),
        new_head=False,
    )
    if world.is_main:
        _tell_warnings(config, world, prepared.warnings, labels, prepared.labels)

    strategy = open_strategy(config, world, model, training=False)
    weights.fill(strategy.shards())
    strategy.publish()
    evaluator = ShardedEvaluator(
        prepared, data, labels, world, batch_size=config.evaluation.batch_size
    )
    timed, predictions = timed_run(evaluator, strategy)
    if predictions_file is not None and world.is_main:
        words = data.sentences.data.column("words").to_pylist()
        write_predictions(predictions_file, words, *evaluator.tags(predictions))
    strategy.close()
    return as_json(timed)


def _tell_warnings(
    config: RunConfig, world: World, warnings: tuple[str, ...], model: LabelSet, data: LabelSet
) -> None:
    for warning in warnings:
        warn(warning)
    if slow := slow_precision_warning(config.precision, world.device):
        warn(slow)
    unknown = sorted(set(data.types) - set(model.types))
    if unknown:
        warn(
            f"the model has no label for {', '.join(unknown)}: entities of these types count as "
            f"missed, and their pieces do not count in the loss"
        )
