"""Run files and overrides: a config that can be saved and resumed, or a ConfigError."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from bigner.config import schema
from bigner.config.load import load_config
from bigner.config.schema import RunConfig
from bigner.errors import ConfigError
from tests.fuzz.hostile import (
    FUZZED,
    MIB,
    mutated,
    nested,
    odd_scalars,
    odd_texts,
    out_of,
    peak_of,
    require_plain,
)

LEAST = "run_dir: r\nmodel: {name_or_path: m}\ndata: {train: t}\n"
VALID = """\
run_dir: runs/a   # a comment
seed: 42
precision: &p fp16
model: {name_or_path: org/model, training_type: fine_tuning, dropout: 0.1}
data:
  format: columns
  train: "data/*.conll"
  validation: 'dev.conll'
  columns: {words: 0, tags: -1}
  labels:
    - PER
    - creative-work
  max_length: 256
training: {epochs: 3, global_batch_size: 32, micro_batch_size: 16, learning_rate: 1.0e-5}
strategy:
  kind: zero
  stage: 3
evaluation: {every: epoch, metric: f1}
checkpoint: {every_steps: 500, resume: auto}
tracking: [tensorboard]
"""
SECTIONS = [
    cls
    for cls in vars(schema).values()
    if isinstance(cls, type) and issubclass(cls, schema.Section)
]
FIELDS = sorted({name for cls in SECTIONS for name in cls.model_fields})
FIELDS_OF: dict[str, list[str]] = {
    "": list(RunConfig.model_fields),
    "model": list(schema.ModelConfig.model_fields),
    "data": list(schema.DataConfig.model_fields),
    "training": list(schema.TrainingConfig.model_fields),
    "strategy": sorted({*schema.FsdpStrategy.model_fields, *schema.ZeroStrategy.model_fields}),
    "evaluation": list(schema.EvaluationConfig.model_fields),
    "checkpoint": list(schema.CheckpointConfig.model_fields),
}
TOKENS = (
    *FIELDS,
    *("\n", "\n  ", "\n    ", ": ", ":", "- ", "? ", ", ", "[", "]", "{", "}", "#", " #", "\t"),
    *("&a ", "*a", "<<: *a", "!!int ", "!!float ", "!!str ", "!!binary ", "!x ", "!<", "|\n", ">-"),
    *("'", '"', '"\\U00110000"', '"\\ud800"', '"\\xff"', "---\n", "...\n", "%YAML 1.2\n", "%TAG "),
    *("1", "-1", "1e-5", "1e999", ".nan", "-.inf", "0x10", "1:30:00", "9" * 5000, "null", "~"),
    *("true", "single", "fsdp", "zero", "epoch", "fp16", "hub", "columns", "xyz"),
)
SNIPPETS = [token.encode("utf-8") for token in TOKENS] + [b"\xff", b"\x00", b"\xed\xa0\x80", b"\r"]

names = st.sampled_from(FIELDS) | odd_texts
likely = st.sampled_from([None, True, 1, 8, 32, 0.5, 1e-5, "a", "auto", "epoch", "zero", "fsdp"])
values = likely | nested(odd_scalars | likely, names)
sections = st.sampled_from(list(FIELDS_OF)).flatmap(
    lambda section: st.tuples(
        st.just(section),
        st.dictionaries(st.sampled_from(FIELDS_OF[section]), values, max_size=2)
        | st.dictionaries(names, values, max_size=5),
    )
)
dotted = st.sampled_from(
    [f"{section}.{name}".lstrip(".") for section, found in FIELDS_OF.items() for name in found]
) | st.lists(names, min_size=1, max_size=4).map(".".join)


@pytest.fixture(scope="module")
def run_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("config") / "run.yaml"


def load_or_refuse(run_file: Path, content: str | bytes, *overrides: str) -> RunConfig | None:
    """The config, which says the same after it was saved and read; None if it was refused."""
    if isinstance(content, str):
        content = content.encode("utf-8", "surrogatepass")
    run_file.write_bytes(content)
    try:
        config = load_config(run_file, overrides)
    except ConfigError as error:
        require_plain(error, str(run_file), "override '", 'override "')
        return None
    # As a run's folder keeps it.
    saved = yaml.safe_dump(config.model_dump(mode="json"), allow_unicode=True)
    assert RunConfig.model_validate(yaml.safe_load(saved.encode().decode())) == config
    return config


def test_the_valid_file_is_valid(run_file: Path) -> None:
    assert load_or_refuse(run_file, VALID) is not None


@FUZZED
@given(content=st.binary(max_size=300) | st.text(max_size=100).map(lambda text: text.encode()))
def test_any_bytes(run_file: Path, content: bytes) -> None:
    load_or_refuse(run_file, content)


@FUZZED
@given(content=out_of(TOKENS), behind=st.booleans())
@example(content=b'seed: "\\UFFFFFFFF"', behind=True)
@example(content=b'"\\U00110000": 1', behind=True)
@example(content=b"%YAML 1." + b"1" * 5000 + b"\n--- a", behind=False)
@example(content=b"seed: !!int 0x" + b"F" * 5000, behind=True)
@example(content=b"seed: !!int " + b"1:" * 3000 + b"1", behind=True)
@example(content=b"seed: !%1B%0A 1", behind=True)
@example(content=b'"\\e[31m\\n": 1', behind=True)
@example(content=b'"\\ud800": 1', behind=True)
@example(content=b'training: {"\\ud800": "\\ud800"}', behind=True)
def test_any_yaml_like_text(run_file: Path, content: bytes, behind: bool) -> None:
    load_or_refuse(run_file, LEAST.encode() * behind + content)


@FUZZED
@given(content=mutated([VALID.encode()], SNIPPETS))
def test_mutated_run_files(run_file: Path, content: bytes) -> None:
    load_or_refuse(run_file, content)


@FUZZED
@given(section=sections, ascii_only=st.booleans())
@example(("training", {"global_batch_size": 10**400 + 1, "micro_batch_size": 8}), False)
@example(("training", {"global_batch_size": 10**12 + 39, "micro_batch_size": 10**12}), False)
@example(("training", {"learning_rate": 10**400}), False)
@example(("", {"run_dir": "\udc80"}), True)
def test_any_values_in_known_fields(
    run_file: Path, section: tuple[str, dict[str, Any]], ascii_only: bool
) -> None:
    name, fields = section
    content = yaml.safe_load(LEAST)
    if name:
        content.setdefault(name, {}).update(fields)
    else:
        content.update(fields)
    load_or_refuse(run_file, json.dumps(content, ensure_ascii=ascii_only))


@FUZZED
@given(
    overrides=st.lists(
        st.text(max_size=30)
        | st.builds(
            lambda path, equals, value: path + equals + value,
            dotted,
            st.sampled_from(["=", "=", "=", "==", ":", ""]),
            out_of(TOKENS, 6).map(lambda text: text.decode("utf-8", "replace"))
            | values.map(json.dumps)
            | odd_texts,
        ),
        max_size=3,
    )
)
@example(["data.columns.words" + ".a" * 2000 + "=1"])
@example(["tracking=[" + "1," * 3000 + "]"])
@example(["x\x1b[31m\udc80=\n"])
def test_any_overrides(run_file: Path, overrides: list[str]) -> None:
    load_or_refuse(run_file, LEAST, *overrides)


# --- bombs ------------------------------------------------------------------------------------

_TENFOLD = "".join(f"a{i}: &a{i} [{f'*a{i - 1}, ' * 10}]\n" for i in range(1, 20))
BOMBS = {
    "billion laughs": "a0: &a0 x\n" + _TENFOLD,
    "itself": LEAST + "tracking: &a [*a, *a]",
    "long keys": "? &k " + "k" * 100_000 + "\n: " + "{? *k : " * 60 + "1" + "}" * 60,
    "long text many times": f"{LEAST}x: &a {'y' * 30_000}\ntracking: [{'*a, ' * 5000}]\nseed: [*a]",
    "list of long texts": f"{LEAST}x: &a {'y' * 30_000}\nseed: [{'*a, ' * 9000}]",
    "nested in brackets": "[" * 100_000,
    "nested in braces": "{a: " * 60_000,
    "nested in dashes": "- " * 100_000,
    "nested in questions": "? " * 100_000,
    "closed": LEAST + "tracking: " + "[" * 50_000 + "]" * 50_000,
    "many values": "a: [" + "1," * 100_000 + "]",
    "many fields": LEAST + "".join(f"k{i}: 1\n" for i in range(5_000)),
    "many documents": "--- a\n" * 40_000,
    "many anchors": "".join(f"&a{i} " for i in range(30_000)),
    "long line": LEAST + "seed: " + "x" * 10_000_000,
    "long comment": LEAST + "#" * 10_000_000,
    "long number": LEAST + "seed: " + "9" * 200_000,
    "long text": LEAST + 'precision: "' + "x" * 100_000 + '"',
    "no end": "'" + "x" * 100_000,
}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_refused_in_little_memory(run_file: Path, name: str) -> None:
    loaded = []
    peak = peak_of(lambda: loaded.append(load_or_refuse(run_file, BOMBS[name])))
    assert loaded == [None]
    # The parser may take no more than a file of the largest size, whatever that holds.
    assert peak < 3 * len(BOMBS[name]) + 20 * MIB


def test_a_source_without_end_is_not_read_to_its_end() -> None:
    with pytest.raises(ConfigError, match="so it is no run file"):
        load_config("/dev/zero")
