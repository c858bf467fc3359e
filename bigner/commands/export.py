"""``bigner export CHECKPOINT DIR``: a checkpoint's whole weights as a plain transformers folder."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import torch
from transformers import AutoModelForTokenClassification, PreTrainedModel
from transformers.utils import logging as transformers_logging

from bigner.card import try_to_write_card
from bigner.card.facts import of_checkpoint
from bigner.checkpoint.folders import BEST, PLAIN, TABLE
from bigner.checkpoint.load import damage, read_parameter
from bigner.checkpoint.manifest import MANIFEST, Manifest, config_of, read_manifest
from bigner.config.checks import is_file, is_folder, require_new_folder
from bigner.config.schema import ModelConfig, Precision, RunConfig
from bigner.data.formats import read_sentences
from bigner.distributed import World
from bigner.errors import CheckpointError, DataError, UserError
from bigner.export import MAX_FILE_BYTES, largest_difference, write_model
from bigner.modeling import allocate, build_model, load_tokenizer
from bigner.sample.letters import write_letters
from bigner.strategies.base import DTYPES
from bigner.table import TableFolder
from bigner.tensor_files import TensorEntry
from bigner.weights import InitialWeights

# Of logits of order one, after a dozen and more layers.
_TOLERANCES: dict[Precision, float] = {"fp32": 1e-3, "fp16": 0.1, "bf16": 1.0}

Inputs = dict[str, torch.Tensor]


@dataclass(frozen=True, slots=True)
class Check:
    """How the exported model, loaded by plain transformers, compares with the checkpoint."""

    texts: int
    pieces: int
    differing: int
    """Pieces that are given another label."""
    largest_difference: float
    """Of a logit."""


def export(
    checkpoint: Path,
    folder: Path,
    *,
    dtype: Precision = "fp32",
    samples: int = 8,
    max_file_bytes: int = MAX_FILE_BYTES,
    trust_remote_code: bool = False,
) -> Check | None:
    """Write the weights of a checkpoint, parameter by parameter, and compare what was written.

    Args:
        checkpoint: a checkpoint folder of any strategy and world size.
        folder: where the model goes; nothing is there yet.
        dtype: of the exported weights.
        samples: texts to compare on, from the run's data or, where that cannot be read, made up;
            with 0 nothing is compared, and no whole model held.
        max_file_bytes: beyond it the weights are spread over several files.
        trust_remote_code: run Python code that lies with the checkpoint. What its manifest says of
            that does not count: whoever wrote the code could write that, too.

    Raises:
        ModelError: the model needs code of its own, and it is not trusted.
        UserError: ``folder`` is there already or has no place, or there is no checkpoint.
        CheckpointError: the checkpoint is damaged, the model cannot be written, or what was
            written predicts something else; nothing is left of it.
    """
    _require_places(checkpoint, folder)
    if problem := damage(checkpoint, World()):
        raise CheckpointError(problem)
    if not is_folder(checkpoint / PLAIN):
        raise CheckpointError(f"{checkpoint} has lost its folder {PLAIN}, the model's config")
    manifest = read_manifest(checkpoint)
    config = config_of(checkpoint, manifest)
    described = ModelConfig(
        # Absolute, for transformers would look up a short relative name on the Hub.
        name_or_path=str((checkpoint / PLAIN).resolve()),
        training_type="from_scratch",
        trust_remote_code=trust_remote_code,
    )
    model = build_model(described, manifest.labels)
    entries = _entries(checkpoint, manifest, DTYPES[dtype])
    _require_its_parameters(checkpoint, entries, model)
    _read_buffers(model, checkpoint, described)
    inputs = list(_sample_inputs(config, described, samples)) if samples else []
    tensors = _tensors(checkpoint, manifest)
    write_model(folder, checkpoint / PLAIN, model, entries, tensors, max_file_bytes)
    facts = partial(of_checkpoint, checkpoint, manifest, config, dtype)
    if not samples:
        try_to_write_card(folder, facts)
        return None
    _fill(model, checkpoint, manifest)
    expected = _logits(model, inputs)
    del model
    try:
        check = _compare(folder, inputs, expected, trust=trust_remote_code)
        # Written so that a difference that is no number fails, too.
        sound = check.largest_difference <= _TOLERANCES[dtype]
        if not sound or (dtype == "fp32" and check.differing):
            raise CheckpointError(
                f"written in {dtype} and loaded by transformers, the model does not predict what "
                f"{checkpoint} does: {check.differing} of {check.pieces} pieces differ, a logit by "
                f"{check.largest_difference:.2g}; {folder} was deleted, and --samples 0 keeps it"
            )
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    try_to_write_card(folder, facts)
    return check


def _require_places(checkpoint: Path, folder: Path) -> None:
    """Refuse what was named wrongly, before hours are spent on reading.

    Raises:
        UserError: there is no checkpoint, or no place for a new folder.
    """
    require_new_folder(folder)
    if not is_file(checkpoint / MANIFEST):
        raise UserError(
            f"{checkpoint} is no whole checkpoint: it has no {MANIFEST}; give a folder such as "
            f"RUN_DIR/checkpoints/step-00000500"
        )


def _entries(checkpoint: Path, manifest: Manifest, dtype: torch.dtype) -> list[TensorEntry]:
    """The parameters of the model that a checkpoint is of."""
    saved = manifest.parameters.items()
    entries = [TensorEntry(name, dtype, parameter.shape) for name, parameter in saved]
    table = checkpoint / TABLE
    return TableFolder(table).entries(entries) if is_folder(table) else entries


def _tensors(checkpoint: Path, manifest: Manifest) -> Iterator[torch.Tensor]:
    """Their fp32 values, one at a time."""
    names = list(manifest.parameters)
    tensors = (read_parameter(checkpoint, manifest, name) for name in names)
    table = checkpoint / TABLE
    return TableFolder(table).tensors(names, tensors) if is_folder(table) else tensors


def _require_its_parameters(
    checkpoint: Path, entries: Sequence[TensorEntry], model: PreTrainedModel
) -> None:
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
    saved = {entry.name: entry.shape for entry in entries}
    for name in sorted(shapes.keys() | saved.keys()):
        if shapes.get(name) != saved.get(name):
            raise CheckpointError(
                f"{checkpoint} does not belong to the model in its folder {PLAIN}: {name} has "
                f"shape {saved.get(name)} in the checkpoint and {shapes.get(name)} in the model"
            )


def _read_buffers(model: PreTrainedModel, checkpoint: Path, described: ModelConfig) -> None:
    """Fill the buffers that are saved with a model, which the shards do not have.

    The best weights have them. Without those they stay as the model is built: constants, in all
    that transformers itself has.
    """
    best = checkpoint / BEST
    names = {name for name, _ in model.named_buffers()} & model.state_dict().keys()
    if names and is_folder(best):
        exported = described.model_copy(
            update={"name_or_path": str(best.resolve()), "training_type": "fine_tuning"}
        )
        InitialWeights(exported, model, seed=0, cache_root=checkpoint, new_head=False)


def _sample_inputs(config: RunConfig, model: ModelConfig, count: int) -> Iterator[Inputs]:
    """Some texts as the model takes them, one at a time."""
    tokenizer = load_tokenizer(model)
    for words in islice(_texts(config), count):
        encoded = tokenizer(
            words,
            is_split_into_words=True,
            truncation=True,
            max_length=config.data.max_length,
            return_attention_mask=True,
            return_tensors="pt",
        )
        yield {name: encoded[name] for name in ("input_ids", "attention_mask")}


def _texts(config: RunConfig) -> Iterator[list[str]]:
    """Sentences of the last split there is; made-up ones where the data is not at hand."""
    try:
        for sentence in read_sentences(config.data, config.data.splits()[-1]):
            yield sentence.words
    except (DataError, OSError):
        for letter in write_letters("test"):
            for made_up in letter:
                yield [word for word, _ in made_up]


def _fill(model: PreTrainedModel, checkpoint: Path, manifest: Manifest) -> None:
    allocate(model, torch.device("cpu"))
    with torch.no_grad():
        for name, values in zip(manifest.parameters, _tensors(checkpoint, manifest), strict=True):
            model.get_parameter(name).copy_(values)


@torch.no_grad()
def _logits(model: PreTrainedModel, inputs: list[Inputs]) -> list[torch.Tensor]:
    model.eval()
    return [model(**text).logits.float() for text in inputs]


def _compare(
    folder: Path, inputs: list[Inputs], expected: list[torch.Tensor], *, trust: bool
) -> Check:
    transformers_logging.disable_progress_bar()
    try:
        exported = AutoModelForTokenClassification.from_pretrained(
            folder.resolve(), dtype="auto", trust_remote_code=trust
        )
    except Exception as error:
        reason = str(error).strip().partition("\n")[0]
        raise CheckpointError(f"transformers cannot load what was written: {reason}") from None
    found = _logits(exported, inputs)
    pairs = list(zip(found, expected, strict=True))
    return Check(
        texts=len(inputs),
        pieces=sum(logits.shape[1] for logits in expected),
        differing=sum(int((a.argmax(-1) != b.argmax(-1)).sum()) for a, b in pairs),
        largest_difference=max((largest_difference(a, b) for a, b in pairs), default=0.0),
    )
