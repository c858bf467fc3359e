"""What DeepSpeed compiles on its own: whether that is done already, and whether it can be.

Nothing of it is needed on GPUs: the optimizer is torch's, offloaded or not.
"""

from __future__ import annotations

import os
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from bigner.build_tools import missing_build_tools
from bigner.doctor.findings import Finding, ok

_COLLECTIVES = "deepspeed_shm_comm"
_COMPILED = "DeepSpeed CPU collectives"
_CUDA = "CUDA toolchain"


def look(*, has_gpus: bool) -> Iterator[Finding]:
    """What is compiled, and the tools."""
    has_headers = Path(sysconfig.get_path("include"), "Python.h").is_file()
    yield collectives(compiled_at(_extensions()), lacking(missing_build_tools(), has_headers))
    yield cuda_toolchain(cuda_home(), has_gpus=has_gpus)


def lacking(tools: list[str], has_headers: bool) -> list[str]:
    """Everything that compiling wants and that is not there."""
    return tools if has_headers else [*tools, "Python.h"]


def compiled_at(extensions: Path) -> Path | None:
    """The compiled collectives, if they are there."""
    # A folder for each Python and kind of torch, unless the variable names the folder itself.
    for pattern in (f"{_COLLECTIVES}/*.so", f"*/{_COLLECTIVES}/*.so"):
        for path in extensions.glob(pattern):
            return path
    return None


def collectives(compiled: Path | None, missing: list[str]) -> Finding:
    """The collectives of DeepSpeed on processors.

    Args:
        compiled: where they lie; None before the first start.
        missing: what compiling wants and does not find.
    """
    if missing:
        # ninja is asked even where there is nothing left to be done.
        return Finding(
            _COMPILED,
            "missing",
            f"no {' and no '.join(missing)} to compile them with",
            "no strategy zero on processors",
            "apt-get install g++ python3-dev; pip install ninja",
        )
    if compiled is None:
        return ok(_COMPILED, "will be compiled at the first start")
    return ok(_COMPILED, f"compiled in {compiled.parent}")


def cuda_toolchain(home: Path | None, *, has_gpus: bool) -> Finding:
    """nvcc, which DeepSpeed's own kernels would be compiled with."""
    if home is not None:
        return ok(_CUDA, f"nvcc in {home}")
    without = "no nvcc"
    if not has_gpus:
        return ok(_CUDA, f"{without}, and no GPU to compile for")
    return Finding(
        _CUDA,
        "missing",
        without,
        "DeepSpeed compiles no kernels of its own; bigner uses none",
        "a CUDA toolkit of torch's version, with CUDA_HOME naming it",
    )


def cuda_home() -> Path | None:
    """The folder of the CUDA toolkit, found as torch finds it."""
    from torch.utils.cpp_extension import CUDA_HOME  # noqa: PLC0415

    home = Path(CUDA_HOME) if CUDA_HOME else None
    return home if home is not None and (home / "bin" / "nvcc").is_file() else None


def _extensions() -> Path:
    named = os.environ.get("TORCH_EXTENSIONS_DIR")
    return Path(named) if named else Path.home() / ".cache" / "torch_extensions"
