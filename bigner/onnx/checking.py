"""Whether onnxruntime predicts with a graph what torch does with the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import onnxruntime
import torch
from transformers import PreTrainedModel

from bigner.data.heads import Heads
from bigner.errors import RunError
from bigner.export import largest_difference
from bigner.onnx.graph import GRAPH, LOGITS
from bigner.onnx.samples import Batch

TOLERANCE = 1e-3
"""What logits may differ by; they are of order one, after a dozen and more layers of fp32."""
_TIE = 1e-4
"""Labels whose logits are as close as this in torch are told apart by rounding alone."""


@dataclass(frozen=True, slots=True)
class Check:
    """How the graph in onnxruntime compares with the model in torch."""

    batches: int
    windows: int
    shortest: int
    """Pieces of the shortest window."""
    longest: int
    pieces: int
    differing: int
    """Pieces that are given another label, by any head."""
    largest_difference: float
    """Of a logit."""

    @property
    def is_sound(self) -> bool:
        """Whether the graph predicts what the model does."""
        # Written so that a difference that is no number fails, too.
        return self.differing == 0 and self.largest_difference <= TOLERANCE


@torch.no_grad()
def torch_logits(model: PreTrainedModel, batches: Sequence[Batch]) -> list[torch.Tensor]:
    """``[windows, pieces, labels]`` of each batch."""
    model.eval()
    return [model(**batch.inputs).logits for batch in batches]


def compare(
    folder: Path, batches: Sequence[Batch], expected: Sequence[torch.Tensor], heads: Heads
) -> Check:
    """Run the graph in a folder.

    Args:
        folder: the folder.
        batches: what is computed.
        expected: what torch made of them.
        heads: of the model.

    Raises:
        RunError: onnxruntime cannot load or run it.
    """
    found = _onnx_logits(folder / GRAPH, batches)
    lengths = torch.cat([batch.real.sum(1) for batch in batches])
    real = [batch.real for batch in batches]
    pairs = [(a[there], b[there]) for a, b, there in zip(found, expected, real, strict=True)]
    return Check(
        batches=len(batches),
        windows=len(lengths),
        shortest=int(lengths.min()),
        longest=int(lengths.max()),
        pieces=int(lengths.sum()),
        differing=sum(_differing(a, b, heads) for a, b in pairs),
        largest_difference=max(largest_difference(a, b) for a, b in pairs),
    )


def _onnx_logits(graph: Path, batches: Sequence[Batch]) -> list[torch.Tensor]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        outputs = []
        for batch in batches:
            inputs = {name: values.numpy() for name, values in batch.inputs.items()}
            outputs += session.run([LOGITS], inputs)
    except Exception as error:
        # It raises classes of its own for each of its states.
        reason = str(error).strip().partition("\n")[0]
        raise RunError(f"onnxruntime cannot compute what was written: {reason}") from None
    return [torch.from_numpy(output) for output in outputs]


def _differing(found: torch.Tensor, expected: torch.Tensor, heads: Heads) -> int:
    """Pieces that some head gives another label, unless that is as good as the best."""
    other = torch.zeros(len(found), dtype=torch.bool)
    for head in heads:
        logits = expected[:, head.logits]
        chosen = found[:, head.logits].argmax(-1, keepdim=True)
        other |= logits.max(-1).values - logits.gather(-1, chosen).squeeze(-1) > _TIE
    return int(other.sum())
