"""The words of texts and the sets of their word shingles, as hashes.

The rule for short texts: a text with fewer words than a shingle has one shingle, all of its words, so two such texts
are the same or have nothing in common. A text without any word has one, its normal form. An empty text has none, so it
is similar to nothing.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import polars as pl
from numpy.typing import NDArray

from siftune.curation.text import shingle_kernels
from siftune.curation.text.look_alikes import plain_texts
from siftune.curation.text.words import characters, words

#: Reads rows of UTF-8 text into hashes: (text, offsets, slots, kinds, lowers, out) to the number of hashes of each row.
Kernel = Callable[..., NDArray[np.int64]]
#: Tables of characters for texts that hold ASCII only.
_ASCII = (np.empty(0, np.uint8), np.empty(0, np.uint32))


def shingle_sets(texts: pl.Series, *, shingle: int) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """The sorted sets of shingle hashes of n texts: flat uint64 [t] and offsets int64 [n + 1].

    The words are those of `siftune.curation.text.words.words`. Nearly all texts are read by the compiled tokeniser;
    those with characters whose normal form depends on their neighbours, and those without a word, are first spelled
    out by polars.
    """
    return _hash_rows(
        texts,
        lambda text, offsets, slots, kinds, lowers, out: shingle_kernels.shingle_rows(
            text, offsets, slots, shingle, kinds, lowers, out
        ),
    )


def word_sequences(texts: pl.Series) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """The hashes of the words of n texts in order, repeats included: flat uint64 [t] and offsets int64 [n + 1].

    A text without any word has one, its normal form; an empty text has none.
    """
    return _hash_rows(texts, shingle_kernels.word_rows)


def _hash_rows(texts: pl.Series, kernel: Kernel) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """What a kernel makes of each text: flat uint64 [t] and offsets int64 [n + 1]."""
    ascii_only = bool((texts.str.len_bytes() == texts.str.len_chars()).all())
    kinds, lowers = _ASCII if ascii_only else characters()
    if not ascii_only:
        texts = plain_texts(texts)
    loose, slots, counts = _loose_rows(texts, kernel, kinds, lowers)
    # Spell out the texts that the tokeniser left, and read them again.
    read = counts > 0
    rest = np.flatnonzero(~read)
    spelled = _spelled(texts.gather(rest))
    rest_loose, rest_slots, rest_counts = _loose_rows(spelled["text"], kernel, *_ASCII)
    wordless = spelled["normal_form"].is_not_null().to_numpy()
    rest_loose[rest_slots[wordless]] = spelled["normal_form"].hash(0).to_numpy()[wordless]
    rest_counts[wordless] = 1
    counts[rest] = rest_counts
    # Close the gaps between the rows.
    offsets = np.concatenate([[0], np.cumsum(counts)])
    flat = np.empty(int(offsets[-1]), np.uint64)
    first = np.flatnonzero(read)
    shingle_kernels.gather_rows(loose, slots[first], first, offsets, flat)
    shingle_kernels.gather_rows(rest_loose, rest_slots, rest, offsets, flat)
    return flat, offsets


def _loose_rows(
    texts: pl.Series, kernel: Kernel, kinds: NDArray[np.uint8], lowers: NDArray[np.uint32]
) -> tuple[NDArray[np.uint64], NDArray[np.int64], NDArray[np.int64]]:
    """Rows with room between them: row i is `loose[slots[i]:slots[i] + counts[i]]`; see `shingle_rows`."""
    array = texts.rechunk().to_arrow(compat_level=pl.CompatLevel.oldest())
    _, bounds, data = array.buffers()
    offsets = np.frombuffer(bounds, np.int64)[array.offset : array.offset + len(array) + 1]
    room = np.cumsum((np.diff(offsets) + 1) // 2 + 1)
    slots = np.concatenate([[0], room])
    loose = np.empty(int(slots[-1]), np.uint64)
    text = np.frombuffer(data or b"\0", np.uint8)
    return loose, slots[:-1], kernel(text, offsets, slots, kinds, lowers, loose)


def _spelled(texts: pl.Series) -> pl.DataFrame:
    """`text`: the words of each text with spaces between. `normal_form`: of a text without words that is not empty."""
    listed = texts.to_frame("text").select(words=words(pl.col("text")))
    first = pl.col("words").list.first()
    wordless = first.is_not_null() & ~first.str.contains(r"\w")
    return listed.select(
        text=pl.when(wordless).then(pl.lit("")).otherwise(pl.col("words").list.join(" ")),
        normal_form=pl.when(wordless).then(first),
    )
