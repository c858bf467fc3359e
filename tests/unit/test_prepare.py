"""Prepared data: made once, by one process, whole or not at all, and anew when anything changed."""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import normalizers
from transformers import PreTrainedTokenizerFast

from bigner.config.schema import DataConfig
from bigner.data import prepare as module
from bigner.data.prepare import Prepared, prepare
from bigner.errors import DataError
from tests.ranks.launch import environment
from tests.unit.helpers import SENTENCES, tiny_tokenizer, write_columns

PROCESSES = 3


def settings(folder: Path, **changes: Any) -> DataConfig:
    """The config of two small splits in ``folder``; their files are written if they are absent."""
    for split, sentences in (("train", SENTENCES), ("test", SENTENCES[:3])):
        if not (folder / split).exists():
            write_columns(folder / split, sentences)
    return DataConfig.model_validate(
        {
            "train": str(folder / "train"),
            "test": str(folder / "test"),
            "max_length": 16,
            "stride": 4,
            "cache_dir": folder / "cache",
        }
        | changes
    )


def prepared_in(folder: Path, **changes: Any) -> Prepared:
    return prepare(settings(folder, **changes), tiny_tokenizer(), ["train", "test"])


def snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    """Inode and time of each file: another number if it was written again."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock")
    return {
        str(path.relative_to(folder)): (path.stat().st_ino, path.stat().st_mtime_ns)
        for path in files
    }


def content(prepared: Prepared) -> list[Any]:
    """Everything that is prepared, as plain values."""
    splits = prepared.splits.values()
    return [[list(split.sentences), list(split.windows)] for split in splits]


def folders(cache: Path) -> list[Path]:
    return [path for path in cache.iterdir() if path.is_dir()]


# ---------------------------------------------------------------- what is prepared


def test_a_prepared_corpus(tmp_path: Path) -> None:
    prepared = prepared_in(tmp_path)
    assert prepared.heads[0].names == ("LOC", "ORG", "PER")
    assert (prepared.schemes["tags"], prepared.pad_id, prepared.empty_row) == ("iob2", 1, [0, 2])
    assert prepared.type_counts["tags"]["test"] == {"LOC": 3, "PER": 4}
    train = prepared.splits["train"]
    assert (train.words_without_pieces, train.words_cut) == (5, 1)
    names = prepared.heads.names_of_logits
    read = [
        list(zip(row["words"], [names[tag] for tag in row["tags_0"]], strict=True))
        for row in train.sentences
    ]
    assert read == SENTENCES
    for window in train.windows:
        assert window["length"] == len(window["input_ids"]) == len(window["labels_0"]) <= 16
        assert window["num_words"] == len(window["word_places"])


def test_sentences_as_arrays(tmp_path: Path) -> None:
    # So many that the table is written, and read, in several parts.
    corpus = SENTENCES * 300
    write_columns(tmp_path / "train", corpus)
    prepared = prepared_in(tmp_path)
    train = prepared.splits["train"]
    assert train.sentences.data.column("words").num_chunks > 1
    for _ in range(2):
        assert list(train.words) == [[word for word, _ in sentence] for sentence in corpus]
    lengths = [len(sentence) for sentence in corpus]
    assert train.sentence_lengths().tolist() == lengths
    names = prepared.heads[0].labels.tags
    tags = [tag for sentence in corpus for _, tag in sentence]
    assert [names[i] for i in train.label_ids(0)] == tags
    begins = [i == 0 for length in lengths for i in range(length)]
    assert train.sentence_begins().tolist() == begins


def test_what_was_prepared_is_told_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prepared_in(tmp_path)
    number = r"[0-9,.]+"
    words = sum(map(len, [*SENTENCES, *SENTENCES[:3]]))
    told = rf"prepared {words} words of train, test in {number} s \({number} words a second\)\n"
    assert re.fullmatch(told, capsys.readouterr().err)
    prepared_in(tmp_path)
    assert capsys.readouterr().err == ""


def test_it_is_memory_mapped(tmp_path: Path) -> None:
    prepared = prepared_in(tmp_path)
    mapped = Path("/proc/self/maps").read_text(encoding="utf-8")
    for split in prepared.splits:
        for table in ("sentences", "windows"):
            assert f"{prepared.folder}/{split}-{table}.arrow" in mapped


def test_documents(tmp_path: Path) -> None:
    text = "-DOCSTART- O\n\na B-PER\nb O\n\nc O\n\n-DOCSTART- O\n\nd B-LOC\n"
    (tmp_path / "train").write_text(text)
    sentences = prepared_in(tmp_path, unit="sentence").splits["train"]
    documents = prepared_in(tmp_path, unit="document").splits["train"]
    assert sentences.column("num_words").tolist() == [2, 1, 1]
    assert documents.column("num_words").tolist() == [3, 1]
    assert documents.column("first_word").tolist() == [0, 3]
    assert list(sentences.sentences) == list(documents.sentences)
    assert [row["document"] for row in documents.sentences] == [0, 0, 1]


# ---------------------------------------------------------------- once


def test_prepared_once(tmp_path: Path) -> None:
    first = prepared_in(tmp_path)
    before = snapshot(tmp_path / "cache")
    again = prepared_in(tmp_path)
    assert again.folder == first.folder
    assert snapshot(tmp_path / "cache") == before
    assert content(again) == content(first)


def test_warnings_are_kept(tmp_path: Path) -> None:
    write_columns(tmp_path / "train", [[("Peter", "I-PER"), ("in", "O"), ("Acme", "B-ORG")]])
    first = prepared_in(tmp_path)
    assert any("1 tag breaks the scheme iob2" in warning for warning in first.warnings)
    assert any("LOC" in warning for warning in first.warnings)
    assert prepared_in(tmp_path).warnings == first.warnings


CHANGES: dict[str, dict[str, Any]] = {
    "max_length": {"max_length": 12},
    "stride": {"stride": 2},
    "alignment": {"alignment": "all"},
    "unit": {"unit": "document"},
    "labels": {"labels": ["PER", "ORG", "LOC"]},
    "scheme": {"scheme": "iob2"},
    "columns": {"columns": {"words": 0, "tags": 1}},
}


@pytest.mark.parametrize("name", CHANGES)
def test_another_setting_is_prepared_anew(name: str, tmp_path: Path) -> None:
    first = prepared_in(tmp_path)
    assert prepared_in(tmp_path, **CHANGES[name]).folder != first.folder


def test_another_place_of_the_cache_is_no_other_content(tmp_path: Path) -> None:
    first = prepared_in(tmp_path)
    elsewhere = prepared_in(tmp_path, cache_dir=tmp_path / "elsewhere")
    assert elsewhere.folder.name == first.folder.name
    assert content(elsewhere) == content(first)


def test_a_changed_file_is_prepared_anew(tmp_path: Path) -> None:
    first = prepared_in(tmp_path)
    stat = (tmp_path / "test").stat()
    text = (tmp_path / "test").read_text(encoding="utf-8")
    (tmp_path / "test").write_text(text.replace("Anna", "Emma"), encoding="utf-8")
    # As a copy that keeps times and size does.
    os.utime(tmp_path / "test", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    changed = prepared_in(tmp_path)
    assert changed.folder != first.folder
    assert changed.splits["test"].sentences[0]["words"][0] == "Emma"


def another_normalizer() -> PreTrainedTokenizerFast:
    tokenizer = tiny_tokenizer()
    tokenizer.backend_tokenizer.normalizer = normalizers.Lowercase()
    return tokenizer


def another_padding() -> PreTrainedTokenizerFast:
    tokenizer = tiny_tokenizer()
    tokenizer.pad_token = "<unk>"
    return tokenizer


@pytest.mark.parametrize("other", [another_normalizer, another_padding])
def test_another_tokenizer_is_prepared_anew(
    other: Callable[[], PreTrainedTokenizerFast], tmp_path: Path
) -> None:
    first = prepared_in(tmp_path)
    changed = prepare(settings(tmp_path), other(), ["train", "test"])
    assert changed.folder != first.folder
    assert changed.pad_id == other().pad_token_id


def test_one_split_alone_is_other_content(tmp_path: Path) -> None:
    both = prepared_in(tmp_path)
    alone = prepare(settings(tmp_path), tiny_tokenizer(), ["test"])
    assert alone.folder != both.folder
    assert list(alone.splits) == ["test"]
    # Labels follow from the splits that are read.
    assert alone.heads[0].names == ("LOC", "PER")


def test_default_cache_dir(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BIGNER_CACHE", str(tmp_path / "set"))
    assert prepared_in(tmp_path, cache_dir=None).folder.parent == tmp_path / "set"
    monkeypatch.setenv("HOME", str(tmp_path))
    for empty in (monkeypatch.delenv, lambda name: monkeypatch.setenv(name, "")):
        empty("BIGNER_CACHE")
        assert settings(tmp_path, cache_dir=None).cache_root() == tmp_path / ".cache" / "bigner"


# ---------------------------------------------------------------- whole or not at all


def test_an_interrupted_preparation_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    write_split = module._write_split

    def interrupted(folder: Path, split: str, *rest: Any) -> dict[str, int]:
        if split == "test":
            raise KeyboardInterrupt
        return write_split(folder, split, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(module, "_write_split", interrupted)
        with pytest.raises(KeyboardInterrupt):
            prepared_in(tmp_path)
    assert folders(tmp_path / "cache") == []
    assert prepared_in(tmp_path).splits["test"].sentences.num_rows == 3


def test_data_errors_leave_nothing(tmp_path: Path) -> None:
    (tmp_path / "test").write_text("a O\nb\n")
    with pytest.raises(DataError, match="test:2"):
        prepared_in(tmp_path)
    assert folders(tmp_path / "cache") == []


@pytest.mark.parametrize("cache", ["file", "file/below"])
def test_a_cache_that_cannot_be_written(cache: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(DataError, match=r"cannot be written to .*set data.cache_dir"):
        prepared_in(tmp_path, cache_dir=tmp_path / cache)


# ---------------------------------------------------------------- several threads

PREPARE = """
import sys
from bigner.config.schema import DataConfig, ModelConfig
from bigner.data.prepare import prepare
from bigner.modeling import load_tokenizer
data = DataConfig.model_validate_json(sys.argv[1])
prepare(data, load_tokenizer(ModelConfig(name_or_path=sys.argv[2])), data.splits())
"""


@pytest.mark.data
@pytest.mark.parametrize("choices", [{}, {"unit": "document", "alignment": "all"}], ids=str)
def test_the_tokenizers_threads_change_nothing(
    choices: dict[str, Any], shared_data: Path, tmp_path: Path
) -> None:
    corpus = shared_data / "wnut17"
    written = []
    for parallel in ("true", "false"):
        data = DataConfig(
            train=str(corpus / "wnut17train.conll"),
            test=str(corpus / "emerging.test.annotated"),
            max_length=32,
            stride=8,
            cache_dir=tmp_path / parallel,
            **choices,
        )
        words = [data.model_dump_json(), str(shared_data / "xlmr-tokenizer")]
        threads = {"TOKENIZERS_PARALLELISM": parallel, "RAYON_NUM_THREADS": "4"}
        subprocess.run(
            [sys.executable, "-c", PREPARE, *words], env=environment() | threads, check=True
        )
        files = sorted(file for file in (tmp_path / parallel).glob("*/*") if file.is_file())
        written.append({file.relative_to(tmp_path / parallel): file.read_bytes() for file in files})
    assert len(written[0]) == 5
    assert written[0] == written[1]


# ---------------------------------------------------------------- several processes


def _prepare_together(folder: Path, barrier: Any, results: Any) -> None:
    barrier.wait()
    prepared = prepared_in(folder)
    results.put((str(prepared.folder), snapshot(prepared.folder), content(prepared)))


def _killed_while_preparing(folder: Path) -> None:
    write_split = module._write_split

    def killed(working: Path, split: str, *rest: Any) -> dict[str, int]:
        if split == "test":
            os.kill(os.getpid(), signal.SIGKILL)
        return write_split(working, split, *rest)

    module._write_split = killed
    prepared_in(folder)


@pytest.fixture(scope="module")
def processes() -> Any:
    """Processes that share nothing with this one, of a server that has imported what they need."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


def test_processes_at_once_prepare_once(processes: Any, tmp_path: Path) -> None:
    settings(tmp_path)
    barrier, results = processes.Barrier(PROCESSES), processes.Queue()
    started = [
        processes.Process(target=_prepare_together, args=(tmp_path, barrier, results))
        for _ in range(PROCESSES)
    ]
    for process in started:
        process.start()
    first, *others = (results.get(timeout=120) for _ in started)
    for process in started:
        process.join()
    assert [process.exitcode for process in started] == [0] * PROCESSES
    # The very same files, so written once.
    assert others == [first] * (PROCESSES - 1)
    assert [str(folder) for folder in folders(tmp_path / "cache")] == [first[0]]


def test_a_killed_process_leaves_nothing_that_looks_complete(
    processes: Any, tmp_path: Path
) -> None:
    data = settings(tmp_path)
    process = processes.Process(target=_killed_while_preparing, args=(tmp_path,))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert list((tmp_path / "cache").glob("*/meta.json")) == []
    # Neither its lock nor what it left stands in the way of the next.
    prepared = prepare(data, tiny_tokenizer(), ["train", "test"])
    assert prepared.splits["test"].sentences.num_rows == 3
    assert folders(tmp_path / "cache") == [prepared.folder]
