"""Lists of different lengths as flat arrays."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]


def ranges(starts: Ints, sizes: Ints) -> Ints:
    """``start, start + 1, ...`` of every range, one range after the other.

    Args:
        starts: ``[ranges]``.
        sizes: ``[ranges]``, numbers in each range.
    """
    ends = np.cumsum(sizes)
    total = int(ends[-1]) if len(ends) else 0
    return np.repeat(starts - ends + sizes, sizes) + np.arange(total)
