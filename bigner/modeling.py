"""The model of a run, and where a strategy may cut it into units."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForTokenClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)
from transformers.utils import logging as transformers_logging

from bigner.config.checks import missing_folder
from bigner.config.schema import ModelConfig
from bigner.errors import ModelError

DROPOUT_FIELDS = (
    # XLM-R, RoBERTa, BERT, ELECTRA, DeBERTa
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "classifier_dropout",
    "pooler_dropout",
    "cls_dropout",
    # ModernBERT
    "embedding_dropout",
    "attention_dropout",
    "mlp_dropout",
)


def load_tokenizer(model: ModelConfig) -> PreTrainedTokenizerFast:
    """The fast tokenizer of the model.

    Raises:
        ModelError: there is none, or it has no fast form (which alone tells words from pieces).
    """
    name = model.tokenizer or model.name_or_path
    _check_folder(name, "model.tokenizer" if model.tokenizer else "model.name_or_path")
    # Byte-level BPE splits a word as in running text only with a space before it.
    options: dict[str, Any] = {"add_prefix_space": True}
    if model.tokenizer is None and model.revision is not None:
        options["revision"] = model.revision
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, **options)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise ModelError(
            f"no tokenizer can be loaded from {name!r}: {_first_line(error)}"
        ) from None
    if not tokenizer.is_fast:
        raise ModelError(
            f"the tokenizer of {name!r} is {type(tokenizer).__name__}, which has no fast form; "
            f"bigner needs one to know which pieces belong to which word"
        )
    # Where a folder has a config and no tokenizer, transformers makes one of special pieces alone.
    known = tokenizer("abcdefghijklmnopqrstuvwxyz 0123456789", add_special_tokens=False)
    if set(known["input_ids"]) <= set(tokenizer.all_special_ids):
        raise ModelError(
            f"the tokenizer of {name!r} has no vocabulary: it knows neither letters nor digits; "
            f"its files are missing there, so set model.tokenizer to where they are"
        )
    return tokenizer


def build_model(model: ModelConfig, tags: tuple[str, ...], seed: int) -> PreTrainedModel:
    """The whole model in fp32 on the CPU, its head as wide as ``tags``.

    New weights are drawn from ``seed`` alone, so every rank of every strategy begins with the
    same values.

    Raises:
        ModelError: the model does not exist, holds no weights where weights are wanted, or is no
            encoder with a token-classification head.
    """
    config = load_model_config(model)
    config.num_labels = len(tags)
    config.id2label = dict(enumerate(tags))
    config.label2id = {tag: i for i, tag in enumerate(tags)}
    if model.dropout is not None:
        for field in DROPOUT_FIELDS:
            if hasattr(config, field):
                setattr(config, field, model.dropout)
    torch.manual_seed(seed)
    try:
        if model.training_type == "from_scratch":
            network = AutoModelForTokenClassification.from_config(config, dtype=torch.float32)
        else:
            network = _pretrained(model, config)
    except (OSError, ValueError, KeyError, ImportError, SafetensorError) as error:
        raise ModelError(
            f"{model.name_or_path!r} cannot be built for token classification: {_first_line(error)}"
        ) from None
    if model.training_type == "transfer_learning":
        network.base_model.requires_grad_(False)
    return network


def _pretrained(model: ModelConfig, config: Any) -> PreTrainedModel:
    # The bar of loading weights would appear once for each rank.
    transformers_logging.disable_progress_bar()
    network, report = AutoModelForTokenClassification.from_pretrained(
        model.name_or_path,
        config=config,
        revision=model.revision or "main",
        dtype=torch.float32,
        # A head for other labels is left behind and a new one drawn.
        ignore_mismatched_sizes=True,
        output_loading_info=True,
    )
    _check_body_is_loaded(model, network, report)
    return network


def _check_body_is_loaded(
    model: ModelConfig, network: PreTrainedModel, report: dict[str, Any]
) -> None:
    """Refuse weights that transformers would replace by random ones, but for those of the head."""
    drawn = {*report["missing_keys"], *(name for name, *_ in report["mismatched_keys"])}
    body = sorted(name for name in drawn if name.startswith(f"{network.base_model_prefix}."))
    if body:
        raise ModelError(
            f"{model.name_or_path!r}: {len(body)} weights of the encoder are missing or of another "
            f"shape than its config says, such as {body[0]}; config and weights do not belong "
            f"together"
        )


def load_model_config(model: ModelConfig) -> Any:
    """The transformers config of the model.

    Raises:
        ModelError: there is none under that name.
    """
    _check_folder(model.name_or_path, "model.name_or_path")
    try:
        return AutoConfig.from_pretrained(
            model.name_or_path, revision=model.revision or "main", trust_remote_code=False
        )
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(
            f"no model config can be loaded from {model.name_or_path!r}: {_first_line(error)}"
        ) from None


def check_fits(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, max_length: int) -> None:
    """Refuse windows and pieces that the model has no position or embedding for.

    Raises:
        ModelError: the tokenizer or ``data.max_length`` does not fit the model.
    """
    limit = _longest_window(model)
    if limit is not None and max_length > limit:
        raise ModelError(
            f"data.max_length {max_length} is more than the {limit} pieces this model has "
            f"positions for; set data.max_length to {limit} or less"
        )
    rows = model.get_input_embeddings().num_embeddings
    if len(tokenizer) > rows:
        raise ModelError(
            f"the tokenizer has {len(tokenizer)} pieces and the model embeddings for {rows}; "
            f"they do not belong together"
        )


def _longest_window(model: PreTrainedModel) -> int | None:
    """Positions the model can tell apart; None where they are relative."""
    table = getattr(getattr(model.base_model, "embeddings", None), "position_embeddings", None)
    if isinstance(table, nn.Embedding):
        # RoBERTa's kind counts positions from the padding id on.
        unused = 0 if table.padding_idx is None else table.padding_idx + 1
        return table.num_embeddings - unused
    if getattr(model.config, "rope_parameters", None):
        return int(model.config.max_position_embeddings)
    return None


def tags_of(folder: Path) -> list[str]:
    """The tags of an exported model in the order of their ids.

    Raises:
        ModelError: the folder has no config, or its config has no names for its labels.
    """
    path = folder / "config.json"
    try:
        id2label = json.loads(path.read_text(encoding="utf-8"))["id2label"]
        return [id2label[str(i)] for i in range(len(id2label))]
    except (OSError, ValueError, KeyError, TypeError):
        raise ModelError(f"{folder}: no config.json that names its labels in id2label") from None


def units(model: PreTrainedModel) -> list[nn.Module]:
    """The modules that a sharded strategy gathers one at a time: the embeddings, each layer.

    Whatever is in none of them (the head, norms around the layers) belongs to the root.
    """
    body = model.base_model
    lists = [module for module in body.modules() if isinstance(module, nn.ModuleList)]
    layers = max(lists, key=lambda layer_list: sum(p.numel() for p in layer_list.parameters()))
    embeddings = getattr(body, "embeddings", None)
    return [*([embeddings] if isinstance(embeddings, nn.Module) else []), *layers]


def _check_folder(name: str, field: str) -> None:
    if missing_folder(name):
        raise ModelError(f"{field} {name!r}: there is no such folder")


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
