"""Exact duplicates: rows whose normalised texts are the same."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import polars as pl
from numpy.typing import NDArray

from siftune.curation.text.words import normalise


def groups(texts: Iterable[pl.Series]) -> NDArray[np.int64]:
    """For each row the position of the first row with the same normalised text (itself if there is none before).

    Batches are read once and only 16 bytes a row are kept: two 64-bit hashes with independent seeds. For 10 million
    rows the chance that any two different texts share both is below 1e-24. Empty and null texts are equal to none.
    """
    hashed = [
        batch.to_frame("text")
        .select(key=normalise(pl.col("text").fill_null("")))
        .select(first=pl.col("key").hash(11), second=pl.col("key").hash(29), empty=pl.col("key") == "")
        for batch in texts
    ]
    if not hashed:
        return np.empty(0, np.int64)
    row = pl.int_range(pl.len(), dtype=pl.Int64)
    keyed = pl.concat(hashed).with_columns(row=row, alone=pl.when("empty").then(row).otherwise(-1))
    return keyed.select(pl.col("row").min().over("first", "second", "alone"))["row"].to_numpy()
