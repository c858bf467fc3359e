"""Checkpoints and weights of any hand: they are read, or refused with one of our errors."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from transformers import PreTrainedModel, XLMRobertaConfig
from transformers.utils import logging as transformers_logging

from bigner.checkpoint.folders import candidates
from bigner.checkpoint.load import damage, load, read_parameter
from bigner.checkpoint.manifest import MANIFEST, Manifest, config_of, read_manifest
from bigner.checkpoint.save import Saver
from bigner.config.schema import ModelConfig
from bigner.distributed import World
from bigner.errors import CheckpointError, ConfigError, ModelError
from bigner.modeling import build_model
from bigner.strategies import Strategy
from bigner.weights import InitialWeights
from tests.fuzz.hostile import (
    FUZZED,
    MIB,
    mutated,
    nested,
    odd_numbers,
    odd_scalars,
    odd_texts,
    peak_of,
)
from tests.unit.helpers import opened, run_config, whole_model

FILE = "shards-00000.safetensors"
TAGS = ("O", "B-X", "I-X")
# Whole models are loaded in some of these cases.
SLOW = settings(FUZZED, max_examples=max(20, FUZZED.max_examples // 5))


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of a hundred weights, and its config."""
    folder = tmp_path_factory.mktemp("fuzz") / "model"
    config = XLMRobertaConfig(
        vocab_size=7,
        hidden_size=4,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=4,
        max_position_embeddings=6,
        type_vocab_size=1,
    )
    config.save_pretrained(folder)
    described = ModelConfig(name_or_path=str(folder), training_type="from_scratch")
    whole_model(described, TAGS, 0).save_pretrained(folder)
    return folder


class Sound:
    """A real checkpoint, what its files hold, and a folder to put other things into."""

    def __init__(self, model_folder: Path) -> None:
        root = model_folder.parent
        config = run_config(root, model_folder)
        model = whole_model(config.model, TAGS, 0)
        # Frozen weights have no optimizer state: fewer tensors, and both kinds of them.
        model.base_model.requires_grad_(False)
        self.strategy: Strategy = opened(config, model)
        checkpoints = root / "checkpoints"
        checkpoints.mkdir()
        saver = Saver(checkpoints, self.strategy, World(), background=False)
        scores = dict.fromkeys(("f1", "precision", "recall", "accuracy", "loss"), 0.5)
        state = {
            "epoch": 0.5,
            "skipped_steps": 0,
            "skipped_in_a_row": 0,
            "history": [{"step": 1, **scores, "strict": {"f1": 0.5}}],
            "best": {"step": 1, "value": 0.5},
            "labels": TAGS,
            "config": config.model_dump(mode="json"),
            "world_size": 1,
            "versions": {"bigner": "0"},
        }
        saver.begin(1, state, {})
        self.folder = saver.commit().folder
        self.manifest: dict[str, Any] = json.loads((self.folder / MANIFEST).read_text())
        self.shards = (self.folder / FILE).read_bytes()

    def put_manifest(self, content: bytes) -> None:
        (self.folder / MANIFEST).write_bytes(content)
        self.put_shards(self.shards)

    def put_shards(self, content: bytes) -> None:
        path = self.folder / FILE
        if path.read_bytes() != content:
            # Never into the file: an earlier reader may have it mapped.
            path.unlink()
            path.write_bytes(content)


@pytest.fixture(scope="module")
def sound(model_folder: Path) -> Sound:
    return Sound(model_folder)


def require_message(told: str, place: Path) -> None:
    assert told.isprintable(), ascii(told)
    assert len(told) < 3000
    assert str(place) in told, told


def read_all(sound: Sound) -> Manifest | None:
    """Everything that is read of a checkpoint; None if it is refused."""
    folder = sound.folder
    found = damage(folder, World())
    if found:
        require_message(found, folder)
    try:
        manifest = read_manifest(folder)
    except CheckpointError as error:
        require_message(str(error), folder)
        same = found == str(error)
        assert same
        with pytest.raises(ConfigError):
            candidates(str(folder), folder.parent)
        return None
    try:
        config_of(folder, manifest)
    except CheckpointError as error:
        require_message(str(error), folder)
    for name, saved in manifest.parameters.items():
        try:
            assert read_parameter(folder, manifest, name).shape == saved.shape
        except CheckpointError as error:
            require_message(str(error), folder)
            # What cannot be read is not called sound.
            assert found
    try:
        load(folder, manifest, sound.strategy)
    except CheckpointError as error:
        require_message(str(error), folder)
    return manifest


def as_json(values: object) -> bytes:
    return json.dumps(values).encode("utf-8", "surrogatepass")


# ---------------------------------------------------------------- manifests


def places_in(values: Any) -> Iterator[tuple[Any, Any]]:
    """All containers in the manifest, and a key of each of their values."""
    items = enumerate(values) if isinstance(values, list) else values.items()
    for key, value in items:
        yield values, key
        if isinstance(value, dict | list):
            yield from places_in(value)


hostile_values = nested(odd_scalars, odd_texts) | st.sampled_from(
    ["../x.safetensors", "/etc/passwd", FILE, "0" * 64, -1, 2**62, 2**63, 1e308, [2**62], [0], []]
)


def test_the_sound_one_is_sound(sound: Sound) -> None:
    sound.put_manifest(as_json(sound.manifest))
    assert damage(sound.folder, World()) == ""
    assert read_all(sound) is not None


@FUZZED
@given(content=st.binary(max_size=200) | nested(odd_scalars, odd_texts).map(as_json))
@example(b"[" * 100_000)
@example(b'{"parameters":' * 50_000)
@example(b'{"step":' + b"9" * 100_000 + b"}")
@example(b'{"step":1e' + b"9" * 1000 + b"}")
def test_any_content_of_a_manifest(sound: Sound, content: bytes) -> None:
    sound.put_manifest(content)
    assert read_all(sound) is None


@FUZZED
@given(data=st.data(), count=st.integers(1, 3))
def test_any_values_in_a_manifest(sound: Sound, data: st.DataObject, count: int) -> None:
    manifest = copy.deepcopy(sound.manifest)
    for _ in range(count):
        container, key = data.draw(st.sampled_from(list(places_in(manifest))))
        match data.draw(st.sampled_from(["put", "put", "put", "take", "rename", "copy"])):
            case "put":
                # A copy: a list put in here may be changed by what comes next, and is drawn again.
                container[key] = copy.deepcopy(data.draw(hostile_values))
            case "take":
                del container[key]
            case "rename" if isinstance(container, dict):
                container[data.draw(odd_texts)] = container.pop(key)
            case _:
                other, other_key = data.draw(st.sampled_from(list(places_in(manifest))))
                container[key] = copy.deepcopy(other[other_key])
    sound.put_manifest(as_json(manifest))
    read_all(sound)


SNIPPETS = [b'"', b"{", b"}", b"[", b"]", b",", b":", b"null", b"-1", b"1e999", b"NaN", b"\xff"]


@FUZZED
@given(data=st.data())
def test_mutated_manifests(sound: Sound, data: st.DataObject) -> None:
    sound.put_manifest(data.draw(mutated([as_json(sound.manifest)], SNIPPETS)))
    read_all(sound)


BOMBS = {
    "nested": b"[" * 3_000_000,
    "closed": b'{"step":' + b"[" * 1_000_000 + b"]" * 1_000_000 + b"}",
    "wrong values": b'{"parameters":{' + b",".join(b'"k%d":1' % i for i in range(5_000)) + b"}}",
    "wrong ranges": b'{"parameters":{"a":{"shape":[],"ranges":[' + b"{}," * 500_000 + b"{}]}}}",
    "keys": b"{" + b",".join(b'"k%d":1' % i for i in range(5_000)) + b"}",
    "long text": b'{"step":"' + b"x" * 3_000_000 + b'"}',
    "long key": b'{"' + b"x" * 3_000_000 + b'":1}',
    "long number": b'{"step":' + b"9" * 3_000_000 + b"}",
    "white space": b"{" + b" " * 3_000_000 + b"}",
}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_refused_in_little_memory(sound: Sound, name: str) -> None:
    sound.put_manifest(BOMBS[name])
    found = []
    peak = peak_of(lambda: found.append(damage(sound.folder, World())))
    assert "manifest.json cannot be used" in found[0]
    assert len(found[0]) < 3000
    assert peak < 3 * len(BOMBS[name]) + 60 * MIB


@pytest.mark.parametrize("shape", [[2**40], [2**62], [2**31, 2**31], [2**62, 2**62], [0, 2**62]])
def test_claims_of_size_take_no_memory(sound: Sound, shape: list[int]) -> None:
    manifest = copy.deepcopy(sound.manifest)
    saved = manifest["parameters"]["classifier.weight"]
    numel = torch.Size(shape[:1]).numel() if len(shape) == 1 else shape[0] * shape[1]
    saved["shape"] = shape
    saved["ranges"] = [saved["ranges"][0] | {"numel": numel}] if numel else []
    sound.put_manifest(as_json(manifest))
    manifests: list[Manifest | None] = []
    assert peak_of(lambda: manifests.append(read_all(sound))) < 20 * MIB
    assert (manifests == [None]) == (numel >= 2**63)


@pytest.mark.parametrize("special", ["/dev/zero", "fifo"])
def test_what_is_no_file_is_not_read(sound: Sound, tmp_path: Path, special: str) -> None:
    if special == "fifo":
        os.mkfifo(tmp_path / MANIFEST)
    else:
        (tmp_path / MANIFEST).symlink_to(special)
    with pytest.raises(CheckpointError, match="no whole checkpoint"):
        read_manifest(tmp_path)


# ---------------------------------------------------------------- safetensors files


def parts_of(file: bytes) -> tuple[dict[str, Any], bytes]:
    """The header of a safetensors file, and what follows it."""
    size = int.from_bytes(file[:8], "little")
    return json.loads(file[8 : 8 + size]), file[8 + size :]


lengths = st.sampled_from([0, 1, 2, 7, 8, 100, 2**20, 2**31, 2**32, 2**62, 2**63, 2**64 - 1])


KINDS_OF_HARM = ["dtype", "number", "width", "shape", "offsets", "one", "any", "name", "take"]
# How many of them lie in the four bytes of one value.
OF_OTHER_WIDTH = {"F16": 2, "BF16": 2, "I16": 2, "U16": 2, "I8": 4, "U8": 4, "BOOL": 4} | {
    "F8_E4M3": 4,
    "F8_E5M2": 4,
    "F8_E8M0": 4,
    "F4": 8,
}


@st.composite
def hostile_tensors(draw: st.DrawFn, file: bytes) -> bytes:
    """A safetensors file with something in its header, its length or its size wrong."""
    header, values = parts_of(file)
    for _ in range(draw(st.integers(0, 3))):
        name = draw(st.sampled_from(sorted(header)))
        entry = header[name]
        if not isinstance(entry, dict):
            continue
        match draw(st.sampled_from(KINDS_OF_HARM)):
            case "dtype":
                entry["dtype"] = draw(st.sampled_from([*OF_OTHER_WIDTH, "F64", "F99"]))
            case "number":
                entry["dtype"] = draw(st.sampled_from(["I32", "U32"]))
            case "width" if entry.get("shape"):
                entry["dtype"], times = draw(st.sampled_from(list(OF_OTHER_WIDTH.items())))
                entry["shape"] = [*entry["shape"][:-1], entry["shape"][-1] * times]
            case "shape":
                entry["shape"] = draw(st.lists(odd_numbers | st.integers(0, 9), max_size=4))
            case "offsets":
                edges = st.integers(-1, len(values) + 1) | odd_numbers
                entry["data_offsets"] = draw(st.lists(edges, min_size=2, max_size=2))
            case "one":
                # The same bytes in another shape.
                entry["shape"] = draw(st.permutations([1, *(entry.get("shape") or [])]))
            case "any":
                header[name] = draw(hostile_values)
            case "name":
                header[draw(odd_texts)] = header.pop(name)
            case "take":
                del header[name]
    text = as_json(header)
    size = draw(st.just(len(text)) | lengths | st.just(len(text) + 1))
    values = values[: draw(st.just(len(values)) | st.integers(0, len(values)))]
    return size.to_bytes(8, "little") + text + values + draw(st.sampled_from([b"", b"", b"\0"]))


def put_with_its_size(sound: Sound, file: bytes) -> None:
    """Put a file in place that the manifest says the right size of."""
    manifest = copy.deepcopy(sound.manifest)
    manifest["files"][FILE] = len(file)
    sound.put_manifest(as_json(manifest))
    sound.put_shards(file)


@FUZZED
@given(data=st.data())
def test_any_headers_of_shards(sound: Sound, data: st.DataObject) -> None:
    put_with_its_size(sound, data.draw(hostile_tensors(sound.shards)))
    read_all(sound)


@FUZZED
@given(data=st.data())
def test_mutated_shards(sound: Sound, data: st.DataObject) -> None:
    file = data.draw(st.binary(max_size=100) | mutated([sound.shards], SNIPPETS))
    put_with_its_size(sound, file)
    read_all(sound)


# ---------------------------------------------------------------- weights of a model


@pytest.fixture(scope="module")
def hostile_folder(model_folder: Path) -> Path:
    """A model folder for weights of any hand."""
    folder = model_folder.parent / "hostile"
    folder.mkdir()
    (folder / "config.json").write_bytes((model_folder / "config.json").read_bytes())
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    return folder


def put_only(folder: Path, **files: bytes) -> None:
    for path in folder.iterdir():
        if path.name != "config.json":
            path.unlink()
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_bytes(content)


def begin(folder: Path) -> bool:
    """Whether a run can begin with what lies in the folder."""
    config = ModelConfig(name_or_path=str(folder))
    model = built(folder)
    try:
        weights = InitialWeights(config, model, seed=0, cache_root=folder.parent / "cache")
    except ModelError as error:
        told = str(error)
        assert "\n" not in told
        assert len(told) < 3000
        assert str(folder) in told
        return False
    assert str(folder) in weights.report
    return True


@cache
def built(folder: Path) -> PreTrainedModel:
    """The model that is shapes alone, and stays so."""
    return build_model(ModelConfig(name_or_path=str(folder)), TAGS)


def test_the_sound_weights_are_sound(model_folder: Path) -> None:
    assert begin(model_folder)


@SLOW
@given(data=st.data())
def test_any_headers_of_weights(
    model_folder: Path, hostile_folder: Path, data: st.DataObject
) -> None:
    file = (model_folder / "model.safetensors").read_bytes()
    put_only(hostile_folder, model__safetensors=data.draw(hostile_tensors(file)))
    begin(hostile_folder)


@SLOW
@given(data=st.data())
def test_mutated_weights(model_folder: Path, hostile_folder: Path, data: st.DataObject) -> None:
    file = (model_folder / "model.safetensors").read_bytes()
    hostile = data.draw(st.binary(max_size=100) | mutated([file], SNIPPETS))
    put_only(hostile_folder, model__safetensors=hostile)
    begin(hostile_folder)


@SLOW
@given(content=nested(odd_scalars, odd_texts | st.just("weight_map")).map(as_json) | st.binary())
@example(as_json({"weight_map": {"a": ".."}}))
@example(as_json({"weight_map": {"a": "config.json"}}))
def test_any_index(hostile_folder: Path, content: bytes) -> None:
    put_only(hostile_folder, model__safetensors__index__json=content)
    assert not begin(hostile_folder)


@pytest.fixture(scope="module")
def pickles(hostile_folder: Path) -> list[bytes]:
    """Small files of torch, new and old."""
    state = {"roberta.embeddings.word_embeddings.weight": torch.ones(7, 4), "x": torch.ones(2)}
    made = []
    for new in (True, False):
        path = hostile_folder.parent / "made.bin"
        torch.save(state, path, _use_new_zipfile_serialization=new)
        made.append(path.read_bytes())
    return made


@SLOW
@given(data=st.data())
def test_mutated_pickles(hostile_folder: Path, pickles: list[bytes], data: st.DataObject) -> None:
    opcodes = [
        b"\x80\x02",
        b"cos\nsystem\n",
        b"(",
        b"tR.",
        b"R",
        b"q\x00",
        b"\xff\xff\xff\x7f",
        b"\0",
    ]
    hostile = data.draw(st.binary(max_size=100) | mutated(pickles, opcodes))
    put_only(hostile_folder, pytorch_model__bin=hostile)
    # They have but one of the body's weights.
    assert not begin(hostile_folder)
