"""Seeded draws that depend on what a row is called, never on where it stands or on how many others there are."""

from __future__ import annotations

import numpy as np
import polars as pl


def keys(ids: pl.Series, *, seed: int, purpose: str) -> np.ndarray:
    """A uniform uint64[n] for each id: the order of a shuffle. xxh3 is the same on every machine and in every version.

    `purpose` keeps the draws of two users of one seed apart: a row that the splits drew early must not
    be one that the random arm draws early.
    """
    from xxhash import xxh3_64_intdigest

    prefix = f"{purpose}\n"
    digests = (xxh3_64_intdigest((prefix + name).encode(), seed) for name in ids)
    return np.fromiter(digests, dtype=np.uint64, count=len(ids))


def order(ids: pl.Series, *, seed: int, purpose: str) -> np.ndarray:
    """Positions int64[n] in drawn order; equal ids (repeated rows) stay in row order."""
    return np.argsort(keys(ids, seed=seed, purpose=purpose), kind="stable")


def apportion(weights: np.ndarray, *, total: int) -> np.ndarray:
    """Whole shares int64[k] of `total` in proportion to integer `weights` (largest remainder, Hamilton).

    Integer arithmetic throughout; equal remainders go to the earlier entry. Never gives an entry more than its
    weight as long as `total` is at most the sum of the weights.
    """
    weights = weights.astype(np.int64)
    if total == 0:
        return np.zeros(len(weights), dtype=np.int64)
    scaled = weights * total
    shares, remainders = scaled // weights.sum(), scaled % weights.sum()
    left = total - int(shares.sum())
    shares[np.argsort(-remainders, kind="stable")[:left]] += 1
    return shares
