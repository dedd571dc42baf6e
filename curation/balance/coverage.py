"""Choosing rows that cover a set of embeddings: farthest-first, by clusters where that would take too long.

All comparisons are made on the lattice of `siftune.curation.embeddings.cosine`, so the choice is the same whatever
the threads. Choices come as an order: the first k of it are the choice of k rows.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from siftune.curation.embeddings.cosine import cosines, lattice
from siftune.curation.sampling import water_fill

#: Row positions, int64[m].
Positions = NDArray[np.int64]

#: Multiply-adds that farthest-first may take; 20,000 of 20,000 rows of 384 dimensions, some ten seconds on two cores.
MOST_WORK = 160_000_000_000
#: Rows among which farthest-first chooses between two matrix products over all rows.
CANDIDATES = 1024
#: One cluster for so many rows, within these limits.
_CLUSTER_ROWS = 1024
_FEWEST_CLUSTERS, _MOST_CLUSTERS = 16, 256
_SAMPLE = 4096  # rows from which the first centres are chosen
_ITERATIONS = 8  # of k-means
#: A cluster with more than this share of the rows means that the embeddings hardly tell the rows apart.
_ONE_CLUSTER = 0.9
_BLOCK_CELLS = 16_000_000  # similarities that are held at a time: 64 MB


def covering_rows(
    vectors: np.ndarray,
    count: int,
    *,
    keys: np.ndarray,
    first: np.ndarray | None = None,
    most_work: int = MOST_WORK,
    candidates: int = CANDIDATES,
) -> Positions:
    """Positions int64[count] of rows that cover `vectors`, in the order in which they are chosen.

    Farthest-first traversal (Gonzalez 1985, Clustering to minimize the maximum intercluster distance; the greedy
    2-approximation of k-center): each row chosen is the one whose nearest chosen row is farthest. Where
    n · count · d exceeds `most_work`, the rows are first cut into clusters (spherical k-means) that are served in
    turn, so that each gets the same number as far as it has them.

    Args:
        vectors: embeddings [n, d], any float type.
        count: how many rows, at most n.
        keys: uint64[n], the drawn order of the rows: it says who comes first, and breaks ties between clusters.
        first: positions int64[m] that are chosen before all others.
        most_work: multiply-adds that plain farthest-first may take.
        candidates: see `farthest_first`; the choice does not depend on it.
    """
    chosen_first = np.empty(0, np.int64) if first is None else np.asarray(first, np.int64)
    return _covering_points(lattice(vectors), count, keys, chosen_first, most_work, candidates)


def _covering_points(
    points: np.ndarray, count: int, keys: np.ndarray, first: Positions, most_work: int, candidates: int
) -> Positions:
    """`covering_rows` over lattice points; it calls itself for the members of a cluster."""
    if count <= len(first):
        return first[:count]
    if len(points) * count * points.shape[1] <= most_work:
        start = first if len(first) else np.argsort(keys, kind="stable")[:1]
        return farthest_first(points, count, first=start, candidates=candidates)

    # Too many rows to compare them all: cut them into clusters.
    label = _clusters(points, keys)
    sizes = np.bincount(label)
    if sizes.max() > _ONE_CLUSTER * len(points):  # nothing to tell the rows apart by: take them as they were drawn
        others = np.setdiff1d(np.argsort(keys, kind="stable"), first, assume_unique=True)
        return np.concatenate([first, others[: count - len(first)]])

    # Cover each cluster by itself; `turn` is the round in which a row is served.
    turn = np.full(len(points), len(points), np.int64)
    shares = water_fill(np.ones(len(sizes)), sizes, count)
    for cluster in np.flatnonzero(shares):
        members = np.flatnonzero(label == cluster)
        head = np.flatnonzero(np.isin(members, first))
        share = max(int(shares[cluster]), len(head))
        ordered = _covering_points(points[members], share, keys[members], head, most_work, candidates)
        turn[members[ordered]] = np.arange(len(ordered))
    turn[first] = np.arange(-len(first), 0)
    return np.lexsort((keys, turn))[:count]


def farthest_first(points: np.ndarray, count: int, *, first: Positions, candidates: int = CANDIDATES) -> Positions:
    """Farthest-first traversal of lattice points, exact, ties to the lower position: int64[count].

    Rows are looked at in blocks: among the candidates (the rows now farthest from the choice) the greedy choice goes
    on for as long as the best of them is farther than every row outside was when the block began, for those can only
    have come closer. Then one matrix product brings all rows up to date.

    Args:
        points: lattice points float32[n, d], of `siftune.curation.embeddings.cosine.lattice`.
        count: how many rows, at most n.
        first: the rows chosen to begin with, at least one.
        candidates: how many rows a block looks at; the result does not depend on it.
    """
    chosen = [first[:count]]
    nearest = _similarity_to(points, first[:count])
    nearest[first[:count]] = np.inf
    remaining = count - len(chosen[0])
    while remaining > 0:
        block, bound = _farthest(nearest, candidates)
        block_rows = _pick(points[block], nearest[block], bound, limit=remaining)
        new = block[block_rows]
        nearest = np.maximum(nearest, _similarity_to(points, new))
        nearest[new] = np.inf
        chosen.append(new)
        remaining -= len(new)
    return np.concatenate(chosen)


def _farthest(nearest: np.ndarray, count: int) -> tuple[Positions, float]:
    """About `count` rows farthest from the choice, ascending, and a similarity that no other row is below."""
    if len(nearest) <= count:
        return np.arange(len(nearest)), np.inf
    bound = float(np.partition(nearest, count)[count])
    below = np.flatnonzero(nearest < bound)
    if len(below):
        return below, bound
    return np.flatnonzero(nearest == bound)[:count], bound


def _pick(points: np.ndarray, nearest: np.ndarray, bound: float, *, limit: int) -> Positions:
    """Greedy choice among candidates while the best of them is farther than `bound`; at least one."""
    nearest = nearest.copy()
    picked: list[int] = []
    while len(picked) < limit:
        best = int(nearest.argmin())
        if picked and not nearest[best] < bound:
            break
        picked.append(best)
        np.maximum(nearest, points @ points[best], out=nearest)
        nearest[best] = np.inf
        if len(picked) == len(points):
            break
    return np.asarray(picked, np.int64)


def _similarity_to(points: np.ndarray, chosen: Positions) -> NDArray[np.float32]:
    """For each point its similarity to the nearest of the chosen ones, float32 [n]; -inf when there are none."""
    nearest = np.full(len(points), -np.inf, np.float32)
    chosen_points = points[chosen].T
    block = max(1, _BLOCK_CELLS // max(1, len(chosen)))
    for start in range(0, len(points) if len(chosen) else 0, block):
        nearest[start : start + block] = (points[start : start + block] @ chosen_points).max(axis=1)
    return nearest


def nearest_chosen(vectors: np.ndarray, rest: Positions, chosen: Positions) -> tuple[Positions, NDArray[np.float64]]:
    """For each of the rows `rest` the most similar of the rows `chosen` (ties: the earliest), and their cosine.

    `vectors` are the embeddings [n, d] of all rows. Both results have the length of `rest`.
    """
    block = max(1, _BLOCK_CELLS // max(1, len(chosen)))
    chosen_points = lattice(vectors[chosen]).T
    nearest = np.empty(len(rest), np.int64)
    for start in range(0, len(rest), block):
        part = slice(start, start + block)
        nearest[part] = chosen[(lattice(vectors[rest[part]]) @ chosen_points).argmax(axis=1)]
    return nearest, cosines(vectors, vectors, rest, nearest)


def _clusters(points: np.ndarray, keys: np.ndarray) -> NDArray[np.int64]:
    """Spherical k-means (Dhillon and Modha 2001), int64[n] from 0, that begins with rows far apart in a seeded sample.

    Sums of lattice points are exact in float64, so centres do not depend on their order.
    """
    sample = points[np.argsort(keys, kind="stable")[:_SAMPLE]]
    count = min(len(sample), int(np.clip(len(points) // _CLUSTER_ROWS, _FEWEST_CLUSTERS, _MOST_CLUSTERS)))
    centres = sample[farthest_first(sample, count, first=np.zeros(1, np.int64))]
    label = _nearest_centre(points, centres)
    for _ in range(_ITERATIONS):
        sums = [points[label == cluster].sum(axis=0, dtype=np.float64) for cluster in range(len(centres))]
        centres = lattice(np.stack(sums))
        new = _nearest_centre(points, centres)
        if (new == label).all():
            break
        label = new
    return np.unique(label, return_inverse=True)[1]


def _nearest_centre(points: np.ndarray, centres: np.ndarray) -> NDArray[np.int64]:
    block = max(1, _BLOCK_CELLS // len(centres))
    parts = [(points[start : start + block] @ centres.T).argmax(axis=1) for start in range(0, len(points), block)]
    return np.concatenate(parts)
