"""The embedded sample: its letters, its tokenizer and the project made of them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from transformers import AutoConfig, AutoTokenizer

from bigner.commands import init
from bigner.commands.init import init_project
from bigner.config.schema import RunConfig
from bigner.errors import UserError
from bigner.sample.letters import ENTITY_TYPES, SIZES, Letter, write_letters

DATE = re.compile(r"\d{1,2}\.\d{1,2}\.\d{4}|\d{2}/\d{2}/\d{4}|\d{4}-\d{2}-\d{2}")
NUMBER_LIKE_A_BIRTH_NUMBER = re.compile(r"\d{6}/\d{4}|\d{10}")
RUN_FILES = ("run_zero3.yaml", "run_fsdp.yaml")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sample") / "project"
    init_project(folder)
    return folder


@pytest.fixture(scope="module")
def letters() -> dict[str, list[Letter]]:
    return {split: write_letters(split) for split in SIZES}


def pairs(letters: list[Letter]) -> list[tuple[str, str]]:
    return [pair for letter in letters for sentence in letter for pair in sentence]


def words_of_type(letters: list[Letter], kind: str) -> set[str]:
    return {word for word, tag in pairs(letters) if tag[2:] == kind}


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_a_project_holds_what_its_readme_names(project: Path) -> None:
    assert set(files(project)) == {
        *("README.md", "run_fsdp.yaml", "run_zero3.yaml", "space.yaml"),
        *("data/train.conll", "data/validation.conll", "data/test.conll"),
        *("model/config.json", "model/tokenizer.json", "model/tokenizer_config.json"),
    }


def test_another_process_with_another_hash_seed_writes_the_same_bytes(
    project: Path, tmp_path: Path
) -> None:
    code = "import sys, pathlib; from bigner.commands.init import init_project as i; "
    code += "i(pathlib.Path(sys.argv[1])); assert 'torch' not in sys.modules"
    subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "again")],
        env={**os.environ, "PYTHONHASHSEED": "7", "RAYON_NUM_THREADS": "1"},
        check=True,
    )
    assert files(tmp_path / "again") == files(project)


@pytest.mark.parametrize("split", SIZES)
def test_tags_are_iob2_and_every_type_occurs(letters: dict[str, list[Letter]], split: str) -> None:
    assert len(letters[split]) == SIZES[split]
    for letter in letters[split]:
        for sentence in letter:
            assert sentence
            before = "O"
            for word, tag in sentence:
                assert word.split() == [word]
                assert "{" not in word
                if tag.startswith("I-"):
                    assert before[2:] == tag[2:]
                before = tag
    begun = {tag[2:] for _, tag in pairs(letters[split]) if tag.startswith("B-")}
    assert begun == set(ENTITY_TYPES)


def test_birth_numbers_are_multiples_of_eleven(letters: dict[str, list[Letter]]) -> None:
    numbers = {n for split in letters.values() for n in words_of_type(split, "BIRTH_NUMBER")}
    assert {len(number) for number in numbers} == {10, 11}
    assert all(int(number.replace("/", "")) % 11 == 0 for number in numbers)


@pytest.mark.parametrize("split", SIZES)
def test_look_alikes_of_entities_are_outside(letters: dict[str, list[Letter]], split: str) -> None:
    outside = [word for word, tag in pairs(letters[split]) if tag == "O"]
    surnames = words_of_type(letters[split], "SURNAME")
    assert sum(DATE.fullmatch(word) is not None for word in outside) > SIZES[split] // 2
    assert sum(NUMBER_LIKE_A_BIRTH_NUMBER.fullmatch(w) is not None for w in outside) > SIZES[split]
    assert sum(word in surnames for word in outside) > SIZES[split] // 10


@pytest.mark.parametrize("split", ["validation", "test"])
def test_many_surnames_are_not_in_training(letters: dict[str, list[Letter]], split: str) -> None:
    seen = {word.casefold() for word, _ in pairs(letters["train"])}
    surnames = words_of_type(letters[split], "SURNAME")
    unseen = {surname for surname in surnames if surname.casefold() not in seen}
    assert 0.2 < len(unseen) / len(surnames) < 0.6


def test_no_letter_is_written_twice(letters: dict[str, list[Letter]]) -> None:
    written = [letter for split in letters.values() for letter in split]
    assert len(set(written)) == len(written)


def test_transformers_loads_the_model_folder(project: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(project / "model")
    config = AutoConfig.from_pretrained(project / "model")
    assert tokenizer.is_fast
    assert len(tokenizer) == config.vocab_size
    tokens = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    assert tokenizer.convert_tokens_to_ids(tokens) == [0, 1, 2, 3, config.vocab_size - 1]
    assert tokenizer.pad_token_id == config.pad_token_id == 1
    assert (tokenizer.cls_token, tokenizer.sep_token, tokenizer.mask_token) == (
        "<s>",
        "</s>",
        "<mask>",
    )


def test_word_ids_lead_back_to_every_word(project: Path, letters: dict[str, list[Letter]]) -> None:
    tokenizer = AutoTokenizer.from_pretrained(project / "model")
    for letter in letters["test"]:
        for sentence in letter:
            words = [word for word, _ in sentence]
            encoded = tokenizer(words, is_split_into_words=True)
            ids, word_ids = encoded["input_ids"], encoded.word_ids()
            assert (ids[0], word_ids[0], ids[-1], word_ids[-1]) == (0, None, 2, None)
            assert 3 not in ids
            for number, word in enumerate(words):
                pieces = [i for i, of in zip(ids, word_ids, strict=True) if of == number]
                assert tokenizer.decode(pieces).strip() == word


def test_some_letters_and_sentences_are_longer_than_a_window(
    project: Path, letters: dict[str, list[Letter]]
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(project / "model")
    window = yaml.safe_load((project / RUN_FILES[0]).read_text())["data"]["max_length"]
    lengths = [
        [len(tokenizer([w for w, _ in s], is_split_into_words=True)["input_ids"]) for s in letter]
        for letter in letters["train"]
    ]
    assert sum(max(letter) > window for letter in lengths) > 10
    # As whole documents in the default window of 256 pieces.
    assert sum(sum(letter) - 2 * len(letter) + 2 > 256 for letter in lengths) > 100


@pytest.mark.parametrize("name", RUN_FILES)
@pytest.mark.parametrize("world_size", [1, 2])
def test_run_files_are_valid_where_the_project_is_the_working_directory(
    project: Path, monkeypatch: pytest.MonkeyPatch, name: str, world_size: int
) -> None:
    monkeypatch.chdir(project)
    config = RunConfig.model_validate(yaml.safe_load(Path(name).read_text()))
    assert config.training.accumulation(world_size) == 2 // world_size
    assert config.precision == "fp16"
    assert Path(config.model.name_or_path).is_dir()
    for split in config.data.splits():
        assert Path(str(config.data.source(split))).is_file()
    positions = json.loads(Path("model/config.json").read_text())["max_position_embeddings"]
    assert config.data.max_length <= positions - 2


def test_the_run_files_differ_in_strategy_alone(project: Path) -> None:
    runs = [yaml.safe_load((project / name).read_text()) for name in RUN_FILES]
    assert [run.pop("strategy")["kind"] for run in runs] == ["zero", "fsdp"]
    assert [run.pop("run_dir") for run in runs] == ["runs/zero3", "runs/fsdp"]
    assert runs[0] == runs[1]


def test_a_folder_with_something_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="not empty"):
        init_project(tmp_path)
    assert files(tmp_path) == {"notes.txt": b"mine"}


def test_a_file_in_the_way_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "project").write_text("mine")
    with pytest.raises(UserError, match="is not a folder"):
        init_project(tmp_path / "project")
    assert files(tmp_path) == {"project": b"mine"}


def test_an_empty_folder_is_filled_and_stays_the_same_folder(tmp_path: Path, project: Path) -> None:
    inode = tmp_path.stat().st_ino
    init_project(tmp_path)
    assert files(tmp_path) == files(project)
    assert tmp_path.stat().st_ino == inode


@pytest.mark.parametrize("is_there", [False, True])
def test_an_interrupt_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_there: bool
) -> None:
    def interrupted(folder: Path) -> None:
        (folder / "README.md").write_text("half")
        raise KeyboardInterrupt

    folder = tmp_path / "project"
    if is_there:
        folder.mkdir()
    monkeypatch.setattr(init, "write_project", interrupted)
    with pytest.raises(KeyboardInterrupt):
        init_project(folder)
    assert list(tmp_path.rglob("*")) == ([folder] if is_there else [])
