"""Lengths of texts: percentiles and a histogram."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from typing import Any, Literal

from bigner.config.schema import Split

PERCENTILES = (50, 90, 99, 100)
_SHORTEST_BUCKET = 8


@dataclass(frozen=True, slots=True)
class Lengths:
    """How long the texts of some splits are."""

    what: Literal["sentence", "document"]
    unit: Literal["pieces", "words"]
    """Pieces of the tokenizer, special tokens included; words where there is no tokenizer."""
    max_length: int
    """Pieces in a window."""
    of_splits: dict[Split, list[int]]
    windows: dict[Split, int] | None
    """Split -> windows that its texts become; None without a tokenizer."""

    def percentiles(self, split: Split) -> dict[int, int]:
        """Percent -> the length that this share of the texts of a split does not exceed."""
        ordered = sorted(self.of_splits[split])
        return {share: ordered[-(-share * len(ordered) // 100) - 1] for share in PERCENTILES}

    def too_long(self, split: Split) -> int:
        """Texts of a split that do not fit into one window; 0 where pieces are not known."""
        if self.unit == "words":
            return 0
        return sum(length > self.max_length for length in self.of_splits[split])

    def histogram(self) -> list[tuple[int, int, dict[Split, int]]]:
        """Buckets as (shortest, longest, texts of each split); one ends at ``max_length``."""
        longest = max((max(lengths) for lengths in self.of_splits.values()), default=0)
        ends = {_SHORTEST_BUCKET}
        while max(ends) < longest:
            ends.add(2 * max(ends))
        edges = sorted(ends | {self.max_length} if self.unit == "pieces" else ends)
        counts = {split: [0] * len(edges) for split in self.of_splits}
        for split, lengths in self.of_splits.items():
            for length in lengths:
                counts[split][bisect_left(edges, length)] += 1
        return [
            (start + 1, end, {split: counts[split][i] for split in counts})
            for i, (start, end) in enumerate(zip([0, *edges], edges, strict=False))
        ]

    def as_json(self) -> dict[str, Any]:
        """As ``--json`` writes it."""
        splits: dict[str, Any] = {}
        for split in self.of_splits:
            percentiles = self.percentiles(split)
            splits[split] = {
                **{f"p{share}": percentiles[share] for share in PERCENTILES[:-1]},
                "max": percentiles[100],
                "longer_than_window": self.too_long(split) if self.unit == "pieces" else None,
                "windows": None if self.windows is None else self.windows[split],
            }
        return {
            "what": self.what,
            "unit": self.unit,
            "max_length": self.max_length,
            "splits": splits,
            "histogram": [
                {"from": start, "to": end, "texts": texts} for start, end, texts in self.histogram()
            ],
        }
