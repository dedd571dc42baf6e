"""Shared runs of words between texts and a set of reference texts, as flat arrays and hash joins.

A text is a run of 64-bit word hashes; an n-gram is a rolling combination of n of them. Hashes are compared, never
texts: among 10 million n-grams against 2 million the chance of any false match is below 1e-5, and a match needs many
of them side by side.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from siftune.curation.text.words import words

U64 = NDArray[np.uint64]
I64 = NDArray[np.int64]

#: 2**64 over the golden ratio, made odd (Knuth, TAOCP 3, 6.4): multiplying by it is a bijection that spreads every bit.
_FACTOR = np.uint64(0x9E3779B97F4A7C15)
_FILTER_BITS = 24

#: What two texts share. `covered` is the number of words of the reference text inside shared n-grams, `longest` the
#: longest run of words that both have, which begins at word `start` of the row's text.
OVERLAP = pl.Schema({"text": pl.Int64, "item": pl.Int64, "covered": pl.Int64, "longest": pl.Int64, "start": pl.Int64})


@dataclass(frozen=True)
class TokenLists:
    """The tokens (words, sentences …) of n texts, in flat arrays.

    Attributes:
        tokens: String[t], the tokens of all texts in order.
        hashes: uint64[t], their hashes.
        offsets: int64[n + 1]: text i has the tokens from `offsets[i]` to `offsets[i + 1]`.
    """

    tokens: pl.Series
    hashes: U64
    offsets: I64

    @property
    def counts(self) -> I64:
        """int64[n], the number of tokens of each text."""
        return np.diff(self.offsets)

    def spans(self, text: I64, start: I64, length: I64) -> pl.Series:
        """Runs of tokens, joined by spaces.

        Args:
            text: int64[m], which text each run is from.
            start: int64[m], its first token in that text.
            length: int64[m], its number of tokens.

        Returns:
            String[m].
        """
        # The index of every token of every run: the run's first token, and 0, 1, 2 … within the run.
        first = self.offsets[text] + start
        rows = np.repeat(np.arange(len(text)), length)
        within = np.arange(length.sum()) - np.repeat(np.cumsum(length) - length, length)
        tokens = self.tokens.gather(np.repeat(first, length) + within)
        runs = pl.DataFrame({"row": rows, "token": tokens}).group_by("row", maintain_order=True)
        spans = runs.agg(pl.col("token").str.join(" "))
        # Runs of no tokens have no rows to join: they are empty texts.
        return (
            pl.DataFrame({"row": np.arange(len(text))})
            .join(spans, on="row", how="left", maintain_order="left")["token"]
            .fill_null("")
        )


def split_words(texts: pl.Series) -> TokenLists:
    """The words of each text (String[n]), as in `siftune.curation.text.words.words`; null has none."""
    return token_lists(texts.fill_null("").to_frame("text").select(words(pl.col("text")))["text"])


def token_lists(lists: pl.Series) -> TokenLists:
    """Lists of tokens (List(String)[n]) as flat arrays."""
    counts = lists.list.len().to_numpy().astype(np.int64)
    tokens = lists.filter(lists.list.len() > 0).explode()
    return TokenLists(tokens, tokens.hash(5).to_numpy(), np.concatenate([[0], np.cumsum(counts)]))


def all_ngrams(texts: TokenLists, size: int) -> tuple[I64, I64, U64]:
    """Every n-gram of `size` tokens, m of them.

    Returns:
        int64[m], the text that it is in; int64[m], the position of its first token in that text; uint64[m], its hash.
    """
    count = len(texts.hashes) - size + 1
    if count <= 0:
        return np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.uint64)
    hashes = np.zeros(count, np.uint64)
    for step in range(size):
        hashes = (hashes ^ (hashes >> np.uint64(29))) * _FACTOR + texts.hashes[step : step + count]
    # An n-gram that begins in one text and ends in the next is none.
    text = np.repeat(np.arange(len(texts.counts)), texts.counts)
    inside = np.flatnonzero(text[:count] == text[size - 1 :])
    return text[inside], inside - texts.offsets[text[inside]], hashes[inside]


class NgramIndex:
    """The n-grams of `size` tokens of reference texts (`items`), to be looked up by any number of batches of texts."""

    def __init__(self, items: TokenLists, size: int) -> None:
        self.items = items
        self.size = size
        item, position, hashes = all_ngrams(items, size)
        self._postings = pl.DataFrame({"hash": hashes, "item": item, "item_position": position})
        # Nearly all n-grams of rows are in no reference: a bitmap excludes them faster than a binary search.
        self._bitmap = np.zeros(1 << _FILTER_BITS, np.bool_)
        self._bitmap[self._bit(hashes)] = True

    def hits(self, texts: TokenLists) -> pl.DataFrame:
        """Shared n-grams: `text`, `text_position`, `item`, `item_position`, all int64; positions of first tokens."""
        text, position, hashes = all_ngrams(texts, self.size)
        candidates = np.flatnonzero(self._bitmap[self._bit(hashes)])
        ngrams = pl.DataFrame(
            {"hash": hashes[candidates], "text": text[candidates], "text_position": position[candidates]}
        )
        return ngrams.join(self._postings, on="hash", how="inner").drop("hash")

    def overlaps(self, texts: TokenLists) -> pl.DataFrame:
        """OVERLAP of every text and reference text that share at least one n-gram, in their order."""
        return measure_overlaps(self.hits(texts), self.size)

    @staticmethod
    def _bit(hashes: U64) -> U64:
        return hashes >> np.uint64(64 - _FILTER_BITS)


def measure_overlaps(hits: pl.DataFrame, size: int) -> pl.DataFrame:
    """OVERLAP from the hits of an `NgramIndex` of n-grams of `size` tokens."""
    pair = ["text", "item"]
    step = pl.col("item_position").diff().over(pair)
    covered = (
        hits.select(*pair, "item_position")
        .unique()
        .sort(*pair, "item_position")
        .group_by(pair, maintain_order=True)
        .agg(covered=size + pl.col("item_position").diff().clip(upper_bound=size).sum())
    )
    # A run goes on while both positions step by one: on one diagonal, with no gap.
    runs = (
        hits.with_columns(diagonal=pl.col("text_position") - pl.col("item_position"))
        .sort(*pair, "diagonal", "item_position")
        .with_columns(breaks=(step != 1) | (pl.col("diagonal").diff().over(pair) != 0) | step.is_null())
        .with_columns(run=pl.col("breaks").cum_sum())
        .group_by([*pair, "run"], maintain_order=True)
        .agg(longest=size - 1 + pl.len().cast(pl.Int64), start=pl.col("text_position").first())
        .sort(*pair, "longest", "start", descending=[False, False, True, False])
        .unique(pair, keep="first", maintain_order=True)
    )
    overlaps = covered.join(runs.drop("run"), on=pair, how="inner", maintain_order="left")
    return overlaps.select(pl.col(name).cast(dtype) for name, dtype in OVERLAP.items())
