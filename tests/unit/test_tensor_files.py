"""Files we write are safetensors to the library itself; ranges read from them are slices."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from bigner import tensor_files
from bigner.tensor_files import TensorEntry, checksum_of, read_range, write_tensors

DTYPES = [
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.int32,
    torch.int16,
    torch.int8,
    torch.uint8,
    torch.bool,
]


def write(path: Path, tensors: dict[str, torch.Tensor], **metadata: str) -> list[str]:
    entries = [TensorEntry(name, t.dtype, tuple(t.shape)) for name, t in tensors.items()]
    return write_tensors(path, entries, tensors.values(), metadata or None)


def values(shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Numbers that tell their place, as far as the dtype goes."""
    return torch.arange(math.prod(shape)).reshape(shape).to(dtype)


def raw(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes()


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces of four values."""
    monkeypatch.setattr(tensor_files, "_CHUNK_BYTES", 16)


# ---------------------------------------------------------------- writing


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_library_reads_what_we_write(
    dtype: torch.dtype, tmp_path: Path, small_chunks: None
) -> None:
    shapes = [(), (1,), (7,), (3, 5), (2, 3, 4), (0,), (3, 0, 2), (1, 1, 1, 9)]
    tensors = {f"tensor.{i}/é\n\"'": values(shape, dtype) for i, shape in enumerate(shapes)}
    path = tmp_path / "a.safetensors"
    checksums = write(path, tensors, format="pt", note="ž")
    loaded = load_file(path)
    assert loaded.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert loaded[name].dtype == dtype
        assert torch.equal(loaded[name], tensor), name
    assert checksums == [hashlib.sha256(raw(tensor)).hexdigest() for tensor in tensors.values()]
    with safe_open(path, "pt") as file:
        assert file.metadata() == {"format": "pt", "note": "ž"}
        assert all(torch.equal(file.get_tensor(name), tensors[name]) for name in file.keys())  # noqa: SIM118


def test_one_file_of_all_dtypes(tmp_path: Path) -> None:
    # Odd sizes: most tensors begin at no multiple of their width.
    tensors = {str(dtype): values((3,), dtype) for dtype in reversed(DTYPES)}
    path = tmp_path / "a.safetensors"
    checksums = write(path, tensors)
    loaded = load_file(path)
    for (name, tensor), checksum in zip(tensors.items(), checksums, strict=True):
        assert torch.equal(loaded[name], tensor)
        target = torch.empty(2, dtype=tensor.dtype)
        read_range(path, name, 1, target)
        assert torch.equal(target, tensor[1:])
        assert checksum_of(path, name, 3) == checksum


@pytest.mark.parametrize("length", range(1, 12))
def test_the_header_is_aligned_and_says_all(length: int, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    write(path, {"n" * length: torch.ones(2, 3), "b": torch.ones(5)})
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    assert size % 8 == 0
    header = json.loads(data[8 : 8 + size])
    assert header["b"] == {"dtype": "F32", "shape": [5], "data_offsets": [24, 44]}
    assert len(data) == 8 + size + 44


def test_no_tensor_at_all(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    assert write(path, {}) == []
    assert load_file(path) == {}


def test_views_are_written_as_their_values(tmp_path: Path) -> None:
    base = values((4, 6))
    tensors = {
        "transposed": base.t(),
        "strided": base[:, ::2],
        "expanded": base[:1].expand(3, 6),
        "parameter": torch.nn.Parameter(base[1:]),
        "negated": torch.view_as_complex(base.view(4, 3, 2)).conj().imag,
    }
    path = tmp_path / "a.safetensors"
    write(path, tensors)
    loaded = load_file(path)
    assert all(torch.equal(loaded[name], tensor) for name, tensor in tensors.items())


def test_too_few_tensors_are_no_file_of_that_header(tmp_path: Path) -> None:
    entries = [TensorEntry(name, torch.float32, (2,)) for name in "ab"]
    with pytest.raises(ValueError, match="zip"):
        write_tensors(tmp_path / "a", entries, [torch.ones(2)])
    with pytest.raises(AssertionError, match="a"):
        write_tensors(tmp_path / "a", entries, [torch.ones(3), torch.ones(2)])


def test_no_place_to_write(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        write(tmp_path / "absent" / "a", {"a": torch.ones(2)})


# ---------------------------------------------------------------- reading


SHAPES = st.lists(st.integers(0, 5), max_size=4).map(tuple)
FLOATS = st.sampled_from([torch.float32, torch.float16, torch.bfloat16, torch.float64])


@settings(max_examples=300, deadline=None)
@given(SHAPES, FLOATS, FLOATS, st.data())
def test_a_range_is_the_slice_of_the_flattened(
    tmp_path_factory: pytest.TempPathFactory,
    shape: tuple[int, ...],
    saved: torch.dtype,
    wanted: torch.dtype,
    data: st.DataObject,
) -> None:
    path = tmp_path_factory.getbasetemp() / "range.safetensors"
    whole = values(shape, saved)
    # By the library's own hand: the tensor wanted is not the first of the file.
    save_file({"a": torch.ones(3), "t": whole}, path)
    offset = data.draw(st.integers(0, whole.numel()))
    numel = data.draw(st.integers(0, whole.numel() - offset))
    chunk = data.draw(st.sampled_from([4, 8, 16, 40, 2**24]))
    target = torch.full((numel + 2,), -1.0, dtype=wanted)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tensor_files, "_CHUNK_BYTES", chunk)
        read_range(path, "t", offset, target[1:-1])
        checksum = checksum_of(path, "t", whole.numel())
    assert torch.equal(target[1:-1], whole.view(-1)[offset : offset + numel].to(wanted))
    # Nothing beside it was touched.
    assert target[0] == target[-1] == -1.0
    assert checksum == hashlib.sha256(raw(whole)).hexdigest()
    with pytest.raises(ValueError, match="values are wanted"):
        read_range(path, "t", offset, torch.empty(whole.numel() - offset + 1))


@pytest.mark.parametrize("shape", [(), (5,), (2, 3), (3, 0)])
@pytest.mark.parametrize("difference", [-1, 1])
def test_a_checksum_is_of_the_whole_tensor(
    shape: tuple[int, ...], difference: int, tmp_path: Path
) -> None:
    path = tmp_path / "a.safetensors"
    write(path, {"t": values(shape)})
    with pytest.raises(ValueError, match="values are wanted"):
        checksum_of(path, "t", math.prod(shape) + difference)


def test_halves_become_floats_exactly(tmp_path: Path, small_chunks: None) -> None:
    half = torch.randn(3, 7).half()
    path = tmp_path / "a.safetensors"
    write(path, {"t": half})
    target = torch.empty(21)
    read_range(path, "t", 0, target)
    assert torch.equal(target, half.float().view(-1))


def test_a_range_of_a_large_tensor_is_read_in_pieces(tmp_path: Path) -> None:
    whole = torch.arange(2**23, dtype=torch.int32).view(2**11, 2**12)
    path = tmp_path / "a.safetensors"
    write(path, {"t": whole})
    pieces = [p.clone() for p in tensor_files._ranges(path, "t", 5, 2**23 - 9)]
    assert len(pieces) == 2
    assert max(piece.nbytes for piece in pieces) <= tensor_files._CHUNK_BYTES
    assert torch.equal(torch.cat(pieces), whole.view(-1)[5:-4])


def test_what_is_not_there(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    write(path, {"t": torch.ones(8)})
    target = torch.empty(4)
    with pytest.raises(SafetensorError, match="absent"):
        read_range(path, "absent", 0, target)
    with pytest.raises(FileNotFoundError):
        read_range(tmp_path / "absent", "t", 0, target)
    whole = path.read_bytes()
    for length in (len(whole) - 1, len(whole) - 32, 20, 7, 0):
        path.write_bytes(whole[:length])
        with pytest.raises((SafetensorError, OSError, ValueError)):
            read_range(path, "t", 0, target)
        with pytest.raises((SafetensorError, OSError, ValueError)):
            checksum_of(path, "t", 8)
    path.write_bytes(whole + b"\0")
    with pytest.raises(SafetensorError):
        read_range(path, "t", 0, target)
