"""What `bigner plan` says: sizes, memory, traffic, and what it refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig, AutoModelForTokenClassification

from bigner.cli import run
from bigner.config.load import load_config
from bigner.config.schema import FsdpStrategy, SingleStrategy, StrategyConfig, ZeroStrategy
from bigner.errors import ConfigError, ModelError, UserError
from bigner.modeling import parameters_on_meta, units
from bigner.planning.hardware import GIB, GPUS, Links, link_gbps
from bigner.planning.job import Job, job_of
from bigner.planning.known import known_config
from bigner.planning.layouts import layout_of
from bigner.planning.memory import memory_of
from bigner.planning.moved import Traffic
from bigner.planning.remedies import (
    fewest_ranks,
    largest_micro_batch,
    remedies,
    with_micro_batch,
)
from bigner.planning.shapes import shape_of
from bigner.planning.traffic import flops_of, time_of
from bigner.planning.zero import deepspeed_estimate
from tests.ranks.launch import environment

ROOT = Path(__file__).resolve().parents[2]
FSDP = FsdpStrategy(kind="fsdp")
ZERO = ZeroStrategy(kind="zero")
NAMES = [
    *("xlm-roberta-base", "xlm-roberta-large", "xlm-roberta-xl", "xlm-roberta-xxl"),
    *("roberta-large", "camembert-base", "bert-base-cased", "bert-large-uncased"),
    *("electra-base-discriminator", "ModernBERT-base", "ModernBERT-large"),
]


def job(
    name: str = "xlm-roberta-large",
    strategy: StrategyConfig = FSDP,
    *,
    ranks: int = 8,
    windows: int = 8,
    **others: Any,
) -> Job:
    sizes = known_config(name)
    assert sizes is not None
    made = Job(
        shape=shape_of(sizes, num_labels=9, dropout=None),
        precision="fp16",
        strategy=strategy,
        tuning={},
        ranks=ranks,
        tokens=windows * 512,
        batching="samples",
        window=512,
        accumulation=1,
        evaluation_tokens=8192,
        checkpointing=False,
        keeps_average=False,
        keeps_copies=True,
    )
    return replace(made, **others)


def traffic_of(made: Job) -> Traffic:
    return layout_of(made).traffic(made)


def peak(made: Job) -> int:
    return memory_of(made).peak.total


# ------------------------------------------------------------ sizes


@pytest.mark.parametrize("name", NAMES)
def test_known_models_have_the_parameters_that_transformers_builds(name: str) -> None:
    sizes = known_config(f"some-organisation/{name}")
    assert sizes is not None
    _compare_with_transformers(sizes)


@pytest.mark.parametrize(
    "sizes",
    [
        {"model_type": "electra", "embedding_size": 16, "hidden_size": 32},
        {"model_type": "xlm-roberta", "type_vocab_size": 3, "max_position_embeddings": 70},
        {"model_type": "modernbert", "hidden_size": 48, "intermediate_size": 24},
        # What a config leaves out is as its class has it.
        *({"model_type": family} for family in ("bert", "camembert", "roberta", "electra")),
        {"model_type": "modernbert"},
        {"model_type": "xlm-roberta"},
        {"model_type": "xlm-roberta-xl"},
    ],
    ids=lambda sizes: "-".join(map(str, sizes.values())),
)
def test_configs_have_the_parameters_that_transformers_builds(sizes: dict[str, Any]) -> None:
    _compare_with_transformers(sizes)


def _compare_with_transformers(sizes: dict[str, Any]) -> None:
    others = {name: value for name, value in sizes.items() if name != "model_type"}
    config = AutoConfig.for_model(sizes["model_type"], **others)
    config.num_labels = 5
    with parameters_on_meta():
        model = AutoModelForTokenClassification.from_config(config)
    shape = shape_of(sizes, num_labels=5, dropout=None)
    assert shape.numel == sum(p.numel() for p in model.parameters())
    of_units = [sum(p.numel() for p in unit.parameters()) for unit in units(model)]
    embeddings = shape.table.numel + shape.embeddings.numel
    assert of_units == [embeddings, *(layer.numel for layer in shape.layers)]
    rows = sorted(p.shape[0] for p in model.parameters())
    assert rows == sorted(t.rows for unit in shape.units for t in unit.tensors)
    assert shape.dropout == getattr(config, "hidden_dropout_prob", 0.0)


def test_rows_in_use_and_frozen_parts() -> None:
    sizes = known_config("xlm-roberta-large")
    assert sizes is not None
    shape = shape_of(sizes, num_labels=9, rows=9000, dropout=0.0)
    assert shape.table.numel == 9000 * 1024
    frozen = shape.frozen(body=False, embeddings=True, layers=2)
    layers = sum(layer.numel for layer in frozen.layers[2:])
    assert frozen.num_trained == layers + frozen.root.numel
    assert shape.frozen(body=True, embeddings=False, layers=0).num_trained == shape.root.numel


@pytest.mark.parametrize(
    ("sizes", "says"),
    [
        ({"model_type": "deberta-v2"}, "knows the parts of bert, "),
        ({}, "not of None"),
        ({"model_type": "bert", "hidden_size": "768"}, "hidden_size as '768'"),
        ({"model_type": "bert", "num_hidden_layers": 0}, "num_hidden_layers as 0"),
    ],
)
def test_configs_that_say_no_sizes(sizes: dict[str, Any], says: str) -> None:
    with pytest.raises(ModelError, match=says):
        shape_of(sizes, num_labels=2, dropout=None)


# ------------------------------------------------------------ memory


def test_states_take_sixteen_bytes_a_parameter_and_are_sharded() -> None:
    alone = memory_of(job(ranks=1)).phases["update"]
    assert alone.total == 16 * job().shape.numel
    eight = memory_of(job(ranks=8)).phases["update"]
    assert eight.total == pytest.approx(alone.total / 8, rel=1e-3)


@pytest.mark.parametrize("strategy", [SingleStrategy(), FSDP, ZERO], ids=lambda s: s.kind)
def test_what_costs_less_takes_less(strategy: StrategyConfig) -> None:
    ranks = 8 if strategy.needs_process_group else 1
    whole = peak(job(strategy=strategy, ranks=ranks, windows=32))
    selective = peak(job(strategy=strategy, ranks=ranks, windows=32, checkpointing="selective"))
    full = peak(job(strategy=strategy, ranks=ranks, windows=32, checkpointing=True))
    assert full < selective < whole
    assert peak(job(strategy=strategy, ranks=ranks, windows=16)) < whole
    if ranks > 1:
        assert peak(job(strategy=strategy, ranks=2, windows=32)) > whole


def test_stages_and_offload_take_less() -> None:
    def states(stage: int) -> int:
        strategy = ZeroStrategy.model_validate({"kind": "zero", "stage": stage})
        return memory_of(job(strategy=strategy)).phases["load"].total

    assert states(3) < states(2)
    assert memory_of(job(strategy=ZERO)).phases["load"].total == states(3)
    offloaded = {"offload_optimizer": {"device": "cpu"}}
    states = memory_of(job(strategy=ZERO, tuning=offloaded)).phases["load"].parts
    assert "masters" not in states
    assert memory_of(job(strategy=ZERO, tuning=offloaded)).host["checkpoint being written"] > 0


def test_copies_of_the_model_take_more() -> None:
    hybrid = FsdpStrategy(kind="fsdp", dp_replicate=2)
    assert peak(job(strategy=hybrid, windows=1)) > peak(job(windows=1))
    near = memory_of(job(strategy=hybrid)).phases["load"].total
    assert near == pytest.approx(2 * memory_of(job()).phases["load"].total, rel=1e-2)
    within = {"zero_hpz_partition_size": 4}
    again = memory_of(job(strategy=ZERO, tuning=within)).phases["load"].total
    more = again - memory_of(job(strategy=ZERO)).phases["load"].total
    assert more == 2 * (job().shape.numel // 4)


def test_the_largest_micro_batch_is_the_largest() -> None:
    made = job(ranks=1)
    largest = largest_micro_batch(made, 24.0)
    assert largest is not None
    assert memory_of(with_micro_batch(made, largest)).fits(24.0)
    assert not memory_of(with_micro_batch(made, largest + 1)).fits(24.0)
    assert largest_micro_batch(made, 4.0) is None


def test_remedies_end_with_one_that_suffices() -> None:
    made = job("xlm-roberta-xxl", ranks=2, windows=4)
    assert not memory_of(made).fits(80.0)
    found = remedies(made, 80.0)
    assert [one.fits for one in found] == [*[False] * (len(found) - 1), True]
    assert found[0].change == "training.micro_batch_size=1"
    assert found[-1].change == "4 GPUs"
    assert fewest_ranks(made, 80.0) == 4


def test_remedies_speak_of_what_is_in_the_run_file() -> None:
    by_tokens = remedies(job(windows=64, ranks=1, batching="tokens"), 24.0)
    assert by_tokens[0].change.startswith("training.micro_batch_tokens=")
    predicting = job(windows=1, ranks=8, evaluation_tokens=512 * 2048)
    assert memory_of(predicting).peak.phase == "evaluation"
    first = remedies(predicting, 12.0)[0]
    assert (first.change, first.fits) == (
        "evaluation.batch_tokens=512, no evaluation.batch_size",
        True,
    )


def test_deepspeeds_own_estimators_say_the_same() -> None:
    cases = [
        (stage, offload, ranks) for stage in (2, 3) for offload in (False, True) for ranks in (1, 8)
    ]
    shape = job().shape
    largest = max(unit.numel for unit in shape.units)
    code = (
        "import json, sys\n"
        "from deepspeed.runtime.zero.stage3 import estimate_zero3_model_states_mem_needs as three\n"
        "from deepspeed.runtime.zero.stage_1_and_2 import (\n"
        "    estimate_zero2_model_states_mem_needs as two)\n"
        "cases, numel, largest = json.loads(sys.argv[1])\n"
        "print(json.dumps([\n"
        "    three(numel, largest, n, 1, offload, False)[1] if stage == 3\n"
        "    else two(numel, n, 1, offload)[1] for stage, offload, n in cases]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps([cases, shape.numel, largest])],
        capture_output=True,
        text=True,
        env=environment(),
        check=True,
    )
    theirs = json.loads(done.stdout.splitlines()[-1])
    for (stage, offload, ranks), expected in zip(cases, theirs, strict=True):
        tuning = {"offload_optimizer": {"device": "cpu"}} if offload else {}
        strategy = ZeroStrategy(kind="zero", stage=stage)
        made = job(strategy=strategy, ranks=ranks, tuning=tuning)
        assert deepspeed_estimate(made) == pytest.approx(expected, rel=1e-6)


# ------------------------------------------------------------ traffic and time


def test_what_two_ranks_send() -> None:
    made = job(ranks=2)
    moved, shape = traffic_of(made), made.shape
    layers = sum(layer.numel for layer in shape.layers)
    # Of two bytes a weight, and four a gradient, one rank sends half.
    assert moved.gathered_forward.num_bytes == shape.numel
    assert moved.gathered_forward.calls == 1 + 2 + 24
    assert moved.gathered_backward.num_bytes == layers + shape.embeddings.numel
    assert moved.reduced.num_bytes == 2 * shape.numel
    assert moved.replicated.num_bytes == moved.replicated.calls == 0
    twice = traffic_of(replace(made, accumulation=2)).in_gb()
    assert sum(twice.values()) == pytest.approx(2 * sum(moved.in_gb().values()), abs=0.01)
    kept = FsdpStrategy(kind="fsdp", reshard_after_forward=False)
    assert traffic_of(job(strategy=kept, ranks=2)).gathered_backward.num_bytes == 0
    assert sum(traffic_of(job(ranks=1)).in_gb().values()) == 0
    assert sum(traffic_of(job(strategy=SingleStrategy(), ranks=1)).in_gb().values()) == 0


def test_zero_sends_less_often_the_less_it_shards() -> None:
    def sent(stage: int) -> dict[str, float]:
        strategy = ZeroStrategy.model_validate({"kind": "zero", "stage": stage})
        return traffic_of(job(strategy=strategy, accumulation=4)).in_gb()

    one, two, three = sent(1), sent(2), sent(3)
    assert one["gathered_forward"] == two["gathered_forward"] == 0
    assert one["reduced"] == pytest.approx(two["reduced"] / 4, abs=0.01)
    assert two["reduced"] == three["reduced"]
    assert three["gathered_forward"] == pytest.approx(4 * one["gathered_backward"], abs=0.01)


def test_hops_are_what_many_ranks_wait_for() -> None:
    links = Links(within_node=450.0, between_nodes=50.0, gpus_per_node=8)
    gpu = GPUS["h100-80gb"]

    def share(ranks: int) -> float:
        return time_of(job(windows=1, ranks=ranks), gpu, links).tokens_per_second / ranks

    assert share(1024) < 0.2 * share(8)
    assert links.ring_seconds(16) == pytest.approx(14 * 2e-6 + 10e-6)


def test_copies_on_nodes_spare_the_network() -> None:
    links = Links(within_node=450.0, between_nodes=1.5, gpus_per_node=8)
    gpu = GPUS["h100-80gb"]
    hybrid = FsdpStrategy(kind="fsdp", dp_replicate=2)
    flat = time_of(job(ranks=16), gpu, links)
    near = time_of(job(strategy=hybrid, ranks=16), gpu, links)
    assert near.link < flat.link
    assert near.tokens_per_second > flat.tokens_per_second
    assert flat.bound_by == "link"
    # Eight ports of a node together are as fast as the links within it.
    fat = Links(within_node=450.0, between_nodes=60.0, gpus_per_node=8)
    assert fat.ring_gbps(16) == fat.ring_gbps(8) == 450.0
    assert links.ring_gbps(16) == 12.0


def test_a_forward_is_two_operations_a_weight_and_piece() -> None:
    made = job(windows=1)
    forward, backward = flops_of(made)
    matrices = 24 * 12 * 1024**2
    attention = 24 * 4 * 512 * 1024
    assert forward == pytest.approx(512 * (2 * matrices + attention), rel=1e-3)
    assert backward == pytest.approx(2 * forward, rel=1e-3)
    _, recomputed = flops_of(replace(made, checkpointing=True))
    assert recomputed == pytest.approx(3 * forward, rel=1e-3)


@pytest.mark.parametrize(
    ("text", "gbps"),
    [("nvlink", 450.0), ("pcie", 25.0), ("12.5", 12.5), ("ethernet-12.5GBps", 12.5), (None, 450.0)],
)
def test_links(text: str | None, gbps: float) -> None:
    assert link_gbps(text, GPUS["h100-80gb"]) == gbps


# ------------------------------------------------------------ the command


def plan(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert run(["plan", *arguments, "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


@pytest.fixture
def run_file(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(ROOT)
    return "run_configs/xlmr_large_fsdp.yaml"


def test_more_gpus_than_needed_are_not_asked_for(
    run_file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    found = plan(capsys, run_file, "--gpus", "8", "--gpu", "a100-80gb")
    assert found["memory"]["fits"]
    assert found["memory"]["fewest_gpus"] == 1
    assert found["remedies"] == []
    assert [row["gpus"] for row in found["scaling"]] == [2**n for n in range(11)]


def test_what_does_not_fit_is_told_with_what_to_change(
    run_file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    wide = ["training.micro_batch_size=32", "training.global_batch_size=32"]
    arguments = [run_file, *wide, "--memory-gib", "12"]
    found = plan(capsys, *arguments)
    assert not found["memory"]["fits"]
    assert found["remedies"][-1]["fits"]
    assert run(["plan", *arguments]) == 0
    text = capsys.readouterr().out
    assert "It does not fit" in text
    assert found["remedies"][0]["change"] in text


def test_a_model_of_ones_own(
    run_file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = tmp_path / "config.json"
    own.write_text(json.dumps({"model_type": "bert", "num_hidden_layers": 2}))
    found = plan(capsys, run_file, "--gpus", "8", "--model-config", str(own))
    assert found["model"]["model_type"] == "bert"
    other = plan(
        capsys,
        *(run_file, "--gpus", "8", "--model-config", str(own), "--embedding-rows", "100"),
        "model.embedding_rows=used",
    )
    assert found["model"]["embedding_table"] == 30522 * 768
    assert other["model"]["embedding_table"] == 100 * 768


@pytest.mark.parametrize(
    ("arguments", "kind", "says"),
    [
        (["--gpu", "h100"], UserError, "--gpu 'h100' is none of b200-180gb, "),
        (["--link", "string"], UserError, "--link must be nvlink, pcie or GB/s"),
        (["--gpu", "l4-24gb", "--link", "nvlink"], UserError, "l4-24gb has none"),
        (["--embedding-rows", "9"], UserError, "is for model.embedding_rows used"),
        (["--gpus", "3"], ConfigError, "for any whole accumulation"),
        (["--gpu", "v100-32gb", "precision=bf16"], ConfigError, "computes no bf16"),
        (["--gpus", "8", "strategy.dp_replicate=3"], ConfigError, "divisor of 8"),
        (["--gpus", "8", "strategy={kind: single}"], ConfigError, "runs in one process"),
        (["--simulate", "strategy={kind: single}"], UserError, "--simulate traces strategy fsdp"),
        (["--model-config", "none.json"], ModelError, "none.json"),
        (["--model-config", "README.md"], ModelError, "not valid JSON"),
        (["model.name_or_path=./nowhere"], ModelError, "there is no such folder"),
        (
            ["model.name_or_path=some-organisation/some-model"],
            ModelError,
            "give its config.json with --model-config",
        ),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else None,
)
def test_wrong_input(
    run_file: str,
    arguments: list[str],
    kind: type[Exception],
    says: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(kind, match=says):
        run(["plan", run_file, *arguments])


def test_token_budgets_and_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    config = load_config(
        "run_configs/xlmr_large_fsdp.yaml",
        [
            "training={batching: tokens, micro_batch_tokens: 3000, global_batch_tokens: 50000}",
            "data.labels=[PER, LOC]",
        ],
    )
    made = job_of(config, job().shape, 8)
    assert (made.tokens, made.windows, made.accumulation) == (3000, 11, 3)
    assert memory_of(made).peak.total < 80 * GIB
