"""What several unit tests build: a tokenizer, a model folder, a run config, column files."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Regex, normalizers
from transformers import (
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    XLMRobertaConfig,
)

from bigner.config.schema import ModelConfig, RunConfig
from bigner.distributed import World
from bigner.evaluation.word_labels import WordLabels
from bigner.modeling import allocate, build_model
from bigner.sample.tokenizer import train_tokenizer
from bigner.strategies import Shard, Strategy, open_strategy
from bigner.weights import InitialWeights

TaggedSentence = Sequence[tuple[str, str]]

SENTENCES: list[TaggedSentence] = [
    [("Anna", "B-PER"), ("Nováková", "I-PER"), ("lives", "O"), ("in", "O"), ("Žilina", "B-LOC")],
    [("Košice", "B-LOC"), ("Bratislava", "B-LOC"), ("and", "O"), ("Peter", "B-PER")],
    [("\u200b", "B-PER"), ("\ufeff", "O"), ("Peter", "B-PER"), ("\u200b", "I-PER")],
    [("nothing", "O"), ("here", "O")],
    [(f"word{i}", "O") for i in range(30)] + [("Anna", "B-PER"), ("Bratislava", "B-LOC")],
    [("Llanfairpwllgwyngyllgogerychwyrndrobwllllantysiliogogogoch" * 3, "B-LOC"), (".", "O")],
    [("\u200b", "O"), ("\u200b", "B-LOC")],
    [("Anna", "B-PER"), ("Anna", "B-PER"), ("Acme", "B-ORG"), ("Ltd", "I-ORG"), (".", "O")],
]
"""Words without pieces, a word longer than a window, a sentence longer than a window."""


def write_columns(path: Path, sentences: Iterable[TaggedSentence]) -> Path:
    """A column file of words and tags."""
    blocks = ("".join(f"{word}\t{tag}\n" for word, tag in sentence) for sentence in sentences)
    path.write_text("\n".join(blocks), encoding="utf-8")
    return path


def word_labels(gold: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]) -> WordLabels:
    """Tags of sentences as the evaluator has them: ids of labels that each side orders its way."""
    names, ids = [], []
    for side, reverse in ((gold, False), (predicted, True)):
        tags = [tag for sentence in side for tag in sentence]
        own = tuple(sorted(set(tags), reverse=reverse))
        names.append(own)
        ids.append(np.array([own.index(tag) for tag in tags], dtype=np.int8))
    lengths = np.array([len(sentence) for sentence in gold])
    return WordLabels(*ids, *names, lengths)


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """The sample's tokenizer, trained on the short words above; like XLM-R's in shape.

    As XLM-R's it has no piece for characters without width.
    """
    words = [word for sentence in SENTENCES for word, _ in sentence if 1 < len(word) < 20]
    tokenizer = train_tokenizer(words)
    nothing = normalizers.Replace(Regex("[\u200b\ufeff]"), "")
    tokenizer.normalizer = normalizers.Sequence([nothing, tokenizer.normalizer])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        cls_token="<s>",
        pad_token="<pad>",
        eos_token="</s>",
        sep_token="</s>",
        unk_token="<unk>",
        mask_token="<mask>",
    )


TINY: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 66,
}


def tiny_xlmr(vocab_size: int, **settings: Any) -> PretrainedConfig:
    """An XLM-R whose untrained predictions vary from word to word."""
    return XLMRobertaConfig(
        **{**TINY, "vocab_size": vocab_size, "initializer_range": 0.1, "type_vocab_size": 1}
        | settings
    )


def run_config(folder: Path, model: Path, **sections: Any) -> RunConfig:
    """A run of one process on the data in ``folder``."""
    return RunConfig.model_validate(
        {
            "run_dir": str(folder / "run"),
            "model": {"name_or_path": str(model), "training_type": "from_scratch"},
            "data": {"train": str(folder / "train.conll"), "cache_dir": str(folder / "cache")},
            **sections,
        }
    )


def whole_model(model: ModelConfig, tags: tuple[str, ...], seed: int) -> PreTrainedModel:
    """The model with its first values, as one process without a strategy would hold it."""
    network = build_model(model, tags)
    cache = Path(model.name_or_path) / "cache"
    weights = InitialWeights(model, network, seed=seed, cache_root=cache)
    allocate(network, torch.device("cpu"))
    weights.fill(
        Shard(name, tuple(p.shape), 0, p.numel(), p.detach().view(-1))
        for name, p in network.named_parameters()
    )
    return network


def opened(config: RunConfig, model: PreTrainedModel, *, training: bool = True) -> Strategy:
    """One process' strategy that goes on with the values the model has."""
    values = {name: p.detach().flatten().clone() for name, p in model.named_parameters()}
    strategy = open_strategy(config, World(), model, training=training)
    for shard in strategy.shards():
        shard.master.copy_(values[shard.name])
    strategy.publish()
    return strategy
