"""The nearest vectors of a base, exactly and the same on every machine."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import numpy as np
import polars as pl
from numpy.typing import NDArray

from siftune.curation.embeddings.cosine import cosines, lattice
from siftune.curation.progress import Progress

#: Tuning: queries in a block, and a quarter of the base rows. No result depends on it.
BLOCK_ROWS = 4096


class Embed(Protocol):
    """`EmbeddingStore.embed`: texts to vectors, [n, d]."""

    def __call__(self, texts: Iterable[pl.Series], *, progress: Progress | None = None) -> NDArray[np.float16]:
        """Vectors of a stream of series, in their order."""


def nearest(queries: np.ndarray, base: np.ndarray, *, k: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The `k` rows of `base` closest to each query, the closest first.

    The order is exact on vectors rounded to the lattice of `siftune.curation.embeddings.cosine`, so a cosine may be off
    by 0.001 when rows are chosen; the cosines that are returned are in float64. Equally close rows come in the order
    of `base`. Time: n x m x d multiplications; memory: a block of similarities at a time.

    Args:
        queries: vectors of any length, float [n, d].
        base: vectors of any length, float [m, d].
        k: how many rows for each query; all of them where `base` has fewer.

    Returns:
        Positions in `base`, int64 [n, min(k, m)], and cosines, float64 of the same shape.
    """
    k = min(k, len(base))
    positions = np.zeros((len(queries), k), dtype=np.int64)
    scores = np.zeros((len(queries), k))
    if not positions.size:
        return positions, scores
    base_lattice = lattice(base)
    for start in range(0, len(queries), BLOCK_ROWS):
        block = slice(start, min(start + BLOCK_ROWS, len(queries)))
        best, _ = nearest_on_lattice(lattice(queries[block]), base_lattice, k)
        rows = np.repeat(np.arange(block.start, block.stop), k)
        cosine = cosines(queries, base, rows, best.ravel()).reshape(-1, k)
        order = np.lexsort((best, -cosine), axis=1)
        positions[block] = np.take_along_axis(best, order, axis=1)
        scores[block] = np.take_along_axis(cosine, order, axis=1)
    return positions, scores


def nearest_on_lattice(
    queries: NDArray[np.float32], base: NDArray[np.float32], k: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The k rows of `base` closest to each query, ties by position, block by block, each against the best so far.

    Args:
        queries: lattice points of `siftune.curation.embeddings.cosine`, [n, d].
        base: lattice points [m, d].
        k: at most m.

    Returns:
        Positions in `base`, int64 [n, k], the closest first, and the products, float32 of the same shape.
    """
    positions = np.empty((len(queries), k), dtype=np.int64)
    products = np.empty((len(queries), k), dtype=np.float32)
    for start in range(0, len(queries), BLOCK_ROWS):
        block = slice(start, start + BLOCK_ROWS)
        positions[block], products[block] = _top(queries[block], base, k)
    return positions, products


def _top(
    queries: NDArray[np.float32], base: NDArray[np.float32], k: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The k best columns for each row and their products: block by block of columns, each against the best so far."""
    best = np.empty((len(queries), 0), dtype=np.int64)
    best_product = np.empty((len(queries), 0), dtype=np.float32)
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
        best_product = np.concatenate([best_product, np.take_along_axis(product, chosen, axis=1)], axis=1)
        best = np.concatenate([best, chosen + start], axis=1)
        order = np.lexsort((best, -best_product), axis=1)[:, :k]
        best_product = np.take_along_axis(best_product, order, axis=1)
        best = np.take_along_axis(best, order, axis=1)
    return best, best_product
