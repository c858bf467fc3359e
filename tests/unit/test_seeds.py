"""What ``--seeds`` may be, and the configs it makes of one."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from bigner.config.schema import RunConfig
from bigner.config.seeds import parse_seeds, with_seeds
from bigner.errors import UserError

LARGEST = 2**32 - 1


def config(**values: object) -> RunConfig:
    run = {"run_dir": "run", "model": {"name_or_path": "m"}, "data": {"train": "t"}, **values}
    return RunConfig.model_validate(run)


def test_seeds_are_read_in_order() -> None:
    assert parse_seeds("3, 1,0", ["training.epochs=2"]) == (3, 1, 0)
    assert parse_seeds(f"{LARGEST}", []) == (LARGEST,)


def test_the_largest_seed_is_the_configs() -> None:
    assert config(seed=LARGEST).seed == LARGEST
    with pytest.raises(ValidationError):
        config(seed=LARGEST + 1)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "'' is no whole number"),
        ("1,,2", "'' is no whole number"),
        ("1,2,", "'' is no whole number"),
        ("1;2", "'1;2' is no whole number"),
        ("1,two", "'two' is no whole number"),
        ("-1", "'-1' is no whole number"),
        ("1.0", "'1.0' is no whole number"),
        ("\u0662", "is no whole number"),
        ("9" * 5000, "is no whole number"),
        ("1,2,01", "1 is in it twice"),
        (f"{LARGEST + 1}", "is more than 4294967295, the largest seed"),
    ],
)
def test_what_is_no_list_of_seeds(text: str, told: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_seeds(text, [])
    message = str(caught.value)
    assert message.startswith("--seeds must be different seeds such as 1,2,3; got ")
    assert told in message
    assert len(message) < 250


def test_one_place_says_the_seed() -> None:
    with pytest.raises(UserError, match="--seeds 1,2 and the override 'seed=7' both give the seed"):
        parse_seeds("1,2", ["training.epochs=2", "seed=7"])


def test_a_config_for_each_seed() -> None:
    one = config(training={"epochs": 5})
    made = with_seeds(one, (7, 8))
    assert [run.seed for run in made] == [7, 8]
    assert [run.run_dir for run in made] == [Path("run/seed-7"), Path("run/seed-8")]
    for run in made:
        same = run.model_copy(update={"seed": one.seed, "run_dir": one.run_dir})
        assert same == one


def test_seeds_do_not_share_a_checkpoint() -> None:
    with pytest.raises(UserError, match="names one checkpoint, 'run/step-1'; set it to auto"):
        with_seeds(config(checkpoint={"resume": "run/step-1"}), (1, 2))
    assert with_seeds(config(checkpoint={"resume": "none"}), (1,))[0].seed == 1
