"""From an exported folder to one with a graph, which is there once it was compared."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from transformers import AutoModelForTokenClassification, PreTrainedModel
from transformers.utils import logging as transformers_logging

from bigner import collector
from bigner.config.schema import ModelConfig
from bigner.errors import ModelError, RunError, one_line
from bigner.export import state_dtype
from bigner.modeling import check_fits, heads_of, load_tokenizer, loading, longest_window
from bigner.onnx.checking import TOLERANCE, Check, compare, torch_logits
from bigner.onnx.graph import GRAPH, MAX_GRAPH_BYTES, input_names, write_graph
from bigner.onnx.samples import LONGEST, sample_batches
from bigner.run_dir import write_json

# Weights in any form, and the card, whose code loads what is not here.
_NOT_BESIDE_A_GRAPH = (
    *("*.safetensors", "*.bin", "*.index.json", "*.pt", "*.pth", "*.h5", "*.msgpack", "*.onnx*"),
    *("README.md", ".*"),
)


def write_onnx(
    model_dir: Path,
    folder: Path,
    *,
    trust_remote_code: bool = False,
    max_graph_bytes: int = MAX_GRAPH_BYTES,
) -> Check:
    """Write a graph beside a copy of config and tokenizer, in fp32.

    Args:
        model_dir: an exported model.
        folder: where the graph goes; nothing is there yet.
        trust_remote_code: run Python code that lies with the model.
        max_graph_bytes: of weights that the graph itself may hold; more lie in a file beside it.

    Returns:
        how what was written compares with the model.

    Raises:
        ModelError: there is no model that can be loaded.
        RunError: the graph cannot be written, or predicts something else; nothing is left of it.
    """
    heads = heads_of(model_dir)
    described = ModelConfig(
        # Absolute, for transformers would look up a short relative name on the Hub.
        name_or_path=str(model_dir.resolve()),
        trust_remote_code=trust_remote_code,
    )
    with collector.paused():
        tokenizer = load_tokenizer(described)
    model = _load(described)
    longest = min(longest_window(model) or LONGEST, LONGEST)
    check_fits(model, tokenizer, longest)
    names = input_names(model, tokenizer)
    batches = sample_batches(tokenizer, names, longest)
    expected = torch_logits(model, batches)
    with _there_when_whole(folder) as working:
        for file in _beside(model_dir):
            shutil.copy(file, working)
        state_dtype(working, torch.float32)
        _name_tokenizer_for_all(working / "tokenizer_config.json")
        _write(working / GRAPH, model, names, max_graph_bytes)
        # onnxruntime holds the weights once more.
        del model
        check = compare(working, batches, expected, heads)
        if not check.is_sound:
            raise RunError(
                f"computed by onnxruntime, {model_dir} does not predict what it does in torch: "
                f"{check.differing} of {check.pieces} pieces get another label, a logit differs by "
                f"{check.largest_difference:.2g}, and {TOLERANCE:g} is allowed; nothing of it was "
                f"kept"
            )
    return check


@contextmanager
def _there_when_whole(folder: Path) -> Iterator[Path]:
    """A folder under another name, which it gives up for its own where nothing has failed."""
    working = folder.with_name(f".{folder.name}.tmp")
    try:
        # Of an attempt that was killed.
        shutil.rmtree(working, ignore_errors=True)
        working.mkdir(parents=True)
        yield working
        working.rename(folder)
    except OSError as error:
        raise RunError(f"the graph cannot be written to {folder}: {error}") from None
    finally:
        shutil.rmtree(working, ignore_errors=True)


def _load(described: ModelConfig) -> PreTrainedModel:
    """The model as transformers loads it, in fp32, with every weight from its folder."""
    transformers_logging.disable_progress_bar()
    with loading(f"{described.name_or_path!r} cannot be loaded for token classification"):
        model, info = AutoModelForTokenClassification.from_pretrained(
            described.name_or_path,
            dtype=torch.float32,
            trust_remote_code=described.trust_remote_code,
            output_loading_info=True,
        )
    if missing := sorted(info["missing_keys"]):
        raise ModelError(
            f"{described.name_or_path} has no weights for {missing[0]}; name a model that was "
            f"trained for token classification"
        )
    loaded: PreTrainedModel = model
    return loaded


def _beside(model_dir: Path) -> Iterator[Path]:
    """Config, tokenizer, and code that is not transformers' own."""
    for path in sorted(model_dir.iterdir()):
        if path.is_file() and not any(path.match(kind) for kind in _NOT_BESIDE_A_GRAPH):
            yield path


def _name_tokenizer_for_all(path: Path) -> None:
    """Give a tokenizer without a class of its own the name by which transformers 4, which optimum
    asks for, knows it too.
    """
    if path.exists():
        settings = json.loads(path.read_text(encoding="utf-8"))
        if settings.get("tokenizer_class") == "TokenizersBackend":
            write_json(path, settings | {"tokenizer_class": "PreTrainedTokenizerFast"})


def _write(path: Path, model: PreTrainedModel, names: list[str], max_graph_bytes: int) -> None:
    try:
        write_graph(path, model, names, max_graph_bytes)
    except OSError:
        raise
    except Exception as error:
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise RunError(
            one_line(f"torch cannot write {model.config.model_type!r} as ONNX", reason)
        ) from None
