"""Which split each row is in: groups of similar rows that no split cuts, drawn at random or as the data came."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import polars as pl
from numpy.typing import NDArray

from siftune.curation.errors import UserError
from siftune.curation.recipe.sections import Splits
from siftune.curation.sampling import shuffle_keys, water_fill
from siftune.curation.split_names import HELD_OUT, TRAIN

#: Pairs of similar rows: two integer arrays [m] of row positions.
Edges = tuple[np.ndarray, np.ndarray]

#: A group with more than this share of all rows is a theme of the data, not a set of twins: holding it out would take
#: the theme away from training. Groups of at most `SMALL_GROUP` rows are never that.
LARGE_SHARE = 0.01
SMALL_GROUP = 10


def similarity_groups(n: int, edges: Iterable[Edges]) -> NDArray[np.uint32]:
    """Connected components of `n` rows: uint32[n], the smallest row position of the group each row is in.

    `edges` are pairs of row positions, as many lists of them as there are measures.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    lists = list(edges)
    a = np.concatenate([np.empty(0, np.int64), *[np.asarray(a, np.int64) for a, _ in lists]])
    b = np.concatenate([np.empty(0, np.int64), *[np.asarray(b, np.int64) for _, b in lists]])
    graph = coo_matrix((np.ones(len(a), np.int8), (a, b)), shape=(n, n))
    _, label = connected_components(graph, directed=False)
    _, first = np.unique(label, return_index=True)
    return first[label].astype(np.uint32)


def draw_splits(
    index: pl.DataFrame,
    group: np.ndarray,
    *,
    sizes: Splits,
    eligible: np.ndarray,
    seed: int,
    topics: pl.Series | None = None,
) -> pl.DataFrame:
    """Draw whole groups into the held-out splits.

    A held-out split counts one row for each of its groups, the representative: the eligible row that comes first in
    keep order. Groups are drawn in proportion to the strata source × octave of prompt length (largest remainder, see
    `water_fill`), by a hash of the representative's id; with topics, each of these first gets its share. Groups without
    an eligible row and very large groups are training groups.

    Args:
        index: all n rows (`row`, `id`, `source`, `prompt_words`, `rank`).
        group: uint32[n], of `similarity_groups`.
        sizes: rows of each split. A share is a share of the eligible rows; at least one row when it is above zero.
        eligible: bool[n], rows that may stand in a held-out set (survivors of curation).
        seed: of the draw.
        topics: the topic of each row, by which splits are drawn in proportion too; None: they are not.

    Returns:
        `row`, `split`, `representative` and `reason`, in the order of `index`.

    Raises:
        UserError: there are not enough groups to draw from, or none would be left to train on.
    """
    candidates = _representatives(index, group, eligible, topics)
    very_large = np.bincount(group, minlength=index.height)[group] > _largest_group(index.height, index.height)
    reason = np.where(very_large, "very large group", "training group")
    reason = np.where(np.isin(group, candidates["group"].to_numpy()), reason, "group without a clean row")
    split = np.full(index.height, TRAIN, dtype=object)
    representative = np.zeros(index.height, dtype=bool)
    drawn_groups = pl.Series("group", [], dtype=pl.UInt32)
    for name in HELD_OUT:
        # How many rows the split has: a number as it is, a share as one of the eligible rows.
        size = getattr(sizes, name)
        rows = int(size) if size >= 1 or size == 0 else max(1, round(size * int(eligible.sum())))

        # The groups that may be held out and are still free.
        limit = _largest_group(index.height, rows)
        free = candidates.filter(pl.col("size") <= limit, ~pl.col("group").is_in(drawn_groups.implode()))
        groups_left = len(np.unique(group)) - len(drawn_groups)
        _check_enough(name, rows, free=free.height, eligible=candidates.height, groups_left=groups_left)

        # Draw, and move the whole groups.
        drawn = _draw_by_topic(free, rows, seed=seed, purpose=f"split {name}")
        drawn_groups = pl.concat([drawn_groups, drawn["group"]])
        in_drawn_group = np.isin(group, drawn["group"].to_numpy())
        split[in_drawn_group] = name
        reason = np.where(in_drawn_group, "in the group of a held-out row", reason)
        representative[drawn["position"].to_numpy()] = True
    reason = np.where(representative, "drawn for its source and length", reason)
    return pl.DataFrame(
        {"row": index["row"], "split": pl.Series(split.tolist(), dtype=pl.String), "representative": representative}
    ).with_columns(reason=pl.Series(reason.tolist(), dtype=pl.String))


def _largest_group(all_rows: int, split_rows: int) -> int:
    """Rows of the largest group that a split of so many rows may hold out."""
    return max(SMALL_GROUP, min(int(LARGE_SHARE * all_rows), split_rows))


def _representatives(
    index: pl.DataFrame, group: np.ndarray, eligible: np.ndarray, topics: pl.Series | None
) -> pl.DataFrame:
    """One line for each group with an eligible row: `group`, `size`, `position`, `id`, and `source`, `octave`, `topic`
    of that row.
    """
    rows = index.select("id", "source", "rank", octave=(pl.col("prompt_words").cast(pl.Float64) + 1).log(2).floor())
    rows = rows.with_columns(position=np.arange(index.height), group=group.astype(np.uint32), eligible=eligible)
    rows = rows.with_columns(topic=pl.lit("") if topics is None else topics)
    rows = rows.with_columns(size=pl.len().over("group"))
    return rows.filter("eligible").sort("rank", "position").unique("group", keep="first", maintain_order=True)


def _check_enough(name: str, rows: int, *, free: int, eligible: int, groups_left: int) -> None:
    if rows <= free and (rows == 0 or rows < groups_left):
        return
    message = f"The {name} split needs {rows} rows, one from each group of similar rows. "
    if rows > free:
        message += f"There are {free} such groups"
        if free < eligible:
            message += f", and {eligible - free} so large (more than {SMALL_GROUP} rows and {LARGE_SHARE:.0%} of all) "
            message += "that they stay in training"
        message += ". "
    else:
        message += f"Only {groups_left} groups are left, so none would remain to train on. "
    raise UserError(message + f"Ask for less in `splits.{name}`, or raise `splits.near` so that groups get smaller.")


def _draw_by_topic(free: pl.DataFrame, rows: int, *, seed: int, purpose: str) -> pl.DataFrame:
    """`rows` of the representatives, in proportion to their topics, and in each of these to the strata of `_draw`."""
    topics = free.group_by("topic").len("rows").sort("topic", nulls_last=True)
    shares = water_fill(topics["rows"].to_numpy(), topics["rows"].to_numpy(), rows)
    parts = [
        _draw(free.filter(pl.col("topic").eq_missing(topic)), int(share), seed=seed, purpose=purpose)
        for topic, share in zip(topics["topic"], shares, strict=True)
    ]
    return pl.concat([free.clear(), *parts], how="diagonal").sort("position")


def _draw(free: pl.DataFrame, rows: int, *, seed: int, purpose: str) -> pl.DataFrame:
    """`rows` of the representatives, in proportion to their strata, in row order."""
    keyed = free.with_columns(key=shuffle_keys(free["id"], seed=seed, purpose=purpose))
    strata = keyed.group_by("source", "octave").len("rows").sort("source", "octave", nulls_last=True)
    strata = strata.with_columns(take=water_fill(strata["rows"].to_numpy(), strata["rows"].to_numpy(), rows))
    ranked = keyed.join(strata, on=["source", "octave"], nulls_equal=True).sort("key", "position")
    return ranked.filter(pl.int_range(pl.len()).over("source", "octave") < pl.col("take")).sort("position")
