"""The data check: what is wrong or odd in a corpus, before anything is trained on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from bigner.config.schema import DataConfig, RunConfig
from bigner.data.labels import Scheme
from bigner.errors import ModelError
from bigner.lint import labels, sentences, words
from bigner.lint.findings import Finding
from bigner.lint.lengths import Lengths
from bigner.lint.reading import Sentences, read
from bigner.lint.report import Report, split_counts


def lint(config: RunConfig) -> Report:
    """Read the splits of a run and check them; writes nothing.

    Returns:
        what was found, in the order of the checks.
    """
    data = config.data
    reading = read(data)
    heads, of_heads = _all_heads(data, reading.sentences)
    schemes = dict.fromkeys(data.resolved_heads()) | {head.head: head.scheme for head in heads}
    found = [
        *reading.findings,
        *_sentence_findings(data, reading.sentences, schemes),
        *of_heads,
    ]
    lengths, of_tokenizer = _tokenizer_findings(config, reading.sentences)
    found += of_tokenizer
    counts = split_counts(reading.sentences)
    return Report({split: counts.get(split) for split in data.splits()}, heads, lengths, found)


def _sentence_findings(
    data: DataConfig, read_splits: Sentences, schemes: Mapping[str, Scheme | None]
) -> list[Finding]:
    """What can be told without a tokenizer, and of all heads together."""
    if not read_splits:
        return []
    tag_heads = _tag_heads(data)
    groups = sentences.repeated(read_splits)
    found = [
        *sentences.duplicates(groups, read_splits),
        *sentences.leaks(groups, read_splits),
        sentences.contradictions(groups, schemes),
        *sentences.lengths(read_splits),
        *sentences.documents(data, read_splits),
        words.white_space(read_splits, tag_heads),
        words.characters(read_splits, tag_heads),
    ]
    if data.format == "spans":
        found += words.entity_edges(data, list(read_splits))
    return found


def _all_heads(
    data: DataConfig, read_splits: Sentences
) -> tuple[list[labels.Labelled], list[Finding]]:
    """The heads that have labels, and what can be told of each."""
    heads, found = [], []
    for column in labels.columns(data, read_splits) if read_splits else ():
        head, of_head = _head_findings(column)
        found += of_head
        if head is not None:
            heads.append(head)
    return heads, found


def _head_findings(column: labels.Column) -> tuple[labels.Labelled | None, list[Finding]]:
    """What can be told of one head's labels."""
    head, found = labels.labelled(column)
    if head is None:
        why = "not looked at while there are tags that are none"
        found.append(Finding("labels", "skipped", why))
    else:
        found += [
            labels.unlisted(head),
            labels.look_alikes(head),
            labels.empty_splits(head),
            labels.unlearnable(head),
            *labels.unscored(head),
            labels.rare(head),
            labels.balance(head),
            *labels.shifted(head),
        ]
    return head, [replace(finding, head=column.head) for finding in found]


def _tokenizer_findings(
    config: RunConfig, read_splits: Sentences
) -> tuple[Lengths | None, list[Finding]]:
    """What the tokenizer tells, or why it tells nothing, with lengths in words instead."""
    if not read_splits:
        return None, []
    # Here, for transformers takes seconds to load, and torch with it.
    from bigner.lint import pieces  # noqa: PLC0415
    from bigner.modeling import load_tokenizer  # noqa: PLC0415

    data = config.data
    try:
        tokenizer = load_tokenizer(config.model)
    except ModelError as error:
        in_words = {
            split: [len(s.words) for s in of_split] for split, of_split in read_splits.items()
        }
        why = f"{error}; windows, words without pieces and unknown words are not looked at"
        lengths = Lengths("sentence", "words", data.max_length, in_words, None)
        return lengths, [Finding("tokenizer", "skipped", why)]
    measured = pieces.measure(tokenizer, data, read_splits, _tag_heads(data))
    return measured.lengths, pieces.findings(measured)


def _tag_heads(data: DataConfig) -> list[int]:
    """Places of the heads of entities among a sentence's tags."""
    heads = data.resolved_heads().values()
    return [place for place, head in enumerate(heads) if head.kind == "tags"]
