"""Shared runs of words between texts and a set of reference texts, as flat arrays and hash joins.

A text is a run of 64-bit word hashes; an n-gram is a rolling combination of n of them. Hashes are compared, never
texts: among 10 million n-grams against 2 million the chance of any false meeting is below 1e-5, and a match needs
many of them side by side.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from siftune.curation.text.words import words

U64 = NDArray[np.uint64]
I64 = NDArray[np.int64]

_FACTOR = np.uint64(0x9E3779B97F4A7C15)  # 2**64 over the golden ratio, odd: a bijection that spreads every bit
_FILTER_BITS = 24

#: What two texts share. `covered` is the number of words of the reference text inside shared n-grams, `longest` the
#: longest run of words that both have, which begins at word `start` of the row's text.
OVERLAP = pl.Schema({"text": pl.Int64, "item": pl.Int64, "covered": pl.Int64, "longest": pl.Int64, "start": pl.Int64})


@dataclass(frozen=True)
class Words:
    """Texts as words: `flat` all of them in order, `hashes` uint64[t], `offsets` int64[n + 1]."""

    flat: pl.Series
    hashes: U64
    offsets: I64

    @property
    def counts(self) -> I64:
        """Words in each text."""
        return np.diff(self.offsets)

    def spans(self, text: I64, start: I64, length: I64) -> pl.Series:
        """Runs of words as text: `length[i]` words of text `text[i]` from word `start[i]` on."""
        first = self.offsets[text] + start
        rows = np.repeat(np.arange(len(text)), length)
        within = np.arange(length.sum()) - np.repeat(np.cumsum(length) - length, length)
        taken = self.flat.gather(np.repeat(first, length) + within)
        joined = pl.DataFrame({"row": rows, "word": taken}).group_by("row", maintain_order=True)
        spans = joined.agg(pl.col("word").str.join(" "))
        return (
            pl.DataFrame({"row": np.arange(len(text))})
            .join(spans, on="row", how="left", maintain_order="left")["word"]
            .fill_null("")
        )


def split(texts: pl.Series) -> Words:
    """The words of each text, as in `siftune.curation.text.words.words`; null has none."""
    return flatten(texts.fill_null("").to_frame("text").select(words(pl.col("text")))["text"])


def flatten(lists: pl.Series) -> Words:
    """Lists of tokens of any kind in the shape of `Words`."""
    counts = lists.list.len().to_numpy().astype(np.int64)
    flat = lists.filter(lists.list.len() > 0).explode()
    return Words(flat, flat.hash(5).to_numpy(), np.concatenate([[0], np.cumsum(counts)]))


def windows(texts: Words, size: int) -> tuple[I64, I64, U64]:
    """Every n-gram of `size` words: the text it stands in, its first word's place in that text, and its hash."""
    count = len(texts.hashes) - size + 1
    if count <= 0:
        return np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.uint64)
    hashes = np.zeros(count, np.uint64)
    for step in range(size):
        hashes = (hashes ^ (hashes >> np.uint64(29))) * _FACTOR + texts.hashes[step : step + count]
    text = np.repeat(np.arange(len(texts.counts)), texts.counts)
    whole = np.flatnonzero(text[:count] == text[size - 1 :])
    return text[whole], whole - texts.offsets[text[whole]], hashes[whole]


class Index:
    """The n-grams of reference texts, to be looked up by those of any number of batches of rows."""

    def __init__(self, items: Words, size: int) -> None:
        self.items = items
        self.size = size
        item, place, hashes = windows(items, size)
        self._postings = pl.DataFrame({"hash": hashes, "item": item, "place": place})
        # Nearly all n-grams of rows are in no reference: a bitmap tells them apart faster than a binary search.
        self._bitmap = np.zeros(1 << _FILTER_BITS, np.bool_)
        self._bitmap[self._slot(hashes)] = True

    def hits(self, texts: Words) -> pl.DataFrame:
        """Shared n-grams: `text`, `at` (place in the text), `item`, `place` (place in the item)."""
        text, at, hashes = windows(texts, self.size)
        maybe = np.flatnonzero(self._bitmap[self._slot(hashes)])
        found = pl.DataFrame({"hash": hashes[maybe], "text": text[maybe], "at": at[maybe]})
        return found.join(self._postings, on="hash", how="inner").drop("hash")

    def overlaps(self, texts: Words) -> pl.DataFrame:
        """OVERLAP of every text and reference text that share at least one n-gram, in their order."""
        return measure(self.hits(texts), self.size)

    @staticmethod
    def _slot(hashes: U64) -> U64:
        return hashes >> np.uint64(64 - _FILTER_BITS)


def measure(hits: pl.DataFrame, size: int) -> pl.DataFrame:
    """OVERLAP from shared n-grams of `size` words."""
    pair = ["text", "item"]
    step = pl.col("place").diff().over(pair)
    covered = (
        hits.select(*pair, "place")
        .unique()
        .sort(*pair, "place")
        .group_by(pair, maintain_order=True)
        .agg(covered=size + pl.col("place").diff().clip(upper_bound=size).sum())
    )
    # A run goes on while both places step by one: on one diagonal, with no gap.
    runs = (
        hits.with_columns(diagonal=pl.col("at") - pl.col("place"))
        .sort(*pair, "diagonal", "place")
        .with_columns(breaks=(step != 1) | (pl.col("diagonal").diff().over(pair) != 0) | step.is_null())
        .with_columns(run=pl.col("breaks").cum_sum())
        .group_by([*pair, "run"], maintain_order=True)
        .agg(longest=size - 1 + pl.len().cast(pl.Int64), start=pl.col("at").first())
        .sort(*pair, "longest", "start", descending=[False, False, True, False])
        .unique(pair, keep="first", maintain_order=True)
    )
    joined = covered.join(runs.drop("run"), on=pair, how="inner", maintain_order="left")
    return joined.select(pl.col(name).cast(kind) for name, kind in OVERLAP.items())
