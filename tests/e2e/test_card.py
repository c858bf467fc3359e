"""The card of a real run's model, and its way to a stand-in of the Hub."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard

from tests.e2e.conftest import CORPUS, RUN_FILE, main
from tests.ranks.launch import environment

RUN = (
    "data.test=test.conll",
    "training.max_steps=4",
    "training.learning_rate=0.01",
    "evaluation.every=2",
    "evaluation.metric=loss",
    "checkpoint.every_steps=2",
)
CARD = Path("run/model/README.md")
TOKEN = "hf_" + "a" * 34


@pytest.fixture(scope="module")
def trained(tiny_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with a finished run, not to be changed."""
    folder = tmp_path_factory.mktemp("trained")
    shutil.copytree(tiny_models, folder / "models")
    (folder / "run.yaml").write_text(RUN_FILE)
    for name in ("train.conll", "dev.conll"):
        (folder / name).write_text(CORPUS)
    (folder / "test.conll").write_text(f"{CORPUS}\nOslo B-PER\nreads O\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DS_ACCELERATOR", "cpu")
        patch.chdir(folder)
        assert main(["train", "run.yaml", *RUN]) == 0
    return folder


@pytest.fixture
def project(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with a finished run, as the working directory."""
    folder = tmp_path / "project"
    shutil.copytree(trained, folder)
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    monkeypatch.chdir(folder)
    return folder


def summary() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path("run/summary.json").read_text())
    return found


def metrics(card: Path, split: str) -> dict[str, float]:
    """What the head of a card says of a split, by the names of the metrics."""
    head = yaml.safe_load(card.read_text().split("---\n")[1])
    results = head["model-index"][0]["results"]
    of_split = [one for one in results if one["dataset"]["split"] == split]
    return {one["name"]: one["value"] for result in of_split for one in result["metrics"]}


def code_of(card: Path) -> str:
    (found,) = re.findall(r"```python\n(.*?)\n```", card.read_text(), re.DOTALL)
    return str(found)


# ---------------------------------------------------------------- what it says


def test_its_numbers_are_the_summarys(project: Path) -> None:
    for split in ("validation", "test"):
        expected, found = summary()[split], metrics(CARD, split)
        for name in ("f1", "precision", "recall"):
            shown = "F1" if name == "f1" else name.capitalize()
            assert found[f"{shown} (seqeval, default mode)"] == expected[name]
            assert found[f"{shown} (seqeval, strict IOB2)"] == expected["strict"][name]
        assert found["Accuracy of words"] == expected["accuracy"]
        for name, of_type in expected["per_type"].items():
            numbers = [of_type["precision"], of_type["recall"], of_type["f1"]]
            numbers.append(expected["strict_per_type"][name]["f1"])
            cells = " | ".join(f"{number:.4f}" for number in numbers)
            assert f"\n| {name} | {cells} | {of_type['support']} |\n" in CARD.read_text()
    # Or the splits could have been mixed up.
    assert summary()["test"]["words"] != summary()["validation"]["words"]


def test_the_hubs_own_reader_reads_it(project: Path) -> None:
    card = ModelCard.load(CARD)
    assert card.data.library_name == "transformers"
    assert card.data.base_model is None
    assert len(card.data.eval_results) == 14
    again = ModelCard(f"---\n{card.data.to_yaml()}\n---\n{card.text}")
    assert again.data.to_dict() == card.data.to_dict()


def test_it_says_how_the_model_was_made(project: Path) -> None:
    text, found = CARD.read_text(), summary()
    assert "5 labels: O, B-LOC, I-LOC, B-PER, I-PER." in text
    assert "| train | train.conll | 3 | 9 | 4 |" in text
    assert found["data"]["test"] == {"sentences": 4, "words": 11, "windows": 5}
    assert f"| weights of step | {found['best_step']} |" in text
    assert f"| torch | {found['versions']['torch']} |" in text
    (resolved,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    assert resolved == Path("run/config.yaml").read_text()


@pytest.mark.filterwarnings("ignore:Tokenizer does not support real words")
def test_its_code_runs(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = code_of(CARD).replace("Anna Smith works in Oslo.", "Anna sleeps in Oslo")
    exec(compile(code, "card", "exec"), {})
    for line in capsys.readouterr().out.splitlines():
        assert re.fullmatch(r"(PER|LOC) \S.* [01]\.\d+", line), line


def test_the_code_of_several_heads_runs(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = "Anna B-PER NOUN\nsleeps O VERB\nin O ADP\nOslo B-LOC NOUN\n"
    for name in ("train.conll", "dev.conll", "test.conll"):
        Path(name).write_text(words)
    heads = "data.heads={ner: {column: 1}, upos: {column: 2, kind: classes}}"
    columns = "data.columns={words: 0}"
    run = ["run.yaml", *RUN, "run_dir=heads", heads, columns, "data.train=train.conll"]
    assert main(["train", *run]) == 0
    card = Path("heads/model/README.md")
    expected = json.loads(Path("heads/summary.json").read_text())["test"]["heads"]["upos"]
    assert metrics(card, "test")["F1 (macro)"] == expected["f1"]
    capsys.readouterr()
    exec(compile(code_of(card), "card", "exec"), {})
    told = capsys.readouterr().out.splitlines()
    assert [line.split(" ")[0] for line in told] == ["ner", "upos"]
    for line, labels in zip(told, (("O", "B-", "I-"), ("NOUN", "VERB", "ADP")), strict=True):
        pairs = re.findall(r"\('([^']*)', '([^']*)'\)", line)
        assert [word for word, _ in pairs] == ["Anna", "Smith", "works", "in", "Oslo", "."]
        assert all(label.startswith(labels) for _, label in pairs)


# ---------------------------------------------------------------- when it is written


def test_it_is_written_again(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = CARD.read_text()
    CARD.unlink()
    assert main(["card", "run"]) == 0
    assert capsys.readouterr().out == "run/model/README.md is written\n"
    assert CARD.read_text() == before
    assert not list(CARD.parent.glob(".*"))


def test_exports_have_the_scores_of_their_own_weights(project: Path) -> None:
    for step, name in ((2, "early"), (4, "best")):
        checkpoint = f"run/checkpoints/step-{step:08d}"
        assert main(["export", checkpoint, name, "--dtype", "bf16", "--samples", "0"]) == 0
    assert summary()["best_step"] == 4
    best, early = Path("best/README.md"), Path("early/README.md")
    assert metrics(best, "validation") == metrics(CARD, "validation")
    assert metrics(best, "test") == metrics(CARD, "test")
    assert metrics(early, "test") == {}
    history = json.loads(Path("run/checkpoints/step-00000002/manifest.json").read_text())
    expected = history["history"][0]["loss"]
    assert f" | {expected:.4f} |\n" in early.read_text()
    assert expected != summary()["validation"]["loss"]
    assert "the weights are bf16" in early.read_text()
    # What the run noted once is so of all its weights.
    assert "| train | train.conll | 3 | 9 | 4 |" in early.read_text()


def test_a_checkpoint_of_a_run_that_is_not_finished(project: Path) -> None:
    Path("run/summary.json").unlink()
    assert main(["export", "run/checkpoints/step-00000004", "out", "--samples", "0"]) == 0
    assert metrics(Path("out/README.md"), "validation") == metrics(CARD, "validation")
    assert "| train | train.conll | - | - | - |" in Path("out/README.md").read_text()


def test_a_run_is_done_without_its_card(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # As where it is not installed.
    monkeypatch.setitem(sys.modules, "jinja2", None)
    assert main(["train", "run.yaml", *RUN, "run_dir=other"]) == 0
    assert "warning: other/model/README.md cannot be written: " in capsys.readouterr().err
    assert Path("other/summary.json").exists()
    assert not Path("other/model/README.md").exists()
    monkeypatch.undo()
    monkeypatch.chdir(project)
    assert main(["card", "other"]) == 0
    assert metrics(Path("other/model/README.md"), "test") == metrics(CARD, "test")


def damage(change: dict[str, Any]) -> None:
    Path("run/summary.json").write_text(json.dumps({**summary(), **change}))


def test_what_is_no_finished_run_is_refused(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def told(folder: str) -> str:
        assert main(["card", folder]) == 2
        output = capsys.readouterr()
        assert (output.out, output.err.count("\n")) == ("", 1)
        return output.err

    assert "there is no folder 'nowhere'" in told("nowhere")
    assert "models is no finished run: it has no config.yaml" in told("models")
    damage({"steps": "many"})
    assert "run/summary.json: steps: Input should be a valid integer" in told("run")
    damage({"steps": 4, "test": []})
    assert "run/summary.json: test: " in told("run")
    Path("run/summary.json").write_text("[]")
    assert "run/summary.json" in told("run")
    Path("run/summary.json").write_text("{")
    assert "run/summary.json cannot be read" in told("run")
    Path("run/summary.json").unlink()
    assert "run is no finished run: it has no summary.json" in told("run")


# ---------------------------------------------------------------- on its way to the Hub


class StandIn(ThreadingHTTPServer):
    """What of the Hub an upload asks: repository, kind of each file, large files, commit."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.refuses = False
        self.created: list[dict[str, Any]] = []
        self.files: dict[str, bytes] = {}
        self.large: dict[str, bytes] = {}
        self.tokens: set[str] = set()


class Handler(BaseHTTPRequestHandler):
    """Answers it."""

    server: StandIn

    def log_message(self, format: str, *arguments: object) -> None:
        """Nothing is printed."""

    def do_PUT(self) -> None:
        self.server.large[self.path.rpartition("/")[2]] = self._body()
        self._answer({})

    def do_POST(self) -> None:
        path, body = self.path.partition("?")[0], self._body()
        if "/storage/" not in path:
            self.server.tokens.add(self.headers["Authorization"])
        if self.server.refuses:
            self._answer({"error": f"no rights for {self.headers['Authorization']}"}, 403)
        elif path == "/api/repos/create":
            self.server.created.append(json.loads(body))
            self._answer({"url": f"{self.server.url}/owner/name"})
        elif path.endswith("/preupload/main"):
            self._answer({"files": [self._kind(one) for one in json.loads(body)["files"]]})
        elif path.endswith("/info/lfs/objects/batch"):
            objects = [self._place(one) for one in json.loads(body)["objects"]]
            self._answer({"transfer": "basic", "objects": objects})
        elif path.endswith("/commit/main"):
            self._commit([json.loads(line) for line in body.splitlines()])
        else:
            self._answer({"errors": [], "warnings": []})

    def _kind(self, file: dict[str, Any]) -> dict[str, Any]:
        kind = "lfs" if file["path"].endswith(".safetensors") else "regular"
        return {"path": file["path"], "uploadMode": kind, "shouldIgnore": False}

    def _place(self, file: dict[str, Any]) -> dict[str, Any]:
        href = f"{self.server.url}/storage/{file['oid']}"
        return {**file, "actions": {"upload": {"href": href}}}

    def _commit(self, lines: list[dict[str, Any]]) -> None:
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                self.server.files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                self.server.files[value["path"]] = self.server.large[value["oid"]]
        url = f"{self.server.url}/owner/name/commit/{'0' * 40}"
        self._answer({"success": True, "commitUrl": url, "commitOid": "0" * 40})

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers["Content-Length"] or 0))

    def _answer(self, values: dict[str, Any], status: int = 200) -> None:
        body = json.dumps(values).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def hub() -> Iterator[StandIn]:
    with StandIn() as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def push(hub: StandIn, *arguments: str) -> subprocess.CompletedProcess[str]:
    variables = {**environment(), "HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN, "HF_HUB_OFFLINE": "0"}
    # Its transfers of large files are another protocol than the stand-in's.
    variables["HF_HUB_DISABLE_XET"] = "1"
    done = subprocess.run(
        [sys.executable, "-m", "bigner", "push", *arguments],
        env=variables,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert TOKEN not in done.stdout + done.stderr
    return done


def test_a_run_is_pushed(project: Path, hub: StandIn) -> None:
    Path("run/model/.README.md.tmp").touch()
    done = push(hub, "run", "owner/name", "--private")
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"run is at {hub.url}/owner/name\n"
    assert hub.tokens == {f"Bearer {TOKEN}"}
    (created,) = hub.created
    assert created["name"] == "name"
    assert created.get("visibility") == "private" or created.get("private")
    uploaded = {path.name: path.read_bytes() for path in Path("run/model").glob("[!.]*")}
    assert hub.files == uploaded
    assert {"model.safetensors", "config.json", "tokenizer.json", "README.md"} <= hub.files.keys()
    # The code loads it from where it is now.
    assert 'model="owner/name"' in hub.files["README.md"].decode()
    assert TOKEN.encode() not in b"".join(hub.files.values())


def test_an_exported_model_is_pushed_without_folders_of_this_machine(
    project: Path, hub: StandIn
) -> None:
    exported = project / "exported"
    step = "run/checkpoints/step-00000004"
    assert main(["export", step, str(exported), "--samples", "0"]) == 0
    card = exported / CARD.name
    card.write_text(card.read_text().replace("---\n", f"---\nbase_model: {project}/models\n", 1))
    done = push(hub, str(exported), "owner/name")
    assert done.returncode == 0, done.stderr
    pushed = hub.files[CARD.name].decode()
    assert str(project) not in pushed
    assert 'model="owner/name"' in pushed
    assert ModelCard(pushed).data.base_model is None
    assert hub.files[CARD.name] == card.read_bytes()
    card.write_bytes(b"\xff")
    done = push(hub, str(exported), "owner/name")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "README.md is not UTF-8" in done.stderr


def test_a_graph_is_pushed(project: Path, hub: StandIn) -> None:
    graph = Path("graph")
    graph.mkdir()
    for name in ("config.json", "tokenizer.json"):
        shutil.copy(Path("run/model") / name, graph)
    (graph / "model.onnx").write_bytes(b"a graph")
    done = push(hub, "graph", "owner/name")
    assert done.returncode == 0, done.stderr
    assert hub.files == {path.name: path.read_bytes() for path in graph.iterdir()}
    # Or beside the weights, where the Hub's readers look for it.
    hub.files.clear()
    graph.rename("run/model/onnx")
    done = push(hub, "run", "owner/name")
    assert done.returncode == 0, done.stderr
    assert {"onnx/model.onnx", "model.safetensors", "README.md"} <= hub.files.keys()


def test_the_hub_refuses(project: Path, hub: StandIn) -> None:
    hub.refuses = True
    done = push(hub, "run/model", "owner/name")
    assert done.returncode == 1
    assert done.stderr.startswith("bigner: error: owner/name cannot be uploaded to: ")
    assert "403" in done.stderr
    assert done.stderr.count("\n") == 1
    assert hub.files == {}


def test_what_cannot_be_pushed(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def told(*arguments: str) -> str:
        assert main(["push", *arguments]) == 2
        output = capsys.readouterr()
        assert (output.out, output.err.count("\n")) == ("", 1)
        return output.err

    assert "there is no token: set HF_TOKEN" in told("run", "owner/name")
    monkeypatch.setenv("HF_TOKEN", " ")
    assert "there is no token: set HF_TOKEN" in told("run", "owner/name")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert "there is no folder 'nowhere'" in told("nowhere", "owner/name")
    assert "models holds no weights" in told("models", "owner/name")
    assert "REPO must be OWNER/NAME" in told("run", "owner/name/more")
    assert "REPO must be OWNER/NAME" in told("run", "--", "--x/y")
