"""What collectives send in an optimizer step."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Moved:
    """What the collectives of one kind send in an optimizer step."""

    num_bytes: int
    """Of one rank."""
    calls: int
    ranks: int
    """Of a ring; each call goes around it once."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """What a rank sends in one optimizer step."""

    gathered_forward: Moved
    gathered_backward: Moved
    """Under ZeRO's stages 1 and 2, what is gathered after the update."""
    reduced: Moved
    replicated: Moved
    """The all-reduce between copies of the model."""
    last_reduced: Moved
    """Of ``reduced``, the table's in the last micro-batch, with nothing to compute beside it."""

    def in_gb(self) -> dict[str, float]:
        """GB of each kind."""
        kinds = ("gathered_forward", "gathered_backward", "reduced", "replicated")
        return {kind: round(getattr(self, kind).num_bytes / 1e9, 3) for kind in kinds}


def ring(num_bytes: float, calls: int, ranks: int, times: int) -> Moved:
    """A gather or reduction of so many bytes in all, so many times."""
    sent = num_bytes * times * (ranks - 1) / ranks
    return Moved(round(sent), calls * times if ranks > 1 else 0, ranks)


NOTHING = Moved(0, 0, 1)
