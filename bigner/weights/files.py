"""The safetensors files of a model: found, listed, and made once where it has others."""

from __future__ import annotations

import copy
import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from safetensors import safe_open
from transformers import AutoModelForTokenClassification, PreTrainedModel
from transformers import __version__ as transformers_version
from transformers.utils import cached_file
from transformers.utils import logging as transformers_logging

from bigner.config.schema import ModelConfig
from bigner.errors import ModelError
from bigner.tensor_files import entries_of, write_tensors

_SAFETENSORS = "model.safetensors"
_PICKLED = "pytorch_model.bin"


@dataclass(frozen=True, slots=True)
class SavedTensor:
    """A tensor in a file."""

    path: Path
    key: str
    dtype: str
    """As safetensors names it."""
    shape: tuple[int, ...]


def not_its_weights(name: str, wanting: list[str]) -> ModelError:
    """What to say where values are missing that a config promises."""
    return ModelError(
        f"{name!r}: {len(wanting)} weights are missing or of another shape than its config says, "
        f"such as {wanting[0]}; config and weights do not belong together"
    )


def catalog_of(files: list[Path]) -> dict[str, SavedTensor]:
    """All tensors of the files, by the names they have there."""
    catalog = {}
    for path in files:
        with safe_open(path, "pt") as file:
            for key in file.keys():  # noqa: SIM118
                saved = file.get_slice(key)
                catalog[key] = SavedTensor(path, key, saved.get_dtype(), tuple(saved.get_shape()))
    return catalog


def find_files(config: ModelConfig, cache_root: Path) -> list[Path]:
    """The safetensors files of the folder or Hub name; pickled ones converted first.

    Raises:
        OSError, ValueError: there are none, or the Hub does not answer.
    """
    if files := _listed_files(config, _SAFETENSORS):
        return files
    if pickled := _listed_files(config, _PICKLED):
        return _converted(cache_root, pickled, "", lambda folder: _unpickle(pickled, folder))
    raise OSError(f"it has neither {_SAFETENSORS} nor {_PICKLED}")


def _listed_files(config: ModelConfig, single: str) -> list[Path]:
    """The file of that name, or the several that its index names."""
    if (path := _locate(config, single)) is not None:
        return [path]
    if (index := _locate(config, f"{single}.index.json")) is None:
        return []
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        paths = [Path(name) for name in names]
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{index.name} is no index of weights ({error!r})") from None
    files = []
    for path in paths:
        # A name and no path: nothing outside the folder.
        found = _locate(config, path.name) if path.suffix and path.name == str(path) else None
        if found is None:
            raise OSError(f"{index.name} names {str(path)!r}, which is not there")
        files.append(found)
    return files


def _locate(config: ModelConfig, name: str) -> Path | None:
    found = cached_file(
        config.name_or_path,
        name,
        revision=config.revision or "main",
        _raise_exceptions_for_missing_entries=False,
    )
    return Path(found) if found else None


def _converted(
    cache_root: Path, sources: list[Path], target: str, convert: Callable[[Path], None]
) -> list[Path]:
    """The safetensors files that ``convert`` makes of the sources, once for all processes.

    Args:
        target: what they are converted to, where that could be several things.
    """
    facts = [
        (str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in sources
    ]
    key = hashlib.sha256(json.dumps([facts, target]).encode()).hexdigest()[:24]
    folder = cache_root / "weights" / key
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not folder.is_dir():
            working = folder.with_name(f".{key}.tmp")
            shutil.rmtree(working, ignore_errors=True)
            working.mkdir()
            try:
                convert(working)
                working.rename(folder)
            finally:
                shutil.rmtree(working, ignore_errors=True)
    return sorted(folder.glob("*.safetensors"))


def _unpickle(pickled: list[Path], folder: Path) -> None:
    """Write each pickled file as a safetensors file, tensor by tensor."""
    for path in pickled:
        tensors = {
            key: value for key, value in _load_pickled(path).items() if torch.is_tensor(value)
        }
        _write(folder / f"{path.stem}.safetensors", tensors)


def _load_pickled(path: Path) -> dict[str, Any]:
    try:
        try:
            values = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except RuntimeError:
            # torch's format before 1.6 cannot be mapped.
            values = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # torch's own message advises to run whatever code is in it.
        raise ValueError(
            f"{path.name} does not unpickle to tensors, and nothing else is unpickled, for that "
            f"could run code ({type(error).__name__})"
        ) from None
    if not isinstance(values, dict):
        raise ValueError(f"{path.name} holds no mapping of names to tensors")
    return values


def converted_by_transformers(
    config: ModelConfig,
    model: PreTrainedModel,
    body: set[str],
    catalog: dict[str, SavedTensor],
    cache_root: Path,
) -> list[Path]:
    """Files of a layout that transformers rearranges while it loads, as it leaves them.

    Only here does one process hold a whole model.

    Args:
        config: says where the files are.
        model: what they are loaded into.
        body: the parameters that must be in them.
        catalog: what was found.
        cache_root: where the new files are kept.

    Raises:
        ModelError: transformers, too, finds no values for the body.
    """

    def convert(folder: Path) -> None:
        transformers_logging.set_verbosity_error()
        whole, report = AutoModelForTokenClassification.from_pretrained(
            config.name_or_path,
            config=copy.deepcopy(model.config),
            revision=config.revision or "main",
            trust_remote_code=config.trust_remote_code,
            dtype=torch.float32,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
        drawn = {*report["missing_keys"], *(name for name, *_ in report["mismatched_keys"])}
        if wanting := sorted(drawn & body):
            raise not_its_weights(config.name_or_path, wanting)
        tensors = {name: value for name, value in whole.state_dict().items() if name not in drawn}
        _write(folder / _SAFETENSORS, tensors)

    sources = sorted({saved.path for saved in catalog.values()})
    # A head that does not fit these labels is left out, and the next version may rearrange more.
    target = f"{type(model).__name__} {model.config.num_labels} {transformers_version}"
    return _converted(cache_root, sources, target, convert)


def _write(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    # The widest numbers first: so each tensor begins at a multiple of its own width.
    ordered = dict(sorted(tensors.items(), key=lambda item: -item[1].dtype.itemsize))
    write_tensors(path, entries_of(ordered), ordered.values(), {"format": "pt"})
