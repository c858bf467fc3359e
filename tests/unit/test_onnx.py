"""Exported models as ONNX graphs: what plain onnxruntime makes of them, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from safetensors.torch import save_file
from transformers import (
    AutoModelForTokenClassification,
    AutoTokenizer,
    BertConfig,
    ModernBertConfig,
    PretrainedConfig,
)

from bigner.commands import onnx as command
from bigner.config.schema import ModelConfig
from bigner.data.heads import Heads
from bigner.data.labels import LabelSet
from bigner.errors import ModelError, RunError
from bigner.modeling import heads_of
from bigner.onnx import write
from bigner.onnx.checking import Check, _differing
from bigner.onnx.write import write_onnx
from tests.e2e.conftest import main
from tests.unit.helpers import TINY, tiny_tokenizer, tiny_xlmr, whole_model
from tests.unit.test_predict import TAGS, save_model
from tests.unit.test_weights import own_modules, write_own_code

ONE_HEAD = Heads.single(LabelSet(TAGS))
TWO_HEADS = Heads([("ner", "tags", LabelSet(TAGS)), ("pos", "classes", LabelSet(("NOUN", "VERB")))])
TEXTS = [
    "Anna Nováková lives in Žilina",
    "Peter",
    "Bratislava and Košice " * 6,
]


def shape(family: str) -> PretrainedConfig:
    """A tiny model with positions for windows longer than ModernBERT looks around a piece."""
    pieces = len(tiny_tokenizer())
    sizes = {**TINY, "vocab_size": pieces, "initializer_range": 0.1, "pad_token_id": 1}
    ids = {"bos_token_id": 0, "eos_token_id": 2, "cls_token_id": 0, "sep_token_id": 2}
    if family == "bert":
        return BertConfig(**sizes)
    if family == "modernbert":
        return ModernBertConfig(**sizes, **ids, local_attention=8, global_attn_every_n_layers=2)
    return tiny_xlmr(pieces)


def saved(folder: Path, family: str = "xlm-roberta", heads: Heads = ONE_HEAD) -> Path:
    """A model folder as ``bigner export`` leaves one."""
    save_model(folder, heads, shape(family))
    (folder / "README.md").write_text("the card")
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained model, not to be changed."""
    return saved(tmp_path_factory.mktemp("onnx") / "model")


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def session_of(folder: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])


def assert_same_logits(graph: Path, model: Path) -> None:
    """As a user does it who has onnxruntime and a tokenizer: batches of any size."""
    session = session_of(graph)
    tokenizer = AutoTokenizer.from_pretrained(graph)
    network = AutoModelForTokenClassification.from_pretrained(model)
    for texts in (TEXTS, TEXTS[1:2], TEXTS[:1] * 5):
        encoded = tokenizer(texts, padding=True, return_tensors="np")
        (found,) = session.run(["logits"], dict(encoded))
        with torch.no_grad():
            expected = network(**tokenizer(texts, padding=True, return_tensors="pt")).logits
        real = encoded["attention_mask"] == 1
        assert found.shape == expected.shape
        assert np.abs(found - expected.numpy())[real].max() < 1e-5


# ---------------------------------------------------------------- what is written


@pytest.mark.parametrize("family", ["bert", "modernbert"])
def test_families(family: str, tmp_path: Path) -> None:
    folder = saved(tmp_path / "model", family)
    if family == "bert":
        settings = folder / "tokenizer_config.json"
        names = ["input_ids", "token_type_ids", "attention_mask"]
        values = json.loads(settings.read_text()) | {"model_input_names": names}
        settings.write_text(json.dumps(values))
    check = write_onnx(folder, tmp_path / "graph")
    assert check.is_sound
    assert check.longest > 60
    names = [one.name for one in session_of(tmp_path / "graph").get_inputs()]
    assert names == ["input_ids", "attention_mask", *["token_type_ids"] * (family == "bert")]
    assert_same_logits(tmp_path / "graph", folder)


def test_the_command(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "model").symlink_to(model)
    assert main(["onnx", "run", "deep/er/graph"]) == 0
    told = capsys.readouterr()
    assert told.out.startswith(
        "deep/er/graph holds the graph of run in fp32, with config and tokenizer\n"
        "computed by onnxruntime: all 403 pieces of 15 windows (3 to 64 pieces, 5 batches) get "
        "torch's labels, logits differ by "
    )
    assert told.err == ""
    graph = Path("deep/er/graph")
    assert files(graph) == files(model) - {"model.safetensors", "README.md"} | {"model.onnx"}
    assert files(graph.parent) == {"graph"}
    assert (graph / "config.json").read_text() == (model / "config.json").read_text()
    # Of no class of its own; by this name optimum finds it, too.
    tokenizer = json.loads((graph / "tokenizer_config.json").read_text())
    assert tokenizer["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert_same_logits(graph, model)
    # Nothing of the machine that wrote it.
    content = (graph / "model.onnx").read_bytes()
    assert b"site-packages" not in content
    assert b".py" not in content
    (logits,) = onnx.load(graph / "model.onnx").graph.output
    axes = logits.type.tensor_type.shape.dim
    assert [axis.dim_param or axis.dim_value for axis in axes] == ["batch", "length", len(TAGS)]


def test_a_model_of_its_own_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own_modules(monkeypatch, tmp_path / "hf")
    folder = tmp_path / "model"
    tokenizer = tiny_tokenizer()
    write_own_code(folder, tmp_path / "it-ran", id2label=dict(enumerate(TAGS)))
    tokenizer.save_pretrained(folder)
    described = ModelConfig(name_or_path=str(folder), trust_remote_code=True)
    network = whole_model(described.model_copy(update={"training_type": "from_scratch"}), TAGS, 1)
    save_file(dict(network.state_dict()), folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match="--trust-remote-code where no run file is given"):
        write_onnx(folder, tmp_path / "graph")
    assert write_onnx(folder, tmp_path / "graph", trust_remote_code=True).is_sound
    assert {"own_config.py", "own_model.py", "model.onnx"} <= files(tmp_path / "graph")
    # Its code knows no attention mask.
    assert [one.name for one in session_of(tmp_path / "graph").get_inputs()] == ["input_ids"]


def test_several_heads_and_weights_beside_the_graph(tmp_path: Path) -> None:
    folder = saved(tmp_path / "model", heads=TWO_HEADS)
    graph = tmp_path / "graph"
    assert write_onnx(folder, graph, max_graph_bytes=1000).is_sound
    assert {"model.onnx", "model.onnx.data"} <= files(graph)
    assert list(heads_of(graph)) == list(TWO_HEADS)
    # The names of files in it are relative.
    assert_same_logits(graph.rename(tmp_path / "moved"), folder)


# ---------------------------------------------------------------- what it is compared by


def test_another_label_of_any_head_is_a_difference() -> None:
    expected = torch.tensor([[3.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 2.0, 1.0]])
    assert _differing(expected + 0.1, expected, TWO_HEADS) == 0
    first, second = expected.clone(), expected.clone()
    first[0, 1], second[0, 8] = 4.0, 2.5
    assert _differing(first, expected, TWO_HEADS) == 1
    assert _differing(second, expected, TWO_HEADS) == 1
    assert _differing(torch.cat([first, second]), expected.repeat(2, 1), TWO_HEADS) == 2
    # What rounding alone decides is none.
    tie = expected.clone()
    tie[0, 1] = 3.0 - 1e-6
    assert _differing(first, tie, TWO_HEADS) == 0


@pytest.mark.parametrize(
    ("differing", "difference", "sound"),
    [(0, 1e-4, True), (0, 2e-3, False), (1, 1e-4, False), (0, float("nan"), False)],
)
def test_what_is_sound(differing: int, difference: float, sound: bool) -> None:
    check = Check(1, 1, 3, 3, 3, differing=differing, largest_difference=difference)
    assert check.is_sound is sound


def test_a_graph_that_predicts_something_else_is_not_kept(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sound = write.write_graph

    def wrong(path: Path, network: Any, *others: Any) -> None:
        with torch.no_grad():
            network.classifier.bias[1] += 0.01
        sound(path, network, *others)

    monkeypatch.setattr(write, "write_graph", wrong)
    assert main(["onnx", str(model), str(tmp_path / "graph")]) == 1
    told = capsys.readouterr().err
    assert "does not predict what it does in torch: " in told
    assert "a logit differs by 0.01, and 0.001 is allowed; nothing of it was kept" in told
    assert files(tmp_path) == set()


@pytest.mark.parametrize(
    ("fails", "told"),
    [
        (lambda path, *_: path.write_bytes(b"no graph"), "onnxruntime cannot compute"),
        (lambda *_: 1 / 0, "torch cannot write 'xlm-roberta' as ONNX: division by zero"),
        (lambda path, *_: (path / "x").write_bytes(b""), "cannot be written to"),
    ],
    ids=["no graph", "torch", "the disk"],
)
def test_failures_leave_nothing(
    fails: Callable[..., object],
    told: str,
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(write, "write_graph", fails)
    with pytest.raises(RunError, match=told):
        write_onnx(model, tmp_path / "graph")
    assert files(tmp_path) == set()


# ---------------------------------------------------------------- what is refused


def refused(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    assert main(["onnx", *map(str, arguments)]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    return told


def test_a_missing_package(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "is_installed", lambda name: name == "onnx")
    assert refused(capsys, model, tmp_path / "graph") == (
        "bigner: error: onnxscript and onnxruntime must be installed: pip install 'bigner[onnx]'\n"
    )


def test_folders(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    graph = tmp_path / "graph"
    assert "there is no folder" in refused(capsys, tmp_path / "absent", graph)
    assert "holds no weights" in refused(capsys, tmp_path, graph)
    assert "is there already" in refused(capsys, model, tmp_path)
    assert "is no folder that can be written to" in refused(
        capsys, model, model / "config.json" / "graph"
    )


def test_a_model_without_a_head(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "body"
    network = AutoModelForTokenClassification.from_pretrained(model)
    network.base_model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(model).save_pretrained(folder)
    told = refused(capsys, folder, tmp_path / "graph")
    assert "has no weights for classifier.bias; name a model that was trained" in told
    assert files(tmp_path) == {"body"}
