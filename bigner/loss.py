"""What a wrong label costs: cross-entropy, weighted, focal, smoothed.

The loss of a step is a weighted mean: the weights of all labels of the global batch are its
denominator, known before anything is computed. So world size, accumulation and the micro-batch
never change it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from bigner.config.schema import LossConfig
from bigner.data.heads import Head, Heads
from bigner.data.labels import IGNORED
from bigner.errors import DataError

Counts = npt.NDArray[np.int64]
Weights = npt.NDArray[np.float32]


def token_losses(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of each piece, in fp32; zero where the label is ``IGNORED``.

    Args:
        logits: ``[..., labels]``, any float dtype.
        labels: ``[...]``, ids or ``IGNORED``.

    Returns:
        ``[...]``.
    """
    flat = F.cross_entropy(
        logits.float().flatten(0, -2), labels.flatten(), ignore_index=IGNORED, reduction="none"
    )
    return flat.view_as(labels)


def weighted_losses(
    logits: torch.Tensor,
    labels: torch.Tensor,
    class_weights: torch.Tensor,
    *,
    focal_gamma: float = 0.0,
    label_smoothing: float = 0.0,
) -> torch.Tensor:
    """The loss of each piece, in fp32; zero where the label is ``IGNORED``.

    With w the weight of the label, q the target, (1 - smoothing) on the label and smoothing /
    labels on every one, and p the model's probabilities, it is
    ``w * sum over c of q[c] (1 - p[c]) ** gamma * -log p[c]``: without smoothing the focal loss of
    Lin et al. (2017), for gamma 0 too torch's ``CrossEntropyLoss`` with weights. (With smoothing
    torch weighs each c by its own weight, so that a label which never occurs can outweigh all.)

    Args:
        logits: ``[..., labels]``, any float dtype.
        labels: ``[...]``, ids or ``IGNORED``.
        class_weights: ``[labels]``, fp32.
        focal_gamma: 0 for cross-entropy.
        label_smoothing: at least 0 and below 1.

    Returns:
        ``[...]``.
    """
    log_p = F.log_softmax(logits.float(), dim=-1)
    costs = -log_p
    if focal_gamma:
        # p = 1 has no slope under a power below 1; this is beyond fp32's last digit of it.
        costs = costs * (-torch.expm1(log_p)).clamp(min=1e-8) ** focal_gamma
    known = labels.clamp(min=0)
    losses = costs.gather(-1, known.unsqueeze(-1)).squeeze(-1)
    if label_smoothing:
        losses = (1 - label_smoothing) * losses + label_smoothing * costs.mean(dim=-1)
    return (losses * class_weights[known]).masked_fill(labels == IGNORED, 0.0)


class TrainingLoss:
    """The loss of all heads of a model, as the config wants it.

    Args:
        config: the choices.
        heads: what the logits are.
        head_weights: what each head's mean loss is multiplied with.
        counts: of each head, how often each label occurs in the training data.
        device: where losses are computed.
    """

    def __init__(
        self,
        config: LossConfig,
        heads: Heads,
        head_weights: Sequence[float],
        counts: Sequence[Counts],
        device: torch.device,
    ) -> None:
        self._config = config
        self._heads = heads
        self._head_weights = head_weights
        _require_known_names(config.class_weights, heads)
        self.class_weights = [
            class_weights(config, head, seen) for head, seen in zip(heads, counts, strict=True)
        ]
        """Of each head, what each label counts."""
        self._on_device = [torch.from_numpy(each).to(device) for each in self.class_weights]

    def share(
        self, logits: torch.Tensor, labels: torch.Tensor, denominators: Sequence[float]
    ) -> torch.Tensor:
        """The share of some windows in the mean loss of their global batch.

        Args:
            logits: ``[pieces, labels of all heads]``.
            labels: ``[heads, pieces]``, ids within their head or ``IGNORED``.
            denominators: of each head, the summed weights of the labels of the global batch.
        """
        total = logits.new_zeros((), dtype=torch.float32)
        for i, head in enumerate(self._heads):
            losses = weighted_losses(
                logits[..., head.logits],
                labels[i],
                self._on_device[i],
                focal_gamma=self._config.focal_gamma,
                label_smoothing=self._config.label_smoothing,
            )
            # A batch without a label, all of it context, has the loss 0.
            total = total + self._head_weights[i] * losses.sum() / (denominators[i] or 1.0)
        return total


def class_weights(config: LossConfig, head: Head, counts: Counts) -> Weights:
    """What each label of a head counts in the mean.

    Inverse frequency is all labels / (kinds of labels x occurrences), scikit-learn's "balanced";
    the effective number of n occurrences is (1 - beta ** n) / (1 - beta) (Cui et al., 2019), and
    weights are its inverse, scaled to a mean of 1. A label that does not occur counts as one that
    occurs once.

    Args:
        config: the choices.
        head: whose labels.
        counts: ``[labels]``, labelled pieces of the training data.
    """
    tags = head.labels.tags
    seen = np.maximum(counts, 1).astype(np.float64)
    match config.class_weights:
        case "none":
            return np.ones(len(tags), dtype=np.float32)
        case "inverse_frequency":
            weights = seen.sum() / (len(tags) * seen)
        case "effective_number":
            beta = config.beta()
            # 1 - beta ** n, without what is lost where beta ** n is nearly 1.
            weights = (1 - beta) / -np.expm1(seen * np.log(beta))
            weights *= len(tags) / weights.sum()
        case explicit:
            weights = np.array([_explicit(explicit, tag, head) for tag in tags])
    return np.asarray(weights, dtype=np.float32)


def _explicit(weights: Mapping[str, float], tag: str, head: Head) -> float:
    if tag in weights or head.kind == "classes":
        return weights.get(tag, 1.0)
    return weights.get(tag[2:], 1.0)


def _require_known_names(weights: object, heads: Heads) -> None:
    if not isinstance(weights, Mapping):
        return
    known = {tag for head in heads for tag in head.labels.tags}
    known |= {name for head in heads for name in head.names}
    for name in weights:
        if name not in known:
            near = get_close_matches(str(name), known, n=1)
            advice = f"did you mean {near[0]}?" if near else f"there are {', '.join(sorted(known))}"
            raise DataError(
                f"loss.class_weights names {name!r}, which is no tag, type or class of the data; "
                f"{advice}"
            )
