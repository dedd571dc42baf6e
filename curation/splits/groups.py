"""Training and held-out rows: groups of similar rows that no split cuts, and what a careless split would have cost."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import polars as pl

from siftune.curation import sampling
from siftune.curation.allotment import water_fill
from siftune.curation.errors import UserError
from siftune.curation.recipe.sections import Splits
from siftune.curation.split_names import HELD_OUT, TRAIN, standard_splits

Edges = tuple[np.ndarray, np.ndarray]

#: A group with more than this share of all rows is a theme of the data, not a set of twins: holding it out would take
#: the theme away from training. Groups of at most `SMALL_GROUP` rows are never that.
LARGE_SHARE = 0.01
SMALL_GROUP = 10


def groups(n: int, edges: Iterable[Edges]) -> np.ndarray:
    """Connected components of `n` rows: uint32[n], the smallest row position of the group each row is in.

    `edges` are pairs of row positions, as many lists of them as there are measures.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    lists = list(edges)
    a = np.concatenate([np.empty(0, np.int64), *[np.asarray(one, np.int64) for one, _ in lists]])
    b = np.concatenate([np.empty(0, np.int64), *[np.asarray(two, np.int64) for _, two in lists]])
    graph = coo_matrix((np.ones(len(a), np.int8), (a, b)), shape=(n, n))
    _, label = connected_components(graph, directed=False)
    _, first = np.unique(label, return_index=True)
    return first[label].astype(np.uint32)


def assign(index: pl.DataFrame, group: np.ndarray, *, sizes: Splits, eligible: np.ndarray, seed: int) -> pl.DataFrame:
    """Draw whole groups into the held-out splits.

    Args:
        index: all rows (`row`, `id`, `source`, `prompt_words`, `rank`).
        group: uint32[n], of `groups`.
        sizes: the wanted splits. A share is a share of the eligible rows; at least one row when it is above zero.
        eligible: bool[n], rows that may stand in a held-out set (survivors of curation).
        seed: of the draw.

    Returns `row`, `split`, `representative` and `reason`, in the order of `index`. A held-out split counts one row for
    each of its groups, the representative: the eligible row that comes first in keep order. Groups are drawn in
    proportion to the strata source × octave of prompt length, by a hash of the representative's id. Groups without an
    eligible row and very large groups are training groups.

    Raises:
        UserError: there are not enough groups to draw from, or none would be left to train on.
    """
    candidates = _candidates(index, group, eligible)
    size = np.bincount(group, minlength=index.height)
    split = np.full(index.height, TRAIN, dtype=object)
    reason = np.where(size[group] > _limit(index.height, index.height), "very large group", "training group")
    reason = np.where(np.isin(group, candidates["group"].to_numpy()), reason, "group without a clean row")
    representative = np.zeros(index.height, dtype=bool)
    taken = pl.Series("group", [], dtype=pl.UInt32)
    for name in HELD_OUT:
        wanted = _rows(getattr(sizes, name), int(eligible.sum()))
        limit = _limit(index.height, wanted)
        free = candidates.filter(pl.col("size") <= limit, ~pl.col("group").is_in(taken.implode()))
        _check_enough(name, wanted, free.height, candidates.height, groups_left=len(np.unique(group)) - len(taken))
        drawn = _draw(free, wanted, seed=seed, purpose=f"split {name}")
        taken = pl.concat([taken, drawn["group"]])
        inside = np.isin(group, drawn["group"].to_numpy())
        split[inside] = name
        reason = np.where(inside, "in the group of a held-out row", reason)
        representative[drawn["position"].to_numpy()] = True
    reason = np.where(representative, "drawn for its source and length", reason)
    return pl.DataFrame(
        {"row": index["row"], "split": pl.Series(split.tolist(), dtype=pl.String), "representative": representative}
    ).with_columns(reason=pl.Series(reason.tolist(), dtype=pl.String))


def _rows(size: float, eligible: int) -> int:
    return int(size) if size >= 1 or size == 0 else max(1, round(size * eligible))


def _limit(rows: int, wanted: int) -> int:
    return max(SMALL_GROUP, min(int(LARGE_SHARE * rows), wanted))


def _candidates(index: pl.DataFrame, group: np.ndarray, eligible: np.ndarray) -> pl.DataFrame:
    """One line for each group with an eligible row: `group`, `size`, `position`, `id` and `source`, `octave`."""
    rows = index.select("id", "source", "rank", octave=(pl.col("prompt_words").cast(pl.Float64) + 1).log(2).floor())
    rows = rows.with_columns(position=np.arange(index.height), group=group.astype(np.uint32), eligible=eligible)
    rows = rows.with_columns(size=pl.len().over("group"))
    return rows.filter("eligible").sort("rank", "position").unique("group", keep="first", maintain_order=True)


def _check_enough(name: str, wanted: int, free: int, clean: int, *, groups_left: int) -> None:
    if wanted <= free and (wanted == 0 or wanted < groups_left):
        return
    found = f"The {name} split wants {wanted} rows, one from each group of similar rows. "
    if wanted > free:
        found += f"{free} groups can be held out; {clean} of the groups have a row that survived curation"
        found += f" and groups of more than {SMALL_GROUP} rows and {LARGE_SHARE:.0%} of all rows stay in training. "
    else:
        found += f"Only {groups_left} groups are left, so none would remain to train on. "
    raise UserError(found + f"Ask for less in `splits.{name}`, or raise `splits.near` so that groups get smaller.")


def _draw(free: pl.DataFrame, wanted: int, *, seed: int, purpose: str) -> pl.DataFrame:
    """`wanted` of the candidates, in proportion to their strata."""
    free = free.with_columns(key=sampling.keys(free["id"], seed=seed, purpose=purpose))
    strata = free.group_by("source", "octave").len("held").sort("source", "octave", nulls_last=True)
    strata = strata.with_columns(take=water_fill(strata["held"].to_numpy(), strata["held"].to_numpy(), wanted))
    ranked = free.join(strata, on=["source", "octave"], nulls_equal=True).sort("key", "position")
    return ranked.filter(pl.int_range(pl.len()).over("source", "octave") < pl.col("take")).sort("position")


def given(names: pl.Series) -> pl.Series | None:
    """The splits that the data came with, as train, validation or test; None when no row is in a held-out one.

    The first word of a name decides (`test_sft`, `dev`, `validation[:100]`); rows without a split or with a
    name that is none of the usual ones for held-out data are training rows.
    """
    splits = standard_splits(names).fill_null(TRAIN)
    return splits if splits.is_in(HELD_OUT).any() else None


def naive_leak(
    n: int,
    pairs: Mapping[str, Edges],
    *,
    test_rows: int,
    same: np.ndarray | None = None,
    seed: int = 0,
    repeats: int = 40,
) -> pl.DataFrame:
    """What a random split of `n` raw rows into train and `test_rows` test rows leaks: test rows with a twin in train.

    `pairs` are the similar rows by measure. `same` is an equivalence over rows, uint32[n] (`groups` of the exact
    duplicates): a row's duplicates are its twins by every measure, and stand where it stands in `pairs`, which may
    thus name one row of each class. Pairs that a measure never looked at (rows dropped before it) are not counted:
    the figure is a lower bound.

    Returns `measure`, `test_rows`, `expected` (rows), `share` (of the test rows) and `low`, `high` (5 % and 95 % of
    the share in `repeats` seeded splits). The expectation is exact: a test row with d twins has none of them in train
    with probability C(n-1-d, t-1-d) / C(n-1, t-1), hypergeometric.
    """
    label = np.arange(n) if same is None else np.unique(same, return_inverse=True)[1]
    size = np.bincount(label, minlength=1)
    links = {name: _class_links(label, one) for name, one in {"exact": (np.empty(0), np.empty(0)), **pairs}.items()}
    links = {name: both for name, both in links.items() if name in pairs or same is not None}
    lines = []
    for name, (one, two) in links.items():
        twins = size - 1 + np.bincount(one, weights=size[two], minlength=len(size)).astype(np.int64)
        share = float(_probability(twins[label], n=n, test_rows=test_rows).mean()) if n and test_rows else 0.0
        draws = _simulate(label, one, two, test_rows=test_rows, seed=seed, repeats=repeats)
        low, high = np.quantile(draws, [0.05, 0.95])
        lines.append((name, test_rows, share * test_rows, share, float(low), float(high)))
    kinds = {"measure": pl.String, "test_rows": pl.Int64} | dict.fromkeys(
        ("expected", "share", "low", "high"), pl.Float64
    )
    return pl.DataFrame(lines, schema=kinds, orient="row")


def _class_links(label: np.ndarray, edges: Edges) -> Edges:
    """Distinct ordered pairs of different classes that the edges join, each in both directions."""
    a, b = label[np.asarray(edges[0], np.int64)], label[np.asarray(edges[1], np.int64)]
    classes = int(label.max(initial=0)) + 1
    code = np.concatenate([a * classes + b, b * classes + a])
    code.sort()
    code = code[np.diff(code, prepend=-1) > 0]  # np.unique hashes first, which takes ten times as long here
    one, two = np.divmod(code, classes)
    return one[one != two], two[one != two]


def _probability(twins: np.ndarray, *, n: int, test_rows: int) -> np.ndarray:
    """The probability that a test row with so many twins has one in train: 1 - Π (t-1-i) / (n-1-i), i < twins."""
    factors = np.arange(test_rows - 1, -1, -1) / np.maximum(1, np.arange(n - 1, n - 1 - test_rows, -1))
    none_in_train = np.concatenate([[1.0], np.cumprod(factors)])
    return 1.0 - none_in_train[np.minimum(twins, len(none_in_train) - 1)]


def _simulate(
    label: np.ndarray, one: np.ndarray, two: np.ndarray, *, test_rows: int, seed: int, repeats: int
) -> np.ndarray:
    """The leaked share in each of `repeats` random splits, float64[repeats]; `one` is sorted."""
    shares = np.zeros(max(1, repeats))
    generator = np.random.default_rng(seed)
    size = np.bincount(label, minlength=1)
    starts = np.searchsorted(one, np.arange(len(size) + 1))
    for number in range(repeats if test_rows else 0):
        classes, rows = np.unique(label[generator.permutation(len(label))[:test_rows]], return_counts=True)
        in_train = size > 0
        in_train[classes] = size[classes] > rows
        links = starts[classes + 1] - starts[classes]
        owner = np.repeat(np.arange(len(classes)), links)
        place = np.arange(len(owner)) + np.repeat(starts[classes] - np.cumsum(links) + links, links)
        twins = in_train[classes] + np.bincount(owner, weights=in_train[two[place]], minlength=len(classes))
        shares[number] = rows[twins > 0].sum() / test_rows
    return shares
