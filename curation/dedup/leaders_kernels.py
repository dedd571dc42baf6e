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
    """Greedy leaders over rows in keep order; `early[starts[i]:starts[i + 1]]` are the earlier rows similar to row i.

    Returns kept, witness, its score, guard witness, its score; see `siftune.curation.dedup.leaders`.
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
                seen, top = guard_witness[row], guard_best[row]
            else:
                seen, top = witness[row], best[row]
            if seen >= 0 and (value < top or (value == top and other > seen)):
                continue
            if guard[pair]:
                guard_witness[row], guard_best[row] = other, value
            else:
                witness[row], best[row] = other, value
        head = witness[row]
        if head < 0:
            leader[row] = True
            continue
        # The guard did not decide: the row belongs to a family anyhow.
        guard_witness[row], guard_best[row] = -1, np.nan
        if family[head] < cap:
            family[head] += 1
        elif not pinned[row]:
            kept[row] = False
    return kept, witness, best, guard_witness, guard_best


@njit(cache=True, nogil=True)
def decide_classes(
    order: I64, kind: I64, starts: I64, near: I64, score: F64, cap: int, alive: Bools, pinned: Bools
) -> tuple[Bools, I64, F64]:
    """Greedy leaders over rows that fall into classes of equal ones.

    order: rows in keep order, [n]; kind: the class of each row, named by one of its rows, [n];
    `near[starts[c]:starts[c + 1]]`: the other classes similar to class c, and their scores.
    Returns kept, witness, its score by row; rows that are not alive take no part.
    """
    n = order.size
    kept = np.zeros(n, np.bool_)
    witness = np.full(n, -1, np.int64)
    best = np.full(n, np.nan)
    place = np.empty(n, np.int64)
    place[order] = np.arange(n)
    family = np.ones(n, np.int64)
    leader = np.full(n, -1, np.int64)  # of each class; a class has at most one, as its rows are equal
    for row in order:
        if not alive[row]:
            continue
        kept[row] = True
        group = kind[row]
        head, top = leader[group], 1.0
        if head < 0:
            for pair in range(starts[group], starts[group + 1]):
                other = leader[near[pair]]
                if other < 0:
                    continue
                if head < 0 or score[pair] > top or (score[pair] == top and place[other] < place[head]):
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
