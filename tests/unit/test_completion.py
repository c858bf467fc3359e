"""What bash completes, asked of a real bash on a terminal of its own."""

from __future__ import annotations

import os
import pty
import re
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bigner.config.schema import RunConfig
from bigner.terminal.completion import overrides_of, run_files
from tests.ranks.launch import environment

BASH = shutil.which("bash")


def names_of(completions: list[tuple[str, str]]) -> list[str]:
    return [name for name, _ in completions]


# --- what there is to complete ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("begun", "found"),
    [
        ("training.lear", ["training.learning_rate="]),
        ("prec", ["precision="]),
        ("precision=", ["precision=fp32", "precision=bf16", "precision=fp16"]),
        ("precision=b", ["precision=bf16"]),
        ("strategy.kind=", ["strategy.kind=single", "strategy.kind=fsdp", "strategy.kind=zero"]),
        ("strategy.sta", ["strategy.stage="]),
        ("model.packing=", ["model.packing=true", "model.packing=false"]),
        ("training.weight_decay=", ["training.weight_decay=0.01"]),
        ("stra", ["strategy."]),
        ("model.freeze.lay", ["model.freeze.layers="]),
        ("run_dir=", []),
        ("nothing.like", []),
        ("precision=x", []),
        ("=", []),
    ],
)
def test_overrides(begun: str, found: list[str]) -> None:
    assert names_of(overrides_of(begun)) == found


def test_every_field_of_a_run_file_is_completed() -> None:
    top = names_of(overrides_of(""))
    assert {name.rstrip("=.") for name in top} == set(RunConfig.model_fields)
    for section in (name for name in top if name.endswith(".")):
        assert overrides_of(section), section
    assert all(description for _, description in overrides_of("training."))


def test_run_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").mkdir()
    for name in ("run.yaml", "run.yml", "run.txt", ".hidden.yaml", "configs/large.yaml"):
        (tmp_path / name).touch()
    assert names_of(run_files("")) == ["configs/", "run.yaml", "run.yml"]
    assert names_of(run_files("run.ya")) == ["run.yaml"]
    assert names_of(run_files("configs/")) == ["configs/large.yaml"]
    assert names_of(run_files("./conf")) == ["./configs/"]
    assert names_of(run_files(f"{tmp_path}/configs/l")) == [f"{tmp_path}/configs/large.yaml"]
    assert names_of(run_files("nowhere/x")) == []


# --- bash -------------------------------------------------------------------------------------


class Bash:
    """A bash that has the completion, with a terminal to press Tab on."""

    def __init__(self, folder: Path) -> None:
        assert BASH is not None
        ours, theirs = pty.openpty()
        self._terminal = ours
        variables = environment() | {"TERM": "dumb", "PS1": "", "HISTFILE": "/dev/null"}
        variables["PATH"] = f"{Path(sys.executable).parent}:{variables['PATH']}"
        self._process = subprocess.Popen(
            [BASH, "--norc", "--noprofile", "-i"],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            cwd=folder,
            env=variables,
            start_new_session=True,
        )
        os.close(theirs)
        self.run("bind 'set bell-style none'; bind 'set enable-bracketed-paste off'")
        self.run('eval "$(bigner --show-completion bash)"; stty columns 200')

    def run(self, line: str) -> str:
        """Type a line, and Enter; what is shown until it is done."""
        return self._until(f"{line}; echo END''MARK\n", "ENDMARK")

    def completed(self, line: str) -> str:
        """The line that a Tab makes of a begun one, without running it."""
        # Ctrl-A and a command that prints its arguments, so the shell says what they are.
        shown = self._until(f"{line}\t\x01printf '<%s>' \x05''; echo END''MARK\n", "ENDMARK")
        words = re.findall(r"<([^<>]*)>", shown.rpartition("ENDMARK")[0].rpartition("\n")[2])
        return " ".join(words)

    def _until(self, typed: str, mark: str) -> str:
        os.write(self._terminal, typed.encode())
        shown, deadline = "", time.monotonic() + 60
        while mark not in shown:
            ready, _, _ = select.select([self._terminal], [], [], deadline - time.monotonic())
            assert ready, f"bash did not answer {typed!r}: {shown!r}"
            shown += os.read(self._terminal, 65536).decode(errors="replace")
        return shown

    def close(self) -> None:
        os.close(self._terminal)
        self._process.wait(timeout=30)


@pytest.fixture(scope="module")
def bash(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bash]:
    if BASH is None:
        pytest.skip("there is no bash")
    folder = tmp_path_factory.mktemp("shell")
    (folder / "run_fsdp.yaml").touch()
    (folder / "notes.txt").touch()
    (folder / "models").mkdir()
    shell = Bash(folder)
    yield shell
    shell.close()


# A completed word is followed by a space, which the quotes typed behind it make a word of its own.
@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("eva", "evaluate "),
        ("train --se", "train --seeds "),
        ("evaluate --split val", "evaluate --split validation "),
        ("train run_", "train run_fsdp.yaml "),
        ("report mod", "report models/"),
    ],
)
def test_tab(bash: Bash, typed: str, completed: str) -> None:
    assert bash.completed(f"bigner {typed}") == f"bigner {completed}"


@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("training.lear", "training.learning_rate="),
        ("strat", "strategy."),
        ("strategy.kind=f", "strategy.kind=fsdp "),
        ("precision=bf16 see", "precision=bf16 seed="),
        ("strategy='{kind: fsdp}' see", "strategy={kind: fsdp} seed="),
        # What has no list of values may be a file.
        ("data.train=not", "data.train=notes.txt "),
    ],
)
def test_tab_behind_a_run_file(bash: Bash, typed: str, completed: str) -> None:
    begin = "bigner train run_fsdp.yaml "
    assert bash.completed(begin + typed) == begin + completed
