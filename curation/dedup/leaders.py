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
    """Verified pairs of rows: positions `a < b` (uint32 [m]), sorted, and their similarity (float64 [m]).

    `sides`, where both are compared: the similarity of the prompts and that of the answers, float64 [m, 2]. The score
    is then the lesser of the two.
    """

    a: NDArray[np.uint32]
    b: NDArray[np.uint32]
    score: NDArray[np.float64]
    sides: NDArray[np.float64] | None = None

    def __len__(self) -> int:
        return int(self.a.size)


@dataclass(frozen=True)
class Leaders:
    """What `leaders` decided, for each of n rows.

    Attributes:
        kept: whether the row stays, bool [n].
        witness: the leader of its family, int64 [n]; -1 for a leader.
        score: the similarity of the two, float64 [n]; NaN for a leader.
        guard_witness: the most similar leader whose family the row would have joined but for the guard, int64 [n];
            -1 where there is none.
        guard_score: the similarity of the two, float64 [n]; NaN where there is none.
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
    member is no leader. Pinned rows always stay; a pinned row counts towards the cap only while the family is below it,
    so that restoring a row by hand changes the fate of no other.

    Time: O(n log n) for the order and O(m) for m pairs.

    Args:
        n: number of rows.
        rank: distinct numbers, [n]; the lowest is kept first.
        pairs: each of m pairs of rows once, in any order.
        threshold: the least similarity of duplicates.
        guarded: whether the guard protects the rows of a pair from one another, bool [m]; default: none.
        cap: how many rows of a family stay.
        pinned: whether a row must stay, bool [n]; default: none.
    """
    relevant = pairs.score >= threshold
    a, b = pairs.a[relevant].astype(np.int64), pairs.b[relevant].astype(np.int64)
    score = pairs.score[relevant]
    guard = np.zeros(a.size, np.bool_) if guarded is None else guarded[relevant]
    # From here on rows are named by their position in keep order; each pair is filed under its later row.
    order = np.argsort(rank, kind="stable")
    position = np.empty(n, np.int64)
    position[order] = np.arange(n)
    late, early = np.maximum(position[a], position[b]), np.minimum(position[a], position[b])
    by_late = np.argsort(late, kind="stable")
    starts = np.searchsorted(late[by_late], np.arange(n + 1))
    stays = np.zeros(n, np.bool_) if pinned is None else pinned[order]
    kept, witness, best, guard_witness, guard_best = leaders_kernels.decide(
        starts, early[by_late], score[by_late], guard[by_late], cap, stays
    )
    # Back to rows; -1 stays -1.
    row_of = np.append(order, -1)
    return Leaders(
        kept=kept[position],
        witness=row_of[witness[position]],
        score=best[position],
        guard_witness=row_of[guard_witness[position]],
        guard_score=guard_best[position],
    )
