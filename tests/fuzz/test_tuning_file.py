"""ds_configs files: tuning that DeepSpeed can be given, or a list of plain problems."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bigner.config.deepspeed import (
    OWNED_KEYS,
    REFUSED_KEYS,
    TUNING_KEYS,
    check_tuning_file,
    render,
)
from bigner.config.schema import DataConfig, ModelConfig, RunConfig, ZeroStrategy
from bigner.errors import ConfigError
from tests.fuzz.hostile import (
    FUZZED,
    MIB,
    mutated,
    nested,
    odd_numbers,
    odd_scalars,
    odd_texts,
    out_of,
    peak_of,
    require_plain,
)

ROOT = Path(__file__).resolve().parents[2]
VALID = [path.read_bytes() for path in sorted((ROOT / "ds_configs").glob("*.json"))]
KEYS = sorted(
    {
        key
        for keys in (TUNING_KEYS, OWNED_KEYS, REFUSED_KEYS)
        for part in keys.values()
        for key in part
    }
)
TOKENS = (
    *(f'"{key}"' for key in KEYS),
    *("{", "}", "[", "]", ",", ":", "\n", " ", '"', "\\", '"\\ud800"', '"\\u0000"', '"\\x"', '""'),
    *("1", "-1", "0.5", "5e8", "1e999", "-0", "01", "NaN", "-Infinity", "9" * 5000, "1" * 400),
    *("true", "false", "null", '"cpu"', '"nvme"', '"all_reduce"', "//", "/*", "'a'"),
)
SNIPPETS = [token.encode() for token in TOKENS] + [b"\xff", b"\x00", b"\xef\xbb\xbf", b"\r"]
CONFIG = RunConfig(
    run_dir=Path("r"), model=ModelConfig(name_or_path="m"), data=DataConfig(train="t")
)

keys = st.sampled_from(KEYS) | odd_texts
known = st.sampled_from([key for part in TUNING_KEYS.values() for key in part])
allowed = st.booleans() | odd_numbers | st.sampled_from(["cpu", "none"])
stages: st.SearchStrategy[Literal[1, 2, 3]] = st.sampled_from([1, 2, 3])


@pytest.fixture(scope="module")
def tuning_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tuning") / "zero.json"


def check(tuning_file: Path, content: str | bytes, stage: Literal[1, 2, 3] = 3) -> bool:
    """Whether the file is sound; then it renders, with what the run config owns untouched."""
    if isinstance(content, str):
        content = content.encode("utf-8", "surrogatepass")
    tuning_file.write_bytes(content)
    problems = check_tuning_file(tuning_file, stage)
    if problems:
        assert len(problems) <= 101
        require_plain(ConfigError(problems), str(tuning_file))
        return False
    strategy = ZeroStrategy(kind="zero", stage=stage, deepspeed_config=tuning_file)
    rendered = render(CONFIG, strategy, 2)
    plain = render(CONFIG, ZeroStrategy(kind="zero", stage=stage), 2)
    for owned in OWNED_KEYS[""]:
        assert rendered.get(owned) == plain.get(owned)
    assert rendered["zero_optimization"]["stage"] == stage
    json.dumps(rendered, allow_nan=False)
    return True


def written(pairs: Sequence[tuple[str, Any]], gap: str) -> str:
    """A JSON object in which keys may repeat."""
    return "{" + f",{gap}".join(f"{json.dumps(k)}:{gap}{json.dumps(v)}" for k, v in pairs) + "}"


@FUZZED
@given(content=st.binary(max_size=300) | out_of(TOKENS), stage=stages)
def test_any_bytes(tuning_file: Path, content: bytes, stage: Literal[1, 2, 3]) -> None:
    check(tuning_file, content, stage)


@FUZZED
@given(content=mutated(VALID, SNIPPETS), stage=stages)
def test_mutated_files(tuning_file: Path, content: bytes, stage: Literal[1, 2, 3]) -> None:
    check(tuning_file, content, stage)


@FUZZED
@given(
    section=st.sampled_from(["", *TUNING_KEYS]),
    pairs=st.lists(
        st.tuples(known, allowed) | st.tuples(keys, nested(odd_scalars, keys)), max_size=6
    ),
    gap=st.sampled_from(["", "\n", " "]),
    stage=stages,
)
@example("", [("\x1b[31m\n", 1), ("\ud800", 2)], "", 3)
@example("", [("", {"a": 1}), ("[1]", {"a": 1})], "", 3)
@example("zero_optimization", [("sub_group_size", float("inf"))], "", 3)
def test_any_values_in_known_keys(
    tuning_file: Path,
    section: str,
    pairs: list[tuple[str, Any]],
    gap: str,
    stage: Literal[1, 2, 3],
) -> None:
    text = written(pairs, gap)
    for name in reversed(section.split(".") if section else []):
        text = f'{{"{name}":{gap}{text}}}'
    sound = check(tuning_file, text, stage)
    assert not sound or len(dict(pairs)) == len(pairs)


@pytest.mark.parametrize("start", ['{"zero_optimization":', '{"comms_logger":{"prof_ops":'])
def test_nesting_at_the_recursion_limit(tuning_file: Path, start: str) -> None:
    for depth in [*range(20, 40), *range(850, 1000)]:
        for opened, closed in ("[]", ('{"a":', "}")):
            inner = f"{opened * depth}1{closed * depth}"
            assert not check(tuning_file, start + inner + "}" * start.count("{"))


BOMBS = {
    "nested lists": "[" * 100_000,
    "nested objects": '{"a":' * 50_000,
    "closed": "[" * 100_000 + "]" * 100_000,
    "many keys": "{" + ",".join(f'"k{i}":1' for i in range(20_000)) + "}",
    "one key": "{" + ",".join(['"k":1'] * 40_000) + "}",
    "many deep keys": '{"a":' * 900
    + "{"
    + ",".join(f'"k{i}":1' for i in range(20_000))
    + "}" * 901,
    "many deep keys 30": '{"a":' * 30
    + "{"
    + ",".join(f'"k{i}":1' for i in range(20_000))
    + "}" * 31,
    "many values": '{"zero_optimization":[' + "[]," * 80_000 + "1]}",
    "long line": '{"a": "' + "x" * 10_000_000 + '"}',
    "long text": '{"a": "' + "x" * 250_000 + '"}',
    "long key": '{"' + "x" * 250_000 + '": 1}',
    "escapes": '{"a": "' + "\\n" * 125_000 + '"}',
    "long number": '{"zero_optimization": {"sub_group_size": ' + "9" * 250_000 + "}}",
    "white space": "{" + " " * 10_000_000 + "}",
}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_refused_in_little_memory(tuning_file: Path, name: str) -> None:
    sound = []
    peak = peak_of(lambda: sound.append(check(tuning_file, BOMBS[name])))
    assert sound == [False]
    assert peak < 3 * len(BOMBS[name]) + 20 * MIB
