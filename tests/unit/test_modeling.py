"""Every encoder family builds, trains a step, and tells where it may be cut."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import (
    AutoModel,
    AutoModelForTokenClassification,
    BertConfig,
    DebertaV2Config,
    ElectraConfig,
    ModernBertConfig,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    RobertaConfig,
    XLMConfig,
)

from bigner.config.schema import ModelConfig
from bigner.data.labels import LabelSet
from bigner.errors import ModelError
from bigner.loss import token_losses
from bigner.modeling import anatomy, build_model, check_fits, heads_of, load_tokenizer, units
from tests.unit.helpers import TINY, opened, run_config, tiny_tokenizer, tiny_xlmr, whole_model

TAGS = LabelSet.of_types(["PER", "LOC"]).tags
VOCAB = 200
NUM_LAYERS = TINY["num_hidden_layers"]
IDS = {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2, "cls_token_id": 0}
DEBERTA: dict[str, Any] = {
    "relative_attention": True,
    "pos_att_type": ["p2c", "c2p"],
    "position_biased_input": False,
    "share_att_key": True,
    "norm_rel_ebd": "layer_norm",
    "position_buckets": 16,
    "type_vocab_size": 0,
}


def configs() -> dict[str, PretrainedConfig]:
    """One tiny config of each family, as its released models are set."""
    sizes = {**TINY, "vocab_size": VOCAB}
    return {
        "xlm-roberta": tiny_xlmr(VOCAB),
        "roberta": RobertaConfig(**sizes, type_vocab_size=1),
        "bert": BertConfig(**sizes),
        "electra": ElectraConfig(**sizes, embedding_size=16),
        "deberta-v2": DebertaV2Config(**sizes, **DEBERTA, conv_kernel_size=3, conv_act="gelu"),
        "deberta-v3": DebertaV2Config(**sizes, **DEBERTA),
        "modernbert": ModernBertConfig(**sizes, **IDS, sep_token_id=2, local_attention=8),
    }


FAMILIES = list(configs())


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def saved_config(folder: Path, family: str, **changes: Any) -> Path:
    config = configs()[family]
    for name, value in changes.items():
        setattr(config, name, value)
    config.save_pretrained(folder)
    return folder


def from_scratch(folder: Path, *, seed: int = 0, dropout: float | None = None) -> PreTrainedModel:
    model = ModelConfig(name_or_path=str(folder), training_type="from_scratch", dropout=dropout)
    return whole_model(model, TAGS, seed)


def pretrained(
    folder: Path, tags: tuple[str, ...] = TAGS, *, seed: int = 0, kind: str = "fine_tuning"
) -> PreTrainedModel:
    model = ModelConfig.model_validate({"name_or_path": str(folder), "training_type": kind})
    return whole_model(model, tags, seed)


def weights_of(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: values.clone() for name, values in model.state_dict().items()}


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(
        torch.equal(first[name], second[name]) for name in first
    )


@cache
def batch() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    mask = torch.ones(2, 12, dtype=torch.int64)
    mask[1, 7:] = 0
    ids = torch.randint(4, VOCAB, (2, 12))
    return {"input_ids": ids.masked_fill(mask == 0, 1), "attention_mask": mask}


# ---------------------------------------------------------------- every family


def test_predicts_and_trains_a_step(family: str, tmp_path: Path) -> None:
    model = from_scratch(saved_config(tmp_path, family))
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert model.config.id2label == dict(enumerate(TAGS))
    strategy = opened(run_config(tmp_path, tmp_path), model)
    before = weights_of(model)
    logits = strategy.predict(batch())
    assert logits.shape == (2, 12, len(TAGS))
    assert logits.isfinite().all()

    labels = torch.randint(len(TAGS), (2, 12))
    losses = [float(token_losses(logits, labels).mean())]
    for _ in range(10):
        strategy.backward(token_losses(strategy.forward(batch()), labels).mean(), last=True)
        assert strategy.step(1e-3).wait().grad_norm > 0.0
        losses.append(float(token_losses(strategy.predict(batch()), labels).mean()))
    assert losses[-1] < losses[0]
    unmoved = [name for name, values in weights_of(model).items() if values.equal(before[name])]
    # What is left is no parameter, or has no gradient by its mathematics: softmax does not see a
    # bias that all keys share.
    named = dict(model.named_parameters())
    assert [n for n in unmoved if n in named and "key" not in n] == []


def test_padding_does_not_change_predictions(family: str, tmp_path: Path) -> None:
    strategy = opened(run_config(tmp_path, tmp_path), from_scratch(saved_config(tmp_path, family)))
    padded = strategy.predict(batch())[1, :7]
    alone = strategy.predict({name: values[1:, :7] for name, values in batch().items()})[0]
    torch.testing.assert_close(padded, alone, atol=1e-5, rtol=1e-4)


def test_same_seed_same_weights(family: str, tmp_path: Path) -> None:
    saved_config(tmp_path, family)
    first, again, other = (weights_of(from_scratch(tmp_path, seed=seed)) for seed in (3, 3, 4))
    assert same(first, again)
    assert not same(first, other)


def test_saved_and_fine_tuned(family: str, tmp_path: Path) -> None:
    saved = from_scratch(saved_config(tmp_path / "config", family))
    saved.save_pretrained(tmp_path / "model")
    assert same(weights_of(pretrained(tmp_path / "model")), weights_of(saved))


def test_new_head_on_a_pretrained_body(family: str, tmp_path: Path) -> None:
    saved_config(tmp_path / "config", family)
    torch.manual_seed(7)
    body = AutoModel.from_config(configs()[family])
    body.save_pretrained(tmp_path / "body")
    first, again, other = (pretrained(tmp_path / "body", seed=seed) for seed in (3, 3, 4))
    assert same(weights_of(first), weights_of(again))
    expected = weights_of(body)
    loaded = weights_of(first.base_model)
    # A token-classification model has no pooler.
    assert loaded.keys() <= expected.keys()
    assert all(torch.equal(loaded[name], expected[name]) for name in loaded)
    assert not torch.equal(head_of(first).weight, head_of(other).weight)


def head_of(model: PreTrainedModel) -> nn.Linear:
    head = model.classifier
    assert isinstance(head, nn.Linear)
    return head


def test_head_of_another_width_is_drawn_anew(family: str, tmp_path: Path) -> None:
    saved_config(tmp_path / "config", family)
    saved = from_scratch(tmp_path / "config", seed=1)
    saved.save_pretrained(tmp_path / "model")
    wider = LabelSet.of_types(["A", "B", "C"]).tags
    first, again = (pretrained(tmp_path / "model", wider, seed=5) for _ in range(2))
    assert head_of(first).weight.shape == (7, TINY["hidden_size"])
    assert first.config.id2label == dict(enumerate(wider))
    assert same(weights_of(first), weights_of(again))
    assert same(weights_of(first.base_model), weights_of(saved.base_model))


def test_transfer_learning_moves_the_head_alone(family: str, tmp_path: Path) -> None:
    saved_config(tmp_path / "config", family)
    from_scratch(tmp_path / "config").save_pretrained(tmp_path / "model")
    model = pretrained(tmp_path / "model", kind="transfer_learning")
    before = weights_of(model)
    strategy = opened(run_config(tmp_path, tmp_path), model)
    labels = torch.zeros(2, 12, dtype=torch.int64)
    strategy.backward(token_losses(strategy.forward(batch()), labels).mean(), last=True)
    strategy.step(1e-2)
    after = weights_of(model)
    moved = {name for name in after if not after[name].equal(before[name])}
    assert {"classifier.weight", "classifier.bias"} <= moved
    assert not [name for name in moved if name.startswith(model.base_model_prefix + ".")]


def test_units_and_root_hold_every_parameter_once(family: str, tmp_path: Path) -> None:
    model = from_scratch(saved_config(tmp_path, family))
    cut = units(model)
    # The embeddings and every layer.
    assert len(cut) == NUM_LAYERS + 1
    assert any(module is model.get_input_embeddings() for module in cut[0].modules())
    of_units = [id(p) for unit in cut for p in unit.parameters()]
    assert len(set(of_units)) == len(of_units)
    rest = [name for name, p in model.named_parameters() if id(p) not in of_units]
    assert "classifier.weight" in rest
    in_rest = sum(p.numel() for name, p in model.named_parameters() if name in rest)
    assert in_rest < 0.25 * model.num_parameters()


def built(folder: Path, **freeze: Any) -> PreTrainedModel:
    """The model as shapes, with parts of it frozen."""
    model = ModelConfig.model_validate({"name_or_path": str(folder), "freeze": freeze})
    return build_model(model, TAGS)


# By hand: where the parts of each family lie that are neither embeddings nor layers.
BELOW = {"electra": {"electra.embeddings_project.weight", "electra.embeddings_project.bias"}}
ABOVE = {
    "deberta-v2": {"rel_embeddings.weight", "LayerNorm.weight", "LayerNorm.bias"}
    | {f"conv.{part}.{kind}" for part in ("conv", "LayerNorm") for kind in ("weight", "bias")},
    "deberta-v3": {"rel_embeddings.weight", "LayerNorm.weight", "LayerNorm.bias"},
    "modernbert": {"final_norm.weight"},
}
HEAD = {"modernbert": {"head.dense.weight", "head.norm.weight"}}


def test_every_parameter_lies_in_one_place(family: str, tmp_path: Path) -> None:
    model = built(saved_config(tmp_path, family))
    parts = anatomy(model)
    places = [parts.embeddings, *parts.layers, parts.above, parts.head]
    assert sorted(name for place in places for name in place) == sorted(
        name for name, _ in model.named_parameters()
    )
    prefix = f"{model.base_model_prefix}."
    stack = f"{prefix}layers." if family == "modernbert" else f"{prefix}encoder.layer."
    assert len(parts.layers) == NUM_LAYERS
    for k, layer in enumerate(parts.layers):
        assert layer
        assert [name for name in layer if not name.startswith(f"{stack}{k}.")] == []
    of_table = {name for name in parts.embeddings if name.startswith(f"{prefix}embeddings.")}
    assert of_table
    assert parts.embeddings - of_table == BELOW.get(family, set())
    inside = stack.removesuffix("layers.").removesuffix("layer.")
    assert parts.above == {f"{inside}{name}" for name in ABOVE.get(family, ())}
    assert parts.head == {"classifier.weight", "classifier.bias"} | HEAD.get(family, set())


def test_a_layer_may_be_spread_over_several_lists(tmp_path: Path) -> None:
    XLMConfig(vocab_size=VOCAB, emb_dim=16, n_layers=4, n_heads=2).save_pretrained(tmp_path)
    model = built(tmp_path)
    parts = anatomy(model)
    assert len(parts.layers) == 4
    for k, layer in enumerate(parts.layers):
        lists = {name.split(".")[1] for name in layer if name.split(".")[2] == str(k)}
        assert lists == {"attentions", "layer_norm1", "ffns", "layer_norm2"}
        assert {name.split(".")[2] for name in layer} == {str(k)}
    assert "transformer.layer_norm_emb.weight" in parts.embeddings
    assert parts.above == set()
    of_units = [p for unit in units(model) for p in unit.parameters()]
    assert len({id(p) for p in of_units}) == len(of_units)


def test_frozen_parts_stay_and_cost_no_state(family: str, tmp_path: Path) -> None:
    saved_config(tmp_path / "config", family)
    from_scratch(tmp_path / "config").save_pretrained(tmp_path / "model")
    settings = {
        "name_or_path": str(tmp_path / "model"),
        "freeze": {"embeddings": True, "layers": 2},
    }
    model = whole_model(ModelConfig.model_validate(settings), TAGS, 0)
    parts = anatomy(model)
    frozen = parts.embeddings | parts.layers[0] | parts.layers[1]
    assert {name for name, p in model.named_parameters() if not p.requires_grad} == frozen
    strategy = opened(run_config(tmp_path, tmp_path), model)
    assert {shard.name for shard in strategy.shards() if shard.exp_avg is None} == frozen
    before = weights_of(model)
    strategy.backward(strategy.forward(batch()).square().mean(), last=True)
    strategy.step(1e-2)
    after = weights_of(model)
    moved = {name for name in after if not after[name].equal(before[name])}
    assert moved & frozen == set()
    assert moved >= parts.head
    assert moved & parts.layers[2]


def test_no_more_layers_are_frozen_than_there_are(tmp_path: Path) -> None:
    saved_config(tmp_path, "bert")
    assert not any(p.requires_grad for p in units(built(tmp_path, layers=3))[-1].parameters())
    with pytest.raises(ModelError, match=r"layers 4 is more than the 3 .* to 3 or"):
        built(tmp_path, layers=4)


def test_dropout_of_zero_is_none_at_all(family: str, tmp_path: Path) -> None:
    """Parity between strategies is only seen without chance."""
    everywhere = {
        name: 0.5
        for name, value in configs()[family].to_dict().items()
        if "dropout" in name and (value is None or isinstance(value, float))
    }
    saved_config(tmp_path, family, **everywhere)
    outcomes = {}
    for dropout in (None, 0.0):
        strategy = opened(run_config(tmp_path, tmp_path), from_scratch(tmp_path, dropout=dropout))
        first, second = (strategy.forward(batch()) for _ in range(2))
        outcomes[dropout] = torch.equal(first, second)
    assert outcomes == {None: False, 0.0: True}


def test_dropout_field_reaches_every_dropout(family: str, tmp_path: Path) -> None:
    model = from_scratch(saved_config(tmp_path, family), dropout=0.25)
    assert {module.p for module in model.modules() if isinstance(module, nn.Dropout)} == {0.25}


# ---------------------------------------------------------------- limits


@pytest.mark.parametrize(
    ("family", "positions", "limit"),
    [
        ("xlm-roberta", 514, 512),
        ("roberta", 514, 512),
        ("bert", 512, 512),
        ("electra", 512, 512),
        ("modernbert", 1024, 1024),
    ],
)
def test_longest_window(family: str, positions: int, limit: int, tmp_path: Path) -> None:
    model = from_scratch(saved_config(tmp_path, family, max_position_embeddings=positions))
    tokenizer = tokenizer_of(VOCAB)
    check_fits(model, tokenizer, limit)
    with pytest.raises(ModelError, match=f"set data.max_length to {limit} or less"):
        check_fits(model, tokenizer, limit + 1)
    # The limit is the model's own: one piece more has no position.
    if family != "modernbert":
        strategy = opened(run_config(tmp_path, tmp_path), model)
        assert strategy.predict({"input_ids": torch.full((1, limit), 5)}).isfinite().all()
        with pytest.raises((IndexError, RuntimeError)):
            strategy.predict({"input_ids": torch.full((1, limit + 1), 5)})


@pytest.mark.parametrize("family", ["deberta-v2", "deberta-v3"])
def test_relative_positions_have_no_limit(family: str, tmp_path: Path) -> None:
    model = from_scratch(saved_config(tmp_path, family))
    length = 3 * TINY["max_position_embeddings"]
    check_fits(model, tokenizer_of(VOCAB), length)
    logits = opened(run_config(tmp_path, tmp_path), model).predict(
        {"input_ids": torch.full((1, length), 5)}
    )
    assert logits.isfinite().all()


def tokenizer_of(size: int) -> PreTrainedTokenizerFast:
    tokenizer = tiny_tokenizer()
    assert len(tokenizer) <= size
    return tokenizer


def test_tokenizer_larger_than_the_model(tmp_path: Path) -> None:
    model = from_scratch(saved_config(tmp_path, "bert", vocab_size=10))
    with pytest.raises(ModelError, match="do not belong together"):
        check_fits(model, tiny_tokenizer(), 16)


# ---------------------------------------------------------------- what a user gets wrong


def test_no_such_folder(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="there is no such folder"):
        from_scratch(tmp_path / "absent")


@pytest.mark.parametrize("kind", ["fine_tuning", "transfer_learning"])
def test_weights_are_wanted(kind: str, tmp_path: Path) -> None:
    saved_config(tmp_path, "bert")
    with pytest.raises(ModelError, match="no weights can be loaded"):
        pretrained(tmp_path, kind=kind)


def test_damaged_weights(tmp_path: Path) -> None:
    saved_config(tmp_path, "bert")
    (tmp_path / "model.safetensors").write_bytes(b"\x10\x00")
    with pytest.raises(ModelError, match="no weights can be loaded"):
        pretrained(tmp_path)


@pytest.mark.parametrize("change", ["hidden_size", "vocab_size", "num_hidden_layers"])
def test_weights_of_another_model(change: str, tmp_path: Path) -> None:
    from_scratch(saved_config(tmp_path, "bert")).save_pretrained(tmp_path)
    saved_config(tmp_path, "bert", **{change: 2 * getattr(configs()["bert"], change)})
    with pytest.raises(ModelError, match="do not belong together"):
        pretrained(tmp_path)


def test_weights_of_another_family(tmp_path: Path) -> None:
    from_scratch(saved_config(tmp_path, "bert")).save_pretrained(tmp_path)
    saved_config(tmp_path, "deberta-v3")
    with pytest.raises(ModelError, match="do not belong together"):
        pretrained(tmp_path)


def test_config_of_no_encoder(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "whisper"}))
    with pytest.raises(ModelError, match="cannot be built for token classification"):
        from_scratch(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelError, match="no model config can be loaded"):
        from_scratch(tmp_path)


def test_no_tokenizer(tmp_path: Path) -> None:
    saved_config(tmp_path, "bert")
    with pytest.raises(ModelError, match="no vocabulary"):
        load_tokenizer(ModelConfig(name_or_path=str(tmp_path)))


def test_tokenizer_lies_with_the_model_or_elsewhere(tmp_path: Path) -> None:
    tiny_tokenizer().save_pretrained(tmp_path / "tokenizer")
    saved_config(tmp_path / "model", "xlm-roberta")
    folder, elsewhere = str(tmp_path / "model"), str(tmp_path / "tokenizer")
    for model in (
        ModelConfig(name_or_path=elsewhere),
        ModelConfig(name_or_path=folder, tokenizer=elsewhere),
    ):
        tokenizer = load_tokenizer(model)
        assert tokenizer.get_vocab() == tiny_tokenizer().get_vocab()
        assert tokenizer.pad_token_id == 1


def test_tags_of_an_exported_model(tmp_path: Path) -> None:
    model = from_scratch(saved_config(tmp_path, "bert"))
    model.save_pretrained(tmp_path / "model")
    assert heads_of(tmp_path / "model").names_of_logits == TAGS
    reloaded = AutoModelForTokenClassification.from_pretrained(tmp_path / "model")
    assert reloaded.config.label2id == {tag: i for i, tag in enumerate(TAGS)}
    with pytest.raises(ModelError, match="names its labels"):
        heads_of(tmp_path / "absent")
