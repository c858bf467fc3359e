"""First values of a model, from files of every make and drawn, against what transformers gives."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForTokenClassification,
    GteConfig,
    JinaEmbeddingsV3Config,
    NomicBertConfig,
    PretrainedConfig,
    PreTrainedModel,
    T5Config,
)
from transformers.utils import logging as transformers_logging

from bigner.config.schema import ModelConfig
from bigner.data.labels import LabelSet
from bigner.distributed import World
from bigner.errors import ModelError
from bigner.loss import token_losses
from bigner.modeling import allocate, build_model
from bigner.strategies import Shard, open_strategy
from bigner.weights import InitialWeights
from tests.ranks.launch import environment
from tests.unit.helpers import TINY, run_config
from tests.unit.test_modeling import FAMILIES, TAGS, VOCAB, batch, configs

State = dict[str, torch.Tensor]
CPU = torch.device("cpu")
HEAD = {"classifier.weight", "classifier.bias"}


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """transformers alone, which the tests compare with, tells of each load in a page."""
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    yield
    transformers_logging.set_verbosity_warning()


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def labelled(config: PretrainedConfig, tags: tuple[str, ...] = TAGS) -> PretrainedConfig:
    config.num_labels = len(tags)
    config.id2label = dict(enumerate(tags))
    config.label2id = {tag: i for i, tag in enumerate(tags)}
    return config


def shaken(model: PreTrainedModel) -> PreTrainedModel:
    """The model with no value left as it is drawn: no bias 0, no norm 1."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


@cache
def trained(family: str) -> PreTrainedModel:
    """A token classifier of the tags."""
    torch.manual_seed(1)
    return shaken(AutoModelForTokenClassification.from_config(labelled(configs()[family])))


def first_values(
    folder: Path,
    tags: tuple[str, ...] = TAGS,
    *,
    seed: int = 0,
    kind: str = "fine_tuning",
    new_head: bool = True,
    trust: bool = False,
) -> tuple[PreTrainedModel, str]:
    """What a run in one process begins with, and what it is told."""
    config = ModelConfig.model_validate(
        {"name_or_path": str(folder), "training_type": kind, "trust_remote_code": trust}
    )
    model = build_model(config, tags)
    cache_root = folder.parent / "cache"
    weights = InitialWeights(config, model, seed=seed, cache_root=cache_root, new_head=new_head)
    allocate(model, CPU)
    weights.fill(whole_shards(model))
    return model, weights.report


def whole_shards(model: PreTrainedModel) -> Iterator[Shard]:
    for name, p in model.named_parameters():
        yield Shard(name, tuple(p.shape), 0, p.numel(), p.detach().view(-1))


def require_as_transformers(folder: Path, tags: tuple[str, ...] = TAGS) -> str:
    """Our values are those of ``from_pretrained``, but for what it draws; returns the report."""
    config = labelled(AutoConfig.from_pretrained(folder), tags)
    theirs, loading = AutoModelForTokenClassification.from_pretrained(
        folder,
        config=config,
        dtype=torch.float32,
        ignore_mismatched_sizes=True,
        output_loading_info=True,
    )
    drawn = {*loading["missing_keys"], *(name for name, *_ in loading["mismatched_keys"])}
    ours, report = first_values(folder, tags)
    expected, found = theirs.state_dict(), ours.state_dict()
    assert found.keys() == expected.keys()
    different = [name for name in expected if not torch.equal(found[name], expected[name])]
    assert set(different) <= drawn
    assert ("drawn anew" in report) == bool(drawn)
    assert all(name in report for name in drawn)
    return report


def write(folder: Path, family: str, state: State, *, name: str = "model.safetensors") -> Path:
    """A model folder with one file of these weights."""
    labelled(configs()[family]).save_pretrained(folder)
    state = {key: value.contiguous() for key, value in state.items()}
    if name.endswith(".bin"):
        torch.save(state, folder / name)
    else:
        save_file(state, folder / name)
    return folder


# ---------------------------------------------------------------- files of every make


def as_saved(folder: Path, family: str) -> None:
    trained(family).save_pretrained(folder)
    assert (folder / "model.safetensors").is_file()


def in_several_files(folder: Path, family: str) -> None:
    trained(family).save_pretrained(folder, max_shard_size="30KB")
    assert len(list(folder.glob("model-*-of-*.safetensors"))) > 2


def pickled(folder: Path, family: str) -> None:
    write(folder, family, trained(family).state_dict(), name="pytorch_model.bin")


def pickled_before_1_6(folder: Path, family: str) -> None:
    labelled(configs()[family]).save_pretrained(folder)
    torch.save(
        trained(family).state_dict(),
        folder / "pytorch_model.bin",
        _use_new_zipfile_serialization=False,
    )
    assert (folder / "pytorch_model.bin").read_bytes()[:2] != b"PK"


def pickled_in_several_files(folder: Path, family: str) -> None:
    state = trained(family).state_dict()
    names = list(state)
    places = {name: f"pytorch_model-0000{i % 2 + 1}-of-00002.bin" for i, name in enumerate(names)}
    for file in set(places.values()):
        write(folder, family, {n: state[n] for n in names if places[n] == file}, name=file)
    index = {"metadata": {}, "weight_map": places}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))


def in_half_precision(folder: Path, family: str) -> None:
    state = trained(family).state_dict()
    write(folder, family, {name: value.half() for name, value in state.items()})


def in_bfloat16_pickled(folder: Path, family: str) -> None:
    state = trained(family).state_dict()
    half = {name: value.bfloat16() for name, value in state.items()}
    write(folder, family, half, name="pytorch_model.bin")


def with_the_first_names(folder: Path, family: str) -> None:
    state = trained(family).state_dict()
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): value
        for name, value in state.items()
    }
    # ModernBERT came later, and has other names.
    assert (old.keys() == state.keys()) == (family == "modernbert")
    write(folder, family, old, name="pytorch_model.bin")


WRITERS = [
    as_saved,
    in_several_files,
    pickled,
    pickled_before_1_6,
    pickled_in_several_files,
    in_half_precision,
    in_bfloat16_pickled,
    with_the_first_names,
]


@pytest.mark.parametrize("writer", WRITERS, ids=lambda writer: writer.__name__)
def test_every_make_of_files(
    family: str, writer: Callable[[Path, str], None], tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    writer(folder, family)
    report = require_as_transformers(folder)
    count = len(list(trained(family).parameters()))
    assert report == f"weights: {count} tensors from {folder}"


def test_the_body_alone(family: str, tmp_path: Path) -> None:
    torch.manual_seed(2)
    body = shaken(AutoModel.from_config(configs()[family]))
    folder = tmp_path / "model"
    body.save_pretrained(folder)
    assert not [name for name in load_file(folder / "model.safetensors") if "classifier" in name]
    report = require_as_transformers(folder)
    assert "drawn anew (classifier.bias, classifier.weight" in report
    # Token classification has no pooler.
    assert ("not used (pooler" in report) == (family in ("bert", "roberta", "xlm-roberta"))


def test_a_masked_language_model(family: str, tmp_path: Path) -> None:
    torch.manual_seed(3)
    folder = tmp_path / "model"
    shaken(AutoModelForMaskedLM.from_config(configs()[family])).save_pretrained(folder)
    report = require_as_transformers(folder)
    assert "2 drawn anew (classifier.bias, classifier.weight)" in report
    head = {"bert": "cls.predictions", "electra": "generator_", "modernbert": "decoder."}
    deberta = "cls.predictions" if family.startswith("deberta") else "lm_head."
    assert f"not used ({head.get(family, deberta)}" in report


def test_pickled_weights_are_converted_once(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    pickled(folder, "bert")
    expected = trained("bert").state_dict()
    assert same(first_values(folder)[0], expected)
    (converted,) = (tmp_path / "cache").glob("weights/*/*.safetensors")
    assert same_state(load_file(converted), expected)
    written = converted.stat().st_mtime_ns
    # Were it loaded again, it would not be what it was: same name, size and time.
    file = folder / "pytorch_model.bin"
    facts, content = file.stat(), file.read_bytes()
    file.write_bytes(bytes(len(content)))
    os.utime(file, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert same(first_values(folder)[0], expected)
    assert converted.stat().st_mtime_ns == written
    # Another file in its place is noticed.
    doubled = {name: 2 * value for name, value in expected.items()}
    torch.save(doubled, file)
    assert same(first_values(folder)[0], doubled)
    assert same_state(load_file(converted), expected)


def same(model: nn.Module, state: State) -> bool:
    return same_state(model.state_dict(), state)


def same_state(first: State, second: State) -> bool:
    return first.keys() == second.keys() and all(first[name].equal(second[name]) for name in first)


def test_tensors_of_any_kind_beside_the_weights(tmp_path: Path) -> None:
    """As old files have them: positions, counters, names, a tensor that is a part of another."""
    state = trained("bert").state_dict()
    table = torch.zeros(3, VOCAB, TINY["hidden_size"])
    word = "bert.embeddings.word_embeddings.weight"
    table[1] = state[word]
    others = {
        "bert.embeddings.position_ids": torch.arange(66).expand(1, -1),
        "flags": torch.tensor([True, False, True]),
        "nothing": torch.empty(0, 3),
        "number": torch.tensor(2.5, dtype=torch.float64),
        "version": 3,
        word: table[1],
        "bert.encoder.layer.0.output.dense.weight": nn.Parameter(
            state["bert.encoder.layer.0.output.dense.weight"].t().contiguous().t()
        ),
    }
    folder = tmp_path / "model"
    labelled(configs()["bert"]).save_pretrained(folder)
    torch.save(state | others, folder / "pytorch_model.bin")
    model, report = first_values(folder)
    assert same(model, state)
    assert report.endswith("2 not used (nothing, number)")


def test_safetensors_are_preferred_and_nothing_is_converted(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    as_saved(folder, "bert")
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x02")
    assert same(first_values(folder)[0], trained("bert").state_dict())
    assert not (tmp_path / "cache").exists()


# ---------------------------------------------------------------- what transformers rearranges


REARRANGED = {
    "nomic_bert": (NomicBertConfig, "Wqkv"),
    "gte": (GteConfig, "qkv_proj"),
    "jina_embeddings_v3": (JinaEmbeddingsV3Config, "Wqkv"),
}


@pytest.mark.parametrize("kind", REARRANGED)
def test_a_layout_that_transformers_rearranges(kind: str, tmp_path: Path) -> None:
    make, mark = REARRANGED[kind]
    folder = tmp_path / "model"
    torch.manual_seed(0)
    config = labelled(make(**TINY, vocab_size=VOCAB))
    model = shaken(AutoModelForTokenClassification.from_config(config))
    model.save_pretrained(folder)
    assert [name for name in load_file(folder / "model.safetensors") if mark in name]
    # A head of other labels is drawn, and what was converted without it is not taken for these.
    other = LabelSet.of_types(["A", "B", "C"]).tags
    assert "2 drawn anew (classifier.bias, classifier.weight)" in first_values(folder, other)[1]
    assert same(first_values(folder, new_head=False)[0], model.state_dict())
    require_as_transformers(folder)
    assert len(list((tmp_path / "cache" / "weights").glob("*/*.safetensors"))) == 2


# ---------------------------------------------------------------- ranges and draws


def cut(numel: int, ranks: int, seed: int) -> list[tuple[int, int]]:
    """Uneven ranges that make up the whole, some of them empty."""
    generator = torch.Generator().manual_seed(seed)
    inner = torch.randint(0, numel + 1, (ranks - 1,), generator=generator).tolist()
    edges = [0, *sorted(inner), numel]
    return [(start, stop - start) for start, stop in pairwise(edges)]


@pytest.mark.parametrize("kind", ["fine_tuning", "from_scratch"])
def test_ranges_of_three_ranks_make_up_the_whole(family: str, kind: str, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    as_saved(folder, family)
    wider = LabelSet.of_types(["A", "B", "C"]).tags
    whole, _ = first_values(folder, wider, seed=5, kind=kind)
    config = ModelConfig.model_validate({"name_or_path": str(folder), "training_type": kind})
    together = {name: torch.full((p.numel(),), torch.nan) for name, p in whole.named_parameters()}
    for rank in range(3):
        model = build_model(config, wider)
        weights = InitialWeights(config, model, seed=5, cache_root=tmp_path / "cache")
        shards = []
        for i, (name, p) in enumerate(model.named_parameters()):
            offset, numel = cut(p.numel(), 3, seed=i)[rank]
            # A rank's memory may go on behind what it owns.
            master = torch.full((numel + 1,), torch.nan)
            shards.append(Shard(name, tuple(p.shape), offset, numel, master))
        weights.fill(shards)
        for shard in shards:
            assert shard.master[shard.numel :].isnan().all()
            target = together[shard.name][shard.offset : shard.offset + shard.numel]
            target.copy_(shard.master[: shard.numel])
    for name, parameter in whole.named_parameters():
        assert torch.equal(together[name], parameter.view(-1)), name


def test_frozen_shards_of_low_precision(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    as_saved(folder, "bert")
    config = ModelConfig(name_or_path=str(folder))
    model = build_model(config, TAGS)
    weights = InitialWeights(config, model, seed=0, cache_root=tmp_path)
    name, expected = "bert.embeddings.word_embeddings.weight", trained("bert").state_dict()
    shape = tuple(expected[name].shape)
    shard = Shard(name, shape, 3, 50, torch.empty(50, dtype=torch.float16))
    weights.fill([shard])
    assert torch.equal(shard.master, expected[name].view(-1)[3:53].half())


def test_the_order_of_asking_changes_nothing(tmp_path: Path) -> None:
    configs()["bert"].save_pretrained(tmp_path)
    whole, _ = first_values(tmp_path, kind="from_scratch")
    config = ModelConfig(name_or_path=str(tmp_path), training_type="from_scratch")
    weights = InitialWeights(config, build_model(config, TAGS), seed=0, cache_root=tmp_path)
    torch.manual_seed(99)
    for name, p in reversed(list(whole.named_parameters())):
        shard = Shard(name, tuple(p.shape), 0, p.numel(), torch.empty(p.numel()))
        weights.fill([shard])
        assert torch.equal(shard.master, p.view(-1)), name
    # Nor does it the caller's own numbers.
    assert torch.equal(torch.rand(3), torch.rand(3, generator=torch.Generator().manual_seed(99)))


def weights_of(model: nn.Module) -> State:
    return {name: p.detach() for name, p in model.named_parameters()}


def test_drawn_as_transformers_draws(family: str, tmp_path: Path) -> None:
    config = labelled(configs()[family])
    config.save_pretrained(tmp_path)
    torch.manual_seed(4)
    theirs = weights_of(AutoModelForTokenClassification.from_config(config))
    first, second = (
        weights_of(first_values(tmp_path, seed=seed, kind="from_scratch")[0]) for seed in (1, 2)
    )
    assert first.keys() == theirs.keys()
    seen = []
    for name, expected in theirs.items():
        drawn, std = first[name], float(expected.std(correction=0))
        if std == 0.0:
            # A norm, a bias.
            assert torch.equal(drawn, expected), name
            continue
        enough = expected.numel() >= 1000
        assert float(drawn.std()) == pytest.approx(std, rel=0.1 if enough else 0.5), name
        mean = float(expected.mean())
        assert float(drawn.mean()) == pytest.approx(mean, abs=8 * std / drawn.numel() ** 0.5), name
        assert not torch.equal(drawn, second[name]), name
        seen.append(drawn)
        if "embeddings" in name and drawn.dim() == 2:
            rows = (expected == 0).all(1)
            assert torch.equal((drawn == 0).all(1), rows), name
            assert torch.equal((second[name] == 0).all(1), rows), name
    # Every parameter is a draw of its own.
    assert len({float(drawn.view(-1)[-1]) for drawn in seen}) == len(seen)


def test_a_padding_row_is_zero(tmp_path: Path) -> None:
    configs()["bert"].save_pretrained(tmp_path)
    model, _ = first_values(tmp_path, kind="from_scratch")
    table = model.get_input_embeddings()
    assert isinstance(table, nn.Embedding)
    assert table.padding_idx is not None
    assert not table.weight[table.padding_idx].any()
    assert table.weight.count_nonzero() == (VOCAB - 1) * TINY["hidden_size"]


def test_a_head_is_drawn_alike_on_any_body(tmp_path: Path) -> None:
    configs()["bert"].save_pretrained(tmp_path / "scratch")
    torch.manual_seed(0)
    AutoModel.from_config(configs()["bert"]).save_pretrained(tmp_path / "body")
    drawn, report = first_values(tmp_path / "scratch", kind="from_scratch", seed=9)
    assert report == "all weights drawn anew"
    on_a_body, _ = first_values(tmp_path / "body", seed=9)
    assert torch.equal(drawn.classifier.weight, on_a_body.classifier.weight)


# ---------------------------------------------------------------- heads


def test_a_head_of_other_labels_means_something_else(family: str, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    as_saved(folder, family)
    other = LabelSet.of_types(["ORG", "MISC"]).tags
    assert len(other) == len(TAGS)
    model, report = first_values(folder, other, seed=3)
    assert "2 drawn anew (classifier.bias, classifier.weight)" in report
    before, after = trained(family).state_dict(), model.state_dict()
    assert {name for name in after if not after[name].equal(before[name])} == HEAD
    # The same labels, in another order.
    turned, report = first_values(folder, tuple(reversed(TAGS)))
    assert not torch.equal(turned.classifier.weight, trained(family).classifier.weight)
    assert "2 drawn anew" in report


def test_a_head_of_another_width(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    as_saved(folder, "bert")
    wider = LabelSet.of_types(["A", "B", "C"]).tags
    report = require_as_transformers(folder, wider)
    assert "2 drawn anew (classifier.bias, classifier.weight)" in report
    with pytest.raises(ModelError, match=r"2 weights are missing .* such as classifier\.bias"):
        first_values(folder, wider, new_head=False)


def test_a_model_to_be_scored_must_have_its_head(tmp_path: Path) -> None:
    body = {name: v for name, v in trained("bert").state_dict().items() if name not in HEAD}
    folder = write(tmp_path / "model", "bert", body)
    assert "2 drawn anew" in first_values(folder)[1]
    with pytest.raises(ModelError, match="2 weights are missing"):
        first_values(folder, new_head=False)


# ---------------------------------------------------------------- what is wrong


def require_refused(folder: Path, *phrases: str) -> None:
    with pytest.raises(ModelError) as caught:
        first_values(folder)
    told = str(caught.value)
    assert "\n" not in told
    assert len(told) < 600
    assert str(folder) in told
    assert [phrase for phrase in phrases if phrase not in told] == [], told
    # Nothing of it stays in the cache.
    assert not list((folder.parent / "cache").glob("**/*.safetensors"))
    assert not list((folder.parent / "cache").glob("**/.*.tmp"))


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_a_weight_of_the_body_is_missing(name: str, tmp_path: Path) -> None:
    state = trained("bert").state_dict()
    gone = "bert.encoder.layer.1.output.dense.weight"
    del state[gone]
    folder = write(tmp_path / "model", "bert", state, name=name)
    with pytest.raises(ModelError, match=rf"1 weights are missing .* such as {gone}"):
        first_values(folder)


def test_weights_of_another_shape(tmp_path: Path) -> None:
    state = trained("bert").state_dict()
    name = "bert.encoder.layer.1.output.dense.weight"
    state[name] = torch.ones(2, 3)
    require_refused(write(tmp_path / "model", "bert", state), f"such as {name}", "belong together")


def test_weights_of_other_names(tmp_path: Path) -> None:
    state = {f"layer{i}": value for i, value in enumerate(trained("bert").state_dict().values())}
    require_refused(write(tmp_path / "model", "bert", state), "belong together")


def test_quantised_weights(tmp_path: Path) -> None:
    state = trained("bert").state_dict()
    half = {n: (v * 10).to(torch.int8) if v.dim() > 1 else v for n, v in state.items()}
    require_refused(write(tmp_path / "model", "bert", half), "I8", "quantised weights")


@pytest.mark.parametrize(
    "index",
    [
        "{",
        "[]",
        "{}",
        '{"weight_map": []}',
        '{"weight_map": {"a": 1}}',
        '{"weight_map": {"a": ["b"]}}',
        '{"weight_map": {"a": "x", "b": 2}}',
        '{"weight_map": null}',
        "[" * 100_000,
    ],
    ids=lambda index: index[:40],
)
def test_a_damaged_index(index: str, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    configs()["bert"].save_pretrained(folder)
    (folder / "model.safetensors.index.json").write_text(index)
    require_refused(folder, "model.safetensors.index.json is no index of weights")


@pytest.mark.parametrize(
    "name",
    [
        "../other/model-1.safetensors",
        "{folder}/../other/model-1.safetensors",
        "sub/model-1.safetensors",
        "absent.safetensors",
        "folder.safetensors",
        "..",
        ".",
        "",
        "~/x.safetensors",
        "a\0b.safetensors",
        "x" * 5000 + ".safetensors",
    ],
)
def test_an_index_that_names_no_file_of_the_folder(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    state = trained("bert").state_dict()
    # Of the same name there is one in the folder: it is not what the index means.
    for other in (tmp_path / "other", folder / "sub", folder):
        write(other, "bert", state, name="model-1.safetensors")
    (folder / "folder.safetensors").mkdir()
    index = {"weight_map": dict.fromkeys(state, name.format(folder=folder))}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError) as caught:
        first_values(folder)
    assert "\n" not in str(caught.value)
    assert "no weights can be loaded from" in str(caught.value)


def test_damaged_files(tmp_path: Path) -> None:
    folder = write(tmp_path / "model", "bert", trained("bert").state_dict())
    file = folder / "model.safetensors"
    sound = file.read_bytes()
    size = int.from_bytes(sound[:8], "little")
    for damaged in (
        b"",
        sound[:-1],
        sound[: 8 + size // 2],
        (2**60).to_bytes(8, "little") + sound[8:],
        sound[:8] + b"x" * size + sound[8 + size :],
        sound[:8].replace(sound[:1], b"\xff") + sound[8:],
        sound.replace(b'"F32"', b'"F99"'),
    ):
        file.write_bytes(damaged)
        require_refused(folder, "no weights can be loaded from")


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.safetensors"])
def test_a_file_that_is_something_else(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    configs()["bert"].save_pretrained(folder)
    for content in (b"", b"PK\x03\x04", b"\x80\x02.", b"version https://git-lfs", b"\0" * 5000):
        (folder / name).write_bytes(content)
        require_refused(folder, "no weights can be loaded from")


@pytest.mark.parametrize("value", [[1, 2], torch.ones(3), {"a": 1}, {"model": {"a": 1}}], ids=str)
def test_pickled_values_that_are_no_weights(value: object, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    configs()["bert"].save_pretrained(folder)
    torch.save(value, folder / "pytorch_model.bin")
    with pytest.raises(ModelError):
        first_values(folder)


class Malice:
    """Runs a command where it is unpickled."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (self.command,)


@pytest.mark.parametrize("new_format", [True, False])
def test_malicious_pickles_are_refused_and_not_run(new_format: bool, tmp_path: Path) -> None:
    folder, trace = tmp_path / "model", tmp_path / "it-ran"
    configs()["bert"].save_pretrained(folder)
    state = trained("bert").state_dict() | {"x": Malice(f"touch {trace}")}
    torch.save(state, folder / "pytorch_model.bin", _use_new_zipfile_serialization=new_format)
    require_refused(folder, "pytorch_model.bin does not unpickle to tensors", "run code")
    assert not trace.exists()
    # The file is what it is meant to be.
    torch.load(folder / "pytorch_model.bin", weights_only=False)
    assert trace.exists()


@pytest.fixture
def full_disk() -> Iterator[None]:
    """No file of this process can become longer than 40 kB."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_conversion_that_finds_the_disk_full(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    folder = tmp_path / "model"
    pickled(folder, "bert")
    request.getfixturevalue("full_disk")
    require_refused(folder, "no weights can be loaded from", "File too large")


KILLED = """
import resource, signal, sys
from pathlib import Path
from bigner.config.schema import ModelConfig
from bigner.weights.files import find_files
# Whoever writes more than so much is killed in the middle of it.
signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))
find_files(ModelConfig(name_or_path=sys.argv[1]), Path(sys.argv[2]))
"""


def test_a_conversion_that_is_killed(tmp_path: Path) -> None:
    folder, cache_root = tmp_path / "model", tmp_path / "cache"
    pickled(folder, "bert")
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(folder), str(cache_root)],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == -signal.SIGXFSZ, done.stderr
    (begun,) = (path for path in (cache_root / "weights").iterdir() if path.is_dir())
    assert (begun / "pytorch_model.safetensors").stat().st_size == 40_000
    # Nothing looks for this name, and the next one begins anew.
    assert begun.name.startswith(".")
    assert same(first_values(folder)[0], trained("bert").state_dict())
    assert not begun.exists()


def test_a_file_that_is_gone_when_it_is_read(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    as_saved(folder, "bert")
    config = ModelConfig(name_or_path=str(folder))
    model = build_model(config, TAGS)
    weights = InitialWeights(config, model, seed=0, cache_root=tmp_path)
    allocate(model, CPU)
    save_file({"a": torch.ones(3)}, folder / "model.safetensors")
    with pytest.raises(ModelError, match="weights cannot be read from"):
        weights.fill(whole_shards(model))
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="weights cannot be read from"):
        weights.fill(whole_shards(model))


# ---------------------------------------------------------------- models without memory


def test_a_model_is_built_without_memory(family: str, tmp_path: Path) -> None:
    labelled(configs()[family]).save_pretrained(tmp_path)
    register = nn.Module.register_parameter
    model = build_model(ModelConfig(name_or_path=str(tmp_path)), TAGS)
    assert nn.Module.register_parameter is register
    assert all(p.is_meta for p in model.parameters())
    assert not [name for name, b in model.named_buffers() if b.is_meta]
    # Those of a model as transformers builds it, whose values nothing saves.
    plain = AutoModelForTokenClassification.from_config(labelled(configs()[family]))
    allocate(model, CPU)
    buffers, expected = dict(model.named_buffers()), dict(plain.named_buffers())
    assert buffers.keys() == expected.keys()
    for name, buffer in expected.items():
        assert buffers[name].dtype == buffer.dtype
        assert torch.equal(buffers[name], buffer), name
    if family in ("bert", "electra", "roberta", "xlm-roberta", "modernbert"):
        assert buffers
    assert {n: p.shape for n, p in model.named_parameters()} == {
        n: p.shape for n, p in plain.named_parameters()
    }


def test_an_error_while_building_leaves_torch_as_it_was(tmp_path: Path) -> None:
    config = configs()["bert"]
    config.num_attention_heads = 5
    config.save_pretrained(tmp_path)
    register = nn.Module.register_parameter
    with pytest.raises(ModelError, match="cannot be built for token classification"):
        build_model(ModelConfig(name_or_path=str(tmp_path)), TAGS)
    assert nn.Module.register_parameter is register
    assert not nn.Linear(2, 2).weight.is_meta


# ---------------------------------------------------------------- tied weights


def test_tied_weights_stay_tied(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=VOCAB, d_model=32, d_kv=16, d_ff=64, num_layers=2, num_heads=2, dropout_rate=0.0
    )
    plain = AutoModelForTokenClassification.from_config(labelled(config))
    assert plain.transformer.shared.weight is plain.transformer.encoder.embed_tokens.weight
    folder = tmp_path / "model"
    plain.save_pretrained(folder)
    model_config = ModelConfig(name_or_path=str(folder))
    model = build_model(model_config, TAGS)
    weights = InitialWeights(model_config, model, seed=0, cache_root=tmp_path)
    run = run_config(tmp_path, folder)
    strategy = open_strategy(run, World(), model)
    weights.fill(strategy.shards())
    strategy.publish()
    assert {shard.name for shard in strategy.shards()} == {n for n, _ in plain.named_parameters()}
    plain.eval()
    expected = plain(**batch()).logits
    torch.testing.assert_close(strategy.predict(batch()), expected)
    labels = torch.zeros(2, 12, dtype=torch.int64)
    strategy.backward(token_losses(strategy.forward(batch()), labels).mean(), last=True)
    strategy.step(1e-3)
    assert model.transformer.shared.weight is model.transformer.encoder.embed_tokens.weight
    assert not torch.equal(strategy.predict(batch()), expected)


# ---------------------------------------------------------------- code that lies with a model

CODE_OF_CONFIG = """
from pathlib import Path
from transformers import PretrainedConfig

Path({trace!r}).touch()

class OwnConfig(PretrainedConfig):
    model_type = "own-kind"
    def __init__(self, width=8, vocab_size=200, **others):
        super().__init__(**others)
        self.width, self.vocab_size = width, vocab_size
"""
CODE_OF_MODEL = """
import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import TokenClassifierOutput
from .own_config import OwnConfig

class OwnModel(PreTrainedModel):
    config_class = OwnConfig
    base_model_prefix = "own"
    def __init__(self, config):
        super().__init__(config)
        self.words = nn.Embedding(config.vocab_size, config.width)
        self.layers = nn.ModuleList([nn.Linear(config.width, config.width)])
        self.register_buffer("scale", torch.tensor([2.0]))
        self.register_buffer("seen", torch.tensor([True, False, True]))
        self.register_buffer("steps", torch.tensor(7))
        self.post_init()
    def _init_weights(self, module):
        if isinstance(module, (nn.Linear, nn.Embedding)):
            module.weight.data.normal_(std=0.02)
        if isinstance(module, nn.Linear):
            module.bias.data.zero_()
    def forward(self, input_ids, **others):
        return self.layers[0](self.words(input_ids) * self.scale)

class OwnForTokenClassification(PreTrainedModel):
    config_class = OwnConfig
    base_model_prefix = "own"
    def __init__(self, config):
        super().__init__(config)
        self.own = OwnModel(config)
        self.classifier = nn.Linear(config.width, config.num_labels)
        self.post_init()
    _init_weights = OwnModel._init_weights
    def get_input_embeddings(self):
        return self.own.words
    def forward(self, input_ids, **others):
        return TokenClassifierOutput(logits=self.classifier(self.own(input_ids)))
"""


def own_modules(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    """Let transformers keep the code of models in a folder of this test, and no other's."""
    for name in [name for name in sys.modules if name.startswith("transformers_modules")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(cache))


def write_own_code(folder: Path, trace: Path, **settings: Any) -> None:
    """A model folder with Python in it, which leaves a trace where it is run."""
    folder.mkdir()
    (folder / "own_config.py").write_text(CODE_OF_CONFIG.format(trace=str(trace)))
    (folder / "own_model.py").write_text(CODE_OF_MODEL)
    places = {
        "AutoConfig": "own_config.OwnConfig",
        "AutoModelForTokenClassification": "own_model.OwnForTokenClassification",
    }
    config = {"model_type": "own-kind", "auto_map": places, **settings}
    (folder / "config.json").write_text(json.dumps(config))


@pytest.fixture
def own_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A trained model of that kind."""
    own_modules(monkeypatch, tmp_path / "hf")
    folder = tmp_path / "model"
    write_own_code(folder, tmp_path / "it-ran", id2label=dict(enumerate(TAGS)))
    torch.manual_seed(0)
    state = {
        "own.words.weight": torch.randn(200, 8),
        "own.layers.0.weight": torch.randn(8, 8),
        "own.layers.0.bias": torch.randn(8),
        "own.scale": torch.tensor([3.0]),
        "own.seen": torch.tensor([False, False, True]),
        "own.steps": torch.tensor(9),
        "classifier.weight": torch.randn(len(TAGS), 8),
        "classifier.bias": torch.randn(len(TAGS)),
    }
    save_file(state, folder / "model.safetensors", {"format": "pt"})
    return folder


def test_code_of_a_model_is_not_run_unasked(own_code: Path) -> None:
    with pytest.raises(ModelError, match=r"model\.trust_remote_code") as caught:
        first_values(own_code)
    assert "\n" not in str(caught.value)
    assert not (own_code.parent / "it-ran").exists()


def test_code_of_a_model_is_run_where_it_is_trusted(own_code: Path) -> None:
    model, report = first_values(own_code, trust=True)
    assert (own_code.parent / "it-ran").exists()
    assert same(model, load_file(own_code / "model.safetensors"))
    assert report == f"weights: 5 tensors from {own_code}"
    other = LabelSet.of_types(["A"]).tags
    model, report = first_values(own_code, other, trust=True)
    assert model(**batch()).logits.shape == (2, 12, 3)
    assert "2 drawn anew (classifier.bias, classifier.weight)" in report
    scratch, _ = first_values(own_code, trust=True, kind="from_scratch")
    assert float(weights_of(scratch)["own.words.weight"].std()) == pytest.approx(0.02, rel=0.3)
    assert float(scratch.own.scale) == 2.0


def test_parts_of_a_model_of_its_own_code_are_frozen(own_code: Path) -> None:
    def frozen(**settings: Any) -> set[str]:
        values = {"name_or_path": str(own_code), "trust_remote_code": True, **settings}
        model = build_model(ModelConfig.model_validate(values), TAGS)
        return {name for name, p in model.named_parameters() if not p.requires_grad}

    layer = {"own.layers.0.weight", "own.layers.0.bias"}
    assert frozen() == set()
    assert frozen(freeze={"embeddings": True}) == {"own.words.weight"}
    assert frozen(freeze={"layers": 1}) == layer
    # Where code says of no part that it is the body, it is what has no row for each label.
    code = own_code / "own_model.py"
    code.write_text(code.read_text().replace('base_model_prefix = "own"', 'base_model_prefix = ""'))
    assert frozen(training_type="transfer_learning") == {"own.words.weight", *layer}
