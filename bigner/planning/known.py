"""The sizes of encoders that go by a name, so that planning needs neither files nor the Hub."""

from __future__ import annotations

from typing import Any


def known_config(name: str) -> dict[str, Any] | None:
    """The config of a model of the Hub, as far as its shape goes; None if it is not known here."""
    return _CONFIGS.get(name.rpartition("/")[2])


def _sizes(
    model_type: str, vocabulary: int, hidden: int, layers: int, heads: int
) -> dict[str, Any]:
    return {
        "model_type": model_type,
        "vocab_size": vocabulary,
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": 4 * hidden,
    }


def _roberta(
    model_type: str, vocabulary: int, hidden: int, layers: int, heads: int
) -> dict[str, Any]:
    sizes = _sizes(model_type, vocabulary, hidden, layers, heads)
    return {**sizes, "max_position_embeddings": 514, "type_vocab_size": 1}


_CONFIGS: dict[str, dict[str, Any]] = {
    "xlm-roberta-base": _roberta("xlm-roberta", 250002, 768, 12, 12),
    "xlm-roberta-large": _roberta("xlm-roberta", 250002, 1024, 24, 16),
    "xlm-roberta-xl": _roberta("xlm-roberta-xl", 250880, 2560, 36, 32),
    "xlm-roberta-xxl": _roberta("xlm-roberta-xl", 250880, 4096, 48, 32),
    "roberta-base": _roberta("roberta", 50265, 768, 12, 12),
    "roberta-large": _roberta("roberta", 50265, 1024, 24, 16),
    "camembert-base": _roberta("camembert", 32005, 768, 12, 12),
    "camembert-large": _roberta("camembert", 32005, 1024, 24, 16),
    "bert-base-cased": _sizes("bert", 28996, 768, 12, 12),
    "bert-base-uncased": _sizes("bert", 30522, 768, 12, 12),
    "bert-large-cased": _sizes("bert", 28996, 1024, 24, 16),
    "bert-large-uncased": _sizes("bert", 30522, 1024, 24, 16),
    "bert-base-multilingual-cased": _sizes("bert", 119547, 768, 12, 12),
    "electra-base-discriminator": {**_sizes("electra", 30522, 768, 12, 12), "embedding_size": 768},
    "electra-large-discriminator": {
        **_sizes("electra", 30522, 1024, 24, 16),
        "embedding_size": 1024,
    },
    "ModernBERT-base": {**_sizes("modernbert", 50368, 768, 22, 12), "intermediate_size": 1152},
    "ModernBERT-large": {**_sizes("modernbert", 50368, 1024, 28, 16), "intermediate_size": 2624},
}
