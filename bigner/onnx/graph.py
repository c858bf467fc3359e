"""A model as one ONNX graph, in which nothing is left of the machine that it was made on."""

from __future__ import annotations

import inspect
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

GRAPH = "model.onnx"
"""Its name in a folder, which optimum and transformers.js look for."""
LOGITS = "logits"
MAX_GRAPH_BYTES = 2_000_000_000
"""Protocol buffers end at 2 GiB: weights beyond it, and before it some room for the rest, lie in a
file of their own."""
_AXES = {0: "batch", 1: "length"}
# They tell of packages that an encoder has no use for, and of what they did not fold.
_TALKATIVE = ("torch.onnx", "onnxscript", "onnx_ir")


def input_names(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> list[str]:
    """The inputs of the graph: those that the tokenizer makes and the model takes."""
    taken = inspect.signature(model.forward).parameters
    types = [name for name in tokenizer.model_input_names if name == "token_type_ids"]
    return ["input_ids", *(name for name in ("attention_mask", *types) if name in taken)]


def write_graph(
    path: Path, model: PreTrainedModel, names: list[str], max_graph_bytes: int = MAX_GRAPH_BYTES
) -> None:
    """Write the graph, with axes for any number of windows of any length.

    Args:
        path: of the graph; weights that are too many for it lie beside it, in ``PATH.data``.
        model: on the CPU, in fp32.
        names: its inputs.
        max_graph_bytes: of weights that the graph itself may hold.
    """
    # No axis may be 1, which torch would take for a number that stands fast; and a tensor for each,
    # for it would take one that comes twice for one input.
    example = {name: torch.full((2, 7), 1) for name in names}
    size = sum(p.numel() * p.element_size() for p in model.parameters())
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            model.eval(),
            (),
            kwargs=example,
            output_names=[LOGITS],
            dynamic_shapes=dict.fromkeys(names, _AXES),
            dynamo=True,
            verbose=False,
        )
        assert program is not None
        _forget_origin(program.model)
        program.save(path, external_data=size > max_graph_bytes)


@contextmanager
def _quiet() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in _TALKATIVE]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _forget_origin(model: Any) -> None:
    """Take out what the exporter notes of each node: the lines of code, by their paths."""
    model.metadata_props.clear()
    for part in (model.graph, *model.functions.values()):
        part.metadata_props.clear()
        nodes = list(part.all_nodes())
        values = [*part.inputs, *(value for node in nodes for value in node.outputs)]
        for described in (*nodes, *values, *getattr(part, "initializers", {}).values()):
            described.metadata_props.clear()
