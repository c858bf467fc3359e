"""What a forward keeps for the backward, counted tensor by tensor.

Attention is a kernel that keeps query, key, value, what it gave, and one fp32 number for each piece
and attention head: flash attention, or torch's memory-efficient one in fp32. None keeps the weights
of pieces for pieces, so all of this grows with the pieces and not with their square. Widths are in
values, per piece of a micro-batch.
"""

from __future__ import annotations

from dataclasses import dataclass

from bigner.planning.job import Job

_MASK = 1
"""Bytes of a value of a dropout mask on a GPU."""
_STATISTICS = 8
"""Bytes of mean and deviation of a norm, per piece."""


@dataclass(frozen=True, slots=True)
class Activations:
    """Bytes of a micro-batch on one rank."""

    embeddings: int
    layer: int
    """Kept of each layer from its forward to its backward."""
    inside: int
    """Of the one layer that is recomputed in the backward, what the others do not keep."""
    head: int
    """Kept above the layers, logits and their loss included."""
    moving: int
    """Gradients of activations, on their way through a layer."""


def activations(job: Job) -> Activations:
    """What one micro-batch keeps."""
    shape, tokens = job.shape, job.tokens
    hidden, value = shape.hidden_size, job.value_bytes
    mask = _MASK * hidden if shape.dropout else 0
    whole = _layer(job)
    kept = _kept(job, whole)
    embeddings = 3 * 8 + 2 * hidden * value + mask + _STATISTICS
    logits = shape.num_labels * (value + 3 * 4)
    head = hidden * value + mask + logits
    moving = hidden * 2 * value + shape.intermediate_size * value * (2 if shape.is_gated else 1)
    return Activations(
        embeddings=tokens * embeddings,
        layer=tokens * kept,
        inside=tokens * (whole - kept),
        head=tokens * head,
        moving=tokens * moving,
    )


def _layer(job: Job) -> int:
    """Bytes per piece that a layer keeps if nothing of it is recomputed."""
    shape, value = job.shape, job.value_bytes
    hidden, middle = shape.hidden_size, shape.intermediate_size
    attention = 4 * hidden * value + 4 * shape.num_heads
    norms = 2 * (hidden * value + _STATISTICS)
    # What goes into the projections of query, key and value, and into the middle.
    inputs = 2 * hidden * value
    masks = 2 * hidden * _MASK if shape.dropout else 0
    if shape.is_gated:
        # The rotated query and key lie beside the plain ones, which value keeps.
        attention += 2 * hidden * value
        return attention + norms + inputs + masks // 2 + 4 * middle * value
    return attention + norms + inputs + masks + 2 * middle * value


def _kept(job: Job, whole: int) -> int:
    """Bytes per piece that a layer keeps under the run's checkpointing."""
    shape, value = job.shape, job.value_bytes
    entered = shape.hidden_size * value
    if not job.checkpointing:
        return whole
    if job.checkpointing is True:
        return entered
    middle = shape.intermediate_size * (2 if shape.is_gated else 1)
    products = (6 * shape.hidden_size + middle) * value + 4 * shape.num_heads
    return min(whole, entered + products)


def predicting_bytes(job: Job) -> int:
    """The most that a forward without a graph holds at once."""
    shape, value = job.shape, job.value_bytes
    hidden = shape.hidden_size
    middle = shape.intermediate_size * (3 if shape.is_gated else 2)
    widest = value * max(2 * hidden + middle, 6 * hidden)
    return job.evaluation_tokens * max(widest, shape.num_labels * (value + 8))
