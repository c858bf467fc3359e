"""All that was found of a corpus, for people and as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from bigner.config.schema import Split
from bigner.errors import DataError, printable
from bigner.lint.findings import (
    MOST_PLACES,
    PLACES_SHOWN,
    Finding,
    Level,
    counted,
    percent,
    shortened,
)
from bigner.lint.labels import Labelled
from bigner.lint.lengths import PERCENTILES, Lengths
from bigner.lint.reading import Sentences
from bigner.log import table_box

_LABELS_SHOWN = 20
_BAR_WIDTH = 40
# What matters most stands last, where a terminal ends.
_ORDER: tuple[Level, ...] = ("pass", "skipped", "warning", "failure")
_STYLES: dict[Level, str] = {
    "pass": "green",
    "skipped": "dim",
    "warning": "yellow",
    "failure": "bold red",
}


@dataclass(frozen=True, slots=True)
class SplitCounts:
    """What there is of a split, whatever its labels."""

    sentences: int
    documents: int
    words: int

    def as_json(self) -> dict[str, int]:
        """As ``--json`` writes it."""
        return {"sentences": self.sentences, "documents": self.documents, "words": self.words}


@dataclass(frozen=True, slots=True)
class Report:
    """The outcome of all checks."""

    splits: dict[Split, SplitCounts | None]
    """All splits of the config; None for one that cannot be read."""
    heads: list[Labelled]
    """Without those whose labels are none."""
    lengths: Lengths | None
    """None where no split can be read."""
    findings: list[Finding]

    def number(self, level: Level) -> int:
        """Findings of a level."""
        return Counter(finding.level for finding in self.findings)[level]

    @property
    def totals(self) -> str:
        """How many findings of each level there are."""
        return ", ".join(
            [
                counted(self.number("failure"), "failure"),
                counted(self.number("warning"), "warning"),
                f"{self.number('skipped')} skipped",
                f"{self.number('pass')} passed",
            ]
        )

    def require_no_failure(self) -> None:
        """Refuse data that training would refuse, or that would make its scores meaningless.

        Raises:
            DataError: there is a failure.
        """
        if failed := [f.check for f in self.findings if f.level == "failure"]:
            checks = ", ".join(dict.fromkeys(failed))
            raise DataError(
                f"the data has {counted(len(failed), 'failure')} ({checks}); the report says where"
            )

    def as_json(self) -> dict[str, Any]:
        """All that is known, places up to a limit that it names."""
        return {
            "splits": {
                split: None if counts is None else counts.as_json()
                for split, counts in self.splits.items()
            },
            "heads": {head.head: head.as_json() for head in self.heads},
            "lengths": None if self.lengths is None else self.lengths.as_json(),
            "totals": {level: self.number(level) for level in _ORDER},
            "most_places": MOST_PLACES,
            "findings": [finding.as_json() for finding in self.findings],
        }

    def show(self) -> None:
        """Print it on standard output."""
        output = Console(highlight=False, soft_wrap=True, markup=False)
        output.print(_table_of_counts(self))
        if self.lengths is not None and self.lengths.of_splits:
            output.print(_table_of_lengths(self.lengths))
            output.print(_histogram(self.lengths))
            output.print()
        several_heads = len({finding.head for finding in self.findings} - {None}) > 1
        for level in _ORDER:
            for finding in self.findings:
                if finding.level == level:
                    output.print(_line(finding, several_heads))
        output.print(Text(f"\n{self.totals}"))


def split_counts(sentences: Sentences) -> dict[Split, SplitCounts]:
    """Counts of the splits that could be read."""
    return {
        split: SplitCounts(
            len(of_split),
            # Numbered from 0 without a gap.
            of_split[-1].document + 1,
            sum(len(sentence.words) for sentence in of_split),
        )
        for split, of_split in sentences.items()
    }


# ---------------------------------------------------------------- for people


def _line(finding: Finding, several_heads: bool) -> Text:
    name = f"{finding.head}: {finding.check}" if several_heads and finding.head else finding.check
    text = f"{name}: {printable(finding.message)}"
    # Where something passed, nobody needs to look.
    if finding.places and finding.level != "pass":
        shown = [str(place) for place in finding.places.kept[:PLACES_SHOWN]]
        more = len(finding.places) - len(shown)
        text += f": {'; '.join(shown)}{f' and {more:,} more' if more else ''}"
    line = Text(f"{finding.level:<8} ", style=_STYLES[finding.level])
    return line.append(text, style="not bold default")


def _table_of_counts(report: Report) -> Table:
    table = _table("the data", list(report.splits))
    whole: tuple[tuple[str, Callable[[SplitCounts], int]], ...] = (
        ("sentences", lambda counts: counts.sentences),
        ("documents", lambda counts: counts.documents),
        ("words", lambda counts: counts.words),
    )
    for name, number in whole:
        _row(table, name, ["-" if c is None else f"{number(c):,}" for c in report.splits.values()])
    for head in report.heads:
        table.add_section()
        _add_head(table, head, list(report.splits), named=len(report.heads) > 1)
    return table


def _add_head(table: Table, head: Labelled, splits: list[Split], *, named: bool) -> None:
    prefix = f"{head.head}: " if named else ""
    counts = [head.counts.get(split) for split in splits]
    if head.kind == "tags":
        sums = ["-" if of_split is None else f"{sum(of_split.values()):,}" for of_split in counts]
        _row(table, f"{prefix}entities", sums)
    else:
        different = ["-" if of_split is None else f"{len(of_split):,}" for of_split in counts]
        _row(table, f"{prefix}classes", different)
    for name in head.names[:_LABELS_SHOWN]:
        cells = ["-" if of_split is None else f"{of_split.get(name, 0):,}" for of_split in counts]
        _row(table, f"  {name}", cells)
    if (more := len(head.names) - _LABELS_SHOWN) > 0:
        _row(table, f"  and {more:,} more", [""] * len(splits))
    if head.kind == "tags":
        shares = [
            percent(head.tags[split]["O"], head.words(split)) if split in head.tags else "-"
            for split in splits
        ]
        _row(table, f"{prefix}words with O", shares)


def _table_of_lengths(lengths: Lengths) -> Table:
    table = _table(f"{lengths.unit} in a {lengths.what}", list(lengths.of_splits))
    percentiles = {split: lengths.percentiles(split) for split in lengths.of_splits}
    for share in PERCENTILES:
        name = "the longest" if share == 100 else f"{share} % have at most"
        _row(table, name, [f"{of_split[share]:,}" for of_split in percentiles.values()])
    if lengths.windows is not None:
        table.add_section()
        longer = [f"{lengths.too_long(split):,}" for split in lengths.of_splits]
        _row(table, f"longer than data.max_length {lengths.max_length}", longer)
        _row(table, "windows", [f"{windows:,}" for windows in lengths.windows.values()])
    return table


def _histogram(lengths: Lengths) -> Text:
    """A bar for each bucket, of all splits together."""
    buckets = [(start, end, sum(texts.values())) for start, end, texts in lengths.histogram()]
    while not buckets[0][2]:
        buckets.pop(0)
    most = max(texts for _, _, texts in buckets)
    names = [f"{start:,}-{end:,}" for start, end, _ in buckets]
    width, number_width = max(map(len, names)), len(f"{most:,}")
    lines = []
    for name, (_, end, texts) in zip(names, buckets, strict=True):
        # What there is shall be seen, however little of it.
        bar = "#" * -(-_BAR_WIDTH * texts // most)
        lines.append(f"{name:>{width}}  {texts:>{number_width},}  {bar}".rstrip())
        if lengths.unit == "pieces" and end == lengths.max_length:
            lines.append(f"{'':>{width}}  {'-' * number_width}  data.max_length")
    return Text("\n".join(lines))


def _table(title: str, splits: list[Split]) -> Table:
    table = Table(title=title, title_justify="left", title_style="", box=table_box())
    table.add_column("")
    for split in splits:
        table.add_column(split, justify="right")
    return table


def _row(table: Table, name: str, cells: list[str]) -> None:
    # As Text: in a string, [/N] would be markup, and it is a class of some corpora.
    table.add_row(Text(printable(shortened(name))), *cells)
