"""World size, strategy, accumulation and micro-batch size never change a result."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.ranks import cases
from tests.ranks.launch import run_ranks
from tests.ranks.project import train_everywhere, write_project

STEPS = 20
COMMON = [
    f"training.max_steps={STEPS}",
    "training.global_batch_size=8",
    "training.log_every=1",
    "training.learning_rate=1e-3",
    "model.dropout=0.0",
    "evaluation.every=100",
]
WORLDS = {"single": 1, "fsdp": 2, "zero": 2}
# Who moves and how fast; all begin with the weights of the first run.
GROUPS = {
    "plain": [],
    "freeze": ["model.freeze={embeddings: true, layers: 1}"],
    "decay": ["training.layer_decay=0.8", "training.head_learning_rate=2e-3"],
}
# The stated rounding: loss and grad norm, relative to values of order one.
TOLERANCE = {"fp32": 1e-5, "fp16": 1e-2}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_project(tmp_path_factory.mktemp("project"))


def _overrides(folder: Path, kind: str, precision: str, accumulation: int) -> list[str]:
    micro_batch = 8 // WORLDS[kind] // accumulation
    return [
        *COMMON,
        f"run_dir={folder}/{kind}-{precision}-{accumulation}",
        f"strategy={{kind: {kind}}}",
        f"precision={precision}",
        f"training.micro_batch_size={micro_batch}",
    ]


def _group_runs(folder: Path, kind: str, stage: int = 3) -> dict[str, list[str]]:
    """A run for each way of moving parameters."""
    name = kind if stage == 3 else f"{kind}{stage}"
    return {
        f"{name}-{group}": [
            *_overrides(folder, kind, "fp32", 1),
            f"run_dir={folder}/{name}-{group}",
            *([] if stage == 3 else [f"strategy.stage={stage}"]),
            f"model.name_or_path={folder}/single-fp32-1/model",
            "model.training_type=fine_tuning",
            *overrides,
        ]
        for group, overrides in GROUPS.items()
        # The plain one is there to be compared with.
        if group != "plain" or kind == "single"
    }


@pytest.fixture(scope="module")
def curves(project: Path) -> dict[str, dict[str, Any]]:
    """Losses and grad norms of every strategy, precision and accumulation, one launch each."""
    found: dict[str, dict[str, Any]] = {}
    for kind, size in WORLDS.items():
        runs = {
            f"{kind}-{precision}-{accumulation}": _overrides(project, kind, precision, accumulation)
            for precision in ("fp32", "fp16")
            for accumulation in (1, 2)
        }
        # The body of the first run's model, frozen, under a new head.
        for precision in ("fp32", "fp16"):
            runs[f"{kind}-{precision}-transfer"] = [
                *_overrides(project, kind, precision, 1),
                f"run_dir={project}/{kind}-{precision}-transfer",
                f"model.name_or_path={project}/single-fp32-1/model",
                "model.training_type=transfer_learning",
            ]
        runs |= _group_runs(project, kind)
        if kind == "zero":
            for stage in (1, 2):
                runs[f"zero{stage}-fp32-2"] = [
                    *_overrides(project, kind, "fp32", 2),
                    f"run_dir={project}/zero{stage}",
                    f"strategy.stage={stage}",
                ]
                runs |= _group_runs(project, kind, stage)
        if kind == "fsdp":
            runs["fsdp-fp32-checkpointing"] = [
                *_overrides(project, kind, "fp32", 1),
                f"run_dir={project}/fsdp-checkpointing",
                "training.gradient_checkpointing=true",
                "strategy.reshard_after_forward=false",
            ]
        found |= train_everywhere(project, kind, size, runs)
    return found


@pytest.mark.parametrize("number", ["loss", "grad_norm"])
@pytest.mark.parametrize(
    "name",
    [
        *(
            f"{kind}-{precision}-{accumulation}"
            for kind in WORLDS
            for precision in ("fp32", "fp16")
            for accumulation in (1, 2)
        ),
        "zero1-fp32-2",
        "zero2-fp32-2",
        "fsdp-fp32-checkpointing",
    ],
)
def test_first_losses_and_norms_equal_one_process(
    curves: dict[str, dict[str, Any]], name: str, number: str
) -> None:
    precision = name.split("-")[1]
    reference = curves["single-fp32-1"] if precision == "fp32" else curves["single-fp16-1"]
    assert len(curves[name][number]) == STEPS
    assert curves[name][number] == pytest.approx(reference[number], abs=TOLERANCE[precision])


@pytest.mark.parametrize("number", ["loss", "grad_norm"])
@pytest.mark.parametrize("kind", ["fsdp", "zero"])
def test_a_frozen_body_trains_alike(
    curves: dict[str, dict[str, Any]], kind: str, number: str
) -> None:
    reference = curves["single-fp32-transfer"][number]
    assert curves[f"{kind}-fp32-transfer"][number] == pytest.approx(reference, abs=1e-5)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("kind", list(WORLDS))
def test_a_frozen_body_stays_as_it_was(
    project: Path, curves: dict[str, dict[str, Any]], kind: str, precision: str
) -> None:
    before = load_file(project / "single-fp32-1" / "model" / "model.safetensors")
    after = load_file(project / f"{kind}-{precision}-transfer" / "model" / "model.safetensors")
    assert after.keys() == before.keys()
    moved = {name for name in after if not torch.equal(after[name], before[name])}
    assert moved == {"classifier.weight", "classifier.bias"}


@pytest.mark.parametrize("number", ["loss", "grad_norm"])
@pytest.mark.parametrize("group", ["freeze", "decay"])
@pytest.mark.parametrize("strategy", ["fsdp", "zero", "zero1", "zero2"])
def test_groups_train_alike(
    curves: dict[str, dict[str, Any]], strategy: str, group: str, number: str
) -> None:
    reference = curves[f"single-{group}"][number]
    assert reference != pytest.approx(curves["single-plain"][number], abs=1e-3)
    assert curves[f"{strategy}-{group}"][number] == pytest.approx(reference, abs=1e-5)


STRATEGIES = ["single", "fsdp", "zero", "zero1", "zero2"]


@pytest.mark.usefixtures("curves")
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_frozen_parts_stay_as_they_were(project: Path, strategy: str) -> None:
    frozen = ("roberta.embeddings.", "roberta.encoder.layer.0.")
    moved = _moved(project, f"{strategy}-freeze")
    assert {name for name, far in moved.items() if not far} == {
        name for name in moved if name.startswith(frozen)
    }


@pytest.mark.usefixtures("curves")
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_lower_layers_move_less_and_the_head_more(project: Path, strategy: str) -> None:
    """As far as their factors say, compared with a run in which all have the same rate."""
    plain, moved = _moved(project, "single-plain"), _moved(project, f"{strategy}-decay")
    matrices = {
        "roberta.embeddings.position_embeddings.weight": 0.8**3,
        "roberta.encoder.layer.0.output.dense.weight": 0.8**2,
        "roberta.encoder.layer.1.output.dense.weight": 0.8,
        "classifier.weight": 2.0,
    }
    shares = {name: moved[name] / plain[name] for name in matrices}
    assert shares == pytest.approx(matrices, rel=0.1)


def _moved(project: Path, run: str) -> dict[str, float]:
    """How far each parameter moved from the first run's weights."""
    before = load_file(project / "single-fp32-1" / "model" / "model.safetensors")
    after = load_file(project / run / "model" / "model.safetensors")
    return {name: float((after[name] - before[name]).norm()) for name in before}


@pytest.mark.parametrize(("kind", "size"), WORLDS.items())
def test_an_overflow_on_one_rank_skips_the_step_on_all(
    tmp_path: Path, project: Path, kind: str, size: int
) -> None:
    ranks = run_ranks(
        size,
        cases.overflow_on_one_rank,
        tmp_path,
        run_file=str(project / "run.yaml"),
        overrides=_overrides(project, kind, "fp16", 1),
    )
    for rank in ranks:
        assert rank["skipped"] == [False, True, False]
        assert rank["loss_scale"] == [4096.0, 4096.0, 2048.0]
        assert rank["moved"] == [True, False, True]
        assert rank["optimizer_step"] == 2


def test_the_model_learns(curves: dict[str, dict[str, Any]]) -> None:
    """Curves that agree because nothing moves would prove nothing."""
    losses = curves["single-fp32-1"]["loss"]
    assert losses[-1] < 0.8 * losses[0]


def test_half_precision_is_not_silently_fp32(curves: dict[str, dict[str, Any]]) -> None:
    for kind in WORLDS:
        assert curves[f"{kind}-fp16-1"]["loss"] != curves[f"{kind}-fp32-1"]["loss"]
