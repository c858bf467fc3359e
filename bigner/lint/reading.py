"""Splits are read as training reads them; what is refused becomes findings."""

from __future__ import annotations

from dataclasses import dataclass

from bigner.config.schema import DataConfig, Split
from bigner.data.formats import Sentence, read_sentences, source_files
from bigner.errors import MOST_PROBLEMS, DataError
from bigner.lint.findings import Finding, Place, Places, counted

Sentences = dict[Split, list[Sentence]]


@dataclass(frozen=True, slots=True)
class Reading:
    """What could be read."""

    sentences: Sentences
    """Split -> its sentences, tags as in the files; without the splits that cannot be read."""
    findings: list[Finding]


def read(data: DataConfig) -> Reading:
    """Read every split that the config gives.

    A split with a mistake anywhere is left out of the other checks: half of it would have other
    counts, labels and repetitions than the whole.
    """
    reading = Reading({}, [])
    for split in data.splits():
        try:
            reading.sentences[split] = list(read_sentences(data, split))
        except (DataError, OSError) as error:
            reading.findings.extend(_refused(data, split, error))
        else:
            files = len({sentence.file for sentence in reading.sentences[split]})
            message = f"{split} can be read: {counted(files, 'file')}"
            reading.findings.append(Finding("reading", "pass", message))
    return reading


def _refused(data: DataConfig, split: Split, first: DataError | OSError) -> list[Finding]:
    """A finding for each file of a split that the reader refuses."""
    errors = _errors_of_files(data, split) or [first]
    findings = [_failure(split, error) for error in errors[:MOST_PROBLEMS]]
    if (more := len(errors) - MOST_PROBLEMS) > 0:
        message = f"{split}: {counted(more, 'more file')} cannot be read"
        findings.append(Finding("reading", "failure", message))
    return findings


def _errors_of_files(data: DataConfig, split: Split) -> list[DataError | OSError]:
    """What the reader says of each file by itself; nothing where that cannot be told."""
    try:
        files = source_files(data, split)
    except (DataError, OSError):
        return []
    errors: list[DataError | OSError] = []
    for file in files if len(files) > 1 else ():
        alone = data.model_copy(update={split: str(file)})
        try:
            for _ in read_sentences(alone, split):
                pass
        except (DataError, OSError) as error:
            errors.append(error)
    return errors


def _failure(split: Split, error: DataError | OSError) -> Finding:
    places = Places()
    if isinstance(error, DataError) and error.file is not None and error.line is not None:
        places.add(Place(error.file, error.line))
        # The place is told behind the message, as of every finding.
        message = str(error).removeprefix(f"{places.kept[0]}: ")
    else:
        message = str(error).removeprefix(f"data.{split}: ")
    return Finding("reading", "failure", f"{split} cannot be read: {message}", places)
