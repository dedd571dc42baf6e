"""What the splits leak that the data came with: held-out rows that have a similar training row."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import polars as pl
from numpy.typing import NDArray

from siftune.curation.run.manifest import GivenLeakageRecord
from siftune.curation.split_names import HELD_OUT, TRAIN
from siftune.curation.splits.assignment import Edges
from siftune.curation.splits.random_split_leakage import class_links


def given_split_leakage(given: pl.Series, pairs: Mapping[str, Edges], *, same: np.ndarray) -> list[GivenLeakageRecord]:
    """Count the held-out rows of the data that have a similar training row, by measure and by any of them.

    Pairs that a measure never looked at (rows dropped before it) are not counted, so the figures are lower bounds.

    Args:
        given: String[n], the split of each row: train, validation or test.
        pairs: the similar rows by measure, as two arrays of row positions, without `exact`.
        same: uint32[n], the class of exact duplicates of each row, as in `random_split_leakage`.

    Returns:
        A record of `exact`, of each measure and of `any`.
    """
    label = np.unique(same, return_inverse=True)[1]
    held_out = given.is_in(HELD_OUT).to_numpy()
    in_train = np.bincount(label, weights=given.eq(TRAIN).to_numpy(), minlength=1) > 0
    leaked: dict[str, NDArray[np.bool_]] = {"exact": in_train[label] & held_out}
    for name, edges in pairs.items():
        one, two = class_links(label, edges)
        beside_train = np.bincount(one, weights=in_train[two], minlength=len(in_train)) > 0
        leaked[name] = (in_train | beside_train)[label] & held_out
    leaked["any"] = np.logical_or.reduce(list(leaked.values()))
    return [
        GivenLeakageRecord(measure=name, rows=int(rows.sum()), held_out=int(held_out.sum()))
        for name, rows in leaked.items()
    ]
