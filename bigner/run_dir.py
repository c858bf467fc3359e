"""The folder of a run: what lies where in it, and whose it is."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from filelock import FileLock, Timeout
from pydantic import ValidationError

from bigner.config.checks import is_file, is_folder
from bigner.config.schema import RunConfig
from bigner.config.yaml_file import as_yaml
from bigner.errors import CheckpointError, ConfigError, LaunchError, Problem, UserError
from bigner.log import inform

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

# What may change between two legs of one run without making it another run.
_FREE_FIELDS = {
    "run_dir",
    "collective_timeout",
    "precision",
    "strategy",
    "checkpoint",
    "tracking",
    "trackers",
    "data.cache_dir",
    "model.packing",
    "evaluation.batch_size",
    "evaluation.batch_tokens",
    "evaluation.on_collapse",
    "evaluation.scorer",
    "evaluation.train_sample",
    "training.gradient_checkpointing",
    "training.batching",
    "training.compile",
    "training.log_every",
    "training.max_skipped_steps",
    "training.micro_batch_size",
    "training.micro_batch_tokens",
    "training.stop_after",
}


# Those of them by which runs are told apart all the same where they are compared: what they change
# is speed, memory and rounding.
_OF_SPEED = {
    "precision",
    "strategy",
    "model.packing",
    "training.batching",
    "training.compile",
    "training.gradient_checkpointing",
    "training.micro_batch_size",
    "training.micro_batch_tokens",
}
_OF_NO_COMPARISON = _FREE_FIELDS - _OF_SPEED | {"seed"}


@dataclass(frozen=True, slots=True)
class RunDir:
    """Paths inside a run's folder."""

    path: Path

    @property
    def config(self) -> Path:
        """The resolved run config, as YAML."""
        return self.path / "config.yaml"

    @property
    def summary(self) -> Path:
        """Steps and final scores; its being there means that the run is done."""
        return self.path / "summary.json"

    @property
    def model(self) -> Path:
        """The best weights so far, as a plain transformers folder."""
        return self.path / "model"

    @property
    def plain(self) -> Path:
        """Model config and tokenizer: with weights beside them a transformers folder."""
        return self.path / "plain"

    @property
    def table(self) -> Path:
        """The whole embedding table, where the run trains some of its rows."""
        return self.path / "table"

    @property
    def checkpoints(self) -> Path:
        """One folder for each checkpoint."""
        return self.path / "checkpoints"

    @property
    def tensorboard(self) -> Path:
        """TensorBoard's event files."""
        return self.path / "tensorboard"

    def tracking(self, tracker: str) -> Path:
        """What a tracker calls the run, and how far it has come."""
        return self.path / "tracking" / f"{tracker}.json"

    def predictions(self, split: str, head: str | None = None) -> Path:
        """What the best weights say of a split; a file for each head, where there are several."""
        return self.path / "predictions" / (f"{split}-{head}.tsv" if head else f"{split}.tsv")

    def lock(self) -> FileLock:
        """What a run holds for as long as it writes into the folder."""
        return FileLock(self.path.with_name(f".{self.path.name}.lock"), blocking=False)

    def claim(self, config: RunConfig, lock: FileLock) -> None:
        """Make the folder this run's own: for rank 0, before anything is written.

        With ``checkpoint.resume: none`` an earlier run is moved aside, never overwritten.

        Args:
            config: the run's.
            lock: of this folder; it is taken here and left to whoever made it.

        Raises:
            LaunchError: another process is at a run in this folder.
            ConfigError: the folder holds a run of another config or something that is no run, or
                cannot be written to.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            lock.acquire()
            self.path.mkdir(exist_ok=True)
            found = {path.name for path in self.path.iterdir() if not path.name.startswith(".")}
            # An attempt that left nothing but its config did not begin: it binds nobody.
            if found - {self.config.name}:
                if self.config.name not in found:
                    raise _refused(self.path, "holds files and is no run's folder")
                if config.checkpoint.resume == "none":
                    self._move_aside()
                else:
                    self._check_same_run(config)
            if not self.summary.exists():
                values = config.model_dump(mode="json")
                write_text(self.config, as_yaml(values))
        except Timeout:
            raise LaunchError(
                f"another process is training into {self.path}; wait for it, or choose another "
                f"run_dir"
            ) from None
        except (OSError, NotImplementedError) as error:
            reason = getattr(error, "strerror", None) or error
            raise _refused(self.path, f"cannot be used: {reason}") from None

    def make_ready(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
        """Write what every export has beside its weights, and clear away an attempt's leftovers.

        Raises:
            ConfigError: the folder cannot be written to.
        """
        try:
            self.checkpoints.mkdir(exist_ok=True)
            working = self.path / ".plain.tmp"
            for leftover in (working, *self.checkpoints.glob(".step-*.tmp")):
                shutil.rmtree(leftover, ignore_errors=True)
            if not self.plain.is_dir():
                if model._auto_class is not None:
                    from transformers.dynamic_module_utils import (  # noqa: PLC0415
                        custom_object_save,
                    )

                    # The code that is not transformers' own goes with the model.
                    working.mkdir()
                    custom_object_save(model, working, config=model.config)
                model.config.save_pretrained(working)
                tokenizer.save_pretrained(working)
                working.rename(self.plain)
        except OSError as error:
            raise _refused(self.path, f"cannot be used: {error.strerror or error}") from None

    def read_summary(self) -> dict[str, Any]:
        """What the finished run's summary holds.

        Raises:
            CheckpointError: it is not readable.
        """
        try:
            summary: dict[str, Any] = json.loads(self.summary.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise CheckpointError(f"{self.summary} cannot be read: {error}") from None
        return summary

    def read_config(self, advice: str) -> RunConfig:
        """The run's resolved config.

        Args:
            advice: what to do where it is none.

        Raises:
            ConfigError: it is not readable, or none that this version of bigner knows.
            OSError: it is not there, or may not be read.
        """
        try:
            return RunConfig.model_validate(yaml.safe_load(self.config.read_text(encoding="utf-8")))
        except (ValidationError, yaml.YAMLError, UnicodeDecodeError):
            raise ConfigError(
                [Problem(str(self.config), "", f"cannot be read; {advice}")]
            ) from None

    def _move_aside(self) -> None:
        number = 1
        while (aside := self.path.with_name(f"{self.path.name}.{number}")).exists():
            number += 1
        self.path.rename(aside)
        self.path.mkdir()
        inform(f"the earlier run in {self.path} is now {aside}")

    def _check_same_run(self, config: RunConfig) -> None:
        where = str(self.config)
        earlier = self.read_config("choose another run_dir, or set checkpoint.resume=none")
        if changed := differences(earlier, config):
            advice = "choose another run_dir, or set checkpoint.resume=none to start over"
            raise ConfigError(
                [
                    Problem(where, name, f"was {before!r} in this run and is {now!r} now; {advice}")
                    for name, before, now in changed
                ]
            )


_WEIGHTS = ("model.safetensors", "model.safetensors.index.json")


def exported_model(folder: Path) -> Path:
    """The exported model that is meant by its own folder, or by that of a finished run.

    Raises:
        UserError: there is none.
    """
    for model in (folder, RunDir(folder).model):
        if any(is_file(model / name) for name in _WEIGHTS):
            return model
    if not is_folder(folder):
        raise UserError(f"there is no folder {str(folder)!r}; name a run_dir or an exported model")
    raise UserError(
        f"{folder} holds no weights: neither it nor a folder model in it has {_WEIGHTS[0]}; name "
        f"the run_dir of a finished run, or what `bigner export` wrote"
    )


_OF_HEADS = {"data.heads"}
_SECTIONS_IN_SECTIONS = {"model.freeze"}


def differences(earlier: RunConfig, config: RunConfig) -> list[tuple[str, Any, Any]]:
    """Fields that make one run another than the earlier, with both values."""
    before, now = (dict(_leaves(one.model_dump(mode="json"))) for one in (earlier, config))
    names = dict.fromkeys((*before, *now))
    return [
        (name, before.get(name), now.get(name))
        for name in names
        if before.get(name) != now.get(name)
    ]


def compared_fields(config: RunConfig) -> dict[str, Any]:
    """Dotted names and values of all that makes runs more than repetitions with other seeds."""
    return dict(_leaves(config.model_dump(mode="json"), but=_OF_NO_COMPARISON))


def _refused(path: Path, reason: str) -> ConfigError:
    return ConfigError([Problem("run_dir", "", f"{str(path)!r} {reason}; choose another")])


def _leaves(
    values: dict[str, Any], prefix: str = "", but: Set[str] = _FREE_FIELDS
) -> Iterator[tuple[str, Any]]:
    """Dotted names and values of the fields that tell one run from another."""
    for key, value in values.items():
        name = f"{prefix}{key}"
        if name in but:
            continue
        if isinstance(value, dict) and name in _OF_HEADS:
            # Their order says whose score is looked at.
            yield name, list(value)
            for head, fields in value.items():
                yield from _leaves(fields, f"{name}.{head}.", but)
        # Others within sections may be absent: compared as a whole.
        elif isinstance(value, dict) and (not prefix or name in _SECTIONS_IN_SECTIONS):
            yield from _leaves(value, f"{name}.", but)
        else:
            yield name, value


def write_text(path: Path, text: str) -> None:
    """Write a file so that it is there whole or not at all."""
    write_parts(path, [text])


def write_parts(path: Path, parts: Iterable[str]) -> None:
    """Write a file piece by piece, so that it is there whole or not at all."""
    working = path.with_name(f".{path.name}.tmp")
    with working.open("w", encoding="utf-8") as stream:
        stream.writelines(parts)
        stream.flush()
        os.fsync(stream.fileno())
    working.replace(path)


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Write plain values so that the file is there whole or not at all."""
    write_text(path, json.dumps(values, indent=2, ensure_ascii=False) + "\n")
