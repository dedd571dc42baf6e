"""Which n-grams of benchmark items training texts hold, and the pairs that follow from it.

`NgramIndex` (siftune.curation.text.ngrams) gives every pair of a row and an item at once. Rules that can judge an
n-gram only when all rows are seen (too frequent, or of an item that turns out clean) need the occurrences first and
the pairs later, of the n-grams that count.
"""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from siftune.curation.text import ngrams
from siftune.curation.text.ngrams import TokenLists, all_ngrams

#: The bitmap of n-grams has at least 32 places for each, as far as 2**24.
_PLACES_BITS = 5
_MOST_BITS = 24

#: Where an n-gram of an item stands in a row.
OCCURRENCES = pl.Schema({"row": pl.Int64, "part": pl.String, "position": pl.Int32, "gram": pl.Int32})

#: The longest run of words that a row and an item text share: `start` is its first word in the item text.
RUNS = pl.Schema({"row": pl.Int64, "part": pl.String, "text": pl.Int64, "start": pl.Int64, "length": pl.Int64})


class GramPostings:
    """The n-grams of `size` words of item texts, numbered from 0 by their hashes.

    Attributes:
        texts: the words of t item texts.
        size: words in an n-gram.
        count: number of different n-grams.
        text: int64[p], the item text of each place where an n-gram stands, sorted by n-gram.
        position: int64[p], its first word there.
        gram: int64[p], the n-gram's number.
        starts: int64[count + 1], n-gram g stands at the places from `starts[g]` to `starts[g + 1]`.
    """

    def __init__(self, texts: TokenLists, size: int) -> None:
        self.texts = texts
        self.size = size
        text, position, hashes = all_ngrams(texts, size)
        self._hashes, gram = np.unique(hashes, return_inverse=True)
        order = np.argsort(gram, kind="stable")
        self.text, self.position, self.gram = text[order], position[order], gram[order].astype(np.int64)
        self.count = len(self._hashes)
        self.starts = np.searchsorted(self.gram, np.arange(self.count + 1))
        self._bits = min(self.count.bit_length() + _PLACES_BITS, _MOST_BITS)
        self._bitmap = np.zeros(1 << self._bits, np.bool_)
        self._bitmap[self._bit(self._hashes)] = True

    def find(self, texts: TokenLists) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Their occurrences in texts: which text, the position of the first word there, which n-gram; int64[m] each."""
        text, position, hashes = all_ngrams(texts, self.size)
        # Nearly all n-grams of rows are in no item: a bitmap excludes them faster than a binary search.
        likely = np.flatnonzero(self._bitmap[self._bit(hashes)])
        number = np.searchsorted(self._hashes, hashes[likely])
        number[number == self.count] = 0
        equal = self._hashes[number] == hashes[likely] if self.count else np.zeros(0, np.bool_)
        known = likely[equal]
        return text[known], position[known], number[equal]

    def occurrences(self, texts: TokenLists, part: str, first_row: int) -> pl.DataFrame:
        """OCCURRENCES in one part of a batch of rows; `first_row` is the number of its first row."""
        text, position, gram = self.find(texts)
        frame = pl.DataFrame({"row": text + first_row, "position": position, "gram": gram})
        return frame.select(
            "row",
            pl.lit(part).alias("part"),
            pl.col("position").cast(pl.Int32),
            pl.col("gram").cast(pl.Int32),
        )

    def pairs(self, occurrences: pl.DataFrame, texts: NDArray[np.bool_]) -> pl.DataFrame:
        """`row`, `part`, `position`, `text`, `text_position`: occurrences beside the places in the chosen item texts.

        `texts` is bool[t]: which item texts count.
        """
        places = np.flatnonzero(texts[self.text])
        postings = pl.DataFrame(
            {
                "gram": self.gram[places].astype(np.int32),
                "text": self.text[places],
                "text_position": self.position[places],
            }
        )
        return occurrences.join(postings, on="gram", how="inner", maintain_order="left").drop("gram")

    def _bit(self, hashes: NDArray[np.uint64]) -> NDArray[np.uint64]:
        return hashes >> np.uint64(64 - self._bits)


def only(texts: TokenLists, chosen: NDArray[np.bool_]) -> TokenLists:
    """The same texts in the same positions; those that are not chosen (bool[n]) lose their words."""
    counts = np.where(chosen, texts.counts, 0)
    kept = np.repeat(chosen, texts.counts)
    return TokenLists(
        texts.tokens.filter(pl.Series(kept)), texts.hashes[kept], np.concatenate([[0], np.cumsum(counts)])
    )


def longest_runs(pairs: pl.DataFrame, size: int) -> pl.DataFrame:
    """RUNS of every row and item text, from `GramPostings.pairs` of n-grams of `size` words."""
    # `measure_overlaps` gives the start of a run in its "text": the item text takes that place.
    overlaps = _overlaps(pairs, size, text="text", item="row", text_position="text_position", item_position="position")
    return overlaps.select(row="item", part="part", text="text", start="start", length="longest")


def covered_words(pairs: pl.DataFrame, size: int) -> pl.DataFrame:
    """`row`, `part`, `text`, `covered`: how many words of an item text lie in n-grams that the row has too.

    `pairs` are from `GramPostings.pairs` of n-grams of `size` words.
    """
    overlaps = _overlaps(pairs, size, text="row", item="text", text_position="position", item_position="text_position")
    return overlaps.select(row="text", part="part", text="item", covered="covered")


def _overlaps(pairs: pl.DataFrame, size: int, **roles: str) -> pl.DataFrame:
    """OVERLAP and `part`, of each part alone; `roles` says which column of `pairs` is which of the hits."""
    measured = [pl.DataFrame(schema={**ngrams.OVERLAP, "part": pl.String})]
    for part in ("prompt", "answer"):
        of_part = pairs.filter(pl.col("part") == part)
        hits = of_part.select(pl.col(name).cast(pl.Int64).alias(role) for role, name in roles.items())
        measured.append(ngrams.measure_overlaps(hits, size).with_columns(part=pl.lit(part)))
    return pl.concat(measured)
