"""Run files: the schema, YAML's rules, overrides, and errors that say where."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from bigner.config.load import load_config, load_with_source
from bigner.config.schema import (
    DataConfig,
    FsdpStrategy,
    RunConfig,
    SingleStrategy,
    TrainingConfig,
    ZeroStrategy,
)
from bigner.config.yaml_file import MAX_VALUES, as_yaml, parse_yaml
from bigner.errors import ConfigError, Problem

ROOT = Path(__file__).resolve().parents[2]
LEAST = "run_dir: runs/a\nmodel: {name_or_path: xlm-roberta-base}\ndata: {train: train.conll}\n"

# The run file as the design page has it.
SAMPLE = """\
run_dir: runs/wnut17-zero3
seed: 42
precision: fp16                  # fp32 | bf16 | fp16
model:
  name_or_path: FacebookAI/xlm-roberta-large     # a Hub name or a folder
  training_type: fine_tuning     # fine_tuning | transfer_learning | from_scratch
data:
  format: columns                # columns | jsonl | spans | hub
  train: data/train.conll        # a file, a folder or a glob
  validation: data/dev.conll
  test: data/test.conll
  columns: {words: 0, tags: 1}   # numbers, or names where the file has a header
  unit: sentence                 # sentence | document
  max_length: 256                # pieces in a window
  stride: 32                     # words of context shared by neighbouring windows
  alignment: first               # first | all
training:
  epochs: 3                      # or max_steps
  global_batch_size: 32          # samples in an optimizer step, over all ranks
  micro_batch_size: 16           # samples a rank computes at once; accumulation follows from the world size
  learning_rate: 1.0e-5
  schedule: linear
  warmup_ratio: 0.1
  weight_decay: 0.01
  max_grad_norm: 1.0
strategy:
  kind: zero                     # single | fsdp | zero
  stage: 3
  deepspeed_config: ds_configs/zero3.json        # tuning only
evaluation:
  every: epoch                   # or a number of steps
  batch_size: 32                 # samples a rank
  metric: f1                     # what "best" means
checkpoint:
  every_steps: 500
  keep_last: 2
  resume: auto                   # auto | none | a checkpoint folder
tracking: [tensorboard]
"""  # noqa: E501


@pytest.fixture
def run_file(tmp_path: Path) -> Path:
    return tmp_path / "run.yaml"


def problems_of(run_file: Path, content: str | bytes, *overrides: str) -> list[tuple[str, ...]]:
    """(place without its folder, field, message) of each problem, in the order they are told."""
    run_file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ConfigError) as caught:
        load_config(run_file, overrides)
    assert str(caught.value) == "\n".join(map(str, caught.value.problems))
    return [
        (problem.where.replace(f"{run_file.parent}/", ""), problem.field, problem.message)
        for problem in caught.value.problems
    ]


def only_problem(run_file: Path, content: str | bytes, *overrides: str) -> tuple[str, ...]:
    (problem,) = problems_of(run_file, content, *overrides)
    return problem


def loaded(run_file: Path, content: str, *overrides: str) -> RunConfig:
    run_file.write_text(content, encoding="utf-8")
    return load_config(run_file, overrides)


# --- the schema -------------------------------------------------------------------------------


def test_the_sample_of_the_design_loads(run_file: Path, tmp_path: Path) -> None:
    tuning = tmp_path / "zero3.json"
    tuning.write_text('{"zero_optimization": {"overlap_comm": true}}')
    config = loaded(run_file, SAMPLE.replace("ds_configs/zero3.json", str(tuning)))

    assert config.run_dir == Path("runs/wnut17-zero3")
    assert config.precision == "fp16"
    assert config.data.splits() == ("train", "validation", "test")
    assert config.data.columns is not None
    assert (config.data.columns.words, config.data.columns.tags) == (0, 1)
    assert config.training.learning_rate == 1e-5
    assert config.training.accumulation(2) == 1
    assert config.strategy == ZeroStrategy(kind="zero", stage=3, deepspeed_config=tuning)
    assert config.evaluation.every == "epoch"
    assert config.checkpoint.resume == "auto"
    assert config.tracking == ("tensorboard",)


@pytest.mark.parametrize(
    "file", sorted((ROOT / "run_configs").glob("*.yaml")), ids=lambda f: f.name
)
def test_run_files_of_the_repository_load(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    load_config(file)


def test_defaults_are_those_of_a_run_in_one_process(run_file: Path) -> None:
    config = loaded(run_file, LEAST)
    assert config.strategy == SingleStrategy()
    assert config.precision == "fp32"
    assert config.training.num_epochs() == 3
    assert config.training.learning_rate == 1e-5
    assert config.training.global_batch_size >= 16
    assert config.checkpoint.every_steps is None
    assert config.data.splits() == ("train",)


def test_what_was_loaded_cannot_be_changed(run_file: Path) -> None:
    config = loaded(run_file, LEAST)
    with pytest.raises(ValidationError, match="frozen"):
        config.seed = 1  # type: ignore[misc]
    with pytest.raises(ValidationError, match="frozen"):
        config.training.epochs = 1  # type: ignore[misc]


def test_a_config_written_as_yaml_loads_as_itself(run_file: Path) -> None:
    config = loaded(run_file, SAMPLE, "strategy={kind: fsdp}", "data.labels=[PER, LOC]")
    again = loaded(run_file, yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False))
    assert again == config


def test_every_field_and_section_is_described() -> None:
    schema = RunConfig.model_json_schema()
    places = list(_places(schema))
    assert len(places) > 60
    assert [name for name, node in places if not node.get("description")] == []


def _places(schema: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    sections = {"RunConfig": schema, **schema["$defs"]}
    for section, node in sections.items():
        yield section, node
        for name, field in node.get("properties", {}).items():
            # pydantic leaves out what the section itself says word for word.
            target = sections.get(field.get("$ref", "").rpartition("/")[2], {})
            yield f"{section}.{name}", {**target, **field}


@pytest.mark.parametrize(
    ("field", "bad", "good"),
    [
        ("seed", "-1", "0"),
        ("seed", "4294967296", "4294967295"),
        ("model.dropout", "1.0", "0.99"),
        ("model.dropout", "-0.1", "0"),
        ("data.max_length", "7", "8 data.stride=0"),
        ("data.stride", "-1", "0"),
        ("training.epochs", "0", "1"),
        ("training.max_steps", "0", "1"),
        ("training.micro_batch_size", "0", "1"),
        ("training.learning_rate", "0", "1e-9"),
        ("training.learning_rate", "1.5", "1"),
        ("training.learning_rate", ".inf", "0.5"),
        ("training.learning_rate", ".nan", "0.5"),
        ("training.warmup_ratio", "1.0", "0.0"),
        ("training.head_learning_rate", "0", "null"),
        ("training.layer_decay", "0", "1"),
        ("training.layer_decay", "1.01", "0.8"),
        ("model.freeze.layers", "-1", "12"),
        ("training.weight_decay", "-0.01", "0"),
        ("training.adam_beta2", "1.0", "0.95"),
        ("training.max_grad_norm", "0", "null"),
        ("training.plateau_factor", "1", "0.1"),
        ("training.log_every", "0", "1"),
        ("evaluation.every", "0", "1"),
        ("evaluation.batch_size", "0", "1"),
        ("checkpoint.every_steps", "0", "null"),
        ("checkpoint.keep_last", "0", "1"),
    ],
)
def test_bounds(run_file: Path, field: str, bad: str, good: str) -> None:
    override = f"{field}={bad}"
    where, name, message = only_problem(run_file, LEAST, override)
    assert (where, name) == (f"override {override!r}", field)
    assert message.startswith("must be ")
    assert "; got " in message
    loaded(run_file, LEAST, *f"{field}={good}".split())


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("seed=1.0", "must be a whole number; got 1.0"),
        ("seed='1'", "must be a whole number; got the text '1'"),
        ("seed=true", "must be a whole number; got True"),
        ("training.learning_rate='1e-5'", "must be a number; got the text '1e-5'"),
        (
            "training.gradient_checkpointing=yes",
            "must be true or false or 'selective'; got the text 'yes'",
        ),
        ("training.gradient_checkpointing=1", "must be true or false or 'selective'; got 1"),
        ("precision=half", "must be 'fp32', 'bf16' or 'fp16'; got the text 'half'"),
        ("model.name_or_path=7", "must be text; got 7"),
        ("model.name_or_path=''", "must not be empty; got the text ''"),
        ("run_dir=''", "must be a path and is empty; got the text ''"),
        (
            'run_dir="a\\0b"',
            "must be a path, and has a character that no path can have; got the text 'a\\x00b'",
        ),
        (
            'run_dir="\\ud800"',
            "must be a path, and has a character that no path can have; got the text '\\ud800'",
        ),
        ("run_dir=[a]", "must be a path; got ['a']"),
        ("training=5", "must be a section of fields; got 5"),
        ("training=null", "must be a section of fields; got None"),
        ("tracking=tensorboard", "must be a list; got the text 'tensorboard'"),
        ("data.labels=PER", "must be a list; got the text 'PER'"),
        ("evaluation.every=often", "must be 'epoch' or a whole number; got the text 'often'"),
        ("data.columns={words: 1.5, tags: 2}", "must be a whole number or text; got 1.5"),
        (
            "strategy={kind: ddp}",
            "must have a kind: 'single', 'fsdp' or 'zero'; got {'kind': 'ddp'}",
        ),
        ("strategy={stage: 3}", "must have a kind: 'single', 'fsdp' or 'zero'; got {'stage': 3}"),
        ("strategy={kind: zero, stage: 4}", "must be 1, 2 or 3; got 4"),
    ],
)
def test_wrong_types_are_refused_with_the_rule_and_the_value(
    run_file: Path, override: str, message: str
) -> None:
    assert only_problem(run_file, LEAST, override)[2] == message


@pytest.mark.parametrize(
    ("overrides", "field", "phrases"),
    [
        (
            ["training={epochs: 3, max_steps: 9}"],
            "training",
            ["epochs 3", "max_steps 9", "keep one"],
        ),
        (["data.stride=200"], "data", ["stride 200", "max_length 256", "128 or less"]),
        (["data.format=hub"], "data", ["needs data.dataset"]),
        (["data.dataset=a/b"], "data", ["belong to format 'hub'", "set data.format to hub"]),
        (
            ["data.format=spans", "data.columns={words: 0, tags: 1}"],
            "data",
            ["take data.columns out"],
        ),
        (
            ["data.format=jsonl", "data.columns={words: 0, tags: t}"],
            "data",
            ["give the field's name"],
        ),
        (["data.columns={words: 1, tags: 1}"], "data", ["both 1", "two columns"]),
        (["data.labels=[O, PER]"], "data", ["'O'", "leave out O and the prefixes"]),
        (["data.labels=[B-PER]"], "data", ["'B-PER'", "leave out O and the prefixes"]),
        (["data.labels=[PER, PER]"], "data", ["list each once"]),
        (
            ["model.freeze.layers=2", "model.training_type=transfer_learning"],
            "model",
            ["freezes the whole body", "take model.freeze out"],
        ),
        (
            ["model.freeze.embeddings=true", "model.training_type=from_scratch"],
            "model",
            ["keep some as drawn", "set model.training_type to fine_tuning"],
        ),
        (
            ["training.layer_decay=0.9", "model.training_type=transfer_learning"],
            "",
            ["layer_decay 0.9", "set model.training_type to fine_tuning"],
        ),
        (["training.schedule=reduce_on_plateau"], "", ["give data.validation or take another"]),
        (["evaluation.patience=2"], "", ["patience 2", "give data.validation"]),
        (["evaluation.train_sample=9"], "", ["train_sample 9", "give data.validation"]),
        (["evaluation.min_gain=0.1"], "", ["min_gain 0.1", "evaluation.patience, which is not"]),
        (["data.context=4", "data.unit=document"], "data", ["context 4", "take one of them out"]),
        (
            ["training.global_batch_size=10", "training.micro_batch_size=4"],
            "training",
            ["global_batch_size 10", "micro_batch_size 4", "global_batch_size to 8", "size to 2"],
        ),
        (
            ["training.micro_batch_tokens=2048"],
            "training",
            ["micro_batch_tokens 2048", "no effect under training.batching samples"],
        ),
        (
            ["training.global_batch_tokens=2048"],
            "training",
            ["global_batch_tokens 2048", "no effect under training.batching samples"],
        ),
        (
            ["training.batching=tokens", "training.micro_batch_size=4"],
            "training",
            ["micro_batch_size 4", "no effect under training.batching tokens"],
        ),
        (
            [
                "training.batching=tokens",
                "training.global_batch_tokens=2048",
                "training.global_batch_size=16",
            ],
            "training",
            ["global_batch_size 16", "no effect under training.global_batch_tokens 2048"],
        ),
        (
            ["training.batching=tokens", "training.micro_batch_tokens=100"],
            "",
            ["micro_batch_tokens 100", "data.max_length 256", "256 or more"],
        ),
        (
            ["training.batching=tokens", "training.global_batch_tokens=300"],
            "",
            ["global_batch_tokens 300", "two windows", "512 or more"],
        ),
        (
            ["evaluation={batch_size: 4, batch_tokens: 100}"],
            "evaluation",
            ["batch_size 4", "batch_tokens 100", "keep one"],
        ),
        (
            ["training.compile=true", "strategy={kind: zero}"],
            "",
            ["training.compile", "set strategy.kind to fsdp"],
        ),
    ],
)
def test_rules_across_fields_name_the_values_and_the_remedy(
    run_file: Path, overrides: list[str], field: str, phrases: list[str]
) -> None:
    _, name, message = only_problem(run_file, LEAST, *overrides)
    assert name == field
    assert [phrase for phrase in phrases if phrase not in message] == []


def test_batches_by_tokens_load_and_load_again(run_file: Path) -> None:
    """What a run writes as its config names every field, and says no more than its run file."""
    config = loaded(
        run_file,
        LEAST,
        "training.batching=tokens",
        "training.micro_batch_tokens=2048",
        "training.global_batch_tokens=8192",
        "evaluation.batch_size=4",
    )
    assert RunConfig.model_validate(yaml.safe_load(yaml.safe_dump(config.model_dump(mode="json"))))
    assert config.training.accumulation(2) is None
    assert config.training.batch(2) == {"global_batch_tokens": 8192, "micro_batch_tokens": 2048}
    told = config.training.describe_batch(2)
    assert told == "8,192 pieces, 2,048 pieces at once on each of 2 ranks"
    by_samples = config.training.model_copy(update={"global_batch_tokens": None})
    assert by_samples.batch(2) == {"global_batch_size": 32, "micro_batch_tokens": 2048}
    assert by_samples.describe_batch(1).startswith("32 samples, 2,048 pieces")


# --- batch arithmetic -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("batch", "micro", "world", "accumulation"),
    [(32, 8, 1, 4), (32, 8, 2, 2), (32, 8, 4, 1), (48, 2, 8, 3), (1, 1, 1, 1)],
)
def test_accumulation_follows_from_the_world(
    batch: int, micro: int, world: int, accumulation: int
) -> None:
    training = TrainingConfig(global_batch_size=batch, micro_batch_size=micro)
    assert training.accumulation(world) == accumulation


sizes = st.integers(1, 300)


@given(accumulation=sizes, micro=sizes, world=sizes)
def test_the_three_numbers_always_make_up_the_batch(
    accumulation: int, micro: int, world: int
) -> None:
    training = TrainingConfig(
        global_batch_size=accumulation * micro * world, micro_batch_size=micro
    )
    assert training.accumulation(world) == accumulation


@given(share=sizes, micro=sizes, world=sizes)
def test_the_advice_for_a_world_is_itself_valid(share: int, micro: int, world: int) -> None:
    training = TrainingConfig(global_batch_size=share * micro, micro_batch_size=micro)
    assume(share % world)
    with pytest.raises(ValueError, match=r"set training\.global_batch_size to") as caught:
        training.accumulation(world)
    for changed in _advised(str(caught.value), training.global_batch_size, micro):
        assert changed.accumulation(world) >= 1


@given(batch=sizes, micro=sizes)
def test_the_advice_without_a_world_is_itself_valid(batch: int, micro: int) -> None:
    assume(batch % micro)
    with pytest.raises(ValidationError, match="not a multiple") as caught:
        TrainingConfig(global_batch_size=batch, micro_batch_size=micro)
    assert len(_advised(str(caught.value), batch, micro)) == 2


def _advised(message: str, batch: int, micro: int) -> list[TrainingConfig]:
    """What follows from each piece of advice in a message, taken by itself."""
    words = message.replace(",", " ").replace(";", " ").split()
    advice = [
        (words[i - 1].removeprefix("training."), int(words[i + 1]))
        for i, word in enumerate(words)
        if word == "to" and words[i - 1].startswith("training.")
    ]
    given = {"global_batch_size": batch, "micro_batch_size": micro}
    return [TrainingConfig(**{**given, field: value}) for field, value in advice]


# --- YAML -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-5", 1e-5),
        ("1E5", 1e5),
        ("1.", 1.0),
        (".5", 0.5),
        ("-1.5e+3", -1500.0),
        (".inf", float("inf")),
        ("0", 0),
        ("-7", -7),
        ("010", "010"),
        ("0o10", "0o10"),
        ("0x10", "0x10"),
        ("1_000", "1_000"),
        ("1:30", "1:30"),
        ("2024-01-01", "2024-01-01"),
        ("no", "no"),
        ("NO", "NO"),
        ("on", "on"),
        ("yes", "yes"),
        ("y", "y"),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("'1'", "1"),
        ("!!str 1", "1"),
        ("<<", "<<"),
        ("=", "="),
    ],
)
def test_scalars_are_those_of_yaml_1_2(text: str, value: object) -> None:
    found = parse_yaml(text, "f").value
    assert (found, type(found)) == (value, type(value))


def test_learning_rate_without_a_point_is_a_number(run_file: Path) -> None:
    config = loaded(run_file, LEAST + "training: {learning_rate: 1e-5}\n")
    assert config.training.learning_rate == 1e-5


@pytest.mark.parametrize(
    "content",
    [
        LEAST.encode("utf-8-sig"),
        LEAST.replace("\n", "\r\n").encode(),
        b"---\n" + LEAST.encode() + b"...\n",
        b"\n\n# comment\n" + LEAST.encode(),
    ],
    ids=["BOM", "CRLF", "document marks", "comment"],
)
def test_ways_to_write_a_file_that_make_no_difference(run_file: Path, content: bytes) -> None:
    run_file.write_bytes(content)
    assert load_config(run_file).data.train == "train.conll"


@pytest.mark.parametrize(
    ("content", "where", "phrase"),
    [
        ("", "run.yaml:1", "mapping of sections"),
        ("# nothing\n", "run.yaml:1", "mapping of sections"),
        ("- a\n- b\n", "run.yaml:1", "mapping of sections"),
        ("just text\n", "run.yaml:1", "mapping of sections"),
        ("a: 1\n\tb: 2\n", "run.yaml:2", "indent with spaces"),
        ("a:\n\t- 1\n", "run.yaml:2", "indent with spaces"),
        ("a: 1\n---\nb: 2\n", "run.yaml:2", "expected a single document"),
        ("a: [1, 2\nb: 3\n", "run.yaml:2", "not valid YAML"),
        ("a: *nobody\n", "run.yaml:1", "undefined alias"),
        ("a: 'open\n", "run.yaml:2", "not valid YAML"),
        ("a: 1\nb: \x00\n", "run.yaml:2", "U+0000"),
        ("a: 1\nb: !!python/object:os.system x\n", "run.yaml:2", "has no place in a run file"),
        ("a: 1\nb: !mine {x: 1}\n", "run.yaml:2", "has no place in a run file"),
        ("a: !!set {x}\n", "run.yaml:1", "has no place in a run file"),
        ("a: 1\nb: !!bool maybe\n", "run.yaml:2", "'maybe' is no YAML bool"),
        ('a: 1\nb: !!int ""\n', "run.yaml:2", "'' is no YAML int"),
        ("a: !!float x\n", "run.yaml:1", "'x' is no YAML float"),
        (f"a: {'9' * 5000}\n", "run.yaml:1", "is no YAML int"),
        ("a: 1\n? [b]\n: 2\n", "run.yaml:2", "must be plain text"),
        ("a: " + "[" * 5000, "run.yaml", "nested too deeply"),
        ("a: &a [*a]\n", "run.yaml", "nested too deeply"),
        (b"a: \xff\n", "run.yaml", "byte 3"),
        ("run_dir: ä".encode("utf-16"), "run.yaml", "save the file as UTF-8"),
    ],
)
def test_what_is_no_run_file_at_all(
    run_file: Path, content: str | bytes, where: str, phrase: str
) -> None:
    place, _, message = only_problem(run_file, content)
    assert place == where
    assert phrase in message


def test_repeated_keys_are_refused_with_both_lines(run_file: Path) -> None:
    content = LEAST + "training:\n  epochs: 1\n  learning_rate: 1e-5\n  epochs: 2\n"
    assert only_problem(run_file, content) == (
        "run.yaml:7",
        "training.epochs",
        "given twice, first on line 5",
    )


def test_aliases_are_plain_copies_and_cannot_explode(run_file: Path) -> None:
    content = LEAST.replace("train.conll", "&file train.conll, test: *file")
    assert loaded(run_file, content).data.test == "train.conll"

    rows = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    rows += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
    _, _, message = only_problem(run_file, "\n".join(rows))
    assert message == f"more than {MAX_VALUES} values in one file"


def test_a_file_that_is_not_there_or_is_a_folder(tmp_path: Path) -> None:
    for name, phrase in {"nowhere.yaml": "no such run file", ".": "directory"}.items():
        with pytest.raises(ConfigError, match=phrase):
            load_config(tmp_path / name)
    with pytest.raises(ConfigError, match="too long"):
        load_config("x" * 5000)


# --- overrides --------------------------------------------------------------------------------


def test_overrides_are_yaml(run_file: Path) -> None:
    content = LEAST + "strategy: {kind: zero, stage: 2}\ncheckpoint:\n"
    config = loaded(
        run_file,
        content,
        "training.learning_rate=1e-5",
        "training.max_grad_norm=null",
        "data.labels=[PER, LOC]",
        "checkpoint.every_steps=7",
        "model.tokenizer=a=b",
        "run_dir=runs/b",
        "seed=1",
        "seed=2",
        "strategy={kind: fsdp}",
        "strategy.reshard_after_forward=false",
    )
    assert config.training.learning_rate == 1e-5
    assert config.training.max_grad_norm is None
    assert config.data.labels == ("PER", "LOC")
    # `checkpoint:` with nothing below it is a section to write into.
    assert config.checkpoint.every_steps == 7
    assert config.model.tokenizer == "a=b"
    assert config.run_dir == Path("runs/b")
    assert config.seed == 2
    # The section was replaced: `stage` is gone.
    assert config.strategy == FsdpStrategy(kind="fsdp", reshard_after_forward=False)


def test_a_mapping_stands_for_a_run_file_and_for_overrides(run_file: Path) -> None:
    values = yaml.safe_load(LEAST)
    written = loaded(run_file, LEAST, "data.labels=[PER, LOC]", "strategy={kind: fsdp}", "seed=3")
    overrides = {"data.labels": ("PER", "LOC"), "strategy": {"kind": "fsdp"}, "seed": 3}
    assert load_config(values, overrides) == load_config(run_file, overrides) == written
    assert load_config(values, "seed=7").seed == 7
    paths = {"data.train": Path("train.conll"), "data.cache_dir": Path("cache")}
    assert load_config(values, paths).data.train == "train.conll"
    # Neither is changed by it.
    assert values == yaml.safe_load(LEAST)
    assert len(overrides) == 3


def test_a_config_may_be_varied(run_file: Path) -> None:
    config = loaded(run_file, LEAST, "training.max_steps=5", "evaluation.batch_size=4")
    assert load_config(config) == config
    varied = load_config(config, {"training.max_steps": 6})
    assert (config.training.max_steps, varied.training.max_steps) == (5, 6)


def test_problems_of_mappings_are_named() -> None:
    values = yaml.safe_load(LEAST) | {"seeds": 3, "precision": "fp61"}
    with pytest.raises(ConfigError) as caught:
        load_config(values, {"training.epoch": 3, "run_dir.x": 1, "": 2, "seed": "four"})
    assert [(problem.where, problem.field) for problem in caught.value.problems] == [
        ("override 'run_dir.x'", "run_dir"),
        ("override ''", ""),
        ("override 'seed'", "seed"),
        ("config", "precision"),
        ("override 'training.epoch'", "training.epoch"),
        ("config", "seeds"),
    ]
    with pytest.raises(ConfigError, match=r"^config: 3: "):
        load_config({**yaml.safe_load(LEAST), 3: 4})  # type: ignore[dict-item]


@pytest.mark.parametrize(
    ("override", "field", "phrase"),
    [
        ("training.epochs", "", "an override is written field=value"),
        ("=3", "", "an override is written field=value"),
        ("training..epochs=3", "", "an override is written field=value"),
        ("seed.x=1", "seed", "must be a whole number; got {'x': 1}"),
        ("run_dir.x=1", "run_dir", "is not a section, so run_dir.x cannot be set inside it"),
        ("data.train.x.y=1", "data.train", "is not a section"),
        ("training.epochs=[1", "training.epochs", "not valid YAML"),
        ("training.epochs=!!int x", "training.epochs", "'x' is no YAML int"),
        ("training={epochs: 1, epochs: 2}", "training", "given twice"),
        ("trainin.epochs=3", "trainin", "did you mean training?"),
        ("training.epoch=3", "training.epoch", "did you mean epochs?"),
        ("strategy={kind: zero, stages: 3}", "strategy.stages", "did you mean stage?"),
        ("training.precision=fp16", "training.precision", "the fields here are"),
        ("batch_size=3", "batch_size", "did you mean evaluation.batch_size?"),
        ("optimizer.lr=3", "optimizer", "the fields here are"),
    ],
)
def test_wrong_overrides_are_named(run_file: Path, override: str, field: str, phrase: str) -> None:
    where, name, message = only_problem(run_file, LEAST, override)
    assert (where, name) == (f"override {override!r}", field)
    assert phrase in message


def test_wrong_overrides_are_told_together(run_file: Path) -> None:
    found = problems_of(run_file, LEAST, "a", "seed=[", "run_dir.x=1", "training.epochs=0", "b.c=1")
    assert [field for _, field, _ in found] == ["", "seed", "run_dir", "training.epochs", "b"]


# --- errors say where -------------------------------------------------------------------------

MANY = """\
run_dir: runs/a
presicion: fp16
model:
  name_or_path: xlm-roberta-base
  dropout: 1.5
data:
  train: train.conll
  max_lenght: 256
  columns:
    tags: 1
  labels: [PER, 5]
training:
  epochs: three
  lerning_rate: 1e-5
strategy:
  kind: zero
  stage: 7
  reshard_after_forward: true
evaluation:
  every: often
tracking:
  - tensorboard
  - neptune
"""


def test_all_problems_at_once_each_with_its_line(run_file: Path) -> None:
    found = {field: (where, message) for where, field, message in problems_of(run_file, MANY)}
    expected = {
        "presicion": (2, "is not a field here; did you mean precision?"),
        "model.dropout": (5, "must be less than 1; got 1.5"),
        "data.max_lenght": (8, "is not a field here; did you mean max_length?"),
        "data.columns.words": (9, "is needed and not given (Column of the words: "),
        "data.labels.1": (11, "must be text; got 5"),
        "training.epochs": (13, "must be a whole number; got the text 'three'"),
        "training.lerning_rate": (14, "is not a field here; did you mean learning_rate?"),
        "strategy.stage": (17, "must be 1, 2 or 3; got 7"),
        "strategy.reshard_after_forward": (18, "is not a field here; the fields here are "),
        "evaluation.every": (20, "must be 'epoch' or a whole number; got the text 'often'"),
        "tracking.1": (23, "must be 'tensorboard', 'mlflow' or 'wandb'; got the text 'neptune'"),
    }
    assert found.keys() == expected.keys()
    for field, (line, message) in expected.items():
        assert found[field][0] == f"run.yaml:{line}", field
        assert found[field][1].startswith(message), field


def test_missing_sections_say_what_they_are(run_file: Path) -> None:
    found = problems_of(run_file, "seed: 1\n")
    assert found == [
        ("run.yaml:1", "run_dir", found[0][2]),
        (
            "run.yaml:1",
            "model",
            "is needed and not given (Which encoder is trained and how much of it)",
        ),
        ("run.yaml:1", "data", found[2][2]),
    ]
    assert "Folder of the run" in found[0][2]


def test_a_file_and_an_override_are_told_apart(run_file: Path) -> None:
    content = LEAST + "training:\n  epochs: 0\nstrategy: {kind: zero}\n"
    found = problems_of(run_file, content, "training.log_every=0", "strategy.stage=9")
    assert [(where, field) for where, field, _ in found] == [
        ("run.yaml:5", "training.epochs"),
        ("override 'training.log_every=0'", "training.log_every"),
        ("override 'strategy.stage=9'", "strategy.stage"),
    ]


def test_a_ds_configs_file_is_checked_with_the_run_file(run_file: Path, tmp_path: Path) -> None:
    tuning = tmp_path / "zero.json"
    tuning.write_text('{\n"fp16": {},\n"zero_optimization": {"overlap_com": true}}')
    content = LEAST + f"seed: x\nstrategy: {{kind: zero, deepspeed_config: {tuning}}}\n"
    found = problems_of(run_file, content)
    assert [(where, field) for where, field, _ in found] == [
        ("run.yaml:4", "seed"),
        ("zero.json:2", "fp16"),
        ("zero.json:3", "zero_optimization.overlap_com"),
    ]
    missing = only_problem(run_file, LEAST + "strategy: {kind: zero, deepspeed_config: no.json}\n")
    assert missing[:2] == ("run.yaml:4", "strategy.deepspeed_config")
    assert "there is no file 'no.json'" in missing[2]


def test_a_long_value_is_not_told_whole(run_file: Path) -> None:
    _, _, message = only_problem(run_file, LEAST, f"precision={'x' * 500}")
    assert len(message) < 150


def test_source_tells_where_a_field_was_set(run_file: Path) -> None:
    run_file.write_text(SAMPLE.replace("ds_configs/zero3.json", "null"))
    _, source = load_with_source(
        run_file, ["training.epochs=2", "data.columns={words: 0, tags: 2}"]
    )
    places = {
        "data.train": f"{run_file}:9",
        "training.epochs": "override 'training.epochs=2'",
        "training.plateau_patience": f"{run_file}:17",
        "data.columns.tags": "override 'data.columns={words: 0, tags: 2}'",
        "model.tokenizer": f"{run_file}:4",
    }
    assert {field: source.where(field) for field in places} == places


def test_a_problem_reads_as_place_field_message() -> None:
    assert str(Problem("run.yaml:3", "seed", "must be 1")) == "run.yaml:3: seed: must be 1"
    assert str(Problem("run.yaml", "", "is empty")) == "run.yaml: is empty"


# --- nothing but ConfigError ever comes out ---------------------------------------------------

names = st.sampled_from(
    sorted(
        {
            name
            for section in (RunConfig, DataConfig, TrainingConfig, ZeroStrategy, FsdpStrategy)
            for name in section.model_fields
        }
        | {"name_or_path", "dropout", "words", "tags", "resume", "every", "<<", "", "a.b", "ключ"}
    )
)
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([2**64, -(2**64), 10**400])
    | st.floats()
    | st.text(max_size=12)
    | st.sampled_from(["zero", "fsdp", "single", "epoch", "fp16", "hub", "\0", "x" * 5000])
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=5),
    max_leaves=25,
)
fuzzed = settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def load_or_refuse(run_file: Path, content: bytes, *overrides: str) -> None:
    run_file.write_bytes(content)
    refused = None
    try:
        load_config(run_file, overrides)
    except ConfigError as error:
        refused = error
    assert refused is None or (refused.problems and str(refused))


@fuzzed
@given(sections=st.dictionaries(names, values, max_size=8))
def test_any_structure_loads_or_is_a_config_error(tmp_path: Path, sections: Any) -> None:
    base = {"run_dir": "r", "model": {"name_or_path": "m"}, "data": {"train": "t"}}
    for structure in (sections, {**base, **sections}):
        text = yaml.safe_dump(structure, allow_unicode=True)
        load_or_refuse(tmp_path / "run.yaml", text.encode("utf-8", "surrogatepass"))
        text = json.dumps(structure)
        load_or_refuse(tmp_path / "run.yaml", text.encode("utf-8", "surrogatepass"))


@fuzzed
@given(content=st.binary(max_size=200))
def test_any_bytes_are_a_config_error(tmp_path: Path, content: bytes) -> None:
    load_or_refuse(tmp_path / "run.yaml", content)


@fuzzed
@given(content=st.text(alphabet="a:-[]{}&*!|>'\"#%@,? \n\t0.e~<=\\", max_size=60))
def test_any_yaml_like_text_is_a_config_error(tmp_path: Path, content: str) -> None:
    load_or_refuse(tmp_path / "run.yaml", content.encode())


@fuzzed
@given(field=st.lists(names, min_size=1, max_size=3), value=values | st.text(max_size=20))
def test_any_override_loads_or_is_a_config_error(
    tmp_path: Path, field: list[str], value: Any
) -> None:
    text = value if isinstance(value, str) else json.dumps(value)
    load_or_refuse(tmp_path / "run.yaml", LEAST.encode(), f"{'.'.join(field)}={text}")


@pytest.mark.parametrize(
    ("config", "overrides", "told"),
    [
        (None, (), "a config is a run file, a mapping or another config; got None"),
        ({"run_dir": "run"}, [3], "an override is written field=value"),
        ({"run_dir": "run"}, [("seed", 3)], "an override is written field=value"),
        ({"run_dir": "run"}, None, "overrides are a list of field=value texts"),
    ],
)
def test_what_is_no_config(config: Any, overrides: Any, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        load_config(config, overrides)


def test_a_mapping_that_holds_itself() -> None:
    endless: dict[str, Any] = {"run_dir": "run"}
    endless["data"] = endless
    with pytest.raises(ConfigError, match="nested more than"):
        load_config(endless)


@example("\x85")
@example("a\u2028b")
@example("61234e5")
@given(st.text(st.characters(codec="utf-8"), max_size=12) | st.from_regex(r"[0-9]{1,6}e[0-9]{1,2}"))
def test_texts_are_read_as_they_were_written(text: str) -> None:
    written = as_yaml({"text": text, "number": 1e-5, "none": None, "yes": True})
    assert parse_yaml(written, "run.yaml").value == {
        "text": text,
        "number": 1e-5,
        "none": None,
        "yes": True,
    }
