"""Scoring an exported model under any strategy and world size."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bigner import collector
from bigner.config.schema import ModelConfig, RunConfig, Split
from bigner.data.heads import Head, paired
from bigner.data.prepare import prepare
from bigner.distributed import World
from bigner.errors import UserError
from bigner.evaluation.evaluator import ShardedEvaluator, timed_run
from bigner.log import inform, progress, warn
from bigner.modeling import build_model, check_fits, heads_of, load_tokenizer
from bigner.packing import pack_attention, padding_note
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
        model_dir: a transformers folder whose labels are IOB2 tags, or those of its heads.
        split: the split to score.
        predictions_file: where rank 0 writes ``word<TAB>gold<TAB>predicted<TAB>confidence`` lines,
            if given; of several heads each has a file of its own, ``-HEAD`` behind its stem.

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
    heads = heads_of(model_dir)
    with collector.paused():
        # A vocabulary is read by way of hundreds of thousands of lists.
        tokenizer = load_tokenizer(from_folder)
    prepared = prepare(config.data, tokenizer, [split])
    # On every rank, so that no rank waits for one that has found them not to fit.
    pairs = paired(prepared.heads, heads)
    data = prepared.splits[split]
    model = build_model(from_folder, heads.names_of_logits)
    check_fits(model, tokenizer, config.data.max_length)
    weights = InitialWeights(
        from_folder,
        model,
        seed=config.seed,
        cache_root=config.data.cache_root(),
        new_head=False,
    )
    if world.is_main:
        _tell_warnings(config, world, prepared.warnings, pairs)
        if note := padding_note(model, config.model.packing):
            inform(note)

    packing = pack_attention(model, config.model.packing)
    strategy = open_strategy(config, world, model, training=False)
    weights.fill(progress(list(strategy.shards()), "reading weights"))
    strategy.publish()
    evaluator = ShardedEvaluator(
        prepared,
        data,
        heads,
        world,
        evaluation=config.evaluation,
        packing=packing,
    )
    timed, predictions = timed_run(evaluator, strategy, confidences=predictions_file is not None)
    if predictions_file is not None and world.is_main:
        write_predictions(predictions_file, data.words, evaluator.columns_of_heads(predictions))
    strategy.close()
    return timed.as_json(config.chosen_head())


def _tell_warnings(
    config: RunConfig,
    world: World,
    warnings: tuple[str, ...],
    pairs: Sequence[tuple[Head, Head]],
) -> None:
    for warning in warnings:
        warn(warning)
    if slow := slow_precision_warning(config.precision, world.device):
        warn(slow)
    for head, model in pairs:
        unknown = sorted(set(head.names) - set(model.names))
        if unknown:
            what = "entities of these types" if head.kind == "tags" else "words of these classes"
            warn(
                f"the model has no label for {', '.join(unknown)}: {what} count as missed, and "
                f"their pieces do not count in the loss"
            )
