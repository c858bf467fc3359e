"""What DeepSpeed compiles with at its first start on processors."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path


def missing_build_tools() -> list[str]:
    """Names of the tools that are not there: ``ninja``, the C++ compiler.

    ninja lies beside the interpreter, which is not on PATH unless the environment is active; this
    puts it there.
    """
    if shutil.which("ninja") is None:
        scripts = str(Path(sys.executable).parent)
        os.environ["PATH"] = os.pathsep.join([scripts, os.environ.get("PATH", "")])
    compiler = os.environ.get("CXX", "c++")
    return [tool for tool in ("ninja", compiler) if not shutil.which(tool)]
