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
