"""A few windows of a split as a split of their own, to score them."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from bigner.data.arrays import Ints, ranges
from bigner.data.encode import NO_PIECE
from bigner.data.prepare import SplitData
from bigner.data.tables import Table, lists, numbers, to_numpy

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
    windows = split.windows.take(rows.tolist()).combine_chunks()
    place = windows.column_names.index("first_word")
    windows = windows.set_column(place, "first_word", numbers(starts))
    words = ranges(first, sizes)
    begins = split.sentence_begins()[words]
    begins[starts] = True
    sizes = np.diff(np.flatnonzero(begins), append=len(words))
    names = [f"tags_{i}" for i in range(num_heads)]
    sentences = {name: _regrouped(split.sentences, name, words, sizes) for name in names}
    places = to_numpy(windows.column("word_places").combine_chunks().flatten())
    return SplitData(
        split.split,
        Table(pa.table(sentences)),
        Table(windows),
        words_without_pieces=int((places == NO_PIECE).sum()),
        words_cut=0,
    )


def _regrouped(sentences: Table, name: str, words: Ints, sizes: Ints) -> pa.ListArray:
    """A column of the sentences for some words alone, so many of them in each row."""
    flat = sentences.data.column(name).combine_chunks().flatten()
    return lists(flat.take(numbers(words)), sizes)
