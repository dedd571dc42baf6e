"""What a random split of the raw rows would leak: test rows that have a similar training row."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from siftune.curation.run.manifest import LeakageRecord
from siftune.curation.splits.assignment import Edges


def random_split_leakage(
    n: int,
    pairs: Mapping[str, Edges],
    *,
    test_rows: int,
    same: np.ndarray | None = None,
    seed: int = 0,
    repeats: int = 40,
) -> list[LeakageRecord]:
    """The leakage under a random split of `n` raw rows into `test_rows` test rows and training rows, by measure.

    The expectation is exact: a test row with d similar rows has none of them in train with probability
    C(n-1-d, t-1-d) / C(n-1, t-1), where t is `test_rows` (hypergeometric: the t - 1 other test rows are drawn from
    the n - 1 other rows, and all d similar rows must be among them). Pairs that a measure never looked at (rows dropped
    before it) are not counted, so the figure is a lower bound.

    Args:
        n: number of rows.
        pairs: the similar rows by measure, as two arrays of row positions.
        test_rows: rows of the test split, at most n.
        same: uint32[n], the class of exact duplicates of each row (of `similarity_groups`). A row's duplicates are
            similar to it by every measure, and stand where it stands in `pairs`, which may thus name one row of each
            class. None: no row has a duplicate.
        seed: of the random splits.
        repeats: how many random splits the interval is taken from.

    Returns:
        A record of each measure, its interval taken from `repeats` seeded splits. With `same`, the first is that of
        the measure `exact`.
    """
    label = np.arange(n) if same is None else np.unique(same, return_inverse=True)[1]
    size = np.bincount(label, minlength=1)
    measures: dict[str, Edges] = dict(pairs)
    if same is not None and "exact" not in measures:
        measures = {"exact": (np.empty(0), np.empty(0)), **measures}
    records = []
    for name, edges in measures.items():
        one, two = class_links(label, edges)
        similar_rows = size - 1 + np.bincount(one, weights=size[two], minlength=len(size)).astype(np.int64)
        probability = _leak_probability(similar_rows[label], n=n, test_rows=test_rows)
        share = float(probability.mean()) if n and test_rows else 0.0
        shares = _simulated_shares(label, one, two, test_rows=test_rows, seed=seed, repeats=repeats)
        low, high = np.quantile(shares, [0.05, 0.95])
        records.append(
            LeakageRecord(
                measure=name,
                test_rows=test_rows,
                expected=share * test_rows,
                share=share,
                low=float(low),
                high=float(high),
            )
        )
    return records


def class_links(label: np.ndarray, edges: Edges) -> Edges:
    """Distinct ordered pairs of different classes that the edges join, each in both directions, sorted by the first."""
    a, b = label[np.asarray(edges[0], np.int64)], label[np.asarray(edges[1], np.int64)]
    classes = int(label.max(initial=0)) + 1
    code = np.concatenate([a * classes + b, b * classes + a])
    code.sort()
    code = code[np.diff(code, prepend=-1) > 0]  # np.unique hashes first, which takes ten times as long here
    one, two = np.divmod(code, classes)
    return one[one != two], two[one != two]


def _leak_probability(similar_rows: np.ndarray, *, n: int, test_rows: int) -> NDArray[np.float64]:
    """The probability that a test row with d similar rows has one in train: 1 - Π (t-1-i) / (n-1-i) over i < d.

    Args:
        similar_rows: d of each row, int64 [k].
        n: rows.
        test_rows: t.
    """
    factors = np.arange(test_rows - 1, -1, -1) / np.maximum(1, np.arange(n - 1, n - 1 - test_rows, -1))
    none_in_train = np.concatenate([[1.0], np.cumprod(factors)])
    return 1.0 - none_in_train[np.minimum(similar_rows, len(none_in_train) - 1)]


def _simulated_shares(
    label: np.ndarray, one: np.ndarray, two: np.ndarray, *, test_rows: int, seed: int, repeats: int
) -> NDArray[np.float64]:
    """The leaked share in each of `repeats` random splits, float64[repeats]; `one` is sorted."""
    shares = np.zeros(max(1, repeats))
    generator = np.random.default_rng(seed)
    size = np.bincount(label, minlength=1)
    starts = np.searchsorted(one, np.arange(len(size) + 1))
    for repeat in range(repeats if test_rows else 0):
        # The classes with a test row, and which classes keep a row in train.
        classes, rows = np.unique(label[generator.permutation(len(label))[:test_rows]], return_counts=True)
        in_train = size > 0
        in_train[classes] = size[classes] > rows
        # All links of these classes, flat: `owner` is the class's position in `classes`, `link` the position in `two`.
        links = starts[classes + 1] - starts[classes]
        owner = np.repeat(np.arange(len(classes)), links)
        link = np.arange(len(owner)) + np.repeat(starts[classes] - np.cumsum(links) + links, links)
        # A class leaks when it, or a class that it is linked to, has a row in train.
        similar_in_train = in_train[classes] + np.bincount(owner, weights=in_train[two[link]], minlength=len(classes))
        shares[repeat] = rows[similar_in_train > 0].sum() / test_rows
    return shares
