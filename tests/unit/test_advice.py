"""Warnings about large encoders: which models are large, what is safe ground, and no more."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bigner.config.advice import advice, is_large
from bigner.config.schema import ModelConfig, RunConfig

LARGE = "FacebookAI/xlm-roberta-large"


def told(name: str = LARGE, kind: str = "fine_tuning", **training: Any) -> dict[str, str]:
    """Field -> sentence."""
    config = RunConfig.model_validate(
        {
            "run_dir": "run",
            "model": {"name_or_path": name, "training_type": kind},
            "data": {"train": "train.conll"},
            "training": {"global_batch_size": 32, "micro_batch_size": 1, **training},
        }
    )
    problems = advice(config, lambda field: f"run.yaml:{len(field)}")
    assert all(problem.where == f"run.yaml:{len(problem.field)}" for problem in problems)
    assert len({problem.field for problem in problems}) == len(problems)
    return {problem.field: problem.message for problem in problems}


@pytest.mark.parametrize(
    "name",
    [
        LARGE,
        "bert-large-cased",
        "microsoft/deberta-v3-large",
        "microsoft/deberta-v2-xlarge",
        "microsoft/deberta-v2-xxlarge",
        "albert-xxlarge-v2",
        "facebook/xlm-roberta-xl",
        "facebook/xlm-roberta-xxl",
        "answerdotai/ModernBERT-large",
        "models/Large",
    ],
)
def test_large_by_name(name: str) -> None:
    assert is_large(ModelConfig(name_or_path=name))


@pytest.mark.parametrize(
    "name",
    [
        "xlm-roberta-base",
        "cardiffnlp/twitter-xlm-roberta-base",
        "Davlan/afro-xlmr-base",
        "someone/my-xlnet-base",
        "microsoft/mdeberta-v3-base",
        "someone/enlarged",
        "someone/largest",
    ],
)
def test_not_large_by_name(name: str) -> None:
    assert not is_large(ModelConfig(name_or_path=name))


@pytest.mark.parametrize(
    ("config", "large"),
    [
        (json.dumps({"hidden_size": 1024}), True),
        (json.dumps({"hidden_size": 768}), False),
        # What says nothing of the width leaves the name.
        (json.dumps({"d_model": 768}), True),
        (json.dumps({"hidden_size": "wide"}), True),
        (json.dumps([1024]), True),
        ("{", True),
        ("[" * 100_000, True),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_folder_is_measured(config: str, large: bool, tmp_path: Path) -> None:
    folder = tmp_path / "model-large"
    folder.mkdir()
    (folder / "config.json").write_text(config)
    assert is_large(ModelConfig(name_or_path=str(folder))) is large


def test_a_wide_model_of_any_name_is_large(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"hidden_size": 1280}))
    assert is_large(ModelConfig(name_or_path=str(tmp_path)))


@pytest.mark.parametrize(
    ("field", "safe", "risky", "phrases"),
    [
        ("learning_rate", 2e-5, 2.1e-5, ["2.1e-05", "more than 2e-05", "1e-05 is safe"]),
        ("warmup_ratio", 0.05, 0.04, ["0.04 is less than 0.05", "0.1 is safe"]),
        ("warmup_ratio", 0.1, 0.0, ["0 is less than 0.05"]),
        ("max_grad_norm", 1.0, 1.5, ["1.5 lets", "1 is safe"]),
        ("max_grad_norm", 0.5, None, ["null lets"]),
        ("global_batch_size", 16, 15, ["15 is less than 16", "16 or more"]),
    ],
)
def test_off_the_ground(field: str, safe: Any, risky: Any, phrases: list[str]) -> None:
    assert told(**{field: safe}) == {}
    problems = told(**{field: risky})
    assert list(problems) == [f"training.{field}"]
    assert [phrase for phrase in phrases if phrase not in problems[f"training.{field}"]] == []


def test_a_share_of_few_steps_is_no_warm_up() -> None:
    assert told(max_steps=10, warmup_ratio=0.1) == {}
    problems = told(max_steps=4, warmup_ratio=0.1)
    assert problems["training.warmup_ratio"].startswith("0.1 of 4 steps is none")


def test_all_at_once_and_none_where_nothing_collapses() -> None:
    risky = {
        "learning_rate": 5e-5,
        "warmup_ratio": 0.0,
        "max_grad_norm": None,
        "global_batch_size": 8,
    }
    assert list(told(**risky)) == [f"training.{field}" for field in risky]
    assert len(told(kind="from_scratch", **risky)) == 4
    assert told(kind="transfer_learning", **risky) == {}
    assert told("xlm-roberta-base", **risky) == {}
