"""One process: low precision in copies of fp32 masters."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from bigner.config.schema import ModelConfig, TrainingConfig
from bigner.distributed import World
from bigner.errors import ModelError
from bigner.modeling import build_model
from bigner.strategies.single import Single
from tests.unit.helpers import tiny_xlmr

TAGS = ("O", "B-X", "I-X")
RATE = 1e-2


@pytest.fixture
def model_config(tmp_path: Path) -> ModelConfig:
    tiny_xlmr(100).save_pretrained(tmp_path)
    fields = {"name_or_path": str(tmp_path), "training_type": "from_scratch", "dropout": 0.0}
    return ModelConfig.model_validate(fields)


def opened(config: ModelConfig, *, training: TrainingConfig | None) -> Single:
    strategy = Single(build_model(config, TAGS), training, "bf16", World())
    random = torch.Generator().manual_seed(1)
    for shard in strategy.shards():
        shard.master.copy_(torch.randn(shard.numel, generator=random) * 0.1)
    strategy.publish()
    return strategy


def pieces(seed: int) -> dict[str, torch.Tensor]:
    ids = torch.randint(5, 100, (2, 9), generator=torch.Generator().manual_seed(seed))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def test_masters_move_in_fp32_and_the_model_follows_them(model_config: ModelConfig) -> None:
    strategy = opened(model_config, training=TrainingConfig())
    before = {shard.name: shard.master.clone() for shard in strategy.shards()}
    for last in (False, True):
        strategy.backward(strategy.forward(pieces(int(last))).float().square().mean(), last=last)
    strategy.step(RATE)
    after = {shard.name: shard.master for shard in strategy.shards()}
    parameters = dict(strategy._model.named_parameters())
    assert after.keys() == parameters.keys()
    for name, master in after.items():
        assert master.dtype == torch.float32
        assert parameters[name].dtype == torch.bfloat16
        assert torch.equal(parameters[name].flatten(), master.bfloat16()), name
        # AdamW moves each value that has a gradient by about the learning rate.
        assert float((master - before[name]).abs().max()) < 1.1 * RATE
    moved = torch.cat([(after[name] - before[name]).flatten() for name in after])
    # Steps that bf16 could not hold beside the values.
    assert float((moved != 0).float().mean()) > 0.5


def test_gradients_of_micro_batches_add_up_in_fp32(model_config: ModelConfig) -> None:
    def gradients(*seeds: int) -> dict[str, torch.Tensor]:
        strategy = opened(model_config, training=TrainingConfig())
        for seed in seeds:
            strategy.backward(strategy.forward(pieces(seed)).float().square().mean(), last=False)
        found = {}
        for copies in strategy._trained:
            assert copies.masters.grad is not None
            found |= dict(zip(copies.parameters, copies.parts_of(copies.masters.grad), strict=True))
        named = dict(strategy._model.named_parameters())
        assert all(parameter.grad is None for parameter in named.values())
        return {name: found[parameter] for name, parameter in named.items()}

    first, second, both = gradients(1), gradients(2), gradients(1, 2)
    assert all(gradient.dtype == torch.float32 for gradient in both.values())
    for name, gradient in both.items():
        assert torch.equal(gradient, first[name] + second[name]), name


def test_who_only_predicts_holds_no_masters(model_config: ModelConfig) -> None:
    strategy = opened(model_config, training=None)
    assert all(shard.master.dtype == torch.bfloat16 for shard in strategy.shards())
    trained = opened(model_config, training=TrainingConfig())
    assert torch.equal(strategy.predict(pieces(3)), trained.predict(pieces(3)))


def test_a_model_that_mixes_formats_is_told_in_a_line(model_config: ModelConfig) -> None:
    strategy = opened(model_config, training=None)
    embeddings = strategy._model.base_model.embeddings
    # As families do that transform what they look up in fp32.
    embeddings.register_forward_hook(lambda _, __, out: torch.fft.fft(out).real)
    with pytest.raises(ModelError, match="'xlm-roberta' cannot be computed in bf16; set precision"):
        strategy.predict(pieces(3))


def test_what_is_frozen_is_not_copied_again(model_config: ModelConfig) -> None:
    frozen = model_config.model_copy(update={"training_type": "transfer_learning"})
    strategy = Single(build_model(frozen, TAGS), TrainingConfig(), "bf16", World())
    for shard in strategy.shards():
        shard.master.fill_(0.1)
    strategy.publish()
    for shard in strategy.shards():
        if "embeddings.word" in shard.name:
            # Which nobody does but to see whether it is read.
            shard.master.fill_(9.0)
    strategy.backward(strategy.forward(pieces(1)).float().square().mean(), last=True)
    strategy.step(RATE)
    table = strategy._model.get_input_embeddings().weight
    assert float(table.float().max()) < 1.0
