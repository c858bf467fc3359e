"""TensorBoard: event files in the run's folder."""

from __future__ import annotations

from collections.abc import Sequence

from torch.utils.tensorboard.writer import SummaryWriter

from bigner.tracking.base import About, Outcome, Point


class TensorBoard:
    """The curves of a run, in ``run_dir/tensorboard``.

    Steps that an earlier attempt logged and that are done again are purged.
    """

    def __init__(self, about: About) -> None:
        folder = str(about.run_dir.tensorboard)
        self._writer = SummaryWriter(folder, purge_step=about.first_step + 1)

    def log(self, points: Sequence[Point]) -> None:
        """Add points to the curves."""
        for point in points:
            for name, value in point.numbers.items():
                self._writer.add_scalar(name, value, point.step, walltime=point.seconds)

    def close(self, outcome: Outcome) -> None:  # noqa: ARG002
        """Write what is left; a board has no word for how a run ended."""
        self._writer.close()
