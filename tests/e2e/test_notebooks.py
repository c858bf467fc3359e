"""The example notebooks, run as a user runs them: a kernel, an empty folder, cell after cell."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from tests.ranks.launch import ROOT, TIMEOUT_SECONDS, environment

FOLDER = ROOT / "docs" / "notebooks"
NAMES = sorted(path.stem for path in FOLDER.glob("*.ipynb"))


def outputs(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What each code cell of a notebook showed, as text; fails where a cell does."""
    for variable, value in environment().items():
        monkeypatch.setenv(variable, value)
    notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    place = {"metadata": {"path": str(folder)}}
    NotebookClient(notebook, timeout=TIMEOUT_SECONDS, resources=place).execute()
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return ["".join(map(_text, cell.outputs)) for cell in cells]


def _text(output: Any) -> str:
    shown = output["text"] if "text" in output else output["data"]["text/plain"]
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown)


def summary(run_dir: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run_dir / "summary.json").read_text(encoding="utf-8"))
    return found


@pytest.mark.parametrize("name", NAMES)
def test_notebooks_are_kept_without_outputs(name: str) -> None:
    notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    assert f"notebooks/{name}.ipynb" in (ROOT / "docs" / "notebooks.md").read_text("utf-8")


def test_own_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = outputs("own_data", tmp_path, monkeypatch)
    found = summary(tmp_path / "sample" / "runs" / "own")
    assert found["test"]["f1"] > 0.7
    assert any(f"F1 {found['test']['f1']:.3f}" in text for text in shown)
    assert any("did you mean max_steps?" in text for text in shown)
    assert any("sentences         │  23,166" in text for text in shown)
    assert any("940901/1458: BIRTH_NUMBER" in text for text in shown)
    assert shown[-1].endswith(
        f"F1 {found['validation']['f1']:.3f}, strictly {found['validation']['strict']['f1']:.3f}\n"
    )


def test_compare_strategies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = outputs("compare_strategies", tmp_path, monkeypatch)
    runs = {kind: tmp_path / "sample" / "runs" / kind for kind in ("single", "fsdp", "zero")}
    found = {kind: summary(run_dir) for kind, run_dir in runs.items()}
    assert [one["world_size"] for one in found.values()] == [1, 2, 2]
    assert [one["strategy"] for one in found.values()] == list(runs)
    first = found["single"]["test"]
    assert first["f1"] > 0.2
    for one in found.values():
        assert one["test"]["loss"] == pytest.approx(first["loss"], abs=1e-3)
        assert one["test"]["f1"] == pytest.approx(first["f1"], abs=0.01)
    for kind, one in found.items():
        assert any(f"done: model in runs/{kind}/model" in text for text in shown)
        assert any(re.search(rf"{kind} .*loss {one['test']['loss']:.4f}", text) for text in shown)
        assert any(f"strategy.kind={kind}" in text for text in shown)


def test_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = outputs("errors", tmp_path, monkeypatch)
    (told,) = [text for text in shown if "sentences have an error" in text]
    wrong, sentences = map(int, re.match(r"(\d+) of (\d+) sentences", told).groups())  # type: ignore[union-attr]
    assert 0 < wrong < sentences == 1440
    assert len(re.findall(r"^ +\d+ words are \S+ and were tagged \S+$", told, re.M)) == 8
    assert any("in place of" in text for text in shown)
    report = (tmp_path / "sample" / "report.html").read_text(encoding="utf-8")
    assert "BIRTH_NUMBER" in report
