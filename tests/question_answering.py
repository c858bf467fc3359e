"""What tests of question answering build: tokenizers whose pieces can be counted, and files."""

from __future__ import annotations

import json
from pathlib import Path

from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

SPECIAL = {"[UNK]": 0, "[CLS]": 1, "[SEP]": 2, "[PAD]": 3}


def words_tokenizer() -> PreTrainedTokenizerFast:
    """A piece for every word between white space; all words have one id."""
    return _tokenizer(pre_tokenizers.WhitespaceSplit())


def characters_tokenizer() -> PreTrainedTokenizerFast:
    """A piece for every character, so that any text is a span of pieces."""
    return _tokenizer(pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated"))


def _tokenizer(split: pre_tokenizers.PreTokenizer) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.WordLevel(SPECIAL, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = split
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 1), ("[SEP]", 2)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        pad_token="[PAD]",
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )


def first_paragraphs(source: Path, target: Path, count: int) -> Path:
    """A file of some paragraphs of another one."""
    document = json.loads(source.read_text(encoding="utf-8"))
    paragraphs = [p for article in document["data"] for p in article["paragraphs"]][:count]
    target.write_text(json.dumps({"data": [{"paragraphs": paragraphs}]}), encoding="utf-8")
    return target
