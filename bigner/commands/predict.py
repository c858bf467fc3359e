"""``bigner predict``: the entities of texts that nobody has labelled."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path

from bigner import __version__
from bigner.distributed import World
from bigner.log import inform, warn
from bigner.prediction.chunks import chunks_of
from bigner.prediction.growing_file import GrowingFile, StandardOutput
from bigner.prediction.layouts import LAYOUTS, Layout
from bigner.prediction.options import OutputFormat, TaggerOptions
from bigner.prediction.sources import STANDARD, InputText, Source, Survey
from bigner.prediction.tagger import Tagger
from bigner.strategies.precision import slow_precision_warning

_SECONDS_BETWEEN_LINES = 30.0


@dataclass(frozen=True, slots=True)
class Counts:
    """What was done by this command, and not by an earlier one that it went on with."""

    texts: int = 0
    words: int = 0
    entities: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            self.texts + other.texts, self.words + other.words, self.entities + other.entities
        )


def predict(
    source: Source,
    output: Path,
    world: World,
    *,
    model_dir: Path,
    options: TaggerOptions,
    output_format: OutputFormat = "jsonl",
    survey: Survey | None,
) -> Counts:
    """Tag all texts of a source; collective.

    Each rank has the whole model and takes a part of each chunk of texts; rank 0 writes them, in
    their order.

    Args:
        source: the texts.
        output: the file that is written, or ``STANDARD``.
        world: all ranks.
        model_dir: a transformers folder whose labels are IOB2 tags, or those of its heads.
        options: how the model is asked.
        output_format: of the output.
        survey: of the source, on rank 0.

    Returns:
        how much this command did; on rank 0.

    Raises:
        BignerError: whatever a user can mend; see ``bigner.errors``.
    """
    # Of standard input only one process can read.
    source = replace(source, standard_input=world.share_object(source.standard_input))
    target: GrowingFile | StandardOutput = StandardOutput()
    if output != STANDARD and world.is_main:
        assert survey is not None
        target = GrowingFile(output, _belongs_to(survey, model_dir, options, output_format))
    with target:
        world.main_first(target.find)
        done = world.share_object(target.texts)
        tagger = Tagger(model_dir, options, world.device)
        if world.is_main:
            _tell(tagger, world, done)
        return _Prediction(tagger, world, target, LAYOUTS[output_format], survey).run(source, done)


def _belongs_to(
    survey: Survey, model_dir: Path, options: TaggerOptions, output_format: OutputFormat
) -> dict[str, str]:
    """All that decides what an output holds."""
    files = sorted(path for path in model_dir.rglob("*") if path.is_file())
    facts = [
        (str(path.relative_to(model_dir)), path.stat().st_size, path.stat().st_mtime_ns)
        for path in files
    ]
    of_speed = ("batch_tokens", "trust_remote_code")
    chosen = {name: value for name, value in asdict(options).items() if name not in of_speed}
    return {
        "input": survey.digest,
        "model": hashlib.sha256(repr(facts).encode()).hexdigest(),
        "options": repr((output_format, chosen)),
        "version of bigner": __version__,
    }


def _tell(tagger: Tagger, world: World, done: int) -> None:
    if done:
        inform(f"going on behind the {done:,} texts that the output holds")
    if tagger.padding_note:
        inform(tagger.padding_note)
    if slow := slow_precision_warning(tagger.options.precision, world.device):
        warn(slow)


class _Prediction:
    """One run of it.

    Args:
        tagger: the model of this rank.
        world: all ranks.
        target: what rank 0 writes to.
        layout: how.
        survey: of all texts, on rank 0.
    """

    def __init__(
        self,
        tagger: Tagger,
        world: World,
        target: GrowingFile | StandardOutput,
        layout: Layout,
        survey: Survey | None,
    ) -> None:
        self._tagger = tagger
        self._world = world
        self._target = target
        self._layout = layout
        self._survey = survey
        self._counts = Counts()
        self._started = self._told = time.perf_counter()

    def run(self, source: Source, done: int) -> Counts:
        """Tag the texts behind those that are done, chunk by chunk."""
        self._world.main_first(self._begin)
        left = islice(source.texts(), done, None)
        for chunk in chunks_of(left, lambda one: len(one.text), times=self._world.size):
            self._tag(chunk)
        self._world.main_first(lambda: self._target.finish(self._layout.end))
        if self._world.is_main:
            inform(self._progress("done: "))
        return self._counts

    def _begin(self) -> None:
        if self._target.is_empty:
            self._target.append([self._layout.begin], 0)

    def _tag(self, chunk: Sequence[InputText]) -> None:
        """Tag a chunk with the other ranks, and write it."""
        own = dealt([len(one.text) for one in chunk], self._world)
        texts = [chunk[place].split(self._tagger.options.words) for place in own]
        tagged = self._tagger.tag(texts)
        lines = [
            self._layout.text(chunk[place], text, found)
            for place, text, found in zip(own, texts, tagged, strict=True)
        ]
        counts = Counts(
            len(own),
            sum(len(text.words) for text in texts),
            sum(len(one.entities) for one in tagged),
        )
        gathered = self._world.gather_objects((own, lines, counts))
        self._world.main_first(lambda: self._write(gathered or []))

    def _write(self, gathered: Sequence[tuple[list[int], list[str], Counts]]) -> None:
        placed = {
            place: line
            for own, lines, _ in gathered
            for place, line in zip(own, lines, strict=True)
        }
        self._target.append([placed[place] for place in range(len(placed))], len(placed))
        for *_, counts in gathered:
            self._counts += counts
        if time.perf_counter() - self._told > _SECONDS_BETWEEN_LINES:
            inform(self._progress(""))
            self._told = time.perf_counter()

    def _progress(self, what: str) -> str:
        assert self._survey is not None
        seconds = time.perf_counter() - self._started
        return (
            f"{what}{self._target.texts:,} of {self._survey.texts:,} texts; "
            f"{self._counts.entities:,} entities in {self._counts.words:,} words "
            f"({self._counts.words / seconds:,.0f} words a second)"
        )


def dealt(lengths: Sequence[int], world: World) -> list[int]:
    """The places of this rank's texts, of which each rank has as much as another, about."""
    order = sorted(range(len(lengths)), key=lambda place: -lengths[place])
    return order[world.rank :: world.size]
