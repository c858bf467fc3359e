"""``bigner export`` of a real run's checkpoint: what is written, compared with, and refused."""

from __future__ import annotations

import json
import os
import pickletools
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModel,
    AutoModelForTokenClassification,
    AutoTokenizer,
    PreTrainedModel,
    pipeline,
)
from transformers.utils import logging as transformers_logging

from bigner.commands.export import export
from bigner.errors import CheckpointError
from bigner.tensor_files import TensorEntry, write_tensors
from tests.e2e.conftest import CORPUS, RUN_FILE, main, write_tokenizer
from tests.ranks.launch import environment
from tests.unit.test_weights import own_modules, write_own_code

STEP = "run/checkpoints/step-00000004"
TAGS = ["O", "B-LOC", "I-LOC", "B-PER", "I-PER"]
RUN = (
    "training.max_steps=4",
    "training.learning_rate=0.01",
    "evaluation.every=2",
    "evaluation.metric=loss",
    "checkpoint.every_steps=2",
)
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


@pytest.fixture(autouse=True)
def quiet() -> None:
    transformers_logging.disable_progress_bar()


@pytest.fixture(scope="module")
def trained(tiny_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with a finished run, not to be changed."""
    folder = tmp_path_factory.mktemp("trained")
    shutil.copytree(tiny_models, folder / "models")
    (folder / "run.yaml").write_text(RUN_FILE)
    for name in ("train.conll", "dev.conll"):
        (folder / name).write_text(CORPUS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DS_ACCELERATOR", "cpu")
        patch.chdir(folder)
        assert main(["train", "run.yaml", *RUN]) == 0
        summary = json.loads(Path("run/summary.json").read_text())
    # The run's own model is of the last checkpoint's step.
    assert summary["best_step"] == 4
    return folder


@pytest.fixture
def project(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with a finished run, as the working directory."""
    folder = tmp_path / "project"
    shutil.copytree(trained, folder)
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    monkeypatch.chdir(folder)
    return folder


def predictions(folder: Path) -> str:
    options = ["--split", "validation", "--model", str(folder), "--predictions", "predictions.tsv"]
    assert main(["evaluate", "run.yaml", *options]) == 0
    return Path("predictions.tsv").read_text()


def scores(folder: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    capsys.readouterr()
    options = ["--split", "validation", "--model", str(folder), "--json"]
    assert main(["evaluate", "run.yaml", *options]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return {name: value for name, value in found.items() if "second" not in name}


def state(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(first[n].equal(second[n]) for n in first)


# ---------------------------------------------------------------- what is written


@pytest.mark.parametrize("dtype", DTYPES)
def test_an_exported_model(dtype: str, project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", STEP, "out", "--dtype", dtype]) == 0
    told = capsys.readouterr().out
    assert told.startswith(f"out holds the weights of {STEP} in {dtype}\nloaded by transformers: ")
    assert " pieces of 3 texts get the checkpoint's labels, logits differ by " in told
    if dtype == "fp32":
        assert "logits differ by 0.0e+00 at most" in told
    out, own = Path("out"), Path("run/model")
    assert {path.name for path in out.iterdir()} == {path.name for path in own.iterdir()}
    assert not [path for path in project.iterdir() if path.name.startswith(".out")]
    expected = {name: value.to(DTYPES[dtype]) for name, value in state(own).items()}
    assert same(state(out), expected)

    model = AutoModelForTokenClassification.from_pretrained(out)
    assert isinstance(model, PreTrainedModel)
    assert model.dtype == DTYPES[dtype]
    assert same(dict(model.state_dict()), expected)
    assert model.config.id2label == dict(enumerate(TAGS))
    assert model.config.label2id == {tag: i for i, tag in enumerate(TAGS)}
    assert model.config.bigner_windows == {"max_length": 16, "stride": 4}
    assert model.config.architectures == ["XLMRobertaForTokenClassification"]
    tokenizer = AutoTokenizer.from_pretrained(out)
    assert tokenizer.get_vocab() == AutoTokenizer.from_pretrained("models/bare").get_vocab()
    assert AutoModel.from_pretrained(out).dtype == DTYPES[dtype]


def test_a_pipeline_gives_the_labels_of_the_run(project: Path) -> None:
    assert main(["export", STEP, "out"]) == 0
    tagger = pipeline("token-classification", model="out")
    found = tagger("Anna sleeps in Oslo")
    own = pipeline("token-classification", model="run/model")("Anna sleeps in Oslo")
    assert found == own
    assert {entity["entity"] for entity in found} <= set(TAGS) - {"O"}


def test_it_scores_exactly_as_the_runs_own_model(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", STEP, "out"]) == 0
    own, exported = scores(Path("run/model"), capsys), scores(Path("out"), capsys)
    assert exported == own
    assert (
        exported["loss"] == json.loads(Path("run/summary.json").read_text())["validation"]["loss"]
    )
    assert predictions(Path("out")) == predictions(Path("run/model"))
    # The checkpoint before it holds other weights.
    assert main(["export", STEP.replace("4", "2"), "earlier"]) == 0
    assert not same(state(Path("earlier")), state(Path("out")))
    assert scores(Path("earlier"), capsys)["loss"] != own["loss"]


def test_several_files(project: Path) -> None:
    whole = state(Path("run/model"))
    largest = max(value.nbytes for value in whole.values())
    check = export(Path(STEP), Path("out"), max_file_bytes=largest)
    assert check is not None
    assert check.differing == 0
    files = sorted(path.name for path in Path("out").glob("*.safetensors"))
    assert len(files) > 3
    assert files[0] == f"model-00001-of-{len(files):05d}.safetensors"
    index = json.loads(Path("out/model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == sum(value.nbytes for value in whole.values())
    assert set(index["weight_map"].values()) == set(files)
    parts = {
        name: state_of for file in files for name, state_of in load_file(f"out/{file}").items()
    }
    assert same(parts, whole)
    assert {n: f for f in files for n in load_file(f"out/{f}")} == index["weight_map"]
    assert same(dict(AutoModelForTokenClassification.from_pretrained("out").state_dict()), whole)
    assert predictions(Path("out")) == predictions(Path("run/model"))


def recut(checkpoint: Path, ranks: int) -> None:
    """Make a checkpoint of one process that of several, by uneven ranges of each parameter."""
    manifest = json.loads((checkpoint / "manifest.json").read_text())
    (single,) = manifest["files"]
    tensors = load_file(checkpoint / single)
    (checkpoint / single).unlink()
    manifest |= {"world_size": ranks, "files": {}}
    for saved in manifest["parameters"].values():
        saved["whole"], saved["ranges"] = saved["ranges"], []
    for rank in range(ranks):
        file = f"shards-{rank:05d}.safetensors"
        parts, places = {}, []
        for i, (name, saved) in enumerate(manifest["parameters"].items()):
            (whole,) = saved["whole"]
            edges = sorted({0, i % (whole["numel"] + 1), whole["numel"] // 2, whole["numel"]})
            for part, (start, stop) in enumerate(pairwise(edges)):
                if part % ranks == rank:
                    kept = {k: tensors[f"{name}/{k}"].view(-1)[start:stop] for k in whole["sha256"]}
                    parts |= {f"{name}/{kind}": values for kind, values in kept.items()}
                    places.append((name, {"file": file, "offset": start, "numel": stop - start}))
        entries = [TensorEntry(key, t.dtype, tuple(t.shape)) for key, t in parts.items()]
        checksums = write_tensors(checkpoint / file, entries, parts.values())
        sums = dict(zip(parts, checksums, strict=True))
        for name, place in places:
            kinds = {k.rpartition("/")[2]: sums[k] for k in sums if k.rpartition("/")[0] == name}
            manifest["parameters"][name]["ranges"].append(place | {"sha256": kinds})
        manifest["files"][file] = (checkpoint / file).stat().st_size
    for saved in manifest["parameters"].values():
        del saved["whole"]
        saved["ranges"].sort(key=lambda part: part["offset"])
    (checkpoint / "manifest.json").write_text(json.dumps(manifest))


def test_a_checkpoint_of_several_processes(project: Path) -> None:
    recut(Path(STEP), 3)
    assert main(["export", STEP, "out"]) == 0
    assert same(state(Path("out")), state(Path("run/model")))


# ---------------------------------------------------------------- what it is compared on


def test_the_data_is_gone(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("train.conll", "dev.conll", "run.yaml"):
        Path(name).unlink()
    assert main(["export", STEP, "out"]) == 0
    assert " pieces of 8 texts get the checkpoint's labels" in capsys.readouterr().out


def test_from_another_folder(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "elsewhere").mkdir()
    monkeypatch.chdir(project / "run" / "checkpoints")
    # What could be a name on the Hub is a folder all the same.
    assert main(["export", "step-00000004", "../../elsewhere/out", "--samples", "2"]) == 0
    assert " pieces of 2 texts get" in capsys.readouterr().out
    assert same(state(project / "elsewhere" / "out"), state(project / "run" / "model"))


def test_nothing_is_compared(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", STEP, "deep/er/out", "--samples", "0"]) == 0
    assert capsys.readouterr().out == f"deep/er/out holds the weights of {STEP} in fp32\n"
    assert same(state(Path("deep/er/out")), state(Path("run/model")))


def change_weights(change: Callable[[torch.Tensor], torch.Tensor], name: str) -> None:
    """Change one parameter of the checkpoint, and its checksum with it."""
    checkpoint = Path(STEP)
    manifest = json.loads((checkpoint / "manifest.json").read_text())
    (file,) = manifest["files"]
    tensors = load_file(checkpoint / file)
    tensors[f"{name}/master"] = change(tensors[f"{name}/master"])
    # They lie in the mapped file.
    (checkpoint / file).unlink()
    entries = [TensorEntry(key, t.dtype, tuple(t.shape)) for key, t in tensors.items()]
    checksums = dict(
        zip(tensors, write_tensors(checkpoint / file, entries, tensors.values()), strict=True)
    )
    for parameter, saved in manifest["parameters"].items():
        for kind in saved["ranges"][0]["sha256"]:
            saved["ranges"][0]["sha256"][kind] = checksums[f"{parameter}/{kind}"]
    manifest["files"][file] = (checkpoint / file).stat().st_size
    (checkpoint / "manifest.json").write_text(json.dumps(manifest))


def test_weights_that_fp16_cannot_hold(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change_weights(lambda values: values.index_fill(0, torch.tensor([0]), 1e6), "classifier.bias")
    assert main(["export", STEP, "out", "--dtype", "fp16"]) == 1
    told = capsys.readouterr().err
    assert "does not predict what" in told
    assert "differ, a logit by inf" in told
    assert "--samples 0" in told
    assert not Path("out").exists()
    assert main(["export", STEP, "out", "--dtype", "fp16", "--samples", "0"]) == 0
    assert main(["export", STEP, "bf16", "--dtype", "fp32"]) == 0


def test_a_model_that_diverged_is_what_it_is(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change_weights(lambda values: values * torch.nan, "classifier.bias")
    assert main(["export", STEP, "out"]) == 0
    assert "logits differ by 0.0e+00 at most" in capsys.readouterr().out


# ---------------------------------------------------------------- what is refused


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-9] ^= 4
    path.write_bytes(bytes(data))


def edit(name: str, change: Callable[[Any], object]) -> None:
    path = Path(STEP) / name
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


def lose_classifier(manifest: Any) -> None:
    del manifest["parameters"]["classifier.bias"]


def narrow(config: Any) -> None:
    config["intermediate_size"] = 8


SHARDS = f"{STEP}/shards-00000.safetensors"
# Arguments, exit code, what is told, what is done before.
REFUSED: dict[str, tuple[list[str], int, tuple[str, ...], Callable[[], object]]] = {
    "an existing folder": (
        [STEP, "models"], 2, ("models is there already", "nothing was changed"), lambda: None,
    ),
    "an existing file": ([STEP, "run.yaml"], 2, ("run.yaml is there already",), lambda: None),
    "a link to nowhere": (
        [STEP, "link"], 2, ("link is there already",), lambda: Path("link").symlink_to("nowhere"),
    ),
    "no such folder": (
        ["run/checkpoints/step-00000009", "out"], 2, ("no whole checkpoint", "step-00000500"),
        lambda: None,
    ),
    "no checkpoint": (["models/bare", "out"], 2, ("models/bare is no whole", ), lambda: None),
    "the run itself": (["run", "out"], 2, ("run is no whole checkpoint",), lambda: None),
    "a file": (["run.yaml", "out"], 2, ("run.yaml is no whole checkpoint",), lambda: None),
    "no place": ([STEP, "run.yaml/out"], 2, ("run.yaml is no folder that can",), lambda: None),
    "a place of the system": ([STEP, "/proc/bigner"], 1, ("cannot be written",), lambda: None),
    "a long name": ([STEP, "x" * 300], 1, ("cannot be written", "too long"), lambda: None),
    "dtype": ([STEP, "out", "--dtype", "fp8"], 2, ("--dtype must be fp32",), lambda: None),
    "a flipped bit": ([STEP, "out"], 1, (SHARDS, "changed since"), lambda: flip(Path(SHARDS))),
    "a lost file": ([STEP, "out"], 1, ("is missing",), lambda: Path(SHARDS).unlink()),
    "a damaged manifest": (
        [STEP, "out"], 1, ("manifest.json cannot be used",),
        lambda: Path(STEP, "manifest.json").write_text("{"),
    ),
    "an old manifest": (
        [STEP, "out"], 1, ("format 1, and this bigner reads 2",),
        lambda: edit("manifest.json", lambda values: values.update(format_version=1)),
    ),
    "a lost config": (
        [STEP, "out"], 1, ("has lost its folder plain",), lambda: shutil.rmtree(f"{STEP}/plain"),
    ),
    "a lost parameter": (
        [STEP, "out"], 1,
        ("does not belong to the model", "classifier.bias has shape None in the checkpoint"),
        lambda: edit("manifest.json", lose_classifier),
    ),
    "another model's config": (
        [STEP, "out"], 1, ("does not belong to the model", "(16,) in the checkpoint and (8,) in"),
        lambda: edit("plain/config.json", narrow),
    ),
    "another tokenizer": (
        [STEP, "out"], 2, ("the tokenizer of", "has no vocabulary"),
        lambda: [path.unlink() for path in Path(STEP, "plain").glob("tokenizer*")],
    ),
    "a run config of another bigner": (
        [STEP, "out"], 1, ("its run config cannot be read", "config"),
        lambda: edit("manifest.json", lambda values: values["config"].pop("model")),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: str, project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments, expected, phrases, prepare = REFUSED[case]
    prepare()
    before = listing(project)
    code = main(["export", *arguments])
    output = capsys.readouterr()
    assert code == expected, output.err
    assert output.out == ""
    assert output.err.count("bigner: error: ") == 1
    assert output.err.count("\n") == 1
    assert [phrase for phrase in phrases if phrase not in output.err] == [], output.err
    assert listing(project) == before


def listing(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def test_the_disk_is_full(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = listing(project)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        code = main(["export", STEP, "out"])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert code == 1
    assert "the model cannot be written to out: " in capsys.readouterr().err
    assert listing(project) == before


def test_a_checkpoint_that_changes_under_the_export(project: Path) -> None:
    """Between the check and the reading of it, as a run that goes on deletes old ones."""
    from bigner.commands import export as command  # noqa: PLC0415

    def lose(*arguments: Any) -> Any:
        Path(SHARDS).unlink(missing_ok=True)
        return read(*arguments)

    read = command.read_parameter
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(command, "read_parameter", lose)
        with pytest.raises(CheckpointError, match="cannot be read"):
            export(Path(STEP), Path("out"))
    assert not list(project.glob("*out*")) + list(project.glob(".*out*"))


KILLED = """
import resource, signal, sys
from bigner.__main__ import main
# Whoever writes more than so much is killed in the middle of it.
signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
main()
"""


def test_an_export_that_is_killed(project: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", KILLED, "export", STEP, "out"],
        env={**environment(), "PYTHONPATH": os.environ.get("PYTHONPATH", "")},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == -signal.SIGXFSZ, done.stderr
    assert not Path("out").exists()
    assert Path(".out.tmp/model.safetensors").stat().st_size == 10_000
    # What is left of it is in nobody's way.
    assert main(["export", STEP, "out"]) == 0
    assert same(state(Path("out")), state(Path("run/model")))
    assert not Path(".out.tmp").exists()


# ---------------------------------------------------------------- no pickle anywhere


def test_nothing_in_a_checkpoint_is_pickled(project: Path) -> None:
    files = [path for path in Path("run").rglob("*") if path.is_file()]
    in_checkpoints = [path for path in files if "checkpoints" in path.parts]
    assert {path.suffix for path in in_checkpoints} == {".safetensors", ".json"}
    names = {path.name for path in in_checkpoints if path.parent.parent.name == "checkpoints"}
    assert names == {"manifest.json", "shards-00000.safetensors"}
    for path in files:
        content = path.read_bytes()
        assert content[:2] not in (b"PK", *(bytes([0x80, protocol]) for protocol in range(6))), path
        assert b"\x80\x02}" not in content, path
        with pytest.raises(ValueError, match=r".") as caught:
            list(pickletools.genops(content))
        assert caught.value, path
    for path in in_checkpoints:
        if path.suffix == ".json":
            json.loads(path.read_text())
        else:
            assert load_file(path)


# ---------------------------------------------------------------- a model with code of its own


@pytest.fixture
def own_code(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The checkpoint of a run whose model came with Python of its own."""
    own_modules(monkeypatch, project / "hf")
    own = project / "models" / "own"
    write_own_code(own, project / "it-ran", vocab_size=33)
    write_tokenizer(own, "AOabcdefghijklmnopqrstuvwxyz.")
    weights = {"own.words.weight": torch.randn(33, 8), "own.layers.0.weight": torch.randn(8, 8)}
    weights |= {"own.layers.0.bias": torch.randn(8), "own.scale": torch.tensor([3.0])}
    weights["own.steps"] = torch.tensor(9)
    save_file(weights, own / "model.safetensors", {"format": "pt"})
    assert main(["train", *OWN_RUN]) == 0
    return project / "own" / "checkpoints" / "step-00000001"


OWN_RUN = [
    "run.yaml",
    "run_dir=own",
    "model={name_or_path: models/own, trust_remote_code: true}",
    "checkpoint.every_steps=1",
]


def test_the_code_of_a_model_goes_with_it(own_code: Path) -> None:
    shutil.rmtree("models/own")
    assert main(["evaluate", *OWN_RUN, "--split", "validation"]) == 0
    assert main(["export", str(own_code), "out", "--trust-remote-code"]) == 0
    assert {path.name for path in Path("out").glob("*.py")} == {"own_config.py", "own_model.py"}


def test_a_checkpoint_does_not_say_whether_it_is_trusted(
    own_code: Path, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its manifest says ``trust_remote_code: true``, and whoever sends a checkpoint writes that."""
    manifest = json.loads((own_code / "manifest.json").read_text())
    assert manifest["config"]["model"]["trust_remote_code"] is True
    trace = project / "it-ran"
    trace.unlink()
    capsys.readouterr()
    assert main(["export", str(own_code), "out"]) == 2
    assert "--trust-remote-code" in capsys.readouterr().err
    assert not trace.exists()
    assert not Path("out").exists()


def test_saved_buffers_are_exported(own_code: Path) -> None:
    for folder in (own_code / "plain", own_code / "best"):
        shutil.copy("models/own/own_model.py", folder)
        shutil.copy("models/own/own_config.py", folder)
    shutil.rmtree("models/own")
    for dtype in ("fp32", "fp16"):
        words = ["export", str(own_code), dtype, "--dtype", dtype, "--trust-remote-code"]
        assert main(words) == 0
        exported = state(Path(dtype))
        assert float(exported["own.scale"]) == 3.0
        assert int(exported["own.steps"]) == 9
        assert exported["own.seen"].tolist() == [True, False, True]
        # Each begins at a multiple of its width.
        header = (Path(dtype) / "model.safetensors").read_bytes()
        entries = json.loads(header[8 : 8 + int.from_bytes(header[:8], "little")])
        for name, value in exported.items():
            assert entries[name]["data_offsets"][0] % value.dtype.itemsize == 0, name
    assert same(state(Path("fp32")), state(Path("own/model")))
    export(own_code, Path("several"), max_file_bytes=100, trust_remote_code=True)
    assert len(list(Path("several").glob("*.safetensors"))) > 3
    loaded = AutoModelForTokenClassification.from_pretrained(
        Path("several").resolve(), trust_remote_code=True
    )
    assert same(dict(loaded.state_dict()), state(Path("fp32")))
