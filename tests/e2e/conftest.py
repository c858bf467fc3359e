"""A model of two narrow layers and a corpus of three sentences, for runs that take a second."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from bigner.__main__ import report
from bigner.cli import run

CHARACTERS = "AOabcdefghijklmnopqrstuvwxyz."
CORPUS = "Anna B-PER\nsleeps O\nin O\nOslo B-LOC\n\nAnna B-PER\nreads O\n. O\n\nOslo B-LOC\n. O\n"
SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")
MAX_PIECES = 32
RUN_FILE = """\
run_dir: run
model:
  name_or_path: models/bare
  training_type: from_scratch
data:
  train: train.conll
  validation: dev.conll
  max_length: 16
  stride: 4
  cache_dir: cache
training:
  max_steps: 1
  global_batch_size: 2
  micro_batch_size: 2
"""


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of model folders: ``bare`` is a shape and a tokenizer, ``trained`` has weights."""
    from bigner.config.schema import ModelConfig  # noqa: PLC0415
    from tests.unit.helpers import whole_model  # noqa: PLC0415

    folder = tmp_path_factory.mktemp("models")
    bare, trained = folder / "bare", folder / "trained"
    for model in (bare, trained):
        model.mkdir()
        write_tokenizer(model, CHARACTERS)
        write_model_config(model)
    tags = ("O", "B-LOC", "I-LOC", "B-PER", "I-PER")
    shape = ModelConfig(name_or_path=str(bare), training_type="from_scratch")
    whole_model(shape, tags, seed=0).save_pretrained(trained)
    return folder


def write_tokenizer(folder: Path, characters: str) -> None:
    """A tokenizer whose pieces are single characters, as AutoTokenizer loads it."""
    vocabulary = {piece: i for i, piece in enumerate((*SPECIAL, *characters))}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges=[], unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    (folder / "tokenizer.json").write_text(tokenizer.to_str())
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "pad_token": "<pad>",
        "unk_token": "<unk>",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def write_model_config(folder: Path) -> None:
    """XLM-RoBERTa's shape, two layers of 16."""
    config = {
        "architectures": ["XLMRobertaForTokenClassification"],
        "model_type": "xlm-roberta",
        "vocab_size": len(SPECIAL) + len(CHARACTERS),
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 16,
        "max_position_embeddings": MAX_PIECES + 2,
        "type_vocab_size": 1,
        "bos_token_id": 0,
        "pad_token_id": 1,
        "eos_token_id": 2,
    }
    (folder / "config.json").write_text(json.dumps(config))


@pytest.fixture
def project(tmp_path: Path, tiny_models: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A sound project, as the working directory."""
    shutil.copytree(tiny_models, tmp_path / "models")
    (tmp_path / "run.yaml").write_text(RUN_FILE)
    for name in ("train.conll", "dev.conll"):
        (tmp_path / name).write_text(CORPUS)
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def main(arguments: list[str]) -> int:
    """What ``python -m bigner`` does, without leaving the process."""
    try:
        return run(arguments)
    except Exception as error:
        return report(error)
