"""``data``: which corpus, in which format, and how its sentences become windows."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from bigner.config.schema.base import SPLITS, FilePath, Section, Split, default_cache_root

TagScheme = Literal["auto", "iob2", "iob1", "bioes", "io"]
HeadName = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,63}$")]
ONLY_HEAD = "tags"
"""Name of the head where the config names none."""


class Columns(Section):
    """Where the words and the tags stand."""

    words: int | str
    """Column of the words: a number from 0 (negative from the end), or a name."""

    tags: int | str | None = None
    """Column of the tags, in the same form; left out where `data.heads` names the columns."""


class HeadConfig(Section):
    """One thing that is told of every word: a linear layer of its own on the shared encoder."""

    column: int | str
    """Column of its labels: a number from 0 (negative from the end), or a name."""

    kind: Literal["tags", "classes"] = "tags"
    """`tags` for entities in a tag scheme, scored as spans; `classes` for one class a word, such
    as parts of speech, scored by accuracy and macro F1."""

    weight: float = Field(default=1.0, gt=0.0)
    """What its mean loss is multiplied with in the sum over all heads."""

    scheme: TagScheme = "auto"
    """For `tags`: tag scheme of the files."""

    labels: tuple[str, ...] | None = Field(default=None, min_length=1, strict=False)
    """Entity types or classes, in the order of their ids; by default all of all splits: types
    sorted, classes by how often they occur."""

    @model_validator(mode="after")
    def _labels_suit_the_kind(self) -> HeadConfig:
        _check_labels(self.labels, "labels", self.kind)
        if self.kind == "classes" and self.scheme != "auto":
            raise ValueError(f"classes have no tag scheme; take out scheme {self.scheme!r}")
        return self


def _check_labels(labels: tuple[str, ...] | None, field: str, kind: str) -> None:
    for label in labels or ():
        if not label:
            raise ValueError(f"{field} has an empty name; take it out")
        if kind == "tags" and (label == "O" or label[:2] in _TAG_PREFIXES):
            raise ValueError(
                f"{field} lists entity types such as PER, and got {label!r}; leave out O and the "
                f"prefixes"
            )
    if labels and len(set(labels)) != len(labels):
        raise ValueError(f"{field} names one twice; list each once")


class Fold(Section):
    """One of several equal parts of the training data, by whole documents."""

    number: int = Field(ge=1)
    """Which part, counted from 1."""

    of: int = Field(ge=2, le=1000)
    """How many parts there are."""

    @model_validator(mode="after")
    def _number_is_one_of_them(self) -> Fold:
        if self.number > self.of:
            raise ValueError(
                f"data.fold.number is {self.number} and data.fold.of is {self.of}; set number to "
                f"{self.of} or less"
            )
        return self


_TAG_PREFIXES = ("B-", "I-", "E-", "S-", "L-", "U-")
_DEFAULT_COLUMNS: dict[str, tuple[int | str, int | str]] = {
    "columns": (0, -1),
    "jsonl": ("words", "tags"),
    "hub": ("tokens", "ner_tags"),
    "spans": ("text", "entities"),
}


class DataConfig(Section):
    """Which corpus is read, and how its sentences become windows of sub-words."""

    format: Literal["columns", "jsonl", "spans", "hub"] = "columns"
    """`columns` as CoNLL files, `jsonl` with words and tags, `spans` for JSON lines with text and
    character spans, `hub` for a dataset of the Hub or one saved to disk by `datasets`."""

    dataset: str | None = Field(default=None, min_length=1)
    """For `hub` alone: name of the dataset on the Hub, or the folder it was saved to."""

    subset: str | None = None
    """For `hub` alone: name of the dataset's configuration."""

    train: str = Field(min_length=1)
    """Training data: a file, a folder or a glob; for `hub` the name of a split."""

    validation: str | None = Field(default=None, min_length=1)
    """Validation data, in the same form; it chooses the best weights."""

    test: str | None = Field(default=None, min_length=1)
    """Test data, in the same form; scored once, with the best weights."""

    fold: Fold | None = None
    """Hold one part of the training data out, and test on it: cross-validation. `bigner train
    --folds K` sets it for each part in turn."""

    columns: Columns | None = None
    """Columns of words and tags; by default first and last (`columns`), `words` and `tags`
    (`jsonl`), `tokens` and `ner_tags` (`hub`)."""

    separator: Literal["auto", "tab", "whitespace"] = "auto"
    """What separates columns; `auto` splits a line at its TABs where it has any, else at spaces."""

    heads: dict[HeadName, HeadConfig] | None = Field(default=None, min_length=1)
    """Several things to tell of every word, by name, such as `ner` and `upos`: one encoder, a
    linear layer for each. Without it there is one head, for `columns.tags`."""

    scheme: TagScheme = "auto"
    """Tag scheme of the files, where `heads` are not given; inside bigner everything is IOB2."""

    labels: tuple[str, ...] | None = Field(default=None, min_length=1, strict=False)
    """Entity types, in the order of their ids, where `heads` are not given; by default all types
    of all splits, sorted."""

    unit: Literal["sentence", "document"] = "sentence"
    """What one text is: a sentence by itself, or a whole document cut into windows."""

    context: int = Field(default=0, ge=0)
    """Words of the same document that are read on each side of a sentence, as far as the window
    has room; nothing is learnt or predicted there. For `unit: sentence`."""

    max_length: int = Field(default=256, ge=8)
    """Sub-word pieces in a window, special tokens included."""

    stride: int = Field(default=32, ge=0)
    """Words of context that neighbouring windows of a long text share."""

    alignment: Literal["first", "all"] = "first"
    """Which pieces of a word carry its label in training: the first, or all of them."""

    cache_dir: FilePath | None = None
    """Where prepared data is kept; `~/.cache/bigner` if absent, or $BIGNER_CACHE."""

    def cache_root(self) -> Path:
        """`cache_dir`, or its default."""
        return self.cache_dir or default_cache_root()

    def source(self, split: Split) -> str | None:
        """What the config names as the data of ``split``, if anything; with a fold, ``test`` is
        part of the training data.
        """
        test = self.test if self.fold is None else self.train
        return {"train": self.train, "validation": self.validation, "test": test}[split]

    def splits(self) -> tuple[Split, ...]:
        """The splits that are given, in the order train, validation, test."""
        return tuple(split for split in SPLITS if self.source(split) is not None)

    def words_column(self) -> int | str:
        """Column of the words as given, or the format's own (``spans`` has none)."""
        return self.columns.words if self.columns else _DEFAULT_COLUMNS[self.format][0]

    def resolved_heads(self) -> dict[str, HeadConfig]:
        """The heads as given, or the one that the other fields describe."""
        if self.heads is not None:
            return self.heads
        column = self.columns.tags if self.columns else None
        if column is None:
            column = _DEFAULT_COLUMNS[self.format][1]
        return {ONLY_HEAD: HeadConfig(column=column, scheme=self.scheme, labels=self.labels)}

    def tag_fields(self) -> dict[str, tuple[str, int | str]]:
        """Head -> the dotted field that names its column, and the column."""
        return {
            name: (self.head_field(name, "column"), head.column)
            for name, head in self.resolved_heads().items()
        }

    def head_field(self, head: str, field: Literal["column", "scheme", "labels"]) -> str:
        """The dotted field in which a run file says this of a head."""
        if self.heads is not None:
            return f"data.heads.{head}.{field}"
        return "data.columns.tags" if field == "column" else f"data.{field}"

    @model_validator(mode="after")
    def _hub_names_its_dataset(self) -> DataConfig:
        if self.format == "hub" and self.dataset is None:
            raise ValueError("format 'hub' needs data.dataset, a Hub name or a folder")
        if self.format != "hub" and (self.dataset is not None or self.subset is not None):
            raise ValueError(
                f"data.dataset and data.subset belong to format 'hub', and format is "
                f"{self.format!r}; take them out or set data.format to hub"
            )
        return self

    @model_validator(mode="after")
    def _fold_is_the_test_data(self) -> DataConfig:
        if self.fold is not None and self.test is not None:
            raise ValueError(
                "data.fold tests on a part of data.train, and data.test is given too; take one of "
                "them out"
            )
        return self

    @model_validator(mode="after")
    def _heads_stand_alone(self) -> DataConfig:
        if self.heads is None:
            return self
        if self.format == "spans":
            raise ValueError("format 'spans' has one kind of entities; take data.heads out")
        instead = {
            "data.columns.tags": self.columns is not None and self.columns.tags is not None,
            "data.labels": self.labels is not None,
            "data.scheme": self.scheme != "auto",
        }
        for field, given in instead.items():
            if given:
                raise ValueError(
                    f"{field} and data.heads are both given; with heads, say it in each of them"
                )
        return self

    @model_validator(mode="after")
    def _columns_suit_the_format(self) -> DataConfig:
        if self.format == "spans":
            if self.columns is not None:
                raise ValueError("format 'spans' has no columns; take data.columns out")
            return self
        seen: dict[int | str, str] = {}
        columns = {"data.columns.words": self.words_column(), **dict(self.tag_fields().values())}
        for field, value in columns.items():
            if self.format in ("jsonl", "hub") and isinstance(value, int):
                raise ValueError(
                    f"format {self.format!r} has fields by name, and {field} is the number "
                    f"{value}; give the field's name"
                )
            if value in seen:
                raise ValueError(
                    f"{seen[value]} and {field} are both {value!r}; they must be two columns"
                )
            seen[value] = field
        return self

    @model_validator(mode="after")
    def _context_is_for_sentences(self) -> DataConfig:
        if self.context and self.unit != "sentence":
            raise ValueError(
                f"data.context {self.context} is for data.unit sentence, and unit is "
                f"{self.unit!r}, where a window is full of text anyway; take one of them out"
            )
        return self

    @model_validator(mode="after")
    def _stride_leaves_room(self) -> DataConfig:
        if self.stride > self.max_length // 2:
            raise ValueError(
                f"data.stride {self.stride} is more than half of data.max_length "
                f"{self.max_length}; set stride to {self.max_length // 2} or less"
            )
        return self

    @model_validator(mode="after")
    def _labels_are_types(self) -> DataConfig:
        _check_labels(self.labels, "data.labels", "tags")
        return self
