"""The model of a run, and where a strategy may cut it into units."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
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
    # ALBERT, DistilBERT
    "classifier_dropout_prob",
    "dropout",
    "seq_classif_dropout",
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
    with _loading(f"no tokenizer can be loaded from {name!r}"):
        tokenizer = AutoTokenizer.from_pretrained(name, **options)
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


def build_model(
    model: ModelConfig, tags: tuple[str, ...], seed: int, *, new_head: bool = True
) -> PreTrainedModel:
    """The whole model in fp32 on the CPU, its head as wide as ``tags``.

    New weights are drawn from ``seed`` alone, so every rank of every strategy begins with the
    same values.

    Args:
        new_head: whether a head may be drawn where the folder has none for these tags.

    Raises:
        ModelError: the model does not exist, holds no weights where weights are wanted, or is no
            encoder with a token-classification head.
    """
    config = load_model_config(model)
    config.num_labels = len(tags)
    config.id2label = dict(enumerate(tags))
    config.label2id = {tag: i for i, tag in enumerate(tags)}
    if model.dropout is not None:
        _set_dropout(model, config)
    torch.manual_seed(seed)
    if model.training_type == "from_scratch":
        with _loading(f"{model.name_or_path!r} cannot be built for token classification"):
            network = AutoModelForTokenClassification.from_config(config, dtype=torch.float32)
    else:
        network = _pretrained(model, config, new_head=new_head)
    # The folder may have been another task's; what is exported is this one's.
    network.config.architectures = [type(network).__name__]
    if model.training_type == "transfer_learning":
        network.base_model.requires_grad_(False)
    return network


def _set_dropout(model: ModelConfig, config: Any) -> None:
    fields = [field for field in DROPOUT_FIELDS if hasattr(config, field)]
    if not fields:
        raise ModelError(
            f"model.dropout {model.dropout} cannot be set: the config of {model.name_or_path!r} "
            f"has none of the fields known for it; leave it out"
        )
    for field in fields:
        setattr(config, field, model.dropout)


def _pretrained(model: ModelConfig, config: Any, *, new_head: bool) -> PreTrainedModel:
    # Bars and reports would appear once for each rank; what matters of them is checked here.
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    advice = "; model.training_type from_scratch takes the architecture alone" if new_head else ""
    with _loading(f"no weights can be loaded from {model.name_or_path!r}", advice):
        network, report = AutoModelForTokenClassification.from_pretrained(
            model.name_or_path,
            config=config,
            revision=model.revision or "main",
            dtype=torch.float32,
            # A head for other labels is left behind and a new one drawn.
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    _check_loaded(model, network, report, new_head=new_head)
    return network


def _check_loaded(
    model: ModelConfig, network: PreTrainedModel, report: dict[str, Any], *, new_head: bool
) -> None:
    """Refuse weights that transformers replaced by random ones, but for a head that may be new."""
    drawn = {*report["missing_keys"], *(name for name, *_ in report["mismatched_keys"])}
    body = f"{network.base_model_prefix}."
    wanting = sorted(name for name in drawn if name.startswith(body) or not new_head)
    if wanting:
        raise ModelError(
            f"{model.name_or_path!r}: {len(wanting)} weights are missing or of another shape than "
            f"its config says, such as {wanting[0]}; config and weights do not belong together"
        )


def load_model_config(model: ModelConfig) -> Any:
    """The transformers config of the model.

    Raises:
        ModelError: there is none under that name.
    """
    _check_folder(model.name_or_path, "model.name_or_path")
    with _loading(f"no model config can be loaded from {model.name_or_path!r}"):
        return AutoConfig.from_pretrained(
            model.name_or_path, revision=model.revision or "main", trust_remote_code=False
        )


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
        tags = [id2label[str(i)] for i in range(len(id2label))]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        tags = []
    if not tags or not all(isinstance(tag, str) for tag in tags):
        raise ModelError(f"{folder}: no config.json that names its labels in id2label")
    return tags


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


@contextmanager
def _loading(failure: str, advice: str = "") -> Iterator[None]:
    """Say in one line what transformers could not load, whatever it raised: any file of any hand
    can be in that folder.
    """
    try:
        yield
    except Exception as error:
        raise ModelError(f"{failure}: {_first_line(error)}{advice}") from None


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
