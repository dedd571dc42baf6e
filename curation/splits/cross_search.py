"""The exact search for similar rows across two splits.

Nothing here is estimated or indexed approximately: every pair of rows is compared, by the equality of normalised
texts, by the Jaccard similarity of word shingles, by whether one stands inside the other, and by the cosine of
embeddings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import polars as pl
from numpy.typing import NDArray

from siftune.curation.embeddings.cosine import cosines, unit
from siftune.curation.splits.containment import RowPassages, contained_across
from siftune.curation.text import words as text
from siftune.curation.text.shingle_sets import shingle_sets

#: Similarities that are held at a time: 64 MB of float32 or int32.
BLOCK_CELLS = 16_000_000
Batch = TypeVar("Batch", pl.Series, pl.DataFrame)
#: Sorted sets one after another, uint64 [t], and where each begins, int64 [n + 1].
ShingleSets = tuple[NDArray[np.uint64], NDArray[np.int64]]
#: More than the rounding error of a float32 dot product of two unit vectors.
_FLOAT32_ERROR = 1e-4


@dataclass(frozen=True)
class LeakThresholds:
    """From which similarity on a pair across splits is a leak.

    near: Jaccard similarity of shingles of `shingle` words. semantic: cosine of embeddings.
    """

    near: float
    semantic: float
    shingle: int


@dataclass(frozen=True)
class SplitRows:
    """The rows of one split.

    ids: String[n]. texts: gives the n compared texts in batches, anew at each call. vectors: embeddings [n, d] of any
    float type, or None where there are none. prompts: gives the whole prompts in the same way, where they may differ
    from the compared texts. passages: gives what is searched for containment, or None where it is not searched.
    shingles: gives the shingle sets of the compared texts in batches, where they are stored.
    """

    ids: pl.Series
    texts: Callable[[], Iterable[pl.Series]]
    vectors: np.ndarray | None = None
    prompts: Callable[[], Iterable[pl.Series]] | None = None
    passages: RowPassages | None = None
    shingles: Callable[[], Iterable[ShingleSets]] | None = None

    @property
    def compared(self) -> Callable[[], Iterable[pl.Series | ShingleSets]]:
        """What their Jaccard similarity is computed from."""
        return self.shingles or self.texts

    def without(self, positions: np.ndarray) -> SplitRows:
        """This split without the rows at these positions (int[m])."""
        keep = np.ones(len(self.ids), dtype=bool)
        keep[positions] = False
        vectors = None if self.vectors is None else self.vectors[keep]
        prompts, passages = self.prompts, self.passages
        return SplitRows(
            ids=self.ids.filter(keep),
            texts=lambda: _filtered(self.texts(), keep),
            vectors=vectors,
            prompts=prompts and (lambda: _filtered(prompts(), keep)),
            passages=passages and RowPassages(lambda: _filtered(passages.texts(), keep), passages.common),
        )


@dataclass(frozen=True)
class CrossPairs:
    """Pairs of a left and a right row whose similarity by one measure is at least `threshold`, sorted by `a`, `b`.

    a, b: uint32[m], positions in the left and in the right split. score: float64[m]. comparisons: how many pairs were
    compared. highest, highest_pair: the most similar pair of all, whatever the threshold; None without comparisons.
    """

    measure: str
    threshold: float
    comparisons: int
    a: NDArray[np.uint32]
    b: NDArray[np.uint32]
    score: NDArray[np.float64]
    highest: float | None
    highest_pair: tuple[int, int] | None


def search_across(left: SplitRows, right: SplitRows, *, thresholds: LeakThresholds) -> list[CrossPairs]:
    """Compare every row of `left` with every row of `right`, once for each measure.

    The texts of the smaller split are held in memory, those of the other come in batches. Without embeddings on both
    sides there is no cosine.
    """
    swapped = len(left.ids) < len(right.ids)
    streamed, held = (right, left) if swapped else (left, right)
    held_texts = _joined(held.texts())
    exact = exact_cross_pairs(streamed.texts(), held_texts, swapped=swapped)
    if streamed.prompts is not None and held.prompts is not None:
        of_prompts = exact_cross_pairs(streamed.prompts(), _joined(held.prompts()), swapped=swapped)
        exact = _either(exact, of_prompts)
    near = jaccard_cross_pairs(
        streamed.compared(), held_texts, shingle=thresholds.shingle, threshold=thresholds.near, swapped=swapped
    )
    results = [exact, near]
    if left.passages is not None and right.passages is not None:
        a, b = contained_across(left.passages, right.passages)
        results.append(_certain_pairs("containment", a, b, comparisons=len(left.ids) * len(right.ids)))
    if left.vectors is not None and right.vectors is not None:
        results.append(cosine_cross_pairs(left.vectors, right.vectors, threshold=thresholds.semantic))
    return results


def _certain_pairs(measure: str, a: np.ndarray, b: np.ndarray, *, comparisons: int) -> CrossPairs:
    """Pairs that a measure finds or does not find, sorted by `a`, `b`."""
    return CrossPairs(
        measure=measure,
        threshold=1.0,
        comparisons=comparisons,
        a=a.astype(np.uint32),
        b=b.astype(np.uint32),
        score=np.ones(len(a)),
        highest=1.0 if len(a) else None,
        highest_pair=(int(a[0]), int(b[0])) if len(a) else None,
    )


def _either(one: CrossPairs, other: CrossPairs) -> CrossPairs:
    """The pairs of either search of the same measure over the same rows."""
    pairs = np.unique(np.stack([np.concatenate([one.a, other.a]), np.concatenate([one.b, other.b])], axis=1), axis=0)
    return _certain_pairs(one.measure, pairs[:, 0], pairs[:, 1], comparisons=one.comparisons)


def exact_cross_pairs(left: Iterable[pl.Series], right: pl.Series, *, swapped: bool = False) -> CrossPairs:
    """Rows whose normalised texts are equal; an empty text equals nothing. `left` comes in batches; where the sides are
    `swapped`, it is the right one of the pairs.
    """
    right_keys = _normalised(right).with_row_index("b")
    matches = [pl.DataFrame(schema={"a": pl.UInt32, "b": pl.UInt32})]
    rows = 0
    for batch in left:
        left_keys = _normalised(batch).with_row_index("a", offset=rows).filter(pl.col("key") != "")
        matches.append(left_keys.join(right_keys, on="key", how="inner").select("a", "b"))
        rows += len(batch)
    pairs = pl.concat(matches)
    pairs = (pairs.select(a="b", b="a") if swapped else pairs).sort("a", "b")
    return _certain_pairs("exact", pairs["a"].to_numpy(), pairs["b"].to_numpy(), comparisons=rows * len(right))


def jaccard_cross_pairs(
    left: Iterable[pl.Series | ShingleSets],
    right: pl.Series,
    *,
    shingle: int,
    threshold: float,
    swapped: bool = False,
    block_cells: int = BLOCK_CELLS,
) -> CrossPairs:
    """Exact Jaccard similarity of the shingle sets of every pair of texts.

    An inverted index over the shingles of `right` counts what each pair shares (a sparse matrix product); pairs that
    share nothing have similarity 0. Memory grows with `right` and with one batch of `left`.

    Args:
        left: batches of the left texts, String series or their shingle sets; positions count through all of them.
        right: String[m], the right texts.
        shingle: words in a shingle.
        threshold: the least similarity that is returned.
        swapped: whether the left texts are the right ones of the pairs that are returned.
        block_cells: how many similarities are held at a time; the result does not depend on it.
    """
    from scipy.sparse import csr_array

    # The inverted index: rows are the distinct shingles of `right`, columns its texts.
    right_shingles, right_offsets = shingle_sets(right, shingle=shingle)
    vocabulary, column = np.unique(right_shingles, return_inverse=True)
    ones = np.ones(len(column), np.int32)
    index = csr_array((ones, column, right_offsets), shape=(len(right), len(vocabulary))).T.tocsr()
    right_sizes = np.diff(right_offsets)

    block = max(1, block_cells // max(1, len(right)))
    collected, rows = _PairCollector(threshold), 0
    for batch in left:
        # The shingles of the batch that `right` has too, as a matrix of texts by shingles.
        shingles, offsets = shingle_sets(batch, shingle=shingle) if isinstance(batch, pl.Series) else batch
        sizes = np.diff(offsets)
        column, shared = _look_up(vocabulary, shingles)
        shared_offsets = np.concatenate([[0], np.cumsum(shared)])[offsets]
        ones = np.ones(len(column), np.int32)
        texts = csr_array((ones, column, shared_offsets), shape=(len(sizes), len(vocabulary)))
        for start in range(0, len(sizes), block):
            # |A ∩ B| of a block of texts with every right text; |A ∪ B| = |A| + |B| - |A ∩ B|.
            intersection = (texts[start : start + block] @ index).tocoo()
            a, b = intersection.coords[0].astype(np.int64) + start, intersection.coords[1].astype(np.int64)
            union = sizes[a] + right_sizes[b] - intersection.data
            collected.add(*((b, rows + a) if swapped else (rows + a, b)), intersection.data / union)
        rows += len(sizes)
    return collected.pairs("near", comparisons=rows * len(right))


def cosine_cross_pairs(
    left: np.ndarray, right: np.ndarray, *, threshold: float, block_cells: int = BLOCK_CELLS
) -> CrossPairs:
    """The cosine of every row of `left` with every row of `right`, block by block.

    float32 products only nominate; what is reported is computed again in float64, row by row, so that it does not
    depend on blocks or threads. A zero vector resembles nothing.

    Args:
        left: embeddings [n, d], any float type.
        right: embeddings [m, d].
        threshold: the least cosine that is returned.
        block_cells: how many cosines are held at a time; the result does not depend on it.
    """
    right_unit = unit(right)
    block = max(1, block_cells // max(1, len(right)))
    collected, highest = _PairCollector(threshold), -1.0
    for start in range(0, len(left) if len(right) else 0, block):
        similarity = unit(left[start : start + block]) @ right_unit.T
        highest = max(highest, float(similarity.max()))
        a, b = np.nonzero(similarity >= min(threshold, highest) - _FLOAT32_ERROR)
        collected.add(start + a, b, cosines(left, right, start + a, b))
    return collected.pairs("semantic", comparisons=len(left) * len(right))


class _PairCollector:
    """Gathers the pairs at or above a threshold, and the best pair seen whatever the threshold."""

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold
        self.parts = [(np.empty(0, np.uint32), np.empty(0, np.uint32), np.empty(0))]
        self.best: tuple[float, int, int] | None = None  # score, -a, -b: of equal scores the earliest pair wins

    def add(self, a: np.ndarray, b: np.ndarray, score: np.ndarray) -> None:
        if not len(score):
            return
        top = np.flatnonzero(score == score.max())
        first = top[np.lexsort((b[top], a[top]))[0]]
        challenger = (float(score[first]), -int(a[first]), -int(b[first]))
        self.best = challenger if self.best is None else max(self.best, challenger)
        keep = score >= self.threshold
        self.parts.append((a[keep].astype(np.uint32), b[keep].astype(np.uint32), score[keep]))

    def pairs(self, measure: str, *, comparisons: int) -> CrossPairs:
        a, b, score = (np.concatenate(column) for column in zip(*self.parts, strict=True))
        order = np.lexsort((b, a))
        highest, highest_pair = (self.best[0], (-self.best[1], -self.best[2])) if self.best else (None, None)
        return CrossPairs(measure, self.threshold, comparisons, a[order], b[order], score[order], highest, highest_pair)


def _look_up(vocabulary: np.ndarray, shingles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The index in the sorted vocabulary of each shingle that is in it, and which these are (bool)."""
    if not len(vocabulary):
        return np.empty(0, np.int64), np.zeros(len(shingles), dtype=bool)
    index = np.minimum(np.searchsorted(vocabulary, shingles), len(vocabulary) - 1)
    present = vocabulary[index] == shingles
    return index[present], present


def _normalised(texts: pl.Series) -> pl.DataFrame:
    return pl.DataFrame({"key": texts}).select(text.normalise(pl.col("key")))


def _joined(batches: Iterable[pl.Series]) -> pl.Series:
    return pl.concat([pl.Series("text", [], pl.String), *[batch.alias("text") for batch in batches]])


def _filtered(batches: Iterable[Batch], keep: np.ndarray) -> Iterator[Batch]:
    start = 0
    for batch in batches:
        yield batch.filter(keep[start : start + len(batch)])
        start += len(batch)
