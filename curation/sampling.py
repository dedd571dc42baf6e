"""Seeded shuffles that depend on the ids of rows alone, and the division of a sample among strata.

A shuffle never depends on where a row stands or on how many others there are, so adding rows does not reorder the rest.
"""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray


def shuffle_keys(ids: pl.Series, *, seed: int, purpose: str) -> NDArray[np.uint64]:
    """A uniform key uint64[n] for each id; sorting by the keys shuffles the rows.

    The hash is xxh3, which is the same on every machine and in every version.

    Args:
        ids: the rows.
        seed: the seed of the run.
        purpose: keeps the shuffles of two users of one seed apart: a row that the splits draw early must not be one
            that the random arm draws early.
    """
    from xxhash import xxh3_64_intdigest

    prefix = f"{purpose}\n"
    digests = (xxh3_64_intdigest((prefix + row_id).encode(), seed) for row_id in ids)
    return np.fromiter(digests, dtype=np.uint64, count=len(ids))


def shuffled_positions(ids: pl.Series, *, seed: int, purpose: str) -> NDArray[np.int64]:
    """The positions int64[n] of `ids` in shuffled order; equal ids (repeated rows) stay in row order.

    See `shuffle_keys` for the arguments.
    """
    return np.argsort(shuffle_keys(ids, seed=seed, purpose=purpose), kind="stable")


def water_fill(weights: np.ndarray, capacity: np.ndarray, total: int) -> NDArray[np.int64]:
    """Divide `total` rows among strata in proportion to their weights, no stratum above its capacity.

    What a full stratum cannot take goes to the others in proportion to their weights, as water finds its level.
    Fractions are rounded by largest remainder (Hamilton), equal remainders to the earlier stratum. Strata of weight 0
    get nothing, so fewer than `total` rows are given where the others are full.

    Args:
        weights: float[k], at least 0.
        capacity: int[k], the most rows of each stratum.
        total: the rows to give.

    Returns:
        The rows of each stratum, int64[k].
    """
    capacity = np.where(weights > 0, capacity, 0).astype(np.int64)
    total = min(int(total), int(capacity.sum()))

    # The strata that fill up first take their capacity; the others share the rest by weight.
    ratio = np.divide(capacity, weights, out=np.zeros(len(weights)), where=weights > 0)
    exact = np.zeros(len(weights))
    open_strata, remaining = weights > 0, float(total)
    for stratum in np.argsort(ratio, kind="stable"):
        if not open_strata[stratum]:
            continue
        level = remaining / weights[open_strata].sum()
        if ratio[stratum] > level:
            exact[open_strata] = level * weights[open_strata]
            break
        exact[stratum], open_strata[stratum] = capacity[stratum], False
        remaining -= capacity[stratum]

    # Whole numbers: round down, then give what is left to the largest remainders.
    shares = np.minimum(np.floor(exact + 1e-9), capacity).astype(np.int64)
    for stratum in np.argsort(-np.round(exact - shares, 9), kind="stable"):
        if shares.sum() < total and shares[stratum] < capacity[stratum]:
            shares[stratum] += 1
    while shares.sum() < total:  # more is left over than there are strata with a remainder
        shares[np.flatnonzero(shares < capacity)[0]] += 1
    return shares
