"""Several runs in one process, as ``--seeds`` makes them: each finds the room the first had."""

from __future__ import annotations

import pytest

from tests.ranks import cases
from tests.ranks.launch import run_ranks
from tests.ranks.project import write_project

STRATEGIES = ("{kind: single}", "{kind: fsdp}", "{kind: zero, stage: 2}", "{kind: zero, stage: 3}")
STEPS = ["training.max_steps=2", "training.global_batch_size=8", "training.micro_batch_size=4"]


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, int]]:
    """What each run left in the memory of the process that they share, one after the other."""
    project = write_project(tmp_path_factory.mktemp("repeated"))
    runs = {
        f"{strategy} {seed}": [
            *STEPS,
            f"strategy={strategy}",
            f"seed={seed}",
            f"run_dir={project}/{i}-{seed}",
        ]
        for i, strategy in enumerate(STRATEGIES)
        for seed in (1, 2)
    }
    ranks = run_ranks(
        1, cases.left_behind, project / "ranks", run_file=str(project / "run.yaml"), runs=runs
    )
    found: dict[str, dict[str, int]] = ranks[0]
    return found


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_run_lets_go_of_its_model(strategy: str, left: dict[str, dict[str, int]]) -> None:
    first, second = (left[f"{strategy} {seed}"] for seed in (1, 2))
    # Weights, masters and moments are several times this.
    assert second["left"] - first["left"] < first["model"] / 4
