"""What a ds_configs file may say, and the dict that DeepSpeed is given."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bigner.config.deepspeed import (
    OWNED_KEYS,
    REFUSED_KEYS,
    TUNING_KEYS,
    _lines_of_keys,
    check_tuning_file,
    render,
)
from bigner.config.schema import DataConfig, ModelConfig, RunConfig, TrainingConfig, ZeroStrategy
from bigner.errors import ConfigError
from tests.ranks.launch import environment

ROOT = Path(__file__).resolve().parents[2]
ZERO = "zero_optimization"


@pytest.fixture
def tuning_file(tmp_path: Path) -> Path:
    return tmp_path / "zero.json"


def problems_of(tuning_file: Path, content: object) -> list[tuple[str, str, str]]:
    """(line, key, message) of each problem; ``content`` is a text, or values to write as JSON."""
    text = content if isinstance(content, str) else json.dumps(content, indent=2)
    tuning_file.write_text(text, encoding="utf-8")
    return [
        (problem.where.removeprefix(str(tuning_file)), problem.field, problem.message)
        for problem in check_tuning_file(tuning_file)
    ]


# --- the tables and DeepSpeed's own classes ---------------------------------------------------

# In a process of its own: deepspeed warns at import, reads the environment and loads torch.
_DESCRIBE = """
import json, sys
from deepspeed.comm.config import CommsLoggerConfig
from deepspeed.runtime import constants
from deepspeed.runtime.zero.config import DeepSpeedZeroConfig
from deepspeed.runtime.zero.offload_config import (
    DeepSpeedZeroOffloadOptimizerConfig, DeepSpeedZeroOffloadParamConfig)

classes = {
    "zero_optimization": DeepSpeedZeroConfig,
    "zero_optimization.offload_param": DeepSpeedZeroOffloadParamConfig,
    "zero_optimization.offload_optimizer": DeepSpeedZeroOffloadOptimizerConfig,
    "comms_logger": CommsLoggerConfig,
}
names = {
    section: sorted({*cls.model_fields, *(f.alias for f in cls.model_fields.values() if f.alias)})
    for section, cls in classes.items()
}
accepted = {}
for section, key, value in json.load(sys.stdin):
    values = {"stage": 3, key: value} if section == "zero_optimization" else {key: value}
    try:
        classes[section](**values)
        accepted[f"{section}.{key}={value!r}"] = True
    except Exception:
        accepted[f"{section}.{key}={value!r}"] = False
constant_values = [v for k, v in vars(constants).items() if isinstance(v, str)]
print(json.dumps({"names": names, "accepted": accepted, "constants": constant_values}))
"""
_SAMPLES: tuple[Any, ...] = (True, 0, 1, 2.0, 5e8, -1, 1.5, "cpu", "none", "nvme", "x", ["a"])


@pytest.fixture(scope="module")
def deepspeed_says() -> dict[str, Any]:
    samples = [
        (section, key, value)
        for section, keys in TUNING_KEYS.items()
        for key, rule in keys.items()
        for value in _SAMPLES
        if section and rule.allows(value)
    ]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _DESCRIBE],
        input=json.dumps(samples),
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    says: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert len(says["accepted"]) > 50
    return says


def test_every_key_of_the_tables_is_deepspeeds(deepspeed_says: dict[str, Any]) -> None:
    for table in (TUNING_KEYS, REFUSED_KEYS, OWNED_KEYS):
        for section, keys in table.items():
            known = deepspeed_says["names"][section] if section else deepspeed_says["constants"]
            # Written out in DeepSpeed's code, or constants of other modules.
            elsewhere = (
                set()
                if section
                else {
                    "aio",
                    "comms_logger",
                    "tensorboard",
                    "wandb",
                    "csv_monitor",
                    ZERO,
                    "activation_checkpointing",
                    "zero_force_ds_cpu_optimizer",
                    "amp",
                }
            )
            assert sorted({*keys} - {*known} - elsewhere) == [], section


def test_deepspeed_takes_whatever_the_rules_allow(deepspeed_says: dict[str, Any]) -> None:
    refused = [sample for sample, taken in deepspeed_says["accepted"].items() if not taken]
    assert refused == []


def test_the_check_loads_neither_deepspeed_nor_torch(tuning_file: Path) -> None:
    tuning_file.write_text(json.dumps({ZERO: {"overlap_comm": True}}))
    code = (
        "import sys; from pathlib import Path; "
        "from bigner.config.deepspeed import check_tuning_file as check; "
        "assert check(Path(sys.argv[1])) == []; "
        "print(sorted({'torch', 'deepspeed', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tuning_file)],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        env=environment(),
    )
    assert done.stdout.strip() == "[]"


def test_the_check_needs_no_deepspeed_installed(
    tuning_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda *_: None)
    monkeypatch.setitem(sys.modules, "deepspeed", None)
    assert problems_of(tuning_file, {ZERO: {"reduce_bucket_size": 5e8}}) == []
    found = problems_of(tuning_file, {ZERO: {"reduce_bucket_size": -1}})
    assert found == [
        (":3", f"{ZERO}.reduce_bucket_size", "must be a whole number, 1 or more; got -1")
    ]


# --- what is refused --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "file", sorted((ROOT / "ds_configs").glob("*.json")), ids=lambda file: file.name
)
def test_files_of_the_repository_are_sound(file: Path) -> None:
    assert check_tuning_file(file) == []


def test_every_kind_of_tuning_is_allowed(tuning_file: Path) -> None:
    tuning = {
        ZERO: {
            "overlap_comm": True,
            "reduce_bucket_size": 5e8,
            "sub_group_size": 1_000_000,
            "stage3_prefetch_bucket_size": 0,
            "offload_optimizer": {"device": "cpu", "pin_memory": True},
            "offload_param": {"device": "none", "max_in_cpu": 1e9},
        },
        "comms_logger": {"enabled": False, "prof_ops": ["all_reduce"]},
        "wall_clock_breakdown": False,
    }
    assert problems_of(tuning_file, tuning) == []
    assert problems_of(tuning_file, {}) == []
    assert problems_of(tuning_file, "\ufeff{}") == []


@pytest.mark.parametrize(("key", "field"), sorted(OWNED_KEYS[""].items()))
def test_what_the_run_config_owns_is_refused_with_its_field(
    tuning_file: Path, key: str, field: str
) -> None:
    assert problems_of(tuning_file, {"memory_breakdown": True, key: 1}) == [
        (":3", key, f"is set by the run config ({field}); take it out of here")
    ]
    name = field.split(maxsplit=1)[0].rstrip(",")
    section, _, rest = name.partition(".")
    assert section in RunConfig.model_fields
    assert not rest or rest in TrainingConfig.model_fields


def test_the_stage_is_the_run_configs(tuning_file: Path) -> None:
    assert problems_of(tuning_file, {ZERO: {"stage": 3}}) == [
        (":3", f"{ZERO}.stage", "is set by the run config (strategy.stage); take it out of here")
    ]


@pytest.mark.parametrize(
    ("tuning", "line", "key", "message"),
    [
        ({"zero_optimisation": {}}, 2, "zero_optimisation", "did you mean zero_optimization?"),
        ({ZERO: {"overlap_com": True}}, 3, f"{ZERO}.overlap_com", "did you mean overlap_comm?"),
        (
            {ZERO: {"prefetch_bucket_size": 1}},
            3,
            f"{ZERO}.prefetch_bucket_size",
            "did you mean stage3_prefetch_bucket_size?",
        ),
        (
            {ZERO: {"offload_optimizer": {"pin_memory": True, "devise": "cpu"}}},
            5,
            f"{ZERO}.offload_optimizer.devise",
            "did you mean device?",
        ),
        ({"comms_logger": {"enable": True}}, 3, "comms_logger.enable", "did you mean enabled?"),
        ({"overlap_comm": True}, 2, "overlap_comm", f"has its place in {ZERO}; move it there"),
        ({ZERO: {ZERO: {}}}, 3, f"{ZERO}.{ZERO}", "has its place in the top level"),
        ({"qqq": 1}, 2, "qqq", f"what may stand here: {ZERO}, comms_logger"),
        ({"aio": {}}, 2, "aio", "offloads to the CPU alone; take it out"),
        (
            {ZERO: {"offload_param": {"device": "cpu", "nvme_path": "/x"}}},
            5,
            f"{ZERO}.offload_param.nvme_path",
            "offloads to the CPU alone; take it out",
        ),
        (
            {ZERO: {"stage3_gather_16bit_weights_on_model_save": True}},
            3,
            f"{ZERO}.stage3_gather_16bit_weights_on_model_save",
            "exports whole weights whatever this says; take it out",
        ),
        ({ZERO: {"cpu_offload": True}}, 3, f"{ZERO}.cpu_offload", "old name for offload_optimizer"),
        ({ZERO: 3}, 2, ZERO, "must be an object; got 3"),
        ({ZERO: {"overlap_comm": 1}}, 3, f"{ZERO}.overlap_comm", "must be true or false; got 1"),
        (
            {ZERO: {"reduce_bucket_size": "auto"}},
            3,
            f"{ZERO}.reduce_bucket_size",
            'must be a whole number, 1 or more; got "auto"',
        ),
        (
            {ZERO: {"reduce_bucket_size": 1.5}},
            3,
            f"{ZERO}.reduce_bucket_size",
            "must be a whole number, 1 or more; got 1.5",
        ),
        (
            {ZERO: {"stage3_max_live_parameters": True}},
            3,
            f"{ZERO}.stage3_max_live_parameters",
            "must be a whole number, 0 or more; got true",
        ),
        (
            {ZERO: {"offload_param": "cpu"}},
            3,
            f"{ZERO}.offload_param",
            'must be an object; got "cpu"',
        ),
        (
            {ZERO: {"offload_optimizer": {"device": "nvme"}}},
            4,
            f"{ZERO}.offload_optimizer.device",
            'must be "cpu" or "none"; got "nvme"',
        ),
        (
            {"comms_logger": {"prof_ops": "all"}},
            3,
            "comms_logger.prof_ops",
            'must be a list of names; got "all"',
        ),
    ],
)
def test_wrong_keys_and_values(
    tuning_file: Path, tuning: dict[str, Any], line: int, key: str, message: str
) -> None:
    ((where, field, found),) = problems_of(tuning_file, tuning)
    assert (where, field) == (f":{line}", key)
    assert found.endswith(message) or message in found


def test_all_problems_at_once_each_with_its_line(tuning_file: Path) -> None:
    text = """{
  "fp16": {"enabled": true},
  "zero_optimization": {
    "offload_param": {"device": "cpu"},
    "offload_optimizer": {
      "pin_memory": "fp16",
      "device": "gpu"
    },
    "overlap_comm": true, "stage": 2,
    "overlap_comm": false
  },
  "device": "cpu"
}"""
    found = [(where, key) for where, key, _ in problems_of(tuning_file, text)]
    assert sorted(found) == [
        (":10", f"{ZERO}.overlap_comm"),
        (":12", "device"),
        (":2", "fp16"),
        (":6", f"{ZERO}.offload_optimizer.pin_memory"),
        (":7", f"{ZERO}.offload_optimizer.device"),
        (":9", f"{ZERO}.stage"),
    ]
    messages = [message for where, _, message in problems_of(tuning_file, text) if where == ":10"]
    assert messages == ["given twice, first on line 9; keep one of them"]


@pytest.mark.parametrize(
    ("text", "where", "phrase"),
    [
        ("", ":1", "not valid JSON"),
        ('{\n  "a": 1,\n}', ":3", "not valid JSON"),
        ("{\n  // comment\n}", ":2", "not valid JSON"),
        ("[1]", ":1", "must be a JSON object"),
        ("null", ":1", "must be a JSON object"),
        ('{"sub_group_size": NaN}', "", "NaN is no number"),
        ("[" * 100_000, "", "not valid JSON"),
    ],
)
def test_what_is_no_json_object(tuning_file: Path, text: str, where: str, phrase: str) -> None:
    ((place, _, message),) = problems_of(tuning_file, text)
    assert place == where
    assert phrase in message


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    (problem,) = check_tuning_file(tmp_path)
    assert "cannot be read" in problem.message
    path = tmp_path / "zero.json"
    path.write_bytes(b'{"a": "\xff"}')
    (problem,) = check_tuning_file(path)
    assert "save the file as UTF-8" in problem.message


keys = st.text(alphabet='ab"\\\n{[:,é', max_size=3)
trees = st.recursive(
    st.none() | st.integers() | keys,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=12,
)


@given(tree=st.dictionaries(keys, trees, max_size=4), indent=st.sampled_from([None, 0, 2]))
def test_lines_of_keys_are_those_json_writes(tree: dict[str, Any], indent: int | None) -> None:
    text = json.dumps(tree, indent=indent)
    lines = _lines_of_keys(text)
    for key in tree:
        (line,) = lines[(key,)]
        assert f"{json.dumps(key)}:" in text.splitlines()[line - 1]
    assert all(len(numbers) == 1 for numbers in lines.values())


@given(tree=trees | st.dictionaries(st.sampled_from([*TUNING_KEYS[ZERO], ZERO, "fp16"]), trees))
def test_any_json_is_sound_or_a_list_of_problems(
    tmp_path_factory: pytest.TempPathFactory, tree: Any
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.json"
    for values in (tree, {ZERO: tree}, {ZERO: {"offload_param": tree}}):
        path.write_text(json.dumps(values))
        assert all(problem.message for problem in check_tuning_file(path))


# --- what DeepSpeed is given ------------------------------------------------------------------


def config_of(precision: str = "fp16", **training: Any) -> RunConfig:
    return RunConfig.model_validate(
        {
            "run_dir": "r",
            "precision": precision,
            "model": ModelConfig(name_or_path="m"),
            "data": DataConfig(train="t"),
            "training": {"global_batch_size": 32, "micro_batch_size": 4, **training},
        }
    )


@pytest.mark.parametrize("stage", [1, 2, 3])
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_render_adds_what_the_run_config_owns(
    tuning_file: Path, stage: Any, precision: str
) -> None:
    tuning_file.write_text(
        '{"zero_optimization": {"overlap_comm": false}, "memory_breakdown": true}'
    )
    strategy = ZeroStrategy(kind="zero", stage=stage, deepspeed_config=tuning_file)
    rendered = render(config_of(precision), strategy, 2)

    assert rendered["zero_optimization"] == {"overlap_comm": False, "stage": stage}
    assert rendered["memory_breakdown"] is True
    assert rendered["fp16"]["enabled"] is (precision == "fp16")
    assert rendered["bf16"]["enabled"] is (precision == "bf16")
    assert rendered["gradient_clipping"] == 1.0
    sizes = ("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps")
    assert [rendered[name] for name in sizes] == [32, 4, 4]
    json.dumps(rendered)


@pytest.mark.parametrize(("wanted", "found"), [("fp32", "fp32"), ("precision", "bf16")])
def test_gradients_are_added_up_as_wanted(wanted: Any, found: str) -> None:
    strategy = ZeroStrategy(kind="zero", reduce_dtype=wanted)
    assert render(config_of("bf16"), strategy, 2)["communication_data_type"] == found


def test_token_budgets_prepare_for_several_micro_batches() -> None:
    config = config_of("fp16", batching="tokens", micro_batch_size=8)
    assert render(config, ZeroStrategy(kind="zero"), 2)["gradient_accumulation_steps"] > 1


def test_render_without_tuning_or_clipping() -> None:
    rendered = render(config_of(max_grad_norm=None), ZeroStrategy(kind="zero"), 1)
    assert rendered["zero_optimization"] == {"stage": 3}
    assert rendered["gradient_clipping"] == 0.0


@pytest.mark.parametrize(("stage", "expected"), [(1, 0), (2, 0), (3, 3)])
def test_render_for_evaluation_has_no_optimizer_to_shard(stage: Any, expected: int) -> None:
    # 32 is no multiple of 4 x 3, which does not matter here.
    strategy = ZeroStrategy(kind="zero", stage=stage)
    rendered = render(config_of(), strategy, 3, training=False)
    assert rendered["zero_optimization"]["stage"] == expected
    assert rendered["train_batch_size"] == 12
    with pytest.raises(ValueError, match=r"set training\.global_batch_size to 36"):
        render(config_of(), strategy, 3)


def test_render_refuses_a_file_that_went_wrong_meanwhile(tuning_file: Path) -> None:
    tuning_file.write_text('{"optimizer": {}}')
    strategy = ZeroStrategy(kind="zero", deepspeed_config=tuning_file)
    with pytest.raises(ConfigError, match="optimizer: is set by the run config"):
        render(config_of(), strategy, 1)
