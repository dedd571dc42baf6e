"""Choosing rows that cover a set of embeddings: farthest-first, by clusters where that would take too long.

All comparisons are made on the lattice of `siftune.curation.embeddings.cosine`, so the choice is the same whatever
the threads. Choices come as an order: the first k of it are the choice of k rows.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from siftune.curation.allotment import water_fill
from siftune.curation.embeddings.cosine import cosines, lattice

Order = NDArray[np.int64]

#: Multiply-adds that farthest-first may take; 20,000 of 20,000 rows of 384 dimensions, some ten seconds on two cores.
MOST_WORK = 160_000_000_000
_CANDIDATES = 1024
_CLUSTER_ROWS = 1024
_FEWEST_CLUSTERS, _MOST_CLUSTERS = 16, 256
_SAMPLE = 4096
_ITERATIONS = 8
_CELLS = 16_000_000  # of a block of similarities


def spread(
    vectors: np.ndarray, count: int, *, keys: np.ndarray, must: np.ndarray | None = None, most_work: int = MOST_WORK
) -> Order:
    """Positions int64[count] of rows that cover `vectors` [n, d], in the order in which they are chosen.

    Farthest-first traversal (Gonzalez 1985; the greedy 2-approximation of k-center): each row chosen is the one whose
    nearest chosen row is farthest. Where n · count · d exceeds `most_work`, the rows are first cut into clusters
    (spherical k-means) that are served in turn, so that each gets the same number as far as it has them.

    Args:
        vectors: embeddings, any float type.
        count: how many rows, at most n.
        keys: uint64[n], the drawn order of the rows: it says who comes first, and breaks ties between clusters.
        must: positions that are chosen before all others.
        most_work: see above.
    """
    points = lattice(vectors)
    first = np.empty(0, np.int64) if must is None else np.asarray(must, np.int64)
    return _spread(points, count, keys, first, most_work)


def _spread(points: np.ndarray, count: int, keys: np.ndarray, first: Order, most_work: int) -> Order:
    if count <= len(first):
        return first[:count]
    if len(points) * count * points.shape[1] <= most_work:
        return farthest_first(points, count, first=first if len(first) else np.argsort(keys, kind="stable")[:1])
    label = _clusters(points, keys)
    sizes = np.bincount(label)
    if sizes.max() > 0.9 * len(points):  # nothing to tell the rows apart by
        rest = np.setdiff1d(np.argsort(keys, kind="stable"), first, assume_unique=True)
        return np.concatenate([first, rest[: count - len(first)]])
    turn = np.full(len(points), len(points), np.int64)
    take = water_fill(np.ones(len(sizes)), sizes, count)
    for cluster in np.flatnonzero(take):
        members = np.flatnonzero(label == cluster)
        head = np.flatnonzero(np.isin(members, first))
        inside = _spread(points[members], max(int(take[cluster]), len(head)), keys[members], head, most_work)
        turn[members[inside]] = np.arange(len(inside))
    turn[first] = np.arange(-len(first), 0)
    return np.lexsort((keys, turn))[:count]


def farthest_first(points: np.ndarray, count: int, *, first: Order) -> Order:
    """Farthest-first traversal of lattice points [n, d], exact, ties to the lower position.

    `first` are the rows chosen to begin with. Rows are looked at in blocks: among the candidates (the rows now
    farthest from the choice) the greedy choice goes on for as long as the best of them is farther than every row
    outside was when the block began, for those can only have come closer. Then one matrix product brings all rows up
    to date.
    """
    chosen = [first[:count]]
    nearest = _similarity_to(points, first[:count])
    nearest[first[:count]] = np.inf
    left = count - len(chosen[0])
    while left > 0:
        candidates, bound = _farthest(nearest)
        picked = _pick(points[candidates], nearest[candidates], bound, most=left)
        new = candidates[picked]
        nearest = np.maximum(nearest, _similarity_to(points, new))
        nearest[new] = np.inf
        chosen.append(new)
        left -= len(new)
    return np.concatenate(chosen)


def _farthest(nearest: np.ndarray) -> tuple[Order, float]:
    """The rows farthest from the choice, ascending, and a similarity that no other row is below."""
    if len(nearest) <= _CANDIDATES:
        return np.arange(len(nearest)), np.inf
    bound = float(np.partition(nearest, _CANDIDATES)[_CANDIDATES])
    below = np.flatnonzero(nearest < bound)
    if len(below):
        return below, bound
    return np.flatnonzero(nearest == bound)[:_CANDIDATES], bound


def _pick(points: np.ndarray, nearest: np.ndarray, bound: float, *, most: int) -> Order:
    """Greedy choice among candidates while the best of them is farther than `bound`; at least one."""
    nearest = nearest.copy()
    picked: list[int] = []
    while len(picked) < most:
        best = int(nearest.argmin())
        if picked and not nearest[best] < bound:
            break
        picked.append(best)
        np.maximum(nearest, points @ points[best], out=nearest)
        nearest[best] = np.inf
        if len(picked) == len(points):
            break
    return np.asarray(picked, np.int64)


def _similarity_to(points: np.ndarray, chosen: Order) -> NDArray[np.float32]:
    """For each point its similarity to the nearest of the chosen ones, float32 [n]; -inf when there are none."""
    nearest = np.full(len(points), -np.inf, np.float32)
    other = points[chosen].T
    block = max(1, _CELLS // max(1, len(chosen)))
    for start in range(0, len(points) if len(chosen) else 0, block):
        nearest[start : start + block] = (points[start : start + block] @ other).max(axis=1)
    return nearest


def nearest_chosen(vectors: np.ndarray, rest: Order, chosen: Order) -> tuple[Order, NDArray[np.float64]]:
    """For each of the rows `rest` the most similar of the rows `chosen` (ties: the earliest) and their cosine."""
    block = max(1, _CELLS // max(1, len(chosen)))
    other = lattice(vectors[chosen]).T
    found = np.empty(len(rest), np.int64)
    for start in range(0, len(rest), block):
        part = slice(start, start + block)
        found[part] = chosen[(lattice(vectors[rest[part]]) @ other).argmax(axis=1)]
    return found, cosines(vectors, vectors, rest, found)


def _clusters(points: np.ndarray, keys: np.ndarray) -> NDArray[np.int64]:
    """Spherical k-means, int64[n] from 0, that begins with rows far apart in a seeded sample.

    Sums of lattice points are exact in float64, so centres do not depend on their order.
    """
    sample = points[np.argsort(keys, kind="stable")[:_SAMPLE]]
    count = min(len(sample), int(np.clip(len(points) // _CLUSTER_ROWS, _FEWEST_CLUSTERS, _MOST_CLUSTERS)))
    centres = sample[farthest_first(sample, count, first=np.zeros(1, np.int64))]
    label = _closest(points, centres)
    for _ in range(_ITERATIONS):
        sums = np.stack([points[label == one].sum(axis=0, dtype=np.float64) for one in range(len(centres))])
        centres = lattice(sums)
        new = _closest(points, centres)
        if (new == label).all():
            break
        label = new
    return np.unique(label, return_inverse=True)[1]


def _closest(points: np.ndarray, centres: np.ndarray) -> NDArray[np.int64]:
    block = max(1, _CELLS // len(centres))
    parts = [(points[start : start + block] @ centres.T).argmax(axis=1) for start in range(0, len(points), block)]
    return np.concatenate(parts)
