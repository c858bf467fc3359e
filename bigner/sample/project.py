"""Everything that lies in a project made by ``bigner init``."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from bigner.sample.letters import SIZES, Letter, as_columns, write_letters
from bigner.sample.tokenizer import MAX_PIECES, save_tokenizer, train_tokenizer

# Two layers learn the sample in a minute. New weights start wider than XLM-RoBERTa's 0.02, at about
# one over the root of the hidden size: with narrower ones attention stays flat for most of so short
# a training. In three epochs there is nothing for dropout to prevent.
_MODEL_CONFIG = {
    "architectures": ["XLMRobertaForTokenClassification"],
    "model_type": "xlm-roberta",
    "hidden_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 256,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "initializer_range": 0.07,
    "layer_norm_eps": 1e-5,
    # XLM-RoBERTa counts positions from the padding's id on.
    "max_position_embeddings": MAX_PIECES + 2,
    "type_vocab_size": 1,
    "bos_token_id": 0,
    "pad_token_id": 1,
    "eos_token_id": 2,
}

_RUN = """\
# Trains a small model from nothing on the sample letters, {title}.
# Any value can be set on the command line too: training.epochs=1
run_dir: runs/{name}
seed: 42
precision: fp16                  # bf16 or fp32 on a processor that has no fp16

model:
  name_or_path: model            # the folder here; its config.json is the architecture
  training_type: from_scratch    # fine_tuning with weights from the Hub

data:
  train: data/train.conll
  validation: data/validation.conll
  test: data/test.conll
  unit: sentence                 # document: whole letters, cut into windows
  max_length: 40                 # pieces in a window; longer sentences get several
  stride: 8                      # words that two windows share

training:
  epochs: 3
  global_batch_size: 256         # over all ranks
  micro_batch_size: 128          # what a rank computes at once: fits one rank and two
  learning_rate: 4.0e-3          # for new weights; fine-tuning wants about 1.0e-5
  adam_beta2: 0.98               # forgets the first, wild gradients of new weights sooner
  warmup_ratio: 0.1
  max_grad_norm: 1.0

strategy:
{strategy}
evaluation:
  every: epoch
  batch_size: 256

checkpoint:
  every_steps: 100
  keep_last: 1
"""
_STRATEGIES = {
    "zero3": (
        "sharded with DeepSpeed ZeRO-3",
        "  kind: zero\n  stage: 3                       # 1, 2 or 3\n",
    ),
    "fsdp": ("sharded with PyTorch FSDP2", "  kind: fsdp\n"),
}

_SPACE = """\
# What `bigner search run_fsdp.yaml space.yaml` may change.
training.learning_rate: {low: 1.0e-3, high: 1.0e-2, log: true}
training.adam_beta2: [0.98, 0.999]
training.warmup_ratio: {low: 0.05, high: 0.3, step: 0.05}
evaluation.decoding: [argmax, iob2]
"""

_README = """\
# A bigner project on sample letters

`data/` holds generated Czech and English letters, `model/` a small model's shape and tokenizer.
Marked are people's names, dates of birth, birth numbers and creditor numbers; look-alikes are not.

    bigner validate run_zero3.yaml
    torchrun --nproc-per-node 2 -m bigner train run_zero3.yaml
    torchrun --nproc-per-node 2 -m bigner train run_fsdp.yaml
    bigner search run_fsdp.yaml space.yaml run_dir=found

Run them in this folder, on a machine without a GPU with `precision=bf16` (or `fp32`) at the end.
Scores come to `runs/*/summary.json`.
"""


def write_project(folder: Path) -> None:
    """Fill ``folder``, which exists and is empty: the same bytes every time."""
    letters = {split: write_letters(split) for split in SIZES}
    _write_data(folder / "data", letters)
    _write_model(folder / "model", letters["train"])
    for name, (title, strategy) in _STRATEGIES.items():
        run = _RUN.format(name=name, title=title, strategy=strategy)
        _write(folder / f"run_{name}.yaml", run)
    _write(folder / "space.yaml", _SPACE)
    _write(folder / "README.md", _README)


def _write_data(folder: Path, letters: dict[str, list[Letter]]) -> None:
    folder.mkdir()
    for split, written in letters.items():
        _write(folder / f"{split}.conll", as_columns(written))


def _write_model(folder: Path, letters: Iterable[Letter]) -> None:
    folder.mkdir()
    # Training letters alone: the words of the others are as new to the tokenizer as to the model.
    words = (word for letter in letters for sentence in letter for word, _ in sentence)
    tokenizer = train_tokenizer(words)
    save_tokenizer(tokenizer, folder)
    config = _MODEL_CONFIG | {"vocab_size": tokenizer.get_vocab_size()}
    _write(folder / "config.json", json.dumps(config, indent=2) + "\n")


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", newline="\n")
