"""Greedy leaders: which rows stay, given verified pairs. Never connected components, so every dropped row has a
witness that is itself kept and at least as similar as the threshold.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from siftune.curation.dedup import leaders_kernels


@dataclass(frozen=True)
class Pairs:
    """Verified pairs of rows: positions `a < b` (uint32[m]), sorted, and their similarity (float64[m])."""

    a: NDArray[np.uint32]
    b: NDArray[np.uint32]
    score: NDArray[np.float64]

    def __len__(self) -> int:
        return int(self.a.size)


@dataclass(frozen=True)
class Leaders:
    """What `leaders` decided, each array of length n.

    kept: whether the row stays. witness, score: the leader it belongs to and their similarity; -1 and NaN for a
    leader. guard_witness, guard_score: the most similar leader that would have taken in the row but for the guard;
    -1 and NaN where there is none.
    """

    kept: NDArray[np.bool_]
    witness: NDArray[np.int64]
    score: NDArray[np.float64]
    guard_witness: NDArray[np.int64]
    guard_score: NDArray[np.float64]


def leaders(
    n: int,
    rank: NDArray[np.integer],
    pairs: Pairs,
    *,
    threshold: float,
    guarded: NDArray[np.bool_] | None = None,
    cap: int = 1,
    pinned: NDArray[np.bool_] | None = None,
) -> Leaders:
    """Decide in keep order (rank ascending) which of `n` rows stay.

    A row joins the most similar leader before it whose similarity is at least `threshold` and whose pair is not
    guarded (ties: the lower rank); without one it becomes a leader and stays. The first `cap` rows of a leader's
    family, the leader included, stay; later ones are dropped with the leader as witness. A row that stays as a family
    member is no leader. Pinned rows always stay; a pin takes a place in the family only where one is free, so that
    restoring a row by hand changes the fate of no other.

    Args:
        n: number of rows.
        rank: distinct numbers, [n]; the lowest is kept first.
        pairs: each pair of rows once, in any order.
        threshold: the least similarity of duplicates.
        guarded: for each pair whether the guard protects the rows from one another; default: none.
        cap: how many rows of a family stay.
        pinned: for each row whether it must stay; default: none.
    """
    relevant = pairs.score >= threshold
    a, b = pairs.a[relevant].astype(np.int64), pairs.b[relevant].astype(np.int64)
    score = pairs.score[relevant]
    guard = np.zeros(a.size, np.bool_) if guarded is None else guarded[relevant]
    order = np.argsort(rank, kind="stable")
    place = np.empty(n, np.int64)
    place[order] = np.arange(n)
    # From here on rows are places in keep order; each pair is filed under its later row.
    late, early = np.maximum(place[a], place[b]), np.minimum(place[a], place[b])
    filed = np.argsort(late, kind="stable")
    starts = np.searchsorted(late[filed], np.arange(n + 1))
    free = np.zeros(n, np.bool_) if pinned is None else pinned[order]
    decided = leaders_kernels.decide(starts, early[filed], score[filed], guard[filed], cap, free)
    kept, witness, best, guard_witness, guard_best = decided
    return Leaders(
        kept=kept[place],
        witness=_rows(witness, order)[place],
        score=best[place],
        guard_witness=_rows(guard_witness, order)[place],
        guard_score=guard_best[place],
    )


def _rows(places: NDArray[np.int64], order: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.where(places >= 0, order[places], -1) if places.size else places
