"""The compiled inner loops of greedy leaders. See `siftune.curation.dedup.leaders`."""


# mypy: allow-untyped-defs

from __future__ import annotations

import numpy as np
from numba import njit

from siftune.curation.text.shingle_kernels import F64, I64, Bools


@njit(cache=True, nogil=True)
def decide(
    starts: I64, early: I64, score: F64, guard: Bools, cap: int, pinned: Bools
) -> tuple[Bools, I64, F64, I64, F64]:
    """Greedy leaders over n rows in keep order, in O(n + m) for m pairs.

    Args:
        starts: `early[starts[i]:starts[i + 1]]` are the earlier rows similar to row i, int64 [n + 1].
        early: earlier rows, int64 [m].
        score: their similarity, float64 [m], all at or above the threshold.
        guard: whether the guard keeps the rows of a pair apart, bool [m].
        cap: how many rows of a family stay.
        pinned: rows that always stay, bool [n].

    Returns:
        kept bool [n], witness int64 [n], its score float64 [n], guard witness int64 [n], its score float64 [n]; see
        `siftune.curation.dedup.leaders.Leaders`.
    """
    n = pinned.size
    kept = np.ones(n, np.bool_)
    leader = np.zeros(n, np.bool_)
    family = np.ones(n, np.int64)
    witness = np.full(n, -1, np.int64)
    best = np.full(n, np.nan)
    guard_witness = np.full(n, -1, np.int64)
    guard_best = np.full(n, np.nan)
    for row in range(n):
        for pair in range(starts[row], starts[row + 1]):
            other, value = early[pair], score[pair]
            if not leader[other]:
                continue
            if guard[pair]:
                previous, top = guard_witness[row], guard_best[row]
            else:
                previous, top = witness[row], best[row]
            if previous >= 0 and (value < top or (value == top and other > previous)):
                continue
            if guard[pair]:
                guard_witness[row], guard_best[row] = other, value
            else:
                witness[row], best[row] = other, value
        head = witness[row]
        if head < 0:
            leader[row] = True
            continue
        # The guard decided nothing: the row belongs to a family anyhow.
        guard_witness[row], guard_best[row] = -1, np.nan
        if family[head] < cap:
            family[head] += 1
        elif not pinned[row]:
            kept[row] = False
    return kept, witness, best, guard_witness, guard_best


@njit(cache=True, nogil=True)
def decide_classes(
    order: I64, row_class: I64, starts: I64, similar: I64, score: F64, cap: int, alive: Bools, pinned: Bools
) -> tuple[Bools, I64, F64]:
    """Greedy leaders over n rows that fall into classes of equal ones, in O(n + rows x similar classes).

    Args:
        order: rows in keep order, int64 [n].
        row_class: the class of each row, named by one of its rows, int64 [n].
        starts: `similar[starts[c]:starts[c + 1]]` are the other classes similar to class c, int64 [n + 1].
        similar: classes, int64 [m].
        score: their similarity, float64 [m], all at or above the threshold and below 1.
        cap: how many rows of a family stay.
        alive: rows that take part, bool [n].
        pinned: rows that always stay, bool [n].

    Returns:
        kept bool [n], witness int64 [n] and its score float64 [n]; see `siftune.curation.dedup.leaders.Leaders`.
    """
    n = order.size
    kept = np.zeros(n, np.bool_)
    witness = np.full(n, -1, np.int64)
    best = np.full(n, np.nan)
    position = np.empty(n, np.int64)
    position[order] = np.arange(n)
    family = np.ones(n, np.int64)
    leader = np.full(n, -1, np.int64)  # of each class; a class has at most one, as its rows are equal
    for row in order:
        if not alive[row]:
            continue
        kept[row] = True
        group = row_class[row]
        head, top = leader[group], 1.0
        if head < 0:
            for pair in range(starts[group], starts[group + 1]):
                other = leader[similar[pair]]
                if other < 0:
                    continue
                if head < 0 or score[pair] > top or (score[pair] == top and position[other] < position[head]):
                    head, top = other, score[pair]
        if head < 0:
            leader[group] = row
            continue
        witness[row], best[row] = head, top
        if family[head] < cap:
            family[head] += 1
        elif not pinned[row]:
            kept[row] = False
    return kept, witness, best
