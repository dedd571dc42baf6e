"""The nearest vectors of a base, exactly and the same on every machine."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import numpy as np
import polars as pl
from numpy.typing import NDArray

from siftune.curation.embeddings.cosine import cosines, lattice
from siftune.curation.progress import Progress

BLOCK_ROWS = 4096


class Embed(Protocol):
    """`EmbeddingStore.embed`: texts to vectors, [n, d]."""

    def __call__(self, texts: Iterable[pl.Series], *, progress: Progress | None = None) -> NDArray[np.float16]:
        """Vectors of a stream of series, in their order."""


def nearest(queries: np.ndarray, base: np.ndarray, *, k: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The `k` rows of `base` closest to each query: positions int64 [n, k] and cosines float64 [n, k], best first.

    Exact on vectors rounded to the lattice of `siftune.curation.embeddings.cosine` (to within 0.001), the cosines themselves
    in float64; equally close rows come in the order of `base`. With fewer than k rows in `base`, there are as many
    columns.
    """
    k = min(k, len(base))
    places = np.zeros((len(queries), k), dtype=np.int64)
    scores = np.zeros((len(queries), k))
    if not places.size:
        return places, scores
    goal = lattice(base)
    for start in range(0, len(queries), BLOCK_ROWS):
        here = slice(start, min(start + BLOCK_ROWS, len(queries)))
        best = _top(lattice(queries[here]), goal, k)
        rows = np.repeat(np.arange(here.start, here.stop), k)
        found = cosines(queries, base, rows, best.ravel()).reshape(-1, k)
        order = np.lexsort((best, -found), axis=1)
        places[here] = np.take_along_axis(best, order, axis=1)
        scores[here] = np.take_along_axis(found, order, axis=1)
    return places, scores


def _top(queries: NDArray[np.float32], base: NDArray[np.float32], k: int) -> NDArray[np.int64]:
    """The k best columns for each row, ties by position: block by block, each block against the best so far."""
    best = np.empty((len(queries), 0), dtype=np.int64)
    held = np.empty((len(queries), 0), dtype=np.float32)
    for start in range(0, len(base), 4 * BLOCK_ROWS):
        product = queries @ base[start : start + 4 * BLOCK_ROWS].T
        width = min(k, product.shape[1])
        # The k-th value, then its ties in order: argpartition alone would choose among ties as it likes.
        kth = np.partition(product, product.shape[1] - width, axis=1)[:, -width][:, None]
        row, column = np.nonzero(product >= kth)
        rank = np.lexsort((column, -product[row, column], row))
        row, column = row[rank], column[rank]
        first = np.searchsorted(row, np.arange(len(queries)))
        chosen = column[first[:, None] + np.arange(width)]
        held = np.concatenate([held, np.take_along_axis(product, chosen, axis=1)], axis=1)
        best = np.concatenate([best, chosen + start], axis=1)
        order = np.lexsort((best, -held), axis=1)[:, :k]
        held, best = np.take_along_axis(held, order, axis=1), np.take_along_axis(best, order, axis=1)
    return best
