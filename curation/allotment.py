"""Sharing a number of rows among bins, strata or clusters that hold only so many."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def water_fill(weights: np.ndarray, capacity: np.ndarray, total: int) -> NDArray[np.int64]:
    """Whole shares int64[k] of `total` in proportion to `weights`, none above its capacity.

    What a full entry cannot take goes to the others in proportion to their weights, as water finds its level. Entries
    of weight 0 get nothing, so less than `total` is given where the others are full. Fractions are rounded by largest
    remainder (Hamilton), equal ones to the earlier entry.
    """
    capacity = np.where(weights > 0, capacity, 0).astype(np.int64)
    total = min(int(total), int(capacity.sum()))
    ratio = np.divide(capacity, weights, out=np.zeros(len(weights)), where=weights > 0)
    exact = np.zeros(len(weights))
    open_, left = weights > 0, float(total)
    for entry in np.argsort(ratio, kind="stable"):
        if not open_[entry]:
            continue
        level = left / weights[open_].sum()
        if ratio[entry] > level:
            exact[open_] = level * weights[open_]
            break
        exact[entry], open_[entry] = capacity[entry], False
        left -= capacity[entry]
    shares = np.minimum(np.floor(exact + 1e-9), capacity).astype(np.int64)
    for entry in np.argsort(-np.round(exact - shares, 9), kind="stable"):
        if shares.sum() < total and shares[entry] < capacity[entry]:
            shares[entry] += 1
    while shares.sum() < total:  # rounding left more over than there are entries with a remainder
        shares[np.flatnonzero(shares < capacity)[0]] += 1
    return shares
