"""A checkpoint that is broken in one place is one message that names the place."""

from __future__ import annotations

import copy
import json
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from bigner.checkpoint import folders
from bigner.checkpoint.load import damage, load, read_parameter
from bigner.checkpoint.manifest import (
    FORMAT_VERSION,
    KINDS,
    MANIFEST,
    config_of,
    read_manifest,
)
from bigner.distributed import World
from bigner.errors import CheckpointError
from bigner.strategies import Shard, StepOutcome, Strategy
from bigner.tensor_files import TensorEntry, write_tensors
from tests.unit.helpers import run_config

Values = dict[str, Any]

PARAMETERS = {"a.weight": (4, 6), "a.bias": (5,), "scale": (), "empty": (0, 3), "frozen": (7,)}
CUTS = {"a.weight": (0, 11, 24), "a.bias": (0, 5, 5), "scale": (0, 0, 1), "frozen": (0, 3, 7)}
"""Where the first of two ranks begins, the second does, and the parameter ends."""
FIRST, SECOND = "shards-00000.safetensors", "shards-00001.safetensors"
SCORES = {
    "step": 2,
    **dict.fromkeys(("f1", "precision", "recall", "accuracy"), 0.5),
    "loss": float("nan"),
    "strict": {"f1": 0.25},
    "per_type": {},
}


def whole(name: str, kind: str) -> torch.Tensor:
    shape = PARAMETERS[name]
    count = torch.Size(shape).numel()
    return (torch.arange(count) + 100.0 * KINDS.index(kind)).reshape(shape)


def write_checkpoint(folder: Path) -> Values:
    """A checkpoint of two ranks; returns its manifest."""
    folder.mkdir(parents=True)
    parameters: Values = {
        name: {"shape": list(shape), "ranges": []} for name, shape in PARAMETERS.items()
    }
    files = {}
    for rank, file in enumerate((FIRST, SECOND)):
        tensors = {}
        for name, cuts in CUTS.items():
            offset, stop = cuts[rank : rank + 2]
            for kind in KINDS if name != "frozen" else KINDS[:1]:
                if stop > offset:
                    tensors[f"{name}/{kind}"] = whole(name, kind).view(-1)[offset:stop]
        entries = [TensorEntry(key, t.dtype, tuple(t.shape)) for key, t in tensors.items()]
        checksums = dict(
            zip(tensors, write_tensors(folder / file, entries, tensors.values()), strict=True)
        )
        for key, tensor in tensors.items():
            name, _, kind = key.partition("/")
            ranges = parameters[name]["ranges"]
            if kind == "master":
                offset = CUTS[name][rank]
                part = {"file": file, "offset": offset, "numel": tensor.numel(), "sha256": {}}
                ranges.append(part)
            ranges[-1]["sha256"][kind] = checksums[key]
        files[file] = (folder / file).stat().st_size
    manifest = {
        "format_version": FORMAT_VERSION,
        "step": 3,
        "epoch": 1.5,
        "skipped_steps": 0,
        "skipped_in_a_row": 0,
        "history": [copy.deepcopy(SCORES)],
        "best": {"step": 2, "value": 0.5},
        "labels": ["O", "B-PER", "I-PER"],
        "config": run_config(folder, folder).model_dump(mode="json"),
        "world_size": 2,
        "versions": {"bigner": "0"},
        "scalars": {"optimizer_step": 3.0, "average_steps": 3.0},
        "files": files,
        "parameters": parameters,
    }
    (folder / MANIFEST).write_text(json.dumps(manifest))
    return manifest


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "step-00000003"


@pytest.fixture
def manifest(folder: Path) -> Values:
    return write_checkpoint(folder)


def rewrite(folder: Path, manifest: Values) -> None:
    (folder / MANIFEST).write_text(json.dumps(manifest))


def require_told(error: object, *phrases: str) -> None:
    told = str(error)
    assert told.isprintable(), told
    assert len(told) < 2500, told
    assert [phrase for phrase in phrases if phrase not in told] == [], told


# ---------------------------------------------------------------- a sound one


def test_a_sound_checkpoint(folder: Path, manifest: Values) -> None:
    assert damage(folder, World()) == ""
    read = read_manifest(folder)
    assert read.step == 3
    assert read.labels == ("O", "B-PER", "I-PER")
    assert config_of(folder, read).seed == 42
    for name, shape in PARAMETERS.items():
        values = read_parameter(folder, read, name)
        assert values.shape == shape
        # What the run would predict with.
        assert torch.equal(values, whole(name, "master" if name == "frozen" else "average"))


def test_a_checkpoint_without_an_average(folder: Path, manifest: Values) -> None:
    del manifest["scalars"]["average_steps"]
    for saved in manifest["parameters"].values():
        for part in saved["ranges"]:
            part["sha256"].pop("average", None)
    rewrite(folder, manifest)
    read = read_manifest(folder)
    assert torch.equal(read_parameter(folder, read, "a.bias"), whole("a.bias", "master"))
    strategy = Ranges(EVERYTHING, frozen=("frozen",))
    load(folder, read, strategy)
    bias = next(shard for shard in strategy.kept if shard.name == "a.bias")
    assert torch.equal(bias.master, whole("a.bias", "master"))
    assert bias.average is not None
    assert bias.average.isnan().all(), "left to the strategy, which begins one"


def test_an_average_that_is_not_there(folder: Path, manifest: Values) -> None:
    del ranges(manifest)[0]["sha256"]["average"]
    rewrite(folder, manifest)
    with pytest.raises(CheckpointError, match=r"has no moving average of a\.weight"):
        read_parameter(folder, read_manifest(folder), "a.weight")
    with pytest.raises(CheckpointError, match=r"has no moving average of a\.weight"):
        load(folder, read_manifest(folder), Ranges(EVERYTHING, frozen=("frozen",)))


class Ranges(Strategy):
    """A rank that owns some ranges, and has nothing to compute."""

    def __init__(
        self, cuts: Mapping[str, tuple[int, int]], *, frozen: tuple[str, ...] = ()
    ) -> None:
        self.kept = [
            Shard(
                name,
                PARAMETERS[name],
                offset,
                stop - offset,
                *(
                    torch.full((stop - offset,), torch.nan)
                    for kind in (KINDS[:1] if name in frozen else KINDS)
                ),
            )
            for name, (offset, stop) in cuts.items()
        ]
        self.loaded: Mapping[str, float] = {}
        self.published = False

    def shards(self) -> Iterator[Shard]:
        return iter(self.kept)

    def publish(self) -> None:
        self.published = True

    def load_scalars(self, scalars: Mapping[str, float]) -> None:
        self.loaded = scalars

    def forward(self, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        raise NotImplementedError

    def backward(self, loss_share: torch.Tensor, *, last: bool) -> None:
        raise NotImplementedError

    def step(self, learning_rate: float) -> StepOutcome:
        raise NotImplementedError

    def predict(self, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        raise NotImplementedError

    def scalars(self) -> dict[str, float]:
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError


EVERYTHING = {name: (0, torch.Size(shape).numel()) for name, shape in PARAMETERS.items()}


@pytest.mark.parametrize(
    "cuts",
    [
        EVERYTHING,
        {"a.weight": (5, 20), "a.bias": (1, 4), "scale": (1, 1), "empty": (0, 0), "frozen": (2, 4)},
        {
            "a.weight": (11, 24),
            "a.bias": (5, 5),
            "scale": (0, 1),
            "empty": (0, 0),
            "frozen": (3, 7),
        },
        {"a.weight": (3, 4), "a.bias": (0, 1), "scale": (0, 1), "empty": (0, 0), "frozen": (6, 7)},
    ],
    ids=str,
)
def test_any_range_is_put_together(
    cuts: dict[str, tuple[int, int]], folder: Path, manifest: Values
) -> None:
    strategy = Ranges(cuts, frozen=("frozen",))
    load(folder, read_manifest(folder), strategy)
    assert strategy.published
    assert strategy.loaded == {"optimizer_step": 3.0, "average_steps": 3.0}
    for shard in strategy.kept:
        for kind in KINDS:
            found, stop = getattr(shard, kind), shard.offset + shard.numel
            if found is not None:
                expected = whole(shard.name, kind).view(-1)[shard.offset : stop]
                assert torch.equal(found, expected), (shard.name, kind)


def test_what_does_not_make_up_the_model(folder: Path, manifest: Values) -> None:
    read = read_manifest(folder)
    with pytest.raises(CheckpointError, match=r"has frozen, which this model has not"):
        load(folder, read, Ranges({n: c for n, c in EVERYTHING.items() if n != "frozen"}))
    with pytest.raises(CheckpointError, match="no optimizer state of frozen, which was frozen"):
        load(folder, read, Ranges(EVERYTHING))
    del manifest["parameters"]["a.bias"]
    rewrite(folder, manifest)
    with pytest.raises(CheckpointError, match=re.escape("has no a.bias of shape (5,)")):
        load(folder, read_manifest(folder), Ranges(EVERYTHING, frozen=("frozen",)))


# ---------------------------------------------------------------- manifests


def ranges(values: Values, name: str = "a.weight") -> list[Values]:
    found: list[Values] = values["parameters"][name]["ranges"]
    return found


def put(path: str, value: object) -> Callable[[Values], None]:
    """Set what stands at a dotted path of the manifest."""

    def change(values: Values) -> None:
        *above, last = path.split("/")
        for step in above:
            values = values[int(step) if isinstance(values, list) else step]
        values[int(last) if isinstance(values, list) else last] = value  # type: ignore[call-overload]

    return change


def take(path: str) -> Callable[[Values], None]:
    """Delete what stands at a dotted path of the manifest."""

    def change(values: Values) -> None:
        *above, last = path.split("/")
        for step in above:
            values = values[int(step) if isinstance(values, list) else step]
        del values[int(last) if isinstance(values, list) else last]  # type: ignore[arg-type]

    return change


WEIGHT = "parameters/a.weight"
RANGE = f"{WEIGHT}/ranges/0"
FIELDS = ("step", "epoch", "skipped_steps", "history", "best", "labels", "config", "world_size")
BROKEN: dict[str, tuple[Callable[[Values], None], tuple[str, ...]]] = {
    "overlap": (put(f"{WEIGHT}/ranges/1/offset", 10), ("a.weight", "values 10 to 11 overlap")),
    "gap": (put(f"{RANGE}/numel", 9), ("a.weight", "values 9 to 11 are absent")),
    "no beginning": (put(f"{RANGE}/offset", 1), ("a.weight", "values 0 to 1 are absent")),
    "missing end": (take(f"{WEIGHT}/ranges/1"), ("a.weight", "ranges end at 11 of 24 values")),
    "beyond the end": (put(f"{WEIGHT}/ranges/1/numel", 14), ("a.weight", "end at 25 of 24")),
    "no ranges": (put(f"{WEIGHT}/ranges", []), ("a.weight", "ranges end at 0 of 24 values")),
    "other shape": (put(f"{WEIGHT}/shape", [4, 7]), ("a.weight", "ranges end at 24 of 28")),
    "twice": (
        lambda values: ranges(values).append(copy.deepcopy(ranges(values)[0])),
        ("a.weight", "values 0 to 24 overlap"),
    ),
    "not in order": (lambda values: ranges(values).reverse(), ("a.weight", "0 to 11 are absent")),
    "empty range": (put(f"{RANGE}/numel", 0), ("a.weight.ranges.0.numel", "greater than")),
    "outside": (put(f"{RANGE}/file", "../x.safetensors"), ("a.weight.ranges.0.file", "pattern")),
    "absolute": (put(f"{RANGE}/file", "/etc/passwd"), ("a.weight.ranges.0.file", "pattern")),
    "a folder": (put(f"{RANGE}/file", "x/" + FIRST), ("a.weight.ranges.0.file", "pattern")),
    "a line more": (put(f"{RANGE}/file", FIRST + "\n"), ("a.weight.ranges.0.file", "pattern")),
    "other digits": (
        put(f"{RANGE}/file", "shards-0000\u0663.safetensors"),
        ("a.weight.ranges.0.file", "pattern"),
    ),
    "the manifest": (put(f"{RANGE}/file", MANIFEST), ("a.weight.ranges.0.file", "pattern")),
    "negative offset": (put(f"{RANGE}/offset", -1), ("a.weight.ranges.0.offset", "greater than")),
    "negative numel": (put(f"{RANGE}/numel", -5), ("a.weight.ranges.0.numel", "greater than")),
    "negative shape": (put(f"{WEIGHT}/shape", [-4, -6]), ("a.weight.shape.0", "greater than")),
    "huge numel": (put(f"{RANGE}/numel", 2**63), ("a.weight.ranges.0.numel", "less than")),
    "huge shape": (put(f"{WEIGHT}/shape", [2**70]), ("a.weight.shape.0", "less than")),
    "many dimensions": (put(f"{WEIGHT}/shape", [1] * 17), ("a.weight.shape", "at most 16")),
    "half a value": (put(f"{RANGE}/offset", 0.5), ("a.weight.ranges.0.offset", "integer")),
    "number as text": (put(f"{RANGE}/offset", "0"), ("a.weight.ranges.0.offset", "integer")),
    "truth as number": (put(f"{RANGE}/offset", False), ("a.weight.ranges.0.offset", "integer")),
    "short checksum": (put(f"{RANGE}/sha256/master", "ab"), ("sha256.master", "pattern")),
    "other checksum": (put(f"{RANGE}/sha256/master", "G" * 64), ("sha256.master", "pattern")),
    "no checksum": (put(f"{RANGE}/sha256/master", None), ("sha256.master", "string")),
    "unknown tensor": (put(f"{RANGE}/sha256/momentum", "0" * 64), ("sha256.momentum", "master")),
    "no master": (take(f"{RANGE}/sha256/master"), ("a.weight", "range at 0 has no master")),
    "unlisted file": (take(f"files/{SECOND}"), ("files and ranges do not agree on", SECOND)),
    "unused file": (
        put("files/shards-00002.safetensors", 8),
        ("files and ranges do not agree on shards-00002",),
    ),
    "listed path": (put("files/..", 8), ("files", "pattern")),
    "negative size": (put(f"files/{FIRST}", -8), (f"files.{FIRST}", "greater than")),
    "unknown key": (put("colour", "red"), ("colour", "not permitted")),
    "unknown key inside": (put(f"{RANGE}/x", 1), ("a.weight.ranges.0.x", "not permitted")),
    "old version": (put("format_version", 1), ("format 1, and this bigner reads 2",)),
    "new version": (put("format_version", 3), ("format 3, and this bigner reads 2",)),
    "no version": (take("format_version"), ("format_version", "required")),
    "version as text": (put("format_version", "2"), ("format_version",)),
    "negative step": (put("step", -1), ("step", "greater than")),
    "no world": (put("world_size", 0), ("world_size", "greater than")),
    "infinite epoch": (put("epoch", float("inf")), ("epoch", "finite")),
    "labels": (put("labels", [1]), ("labels.0", "string")),
    "no optimizer step": (put("scalars", {}), ("scalars", "has no optimizer_step")),
    "half a loss scale": (put("scalars/loss_scale", 2.0), ("scalars", "no steps_since_overflow")),
    "a loss scale of 0": (
        put("scalars", {"optimizer_step": 1.0, "loss_scale": 0.0, "steps_since_overflow": 0.0}),
        ("scalars", "loss_scale"),
    ),
    "scalar as text": (put("scalars/optimizer_step", "3"), ("scalars.optimizer_step", "number")),
    "scores without a step": (take("history/0/step"), ("history.0", "no number for step")),
    "scores without F1": (take("history/0/f1"), ("history.0", "no number for f1")),
    "scores without a strict F1": (
        take("history/0/strict/f1"),
        ("history.0", "no number for strict.f1"),
    ),
    "scores of text": (put("history/0/loss", "low"), ("history.0", "no number for loss")),
    "a list": (put("parameters", []), ("parameters", "Input should be")),
    **{f"no {name}": (take(name), (name, "required")) for name in FIELDS},
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_manifests(case: str, folder: Path, manifest: Values) -> None:
    change, phrases = BROKEN[case]
    change(manifest)
    rewrite(folder, manifest)
    with pytest.raises(CheckpointError) as caught:
        read_manifest(folder)
    require_told(caught.value, f"{folder / MANIFEST} cannot be used: ", *phrases)
    assert damage(folder, World()) == str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"null",
        b"[]",
        b"3",
        b'"x"',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"step": ' + b"9" * 100_000 + b"}",
        b'{"format_version": 2, "' + b"x\\n" * 5000 + b'": 1}',
        b'{"format_version": ' + b"9" * 4000 + b"}",
        b'{"format_version": true}',
    ],
    ids=lambda content: content[:20].decode("latin-1"),
)
def test_what_is_no_manifest(content: bytes, folder: Path) -> None:
    folder.mkdir()
    (folder / MANIFEST).write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        read_manifest(folder)
    require_told(caught.value, f"{folder / MANIFEST} cannot be used: ")


def test_no_manifest(folder: Path) -> None:
    for prepare in (lambda: None, folder.mkdir, (folder / MANIFEST).mkdir):
        prepare()
        with pytest.raises(CheckpointError, match="no whole checkpoint: no readable manifest"):
            read_manifest(folder)


def test_a_config_of_another_bigner(folder: Path, manifest: Values) -> None:
    manifest["config"]["training"]["batch\n"] = 3
    rewrite(folder, manifest)
    with pytest.raises(CheckpointError) as caught:
        config_of(folder, read_manifest(folder))
    require_told(caught.value, f"{folder}: its run config cannot be read: training.batch")


# ---------------------------------------------------------------- files


def flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(bytes(data))


def swap(folder: Path, manifest: Values) -> None:
    first, second = folder / FIRST, folder / SECOND
    first.rename(folder / "x")
    second.rename(first)
    (folder / "x").rename(second)
    sizes = manifest["files"]
    sizes[FIRST], sizes[SECOND] = sizes[SECOND], sizes[FIRST]
    rewrite(folder, manifest)


def other_tensors(change: Callable[[str, torch.Tensor], tuple[str, torch.Tensor]]) -> Any:
    """The first file anew, with each tensor as ``change`` has it."""

    def rewrite_file(folder: Path, manifest: Values) -> None:
        from safetensors.torch import load_file, save_file  # noqa: PLC0415

        path = folder / FIRST
        # A copy: what is loaded lies in the mapped file.
        tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
        save_file(dict(change(name, tensor) for name, tensor in tensors.items()), path)
        manifest["files"][FIRST] = path.stat().st_size
        rewrite(folder, manifest)

    return rewrite_file


def only(name: str, change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    return other_tensors(lambda key, t: (key, change(t) if key == name else t))


CHANGED = "changed since it was written"
DAMAGED: dict[str, tuple[Callable[[Path, Values], object], tuple[str, ...]]] = {
    "missing": (lambda folder, _: (folder / SECOND).unlink(), (f"{SECOND} is missing",)),
    "a folder": (
        lambda folder, _: [(folder / SECOND).unlink(), (folder / SECOND).mkdir()],
        (f"{SECOND} is missing",),
    ),
    "truncated": (
        lambda folder, _: (folder / FIRST).write_bytes((folder / FIRST).read_bytes()[:-1]),
        (FIRST, "bytes and had", "when it was written"),
    ),
    "empty": (lambda folder, _: (folder / FIRST).write_bytes(b""), (FIRST, "has 0 bytes")),
    "longer": (
        lambda folder, _: (folder / FIRST).write_bytes((folder / FIRST).read_bytes() + b"\0"),
        (FIRST, "bytes and had"),
    ),
    "first value": (
        lambda folder, _: flip(folder / FIRST, -4 * (len(KINDS) * (11 + 5) + 3)),
        (FIRST, "master of a.weight at 0", CHANGED),
    ),
    "last byte": (
        lambda folder, _: flip(folder / SECOND, -1),
        (SECOND, "master of frozen at 3", CHANGED),
    ),
    "header": (lambda folder, _: flip(folder / FIRST, 12), (FIRST, "cannot be read")),
    "length of the header": (lambda folder, _: flip(folder / FIRST, 7), (FIRST, "cannot be read")),
    "swapped": (swap, (FIRST, "master of a.weight at 0")),
    "shorter tensor": (
        only("a.weight/master", lambda t: t[:-1]),
        (FIRST, "master of a.weight at 0", "has shape [10], and 11 values are wanted"),
    ),
    "longer tensor": (
        only("a.weight/exp_avg", lambda t: torch.cat([t, t[:1]])),
        (FIRST, "exp_avg of a.weight at 0", "has shape [12], and 11 values are wanted"),
    ),
    "other dtype": (
        only("a.bias/exp_avg_sq", lambda t: t.double()),
        (FIRST, "exp_avg_sq of a.bias at 0", CHANGED),
    ),
    "other name": (
        other_tensors(lambda key, t: (key.replace("bias", "bis"), t)),
        (FIRST, "master of a.bias at 0", "cannot be read"),
    ),
    "other checksum": (
        lambda folder, manifest: [
            put(f"{RANGE}/sha256/exp_avg", "0" * 64)(manifest),
            rewrite(folder, manifest),
        ],
        (FIRST, "exp_avg of a.weight at 0", CHANGED),
    ),
    "no manifest": (lambda folder, _: (folder / MANIFEST).unlink(), ("no whole checkpoint",)),
    "no folder": (lambda folder, _: shutil.rmtree(folder), ("no whole checkpoint",)),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_damaged_files(case: str, folder: Path, manifest: Values) -> None:
    break_it, phrases = DAMAGED[case]
    break_it(folder, manifest)
    require_told(damage(folder, World()), str(folder), *phrases)


@pytest.mark.parametrize("file", [FIRST, SECOND])
def test_every_byte_of_the_values_counts(file: str, folder: Path, manifest: Values) -> None:
    path = folder / file
    sound = path.read_bytes()
    start = 8 + int.from_bytes(sound[:8], "little")
    for place in {*range(start, len(sound), 3), len(sound) - 1}:
        flip(path, place)
        require_told(damage(folder, World()), file, CHANGED)
        path.write_bytes(sound)


def test_names_are_shown_on_one_line(folder: Path, manifest: Values) -> None:
    manifest["parameters"]["a\n\x1b[31m"] = manifest["parameters"].pop("a.weight")
    rewrite(folder, manifest)
    require_told(damage(folder, World()), FIRST, r"master of a\n\x1b[31m at 0")
    with pytest.raises(CheckpointError) as caught:
        read_parameter(folder, read_manifest(folder), "a\n\x1b[31m")
    require_told(caught.value, FIRST)


def test_a_parameter_that_no_memory_holds(folder: Path, manifest: Values) -> None:
    huge = 2**62
    manifest["parameters"]["a.weight"] = {
        "shape": [huge],
        "ranges": [{**ranges(manifest)[0], "numel": huge}],
    }
    rewrite(folder, manifest)
    read = read_manifest(folder)
    with pytest.raises(CheckpointError, match=r"a\.weight of shape"):
        read_parameter(folder, read, "a.weight")
    require_told(damage(folder, World()), "a.weight", f"{huge} values are wanted")


def test_which_folders_are_checkpoints(tmp_path: Path) -> None:
    for name in ("step-00000003", "step-00000010", ".step-00000011.tmp", "damaged-step-00000012"):
        write_checkpoint(tmp_path / name)
    (tmp_path / "step-00000020").mkdir()
    names = [path.name for path in folders.whole(tmp_path)]
    assert names == ["step-00000010", "step-00000003"]
