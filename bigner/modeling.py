"""The model of a run, and where a strategy may cut it into units."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
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
from bigner.data import window_size
from bigner.data.heads import CONFIG_FIELD, Heads
from bigner.data.window_size import WindowSize
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
    for name in _frozen(model, network):
        network.get_parameter(name).requires_grad_(False)
    return network


def _frozen(model: ModelConfig, network: PreTrainedModel) -> Iterator[str]:
    """The parameters that shall not move, which is to be known before a strategy takes them."""
    if model.training_type == "transfer_learning":
        yield from body_parameters(network)
    parts, freeze = anatomy(network), model.freeze
    if freeze.layers > len(parts.layers):
        raise ModelError(
            f"model.freeze.layers {freeze.layers} is more than the {len(parts.layers)} layers of "
            f"{model.name_or_path!r}; set it to {len(parts.layers)} or less"
        )
    for layer in parts.layers[: freeze.layers]:
        yield from layer
    if freeze.embeddings and not parts.embeddings:
        raise ModelError(
            f"model.freeze.embeddings: {model.name_or_path!r} has none that can be told from its "
            f"other parts; take it out"
        )
    if freeze.embeddings:
        yield from parts.embeddings


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
    limit = longest_window(model)
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


def longest_window(model: PreTrainedModel) -> int | None:
    """Positions the model can tell apart; None where they are relative."""
    table = getattr(getattr(model.base_model, "embeddings", None), "position_embeddings", None)
    if isinstance(table, nn.Embedding):
        # RoBERTa's kind counts positions from the padding id on.
        unused = 0 if table.padding_idx is None else table.padding_idx + 1
        return table.num_embeddings - unused
    if getattr(model.config, "rope_parameters", None):
        return int(model.config.max_position_embeddings)
    return None


def describe_heads(model: PreTrainedModel, heads: Heads) -> None:
    """Let the model's config say which of its labels belong to which head, if it has several."""
    if (described := heads.described()) is not None:
        setattr(model.config, CONFIG_FIELD, described)
    elif hasattr(model.config, CONFIG_FIELD):
        # Of the model that this one begins with.
        delattr(model.config, CONFIG_FIELD)


def describe_windows(model: PreTrainedModel, size: WindowSize) -> None:
    """Let the model's config say how texts were cut for it, so that others are cut alike."""
    setattr(model.config, window_size.CONFIG_FIELD, size.described())


def windows_of(folder: Path) -> WindowSize | None:
    """How texts were cut for an exported model; None for one that does not say.

    Raises:
        ModelError: its config says something else.
    """
    path = folder / "config.json"
    try:
        described = json.loads(path.read_text(encoding="utf-8")).get(window_size.CONFIG_FIELD)
    except (OSError, ValueError, AttributeError, RecursionError):
        raise ModelError(f"{path} cannot be read") from None
    try:
        return None if described is None else WindowSize.from_config(described)
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from None


def heads_of(folder: Path) -> Heads:
    """The heads of an exported model.

    Raises:
        ModelError: the folder has no config, or its config does not name its labels.
    """
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        id2label = config["id2label"]
        names = [id2label[str(i)] for i in range(len(id2label))]
        described = config.get(CONFIG_FIELD)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        names = []
    if not names or not all(isinstance(name, str) for name in names):
        raise ModelError(f"{folder}: no config.json that names its labels in id2label")
    try:
        return Heads.from_config(described, names)
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from None


def units(model: PreTrainedModel) -> list[nn.Module]:
    """The modules that a sharded strategy gathers one at a time: the embeddings, each layer.

    Whatever is in none of them (the head, norms around the layers) belongs to the root.
    """
    body = model.base_model
    return [*_embeddings(body), *layers(model)]


def lookup_table(model: PreTrainedModel) -> tuple[str, nn.Embedding] | None:
    """The input embeddings and their parameter's name, if they are a look-up and nothing else.

    None where they compute something more of their values, or share them with another part.
    """
    table = model.get_input_embeddings()
    if type(table) is not nn.Embedding:
        return None
    names = [
        name
        for name, parameter in model.named_parameters(remove_duplicate=False)
        if parameter is table.weight
    ]
    return (names[0], table) if len(names) == 1 else None


def layers(model: PreTrainedModel) -> list[nn.Module]:
    """The layers of a model, or the parts of them where they are spread over several lists."""
    return [part for parts in _layers(model.base_model) for part in parts]


@dataclass(frozen=True, slots=True)
class Anatomy:
    """The names of a model's parameters by where they lie; each is in one place."""

    embeddings: frozenset[str]
    """With what lies between them and the first layer."""
    layers: tuple[frozenset[str], ...]
    """From the embeddings up."""
    above: frozenset[str]
    """What else the body has: a norm over the layers, tables that they share."""
    head: frozenset[str]


def anatomy(model: PreTrainedModel) -> Anatomy:
    """Where each parameter of a model lies."""
    body, layers = body_parameters(model), _layers(model.base_model)
    layer_of = {p: k for k, parts in enumerate(layers) for part in parts for p in part.parameters()}
    tables = {p for module in _embeddings(model.base_model) for p in module.parameters()}
    embeddings, above, head = set(), set(), set()
    named: list[set[str]] = [set() for _ in layers]
    below = bool(layers)
    for name, parameter in model.named_parameters():
        if name not in body:
            head.add(name)
        elif parameter in layer_of:
            named[layer_of[parameter]].add(name)
            below = False
        elif below or parameter in tables:
            # Modules are in the order that values go through them: ELECTRA's embeddings are
            # projected before the first layer.
            embeddings.add(name)
        else:
            above.add(name)
    layer_names = tuple(frozenset(names) for names in named)
    return Anatomy(frozenset(embeddings), layer_names, frozenset(above), frozenset(head))


def body_parameters(model: PreTrainedModel) -> set[str]:
    """The parameters that pretraining gives; all others are of the head."""
    if model.base_model is model:
        # Code of another hand that does not say which part of it is the body.
        return beneath_the_labels(model)
    prefix = f"{model.base_model_prefix}."
    return {name for name, _ in model.named_parameters() if name.startswith(prefix)}


def beneath_the_labels(model: PreTrainedModel) -> set[str]:
    """The parameters that have no row for each label."""
    rows = (model.config.num_labels,)
    return {name for name, p in model.named_parameters() if tuple(p.shape[:1]) != rows}


def _embeddings(body: nn.Module) -> list[nn.Module]:
    embeddings = getattr(body, "embeddings", None)
    return [embeddings] if isinstance(embeddings, nn.Module) else []


def _layers(body: nn.Module) -> list[list[nn.Module]]:
    """The parts of each layer: one module, or one of each of the lists that a layer is spread over,
    as XLM's is.
    """
    found: list[list[nn.ModuleList]] = []
    for module in body.modules():
        lists = [child for child in module.children() if isinstance(child, nn.ModuleList)]
        found += [[twin for twin in lists if len(twin) == len(one)] for one in lists]
    largest = max(found, key=_num_values, default=[])
    return [list(parts) for parts in zip(*largest, strict=True)]


def _num_values(lists: list[nn.ModuleList]) -> int:
    return sum(p.numel() for modules in lists for p in modules.parameters())


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
            advice = (
                "; set model.trust_remote_code to true, or --trust-remote-code where no run file "
                "is given, if you trust that code"
            )
        raise ModelError(one_line(failure, f"{_first_line(error)}{advice}")) from None


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
