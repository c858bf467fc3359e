"""A few windows of a split as a split of their own, to score them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from datasets import Dataset
from datasets.table import InMemoryTable

from bigner.data.encode import NO_PIECE
from bigner.data.prepare import SplitData

_SEED = 0


def sample_of(split: SplitData, num_heads: int, count: int) -> SplitData:
    """Some windows drawn at random, in order, with the words they own sentence by sentence.

    Always the same ones, so that scores can be followed from one evaluation to the next. A sentence
    of which a window owns a part, as where long texts are cut, is that part.

    Args:
        split: the whole.
        num_heads: heads of the data.
        count: windows wanted; all of them where there are fewer.

    Returns:
        a split whose sentences have ``tags_0`` ... alone.
    """
    total = split.windows.num_rows
    rows = np.arange(total)
    if count < total:
        rows = np.sort(np.random.default_rng(_SEED).choice(total, count, replace=False))
    first, sizes = split.column("first_word")[rows], split.column("num_words")[rows]
    starts = np.cumsum(sizes) - sizes
    windows = split.windows.data.table.take(pa.array(rows))
    place = windows.column_names.index("first_word")
    windows = windows.set_column(place, "first_word", pa.array(starts))
    words = np.concatenate([np.arange(a, a + size) for a, size in zip(first, sizes, strict=True)])
    begins = split.sentence_begins()[words]
    begins[starts] = True
    edges = np.append(np.flatnonzero(begins), len(words)).astype(np.int32)
    names = [f"tags_{i}" for i in range(num_heads)]
    sentences = {name: _regrouped(split.sentences, name, words, edges) for name in names}
    places = windows.column("word_places").combine_chunks().flatten().to_numpy()
    return SplitData(
        split.split,
        Dataset(InMemoryTable(pa.table(sentences))),
        Dataset(InMemoryTable(windows)),
        words_without_pieces=int((places == NO_PIECE).sum()),
        words_cut=0,
    )


def _regrouped(
    sentences: Dataset,
    name: str,
    words: npt.NDArray[np.int64],
    edges: npt.NDArray[np.int32],
) -> pa.Array:
    """A column of the sentences for some words alone, in the groups between ``edges``."""
    flat = sentences.data.column(name).combine_chunks().flatten().take(pa.array(words))
    return pa.ListArray.from_arrays(pa.array(edges), flat)
