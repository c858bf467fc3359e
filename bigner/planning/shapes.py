"""What an encoder is made of, out of its config alone: parameters by the unit that gathers them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from bigner.errors import ModelError


@dataclass(frozen=True, slots=True)
class Tensor:
    """A parameter: rows along dimension 0, which sharding cuts, and the values in each."""

    rows: int
    width: int = 1

    @property
    def numel(self) -> int:
        """All its values."""
        return self.rows * self.width

    def shard(self, ranks: int) -> int:
        """Values of the largest shard: torch.chunk gives the first ranks the rows that are over."""
        return -(-self.rows // ranks) * self.width


@dataclass(frozen=True, slots=True)
class Unit:
    """Parameters that are gathered, and whose gradients are reduced, together."""

    name: str
    tensors: tuple[Tensor, ...]
    is_trained: bool = True

    @property
    def numel(self) -> int:
        """All its values."""
        return sum(tensor.numel for tensor in self.tensors)

    def shard(self, ranks: int) -> int:
        """Values that the rank with the most of them owns."""
        return sum(tensor.shard(ranks) for tensor in self.tensors)


@dataclass(frozen=True, slots=True)
class ModelShape:
    """An encoder with a head for token classification."""

    model_type: str
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_labels: int
    vocab_size: int
    dropout: float
    table: Unit
    """The embeddings of pieces, which are looked up and nothing else."""
    embeddings: Unit
    """What else the embeddings have."""
    layers: tuple[Unit, ...]
    root: Unit
    """What is in none of the others: the head, norms over the layers."""
    sizes: Mapping[str, Any]
    """The config it follows from, in transformers' names."""

    @property
    def units(self) -> tuple[Unit, ...]:
        """In the order that a forward goes through them; the root is gathered before all."""
        return (self.root, self.table, self.embeddings, *self.layers)

    @property
    def numel(self) -> int:
        """All parameters."""
        return sum(unit.numel for unit in self.units)

    @property
    def num_trained(self) -> int:
        """The parameters that move."""
        return sum(unit.numel for unit in self.units if unit.is_trained)

    @property
    def is_gated(self) -> bool:
        """Whether a layer's middle is a product of two, as ModernBERT's is."""
        return self.model_type == "modernbert"

    @property
    def is_pre_norm(self) -> bool:
        """Whether norms stand before attention and middle rather than behind them."""
        return self.model_type in ("modernbert", "xlm-roberta-xl")

    def frozen(self, *, body: bool, embeddings: bool, layers: int) -> ModelShape:
        """The same with parts that do not move."""
        return replace(
            self,
            table=replace(self.table, is_trained=not (body or embeddings)),
            embeddings=replace(self.embeddings, is_trained=not (body or embeddings)),
            layers=tuple(
                replace(layer, is_trained=not (body or i < layers))
                for i, layer in enumerate(self.layers)
            ),
        )


def shape_of(
    config: Mapping[str, Any], *, num_labels: int, rows: int | None = None, dropout: float | None
) -> ModelShape:
    """The shape that a model's config describes.

    Args:
        config: of ``config.json``; what it leaves out is as the family's own class has it.
        num_labels: rows of the head.
        rows: of the embedding table, where some are left out.
        dropout: in place of the config's own.

    Raises:
        ModelError: the family is not known here, or the config says no sizes.
    """
    family = config.get("model_type")
    if family not in _FAMILIES:
        raise ModelError(
            f"the plan knows the parts of {', '.join(sorted(_FAMILIES))} and not of {family!r}; "
            f"name a model of those with the same sizes to get near it"
        )
    values = {**_DEFAULTS[family], **config}
    for name in _SIZES:
        value = values[name]
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ModelError(f"the model's config gives {name} as {value!r}, which is no size")
    if rows is not None:
        values["vocab_size"] = min(rows, values["vocab_size"])
    own = values.get("hidden_dropout_prob", values.get("mlp_dropout", 0.0))
    shape = _FAMILIES[family](values, num_labels)
    return replace(shape, dropout=float(own if dropout is None else dropout))


_SIZES = (
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "max_position_embeddings",
)
_BERT: dict[str, Any] = {
    "vocab_size": 30522,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
    "hidden_dropout_prob": 0.1,
}
_DEFAULTS: dict[str, dict[str, Any]] = {
    "bert": _BERT,
    "camembert": _BERT,
    "roberta": {**_BERT, "vocab_size": 50265},
    "xlm-roberta": _BERT,
    "electra": {
        **_BERT,
        "embedding_size": 128,
        "hidden_size": 256,
        "num_attention_heads": 4,
        "intermediate_size": 1024,
    },
    "xlm-roberta-xl": {
        **_BERT,
        "vocab_size": 250880,
        "hidden_size": 2560,
        "num_hidden_layers": 36,
        "num_attention_heads": 32,
        "intermediate_size": 10240,
        "max_position_embeddings": 514,
        "type_vocab_size": 1,
    },
    "modernbert": {
        "vocab_size": 50368,
        "hidden_size": 768,
        "num_hidden_layers": 22,
        "num_attention_heads": 12,
        "intermediate_size": 1152,
        "max_position_embeddings": 8192,
        "mlp_dropout": 0.0,
    },
}


def _linear(inputs: int, outputs: int) -> tuple[Tensor, Tensor]:
    return Tensor(outputs, inputs), Tensor(outputs)


def _norm(size: int) -> tuple[Tensor, Tensor]:
    return Tensor(size), Tensor(size)


def _bert(values: Mapping[str, Any], num_labels: int) -> ModelShape:
    hidden = values["hidden_size"]
    width = values.get("embedding_size", hidden)
    projection = () if width == hidden else _linear(width, hidden)
    return _with_absolute_positions(
        values,
        num_labels,
        width=width,
        beside=_norm(width),
        root=(*projection, *_linear(hidden, num_labels)),
    )


def _xl(values: Mapping[str, Any], num_labels: int) -> ModelShape:
    hidden = values["hidden_size"]
    return _with_absolute_positions(
        values,
        num_labels,
        width=hidden,
        beside=(),
        # The norm over the last layer.
        root=(*_norm(hidden), *_linear(hidden, num_labels)),
    )


def _with_absolute_positions(
    values: Mapping[str, Any],
    num_labels: int,
    *,
    width: int,
    beside: tuple[Tensor, ...],
    root: tuple[Tensor, ...],
) -> ModelShape:
    hidden, middle = values["hidden_size"], values["intermediate_size"]
    positions = Tensor(values["max_position_embeddings"], width)
    layer = (
        *(tensor for _ in range(4) for tensor in _linear(hidden, hidden)),
        *_norm(hidden),
        *_linear(hidden, middle),
        *_linear(middle, hidden),
        *_norm(hidden),
    )
    embeddings = (positions, Tensor(values["type_vocab_size"], width), *beside)
    table = Tensor(values["vocab_size"], width)
    layers = [layer] * values["num_hidden_layers"]
    return _put_together(values, num_labels, table, embeddings, layers, root)


def _modernbert(values: Mapping[str, Any], num_labels: int) -> ModelShape:
    hidden, middle = values["hidden_size"], values["intermediate_size"]
    matrices = (
        Tensor(3 * hidden, hidden),
        Tensor(hidden, hidden),
        Tensor(2 * middle, hidden),
        Tensor(hidden, middle),
    )
    # The first layer's attention has no norm of its own: the embeddings end in one.
    first = (*matrices, Tensor(hidden))
    other = (*first, Tensor(hidden))
    layers = [first, *[other] * (values["num_hidden_layers"] - 1)]
    head = (Tensor(hidden, hidden), Tensor(hidden), *_linear(hidden, num_labels))
    table = Tensor(values["vocab_size"], hidden)
    root = (Tensor(hidden), *head)
    return _put_together(values, num_labels, table, (Tensor(hidden),), layers, root)


def _put_together(
    values: Mapping[str, Any],
    num_labels: int,
    table: Tensor,
    embeddings: tuple[Tensor, ...],
    layers: list[tuple[Tensor, ...]],
    root: tuple[Tensor, ...],
) -> ModelShape:
    return ModelShape(
        model_type=values["model_type"],
        hidden_size=values["hidden_size"],
        intermediate_size=values["intermediate_size"],
        num_layers=len(layers),
        num_heads=values["num_attention_heads"],
        num_labels=num_labels,
        vocab_size=table.rows,
        dropout=0.0,
        table=Unit("table", (table,)),
        embeddings=Unit("embeddings", embeddings),
        layers=tuple(Unit(f"layer {i}", tensors) for i, tensors in enumerate(layers, start=1)),
        root=Unit("head", root),
        sizes=values,
    )


_FAMILIES: dict[str, Callable[[Mapping[str, Any], int], ModelShape]] = {
    "bert": _bert,
    "camembert": _bert,
    "electra": _bert,
    "modernbert": _modernbert,
    "roberta": _bert,
    "xlm-roberta": _bert,
    "xlm-roberta-xl": _xl,
}
