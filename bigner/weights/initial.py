"""The first values of a model: those of files, and drawn ones for what the files do not have."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
from transformers import PreTrainedModel
from transformers.utils import logging as transformers_logging

from bigner.config.schema import ModelConfig
from bigner.errors import ModelError
from bigner.modeling import beneath_the_labels, body_parameters, load_model_config, loading
from bigner.strategies.base import Shard
from bigner.tensor_files import read_range
from bigner.weights.drawn import DrawnValues
from bigner.weights.files import (
    SavedTensor,
    catalog_of,
    converted_by_transformers,
    find_files,
    not_its_weights,
)

_FLOATS = {"F64", "F32", "F16", "BF16"}
# What the layers' norms were called in the files of the first BERTs.
_OLD_NAMES = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}


class InitialWeights:
    """The first values of a model that is still shapes alone; made before a strategy takes it.

    Drawn values depend on the seed and the parameter's name, so every rank of every strategy
    begins with the same ones.

    Args:
        config: says where the files are, and whether they are wanted.
        model: as ``build_model`` gave it; its saved buffers are filled here.
        seed: of what is drawn.
        cache_root: where files of other formats are kept converted.
        new_head: whether a head may be drawn where the files have none for these labels.

    Raises:
        ModelError: there are no files, or they do not make up this model.
    """

    def __init__(
        self,
        config: ModelConfig,
        model: PreTrainedModel,
        *,
        seed: int,
        cache_root: Path,
        new_head: bool = True,
    ) -> None:
        self._drawn = DrawnValues(model, seed)
        self._shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
        self._saved: dict[str, SavedTensor] = {}
        self.report = "all weights drawn anew"
        """What was found and what not, in a line."""
        if config.training_type == "from_scratch":
            return
        self._name = config.name_or_path
        transformers_logging.disable_progress_bar()
        with loading(
            f"no weights can be loaded from {self._name!r}",
            "; model.training_type from_scratch takes the architecture alone" if new_head else "",
        ):
            catalog = catalog_of(find_files(config, cache_root))
            body = body_parameters(model)
            if body - _match(model, body, catalog).keys():
                catalog = catalog_of(
                    converted_by_transformers(config, model, body, catalog, cache_root)
                )
            self._take(config, model, catalog, new_head=new_head)

    def _take(
        self,
        config: ModelConfig,
        model: PreTrainedModel,
        catalog: dict[str, SavedTensor],
        *,
        new_head: bool,
    ) -> None:
        parameters = dict(model.named_parameters())
        body = body_parameters(model)
        found = _match(model, parameters, catalog)
        for saved in found.values():
            if saved.dtype not in _FLOATS:
                raise ModelError(
                    f"{self._name!r}: {saved.key} is {saved.dtype}, and quantised weights are not "
                    f"trained here; name the model that they were made from"
                )
        # A head for other labels means something else, even where it is as wide.
        other_labels = set()
        if new_head and _labels_of(config) != list(model.config.id2label.values()):
            other_labels = parameters.keys() - body - beneath_the_labels(model)
        self._saved = {
            name: saved
            for name, saved in found.items()
            if saved.shape == tuple(parameters[name].shape) and name not in other_labels
        }
        drawn = sorted(parameters.keys() - self._saved.keys())
        if wanting := [name for name in drawn if name in body or not new_head]:
            raise not_its_weights(self._name, wanting)
        buffers = _read_saved_buffers(model, catalog)
        taken = {saved.key for saved in (*found.values(), *buffers)}
        unused = [key for key, saved in catalog.items() if saved.dtype in _FLOATS]
        self.report = (
            f"weights: {len(self._saved)} tensors from {self._name}"
            + _listed("drawn anew", drawn)
            + _listed("not used", sorted(set(unused) - taken))
        )

    def whole(self, name: str) -> torch.Tensor:
        """All values of a parameter, in fp32.

        Raises:
            ModelError: as ``fill``.
        """
        values = torch.empty(self._shapes[name], dtype=torch.float32)
        self.fill([Shard(name, tuple(values.shape), 0, values.numel(), values.view(-1))])
        return values

    def fill(self, shards: Iterable[Shard]) -> None:
        """Write the values into the ranges that this rank owns; the strategy publishes them.

        Raises:
            ModelError: a file changed meanwhile, or a weight cannot be drawn.
        """
        for shard in shards:
            if not shard.numel:
                continue
            target = shard.master[: shard.numel]
            if saved := self._saved.get(shard.name):
                with loading(f"weights cannot be read from {saved.path}"):
                    read_range(saved.path, saved.key, shard.offset, target)
            else:
                values = self._drawn.values(shard.name)
                target.copy_(values[shard.offset : shard.offset + shard.numel])


def _labels_of(config: ModelConfig) -> list[str]:
    """The labels of the head that lies in the folder."""
    return list(load_model_config(config).id2label.values())


def _listed(what: str, names: list[str]) -> str:
    if not names:
        return ""
    some = ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
    return f"; {len(names)} {what} ({some})"


def _read_saved_buffers(
    model: PreTrainedModel, catalog: dict[str, SavedTensor]
) -> list[SavedTensor]:
    """Fill the buffers that are saved with a model; returns those the files have."""
    saved_names = model.state_dict(keep_vars=True).keys()
    buffers = {name: buffer for name, buffer in model.named_buffers() if name in saved_names}
    found = _match(model, buffers, catalog)
    for name, saved in found.items():
        if saved.shape == tuple(buffers[name].shape):
            values = torch.empty(buffers[name].numel(), dtype=buffers[name].dtype)
            read_range(saved.path, saved.key, 0, values)
            buffers[name].copy_(values.view(saved.shape))
    return list(found.values())


def _match(
    model: PreTrainedModel, names: Iterable[str], catalog: dict[str, SavedTensor]
) -> dict[str, SavedTensor]:
    """Names of the model to what the files call them: with or without the body's prefix."""
    prefix = f"{model.base_model_prefix}."
    found = {}
    for name in names:
        candidates = [name, name.removeprefix(prefix)]
        for new, old in _OLD_NAMES.items():
            candidates += [name.replace(new, old) for name in candidates[:2] if new in name]
        for candidate in candidates:
            if candidate in catalog:
                found[name] = catalog[candidate]
                break
    return found
