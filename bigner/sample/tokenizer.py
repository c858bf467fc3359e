"""A small tokenizer of the shape of XLM-RoBERTa's, trained on the sample's own letters."""

from __future__ import annotations

from collections.abc import Iterable

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
MAX_POSITIONS = 512
# The ids that XLM-RoBERTa gives them: 0 to 3, and the last for the mask.
_SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")
_MASK = "<mask>"


def train_tokenizer(words: Iterable[str]) -> Tokenizer:
    """A tokenizer of words, and of nothing but ``words``: unseen splits stay unseen."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=list(_SPECIAL),
        show_progress=False,
    )
    tokenizer.train_from_iterator(words, trainer)
    tokenizer.add_special_tokens([_MASK])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> </s> $B </s>",
        special_tokens=[("<s>", 0), ("</s>", 2)],
    )
    return tokenizer
