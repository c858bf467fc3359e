"""``bigner onnx MODEL DIR``: an exported model as an ONNX graph, compared with the model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from bigner import collector
from bigner.config.checks import is_installed, require_new_folder
from bigner.errors import UserError
from bigner.run_dir import exported_model

if TYPE_CHECKING:
    from bigner.onnx.checking import Check

_NEEDED = ("onnx", "onnxscript", "onnxruntime")


def onnx(folder: Path, output: Path, *, trust_remote_code: bool = False) -> Check:
    """Write the graph, and compare what onnxruntime predicts with it.

    Args:
        folder: an exported model, or the folder of a finished run, whose best weights are meant.
        output: where it goes; nothing is there yet.
        trust_remote_code: run Python code that lies with the model.

    Raises:
        UserError: a package is missing, there is no model, or no place for the graph.
        RunError: the graph cannot be written, or predicts something else; nothing is left of it.
    """
    if missing := [package for package in _NEEDED if not is_installed(package)]:
        raise UserError(f"{' and '.join(missing)} must be installed: pip install 'bigner[onnx]'")
    model = exported_model(folder)
    require_new_folder(output)
    # Here, for it takes seconds, and what is wrong with the above shall be told at once.
    with collector.loading():
        from bigner.onnx.write import write_onnx  # noqa: PLC0415

    return write_onnx(model, output, trust_remote_code=trust_remote_code)
