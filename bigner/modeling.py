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

from bigner.config.checks import missing_folder
from bigner.config.schema import ModelConfig
from bigner.errors import ModelError, one_line

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


def load_tokenizer(model: ModelConfig, *, split_words: bool = True) -> PreTrainedTokenizerFast:
    """The fast tokenizer of the model.

    Args:
        split_words: it will be given words one by one, not running text.

    Raises:
        ModelError: there is none, or it has no fast form (which alone tells words from pieces).
    """
    name = model.tokenizer or model.name_or_path
    _check_folder(name, "model.tokenizer" if model.tokenizer else "model.name_or_path")
    options: dict[str, Any] = {"trust_remote_code": model.trust_remote_code}
    if split_words:
        # Byte-level BPE splits a word as in running text only with a space before it.
        options["add_prefix_space"] = True
    if model.tokenizer is None and model.revision is not None:
        options["revision"] = model.revision
    with loading(f"no tokenizer can be loaded from {name!r}"):
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


def build_model(model: ModelConfig, tags: tuple[str, ...]) -> PreTrainedModel:
    """The model with a head as wide as ``tags``: parameters are shapes alone, buffers are real.

    A strategy gives it memory (``allocate``) and ``bigner.weights`` its values, so that no process
    of a sharded run ever holds the whole.

    Raises:
        ModelError: the model does not exist, or is no encoder with a token-classification head.
    """
    config = load_model_config(model)
    config.num_labels = len(tags)
    config.id2label = dict(enumerate(tags))
    config.label2id = {tag: i for i, tag in enumerate(tags)}
    if model.dropout is not None:
        _set_dropout(model, config)
    failure = f"{model.name_or_path!r} cannot be built for token classification"
    with loading(failure), parameters_on_meta():
        network = AutoModelForTokenClassification.from_config(
            config, dtype=torch.float32, trust_remote_code=model.trust_remote_code
        )
    if shapeless := [name for name, buffer in network.named_buffers() if buffer.is_meta]:
        raise ModelError(f"{failure}: its buffer {shapeless[0]} follows from weights")
    # The folder may have been another task's; what is exported is this one's.
    network.config.architectures = [type(network).__name__]
    if model.training_type == "transfer_learning":
        network.base_model.requires_grad_(False)
    return network


@contextmanager
def parameters_on_meta() -> Iterator[None]:
    """Give the modules built meanwhile no memory for parameters.

    ``torch.device("meta")`` would take the buffers too, whose values nothing would bring back.
    """
    register = nn.Module.register_parameter

    def register_shape(self: nn.Module, name: str, param: nn.Parameter | None) -> None:
        register(self, name, param)
        # One that is a shape already may be tied to another: it must stay the same object.
        if param is not None and not param.is_meta:
            shape = param.detach().to("meta")
            self._parameters[name] = nn.Parameter(shape, param.requires_grad)

    nn.Module.register_parameter = register_shape  # type: ignore[method-assign]
    try:
        yield
    finally:
        nn.Module.register_parameter = register  # type: ignore[method-assign]


def allocate(model: nn.Module, device: torch.device) -> None:
    """Give the shapes memory on ``device``, undefined values in it.

    Buffers keep their values, and modules that share a parameter go on sharing it.
    """
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    names: dict[nn.Parameter, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(parameter, []).append(name)
    model.to_empty(device=device)
    for name, buffer in model.named_buffers():
        buffer.copy_(buffers[name])
    for first, *others in names.values():
        for other in others:
            owner, _, last = other.rpartition(".")
            model.get_submodule(owner)._parameters[last] = model.get_parameter(first)


def _set_dropout(model: ModelConfig, config: Any) -> None:
    fields = [field for field in DROPOUT_FIELDS if hasattr(config, field)]
    if not fields:
        raise ModelError(
            f"model.dropout {model.dropout} cannot be set: the config of {model.name_or_path!r} "
            f"has none of the fields known for it; leave it out"
        )
    for field in fields:
        setattr(config, field, model.dropout)


def load_model_config(model: ModelConfig) -> Any:
    """The transformers config of the model.

    Raises:
        ModelError: there is none under that name.
    """
    _check_folder(model.name_or_path, "model.name_or_path")
    with loading(f"no model config can be loaded from {model.name_or_path!r}"):
        return AutoConfig.from_pretrained(
            model.name_or_path,
            revision=model.revision or "main",
            trust_remote_code=model.trust_remote_code,
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
def loading(failure: str, advice: str = "") -> Iterator[None]:
    """Say in one line what transformers could not load, whatever it raised: any file of any hand
    can be in that folder.
    """
    try:
        yield
    except ModelError:
        raise
    except Exception as error:
        if "trust_remote_code" in str(error):
            advice = "; set model.trust_remote_code to true if you trust that code"
        raise ModelError(one_line(failure, f"{_first_line(error)}{advice}")) from None


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
