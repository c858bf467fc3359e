"""A small tokenizer shaped like XLM-RoBERTa's, trained on the sample's own letters.

Byte-pair encoding stands in for XLM-RoBERTa's unigram model, whose training in `tokenizers` adds
floating-point numbers in the order of its threads and so never gives the same bytes twice.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

VOCAB_SIZE = 2400
"""Entries to train, besides the mask."""

MAX_PIECES = 512
"""Pieces in the longest text that the sample's model has positions for."""

# XLM-RoBERTa gives these the ids 0 to 3, and its last id to the mask.
_FIRST_TOKENS = ("<s>", "<pad>", "</s>", "<unk>")
_MASK = "<mask>"

_CONFIG = {
    # Any other class would rebuild the tokenizer as transformers believes that class to be.
    "tokenizer_class": "PreTrainedTokenizerFast",
    "model_max_length": MAX_PIECES,
    "model_input_names": ["input_ids", "attention_mask"],
    "bos_token": "<s>",
    "cls_token": "<s>",
    "eos_token": "</s>",
    "sep_token": "</s>",
    "pad_token": "<pad>",
    "unk_token": "<unk>",
    "mask_token": _MASK,
}


def train_tokenizer(words: Iterable[str]) -> Tokenizer:
    """A tokenizer whose pieces come from ``words``."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE, special_tokens=list(_FIRST_TOKENS), show_progress=False
    )
    tokenizer.train_from_iterator(words, trainer)
    tokenizer.add_special_tokens([_MASK])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> </s> $B </s>",
        special_tokens=[("<s>", 0), ("</s>", 2)],
    )
    return tokenizer


def save_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """Write the files from which transformers' AutoTokenizer loads a fast tokenizer."""
    (folder / "tokenizer.json").write_text(
        tokenizer.to_str(pretty=True) + "\n", encoding="utf-8", newline="\n"
    )
    (folder / "tokenizer_config.json").write_text(
        json.dumps(_CONFIG, indent=2) + "\n", encoding="utf-8", newline="\n"
    )
