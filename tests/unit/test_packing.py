"""Packed windows: each attends within itself, and is computed as it would be in a padded batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributed.utils import _apply_to_tensors
from transformers import (
    AutoModelForTokenClassification,
    BertConfig,
    CamembertConfig,
    DistilBertConfig,
    ElectraConfig,
    ModernBertConfig,
    PretrainedConfig,
    PreTrainedModel,
    RobertaConfig,
    XLMRobertaXLConfig,
)

from bigner.config.schema import ModelConfig
from bigner.modeling import layers
from bigner.packing import (
    PACKED_FAMILIES,
    PackedWindows,
    Packing,
    _by_kernel,
    _by_torch,
    _How,
    _written_out,
    attend_as_on_gpus,
    can_pack,
    pack_attention,
    padding_note,
)
from bigner.strategies import Strategy
from tests.unit.helpers import TINY, opened, run_config, tiny_xlmr, whole_model

CPU = torch.device("cpu")
TAGS = ("O", "B-PER", "I-PER")
VOCAB = 200
PAD = 1
IDS = {"pad_token_id": PAD, "bos_token_id": 0, "eos_token_id": 2, "cls_token_id": 0}
LENGTHS = np.array([23, 22, 17, 17, 9, 5, 3, 2])


def configs() -> dict[str, PretrainedConfig]:
    """A tiny model of each family that is packed, as wild as untrained ones get."""
    sizes = {**TINY, "vocab_size": VOCAB, "initializer_range": 0.1, "pad_token_id": PAD}
    modern = {
        **sizes,
        **IDS,
        "sep_token_id": 2,
        "local_attention": 8,
        "global_attn_every_n_layers": 2,
    }
    return {
        "bert": BertConfig(**sizes),
        "camembert": CamembertConfig(**sizes),
        "electra": ElectraConfig(**sizes, embedding_size=16),
        "modernbert": ModernBertConfig(**modern),
        "roberta": RobertaConfig(**sizes),
        "xlm-roberta": tiny_xlmr(VOCAB),
        "xlm-roberta-xl": XLMRobertaXLConfig(**sizes),
    }


def test_every_packed_family_is_here() -> None:
    assert set(configs()) == PACKED_FAMILIES
    assert all(config.model_type == name for name, config in configs().items())


def built(folder: Path, config: PretrainedConfig, **choices: Any) -> PreTrainedModel:
    config.save_pretrained(folder)
    model = ModelConfig.model_validate(
        {
            "name_or_path": str(folder),
            "training_type": "from_scratch",
            "dropout": 0.0,
            **choices,
        }
    )
    return whole_model(model, TAGS, seed=3)


def sequences(lengths: np.ndarray[Any, Any] = LENGTHS) -> list[torch.Tensor]:
    random = torch.Generator().manual_seed(5)
    return [torch.randint(4, VOCAB, (length,), generator=random) for length in lengths.tolist()]


def padded_inputs(windows: list[torch.Tensor]) -> dict[str, torch.Tensor]:
    ids = torch.nn.utils.rnn.pad_sequence(windows, batch_first=True, padding_value=PAD)
    return {"input_ids": ids, "attention_mask": (ids != PAD).long()}


def packed_inputs(windows: list[torch.Tensor], packing: Packing) -> dict[str, Any]:
    packed = PackedWindows(np.array([len(each) for each in windows]), CPU)
    return {
        "input_ids": torch.cat(windows).unsqueeze(0),
        "position_ids": packed.position_ids(packing.first_position),
        "windows": packed,
    }


def flat(logits: torch.Tensor) -> torch.Tensor:
    """The real pieces of padded rows, end to end."""
    return torch.cat([row[:length] for row, length in zip(logits, LENGTHS.tolist(), strict=True)])


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("family", sorted(PACKED_FAMILIES))
def test_logits_and_gradients_are_those_of_a_padded_batch(
    family: str, precision: str, tmp_path: Path
) -> None:
    """Under one strategy; ``tests/ranks/test_packing.py`` has the others."""

    def strategies() -> Iterator[tuple[Strategy, Packing | None, PreTrainedModel]]:
        for wanted in (False, True):
            model = built(tmp_path, configs()[family])
            packing = pack_attention(model, wanted)
            config = run_config(tmp_path, tmp_path, precision=precision)
            yield opened(config, model), packing, model

    (padded, _, padded_model), (packed, packing, packed_model) = strategies()
    assert packing is not None
    windows = sequences()
    tolerance = {"fp32": 2e-5, "bf16": 0.15}[precision]
    expected = flat(padded.predict(padded_inputs(windows)))
    found = packed.predict(packed_inputs(windows, packing))[0]
    assert found.shape == expected.shape
    # Windows are told apart, or the tolerance says nothing.
    assert float(expected.std()) > 10 * tolerance or precision == "bf16"
    torch.testing.assert_close(found, expected, atol=tolerance, rtol=0.0)

    # The same loss on both, of the pieces alone.
    flat(padded.forward(padded_inputs(windows))).float().square().mean().backward()
    packed.forward(packed_inputs(windows, packing))[0].float().square().mean().backward()
    if precision == "fp32":
        gradients = dict(packed_model.named_parameters())
        for name, parameter in padded_model.named_parameters():
            if parameter.grad is not None:
                torch.testing.assert_close(gradients[name].grad, parameter.grad, msg=name)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_attention_written_out_is_torchs(dtype: torch.dtype) -> None:
    """What drops weights on a processor, with nothing to drop."""
    random = torch.Generator().manual_seed(1)
    states = torch.randn(3, 4, 2, 9, 16, generator=random).to(dtype)
    seen = torch.rand(4, 1, 1, 9, generator=random) < 0.7
    seen[..., 0] = True
    for attended in (None, seen):
        how = _How(PackedWindows(LENGTHS, CPU), 0.0, None, None)
        expected = _by_torch(*states, attended, how)
        found = _written_out(*states, attended, how)
        tolerance = {torch.float32: 1e-6, torch.bfloat16: 2e-2}[dtype]
        torch.testing.assert_close(found, expected, atol=tolerance, rtol=0.0)


def test_a_window_is_computed_as_if_it_were_alone(tmp_path: Path) -> None:
    model = built(tmp_path, configs()["modernbert"])
    packing = pack_attention(model, wanted=True)
    assert packing is not None
    strategy = opened(run_config(tmp_path, tmp_path), model)
    windows = sequences()
    together = strategy.predict(packed_inputs(windows, packing))[0].split(LENGTHS.tolist())
    for window, logits in zip(windows, together, strict=True):
        alone = strategy.predict(packed_inputs([window], packing))[0]
        torch.testing.assert_close(logits, alone, atol=2e-5, rtol=0.0)


def gradients_of(
    folder: Path, config: PretrainedConfig, dropout: float = 0.1, **training: Any
) -> dict[str, torch.Tensor]:
    """Of packed windows, with dropout."""
    model = built(folder, config, dropout=dropout)
    packing = pack_attention(model, wanted=True)
    assert packing is not None
    strategy = opened(run_config(folder, folder, training=training), model)
    torch.manual_seed(7)
    strategy.forward(packed_inputs(sequences(), packing)).square().mean().backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_padding_beyond_the_reach_of_its_window_spoils_no_gradient(
    dropout: float, tmp_path: Path
) -> None:
    """Windows of one bucket whose lengths differ by more than a piece sees."""
    model = built(tmp_path, configs()["modernbert"])
    packing = pack_attention(model, wanted=True)
    assert packing is not None
    strategy = opened(run_config(tmp_path, tmp_path), model)
    for layer in model.base_model.layers:
        layer.attn.attention_dropout = dropout
    windows = sequences(np.array([60, 46]))
    strategy.forward(packed_inputs(windows, packing)).square().mean().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("how", [True, "selective"])
def test_checkpointed_activations_know_the_windows(how: object, tmp_path: Path) -> None:
    plain = gradients_of(tmp_path, configs()["xlm-roberta"])
    recomputed = gradients_of(tmp_path, configs()["xlm-roberta"], gradient_checkpointing=how)
    assert plain.keys() == recomputed.keys()
    for name, gradient in plain.items():
        torch.testing.assert_close(recomputed[name], gradient, msg=name)


# torch's compiler looks at what torch warns of looking at.
@pytest.mark.filterwarnings("ignore")
def test_compiled_layers_compute_the_same(tmp_path: Path) -> None:
    config = configs()["xlm-roberta"]
    config.num_hidden_layers = 1
    plain = gradients_of(tmp_path, config, dropout=0.0)
    compiled = gradients_of(tmp_path, config, dropout=0.0, compile=True)
    assert plain.keys() == compiled.keys()
    for name, gradient in plain.items():
        torch.testing.assert_close(compiled[name], gradient, atol=1e-5, rtol=1e-4, msg=name)


def test_other_families_are_padded_and_it_is_said(tmp_path: Path) -> None:
    distil = DistilBertConfig(vocab_size=VOCAB, dim=32, n_layers=2, n_heads=2, hidden_dim=64)
    model = built(tmp_path, distil)
    assert not can_pack(model)
    assert pack_attention(model, wanted=True) is None
    note = padding_note(model, wanted=True)
    assert note is not None
    assert "'distilbert'" in note
    assert padding_note(model, wanted=False) is None


def test_nothing_is_packed_unasked(tmp_path: Path) -> None:
    model = built(tmp_path, configs()["bert"])
    assert pack_attention(model, wanted=False) is None
    assert model.config._attn_implementation == "sdpa"
    assert padding_note(model, wanted=True) is None


def test_the_exported_config_does_not_know_of_packing(tmp_path: Path) -> None:
    model = built(tmp_path, configs()["bert"])
    pack_attention(model, wanted=True)
    model.config.save_pretrained(tmp_path / "plain")
    assert "bigner" not in (tmp_path / "plain" / "config.json").read_text()


# ---------------------------------------------------------------- where windows lie


@settings(deadline=None)
@given(st.lists(st.integers(1, 90), min_size=1, max_size=60), st.sampled_from([None, 0, 4, 40]))
def test_buckets_hold_each_piece_once(lengths: list[int], reach: int | None) -> None:
    ordered = np.array(sorted(lengths, reverse=True))
    windows = PackedWindows(ordered, CPU)
    buckets = windows.buckets(reach)
    assert [b.start for b in buckets] == [0, *(b.stop for b in buckets[:-1])]
    assert buckets[-1].stop == ordered.sum()
    assert sum(b.rows for b in buckets) == len(lengths)
    own, places = [], []
    for bucket in buckets:
        whole = torch.arange(bucket.start, bucket.stop)
        rows = whole if bucket.padded is None else whole[bucket.padded]
        rows = rows.view(bucket.rows, bucket.longest)
        back = rows.flatten() if bucket.real is None else rows.flatten()[bucket.real]
        assert torch.equal(back, whole)
        seen = torch.ones(bucket.rows, bucket.longest, bucket.longest, dtype=torch.bool)
        if bucket.attended is not None:
            seen = seen & bucket.attended[:, 0]
        # Padding, too: attention over nothing is 0 / 0, and so is its gradient.
        assert seen.any(dim=-1).all()
        for i, row in enumerate(rows):
            own.append(int(seen[i, 0].sum()))
            places.append(int(row[0]))
    # The first piece of a window sees as far as the window and its reach go.
    assert own == [min(n, n if reach is None else reach + 1) for n in ordered.tolist()]
    assert places == (np.cumsum(ordered) - ordered).tolist()


def test_positions_begin_anew() -> None:
    windows = PackedWindows(np.array([3, 2, 1]), CPU)
    assert windows.position_ids(2).tolist() == [[2, 3, 4, 2, 3, 2]]
    assert windows.boundaries().tolist() == [0, 3, 5, 6]
    assert windows.boundaries().dtype == torch.int32


def test_the_kernel_takes_these_arguments() -> None:
    """What runs on a GPU alone, as far as shapes go, gradients included."""
    query, key, value = (
        torch.empty(81, 2, 16, dtype=torch.float16, device="meta", requires_grad=True)
        for _ in range(3)
    )
    windows = PackedWindows(np.array([50, 31]), torch.device("meta"))
    out = _by_kernel(query, key, value, _How(windows, 0.1, 0.25, 4))
    assert out.shape == query.shape
    out.sum().backward()
    assert query.grad is not None
    assert query.grad.shape == query.shape


def test_a_layer_with_the_gpus_kernel_is_one_graph_whatever_the_lengths(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # DeepSpeed, where another test has loaded it, has put its own in place for good.
    monkeypatch.setattr(torch.nn.functional, "linear", torch._C._nn.linear)
    model = AutoModelForTokenClassification.from_config(configs()["xlm-roberta"]).half().train()
    attend_as_on_gpus(model)
    graphs = []

    def note(graph: torch.fx.GraphModule, _: object) -> Callable[..., Any]:
        graphs.append(graph)
        return graph.forward

    for layer in layers(model):
        layer.compile(dynamic=True, fullgraph=True, backend=note)
    for lengths in ([5, 4, 3], [7, 5], [9, 3, 2, 2], [12, 3]):
        windows = PackedWindows(np.array(lengths), CPU)
        # As where batches are made for a GPU.
        windows.boundaries()
        states = torch.zeros(1, sum(lengths), TINY["hidden_size"], dtype=torch.float16)
        for layer in layers(model):
            # There is no such kernel here.
            with pytest.raises(NotImplementedError, match="_flash_attention_forward"):
                layer(states, attention_mask=None, windows=windows)
    assert len(graphs) == 1


def test_fsdp_hands_windows_on_as_they_are() -> None:
    windows = PackedWindows(LENGTHS, CPU)
    # What it does to the arguments of each layer.
    assert _apply_to_tensors(torch.Tensor.detach, {"windows": windows})["windows"] is windows
