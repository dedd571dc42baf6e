"""Coverage: rows chosen so that every row of the pool has a chosen row close to it, with quality or without.

The value of a choice A is the facility-location function f(A) = Σ_v max_{a in A} s(a, v) over all rows v of the pool,
where s is the cosine of two embeddings, or 0 where that is negative. The gain of a row a is f(A + a) − f(A) =
Σ_v [max(m_v, s(a, v)) − m_v] with m_v = max_{b in A} s(b, v). Greedy choice takes the row of the greatest
(1 − α) · gain + α · q, q the quality of a row (QDIT, Bukharin et al., Data Diversity Matters for Robust Instruction
Tuning, arXiv 2311.14736); with α = 0 it is the greedy algorithm whose value is at least 1 − 1/e of the best possible
(Nemhauser, Wolsey and Fisher 1978).

A gain never grows as A grows, so a gain that was computed earlier is an upper bound: lazy greedy (Minoux 1978) computes
only those gains again that could still be the greatest. Similarities are integers on the lattice of
`siftune.curation.embeddings.cosine`, whose sums are exact: the rows are those of plain greedy, ties go to the lower
position, and neither threads nor block sizes change anything.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from siftune.curation.embeddings.cosine import SCALE, cosines, lattice
from siftune.curation.embeddings.knn import nearest_on_lattice
from siftune.curation.progress import Progress

#: Up to this many rows every similarity counts: at 4 bytes each they take 400 MB. Above, those to nearest neighbours.
EXACT_ROWS = 10_000
#: Above: the neighbours of a row, at least the first and at most the second number. In between, four times as many as
#: there are rows for each one chosen, so that most rows find a chosen row among their neighbours. For each row, a
#: neighbour takes some 40 bytes.
_FEWEST_NEIGHBOURS, _MOST_NEIGHBOURS = 64, 256
_NEIGHBOURS_PER_CHOICE = 4
_REPORTED = 500  # choices between two reports of progress
_BLOCK_ROWS = 1024  # rows that are compared with all before them at a time

#: The rows that a candidate is similar to (all of them, or positions int64[m]), and the similarities, float32[m], in
#: units of 1 / SCALE².
_Row = tuple["slice | NDArray[np.int64]", NDArray[np.float32]]


@dataclass(frozen=True)
class Covering:
    """Rows in the order in which they were chosen.

    Attributes:
        chosen: int64 [k], their positions.
        gains: float64 [k], the gain of each when it was chosen.
        scores: float64 [k], what it was chosen by: (1 − α) · gain + α · quality.
        neighbours: how many neighbours of a row counted; None where all rows did.
    """

    chosen: NDArray[np.int64]
    gains: NDArray[np.float64]
    scores: NDArray[np.float64]
    neighbours: int | None


def cover(
    vectors: np.ndarray,
    count: int,
    *,
    quality: NDArray[np.float64] | None = None,
    alpha: float = 0.0,
    progress: Progress | None = None,
) -> Covering:
    """Choose rows by coverage.

    Args:
        vectors: embeddings [n, d] of any float type.
        count: how many rows, at most n.
        quality: float64 [n], in [0, 1]; needed where `alpha` is above 0.
        alpha: the weight of quality, from 0 to 1.
        progress: called as rows are chosen.

    Raises:
        UserError: the vectors have more dimensions than can be compared exactly.
    """
    points = lattice(vectors)
    neighbours = None if len(points) <= EXACT_ROWS else neighbours_for(len(points), count)
    similar_to, sums = _all_similarities(points) if neighbours is None else _nearest_similarities(points, neighbours)
    weight = (1 - alpha) / SCALE**2
    bonus = np.zeros(len(points)) if quality is None else alpha * quality
    chosen, gains, scores = _lazy_greedy(similar_to, sums, count, weight=weight, bonus=bonus, progress=progress)
    return Covering(chosen, gains / SCALE**2, scores, neighbours)


def neighbours_for(rows: int, count: int) -> int:
    """How many neighbours of each row count when `count` of so many rows are chosen."""
    wanted = _NEIGHBOURS_PER_CHOICE * math.ceil(rows / max(count, 1))
    return min(rows, max(_FEWEST_NEIGHBOURS, min(wanted, _MOST_NEIGHBOURS)))


def _all_similarities(points: NDArray[np.float32]) -> tuple[Callable[[int], _Row], NDArray[np.float64]]:
    """The similarities of a row to all rows; and their sum for each row, float64 [n]."""
    similar = points @ points.T
    np.maximum(similar, 0, out=similar)
    return lambda row: (slice(None), similar[row]), similar.sum(axis=1, dtype=np.float64)


def _nearest_similarities(
    points: NDArray[np.float32], neighbours: int
) -> tuple[Callable[[int], _Row], NDArray[np.float64]]:
    """The similarities of a row to those rows among whose nearest neighbours it is, itself among them; their sums."""
    nearest, products = nearest_on_lattice(points, points, neighbours)
    candidate = nearest.ravel()
    order = np.argsort(candidate, kind="stable")
    row_of = np.repeat(np.arange(len(points)), nearest.shape[1])[order]
    values = np.maximum(products.ravel()[order], 0)
    bounds = np.concatenate([[0], np.cumsum(np.bincount(candidate, minlength=len(points)))])

    def similar_to(row: int) -> _Row:
        part = slice(bounds[row], bounds[row + 1])
        return row_of[part], values[part]

    return similar_to, np.bincount(candidate[order], weights=values, minlength=len(points)).astype(np.float64)


def _lazy_greedy(
    similar_to: Callable[[int], _Row],
    first_gains: NDArray[np.float64],
    count: int,
    *,
    weight: float,
    bonus: NDArray[np.float64],
    progress: Progress | None,
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Positions, gains (in units of 1 / SCALE²) and scores of `count` rows in the order in which they are chosen.

    The score of a row is weight · gain + bonus, which grows with the gain: what was computed for a smaller choice is an
    upper bound. The heap holds (−bound, position), so that among equals the lower position comes first.
    """
    closest = np.zeros(len(first_gains), np.float32)  # m_v
    heap = [(-score, row) for row, score in enumerate((weight * first_gains + bonus).tolist())]
    heapq.heapify(heap)
    chosen, gains, scores = np.empty(count, np.int64), np.empty(count), np.empty(count)
    for number in range(count):
        _, row = heapq.heappop(heap)
        while True:
            rows, similarity = similar_to(row)
            gain = float(np.maximum(similarity - closest[rows], 0).sum(dtype=np.float64))
            entry = (-(weight * gain + float(bonus[row])), row)
            if not heap or entry < heap[0]:
                break
            _, row = heapq.heapreplace(heap, entry)
        closest[rows] = np.maximum(closest[rows], similarity)
        chosen[number], gains[number], scores[number] = row, gain, -entry[0]
        if progress and number % _REPORTED == 0:
            progress("choosing rows by coverage", number, count)
    return chosen, gains, scores


def closest_before(vectors: np.ndarray) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """For each row the most similar of the rows before it (ties: the earliest) and their cosine, both [n]; the first
    row has -1 and NaN. `vectors` are embeddings [n, d] of any float type.
    """
    points = lattice(vectors)
    closest = np.full(len(points), -1)
    for start in range(1, len(points), _BLOCK_ROWS):
        stop = min(start + _BLOCK_ROWS, len(points))
        products = points[start:stop] @ points[: stop - 1].T
        products[np.arange(stop - 1) >= np.arange(start, stop)[:, None]] = -np.inf
        closest[start:stop] = products.argmax(axis=1)
    cosine = np.full(len(points), np.nan)
    cosine[1:] = cosines(vectors, vectors, np.arange(1, len(points)), closest[1:])
    return closest, cosine
