"""Instruction-length diversity: how many rows of each length, and which ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from siftune.curation import sampling
from siftune.curation.allotment import water_fill
from siftune.curation.balance import coverage
from siftune.curation.balance.length_bins import Cells, Shape
from siftune.curation.recipe.sections import Balance
from siftune.curation.schema import DECISIONS, conform

#: How often a row may stand in the set when the recipe allows repeats: up to four passes over the same data train
#: nearly as well as new data, more do not (Muennighoff et al. 2023, arXiv 2305.16264).
MOST_COPIES = 4
#: Without a budget: how far, in total variation, the outcome may stay from the target …
CLOSE_ENOUGH = 0.05
#: … unless that would cost more than this share of the rows.
KEPT_SHARE = 0.5
_SPARE = 1.25  # a token budget may turn out to buy more rows than mean costs promise


@dataclass(frozen=True)
class Balanced:
    """The outcome.

    copies: uint32[n], how often each row stands in the balanced set (0: it was sacrificed).
    bins: one line for each bin that has a row or a target: `bin`, `low`, `high` (lengths low … high), `turns` (`all`,
    or `single` and `multi`), rows `before`, `target` (share), `wanted` (rows allotted) and `after`.
    decisions: DECISIONS on sacrificed rows. score: cosine to the nearest row that stays in the bin, its witness.
    """

    copies: NDArray[np.uint32]
    bins: pl.DataFrame
    before: Shape
    after: Shape
    unit: str
    chosen_by: str
    decisions: pl.DataFrame

    def to_dict(self) -> dict[str, Any]:
        """For the manifest: JSON types only."""
        return {
            "unit": self.unit,
            "chosen_by": self.chosen_by,
            "before": vars(self.before),
            "after": vars(self.after),
            "bins": self.bins.to_dicts(),
        }


def balance(
    index: pl.DataFrame,
    lengths: np.ndarray,
    *,
    settings: Balance,
    seed: int,
    unit: str = "words",
    vectors: np.ndarray | None = None,
    costs: np.ndarray | None = None,
    reference: np.ndarray | None = None,
) -> Balanced:
    """Choose rows so that instruction lengths follow the target.

    How many: at most the budget, shared among the bins by the target; a bin that runs short passes its share on to the
    others (water-filling). Without a budget as many as leave the outcome within CLOSE_ENOUGH of the target, but at
    least KEPT_SHARE of the rows. Which: farthest-first or cluster coverage on `vectors`, else a seeded draw. A source
    above its cap first gives up rows, so that the rest of it is as near to the target as may be. Pinned rows stay,
    whatever the budget and the caps.

    Args:
        index: INDEX of the n training rows.
        lengths: instruction length of each row, in `unit`.
        settings: the recipe's section.
        seed: of all draws.
        vectors: embeddings [n, d], unit or not.
        costs: tokens of instruction and answer of each row; needed for a budget in tokens.
        reference: instruction lengths of the reference set; needed for that target.
    """
    cells = Cells.cut(index, lengths, settings)
    target = cells.target(settings, reference)
    orderly = _Orderly.of(index, vectors, seed)
    open_ = _under_caps(index, cells, target, orderly, most=settings.max_per_source)
    held = np.bincount(cells.of_row[open_], minlength=cells.count)
    capacity = held * (MOST_COPIES if settings.repeat else 1)
    if settings.tokens is None:
        total = settings.rows or unbudgeted(target, capacity, rows=int(open_.sum()))
        wanted = water_fill(target, capacity, total)
        ordered = orderly.by_cell(cells.of_row, open_, np.minimum(wanted, held))
    else:
        assert costs is not None, "a budget in tokens needs the tokens of each row"
        ordered, wanted = _for_tokens(cells, open_, target, capacity, orderly, costs, settings.tokens)
    copies = np.zeros(index.height, np.uint32)
    for cell, rows in ordered.items():
        _copy(copies, rows, max(int(wanted[cell]), orderly.pinned_among(rows)))
    decisions = _decisions(index, cells, copies, open_, vectors=vectors, unit=unit)
    before = np.bincount(cells.of_row, minlength=cells.count)
    after = np.bincount(cells.of_row, weights=copies, minlength=cells.count).astype(np.int64)
    bins = cells.table({"before": before, "target": target, "wanted": wanted, "after": after})
    shapes = Shape.of(before, target), Shape.of(after, target)
    return Balanced(copies, bins, *shapes, unit, orderly.method, decisions)


@dataclass(frozen=True)
class _Orderly:
    """Puts rows in the order in which they are worth having; pinned ones first."""

    keys: NDArray[np.uint64]
    pinned: NDArray[np.bool_]
    vectors: np.ndarray | None

    @classmethod
    def of(cls, index: pl.DataFrame, vectors: np.ndarray | None, seed: int) -> _Orderly:
        keys = sampling.keys(index["id"], seed=seed, purpose="balance")
        return cls(keys, index["pinned"].to_numpy(), vectors)

    @property
    def method(self) -> str:
        return "a seeded draw, as there are no embeddings" if self.vectors is None else "coverage of the embeddings"

    def pinned_among(self, rows: np.ndarray) -> int:
        return int(self.pinned[rows].sum())

    def best(self, rows: np.ndarray, count: int) -> NDArray[np.int64]:
        """The first `count` of `rows`, or all pinned ones when these are more."""
        rows = rows[np.lexsort((self.keys[rows], ~self.pinned[rows]))]
        must = self.pinned_among(rows)
        count = max(count, must)
        if self.vectors is None or count == must:
            return rows[:count]
        rows = np.sort(rows)
        first = np.flatnonzero(self.pinned[rows])
        return rows[coverage.spread(self.vectors[rows], count, keys=self.keys[rows], must=first)]

    def by_cell(self, cell: np.ndarray, open_: np.ndarray, depth: np.ndarray) -> dict[int, NDArray[np.int64]]:
        """For each cell with open rows its best `depth` rows."""
        members = {int(one): np.flatnonzero(open_ & (cell == one)) for one in np.unique(cell[open_])}
        return {one: self.best(rows, int(depth[one])) for one, rows in members.items()}


def unbudgeted(target: np.ndarray, capacity: np.ndarray, *, rows: int) -> int:
    """The rule without a budget: as many of the rows as leave the outcome within CLOSE_ENOUGH of the target.

    The distance only grows with the number of rows: what full bins lack, others hold too much. At least KEPT_SHARE
    of the rows are kept, however far from the target that is.
    """
    low, high = 0, rows
    while low < high:
        middle = (low + high + 1) // 2
        lacking = np.maximum(0.0, target - capacity / middle).sum()
        low, high = (middle, high) if lacking <= CLOSE_ENOUGH + 1e-12 else (low, middle - 1)
    return max(low, int(np.ceil(KEPT_SHARE * rows)))


def _under_caps(
    index: pl.DataFrame, cells: Cells, target: np.ndarray, orderly: _Orderly, *, most: int | None
) -> NDArray[np.bool_]:
    """Which rows stay open, bool[n], when no source may have more than `most` of them."""
    open_ = np.ones(index.height, bool)
    if most is None:
        return open_
    source = index["source"].rank("dense").fill_null(0).to_numpy()
    for one in np.flatnonzero(np.bincount(source) > most):
        its = source == one
        take = water_fill(target, np.bincount(cells.of_row[its], minlength=cells.count), most)
        open_ &= ~its
        for rows in orderly.by_cell(cells.of_row, its, take).values():
            open_[rows] = True
    return open_


def _for_tokens(
    cells: Cells,
    open_: np.ndarray,
    target: np.ndarray,
    capacity: np.ndarray,
    orderly: _Orderly,
    costs: np.ndarray,
    budget: int,
) -> tuple[dict[int, NDArray[np.int64]], NDArray[np.int64]]:
    """Rows in order for each cell, and the largest allocation that costs no more than `budget` tokens.

    Mean costs say how deep to order; then the rows themselves say how many there may be.
    """
    held = np.bincount(cells.of_row[open_], minlength=cells.count)
    spent = np.bincount(cells.of_row[open_], weights=costs[open_], minlength=cells.count)
    mean = np.divide(spent, held, out=np.zeros(cells.count), where=held > 0)
    most = int(np.where(target > 0, capacity, 0).sum())
    rough = _largest(most, lambda total: (water_fill(target, capacity, total) * mean).sum() <= budget)
    deep = min(most, int(_SPARE * rough) + cells.count)
    depth = water_fill(target, capacity, deep) + 1  # rounding may give a bin one row more for a smaller total
    ordered = orderly.by_cell(cells.of_row, open_, np.minimum(depth, held))
    price = {cell: _Price.of(costs[rows]) for cell, rows in ordered.items()}
    forced = {cell: orderly.pinned_among(rows) for cell, rows in ordered.items()}

    def affordable(total: int) -> bool:
        wanted = water_fill(target, capacity, total)
        return sum(each.of_first(max(int(wanted[cell]), forced[cell])) for cell, each in price.items()) <= budget

    total = _largest(deep, affordable)
    while total and not affordable(total):  # rounding may take from one bin what it gives to another
        total -= 1
    return ordered, water_fill(target, capacity, total)


@dataclass(frozen=True)
class _Price:
    """What the first rows of a cell cost, also when there are more copies than rows."""

    cumulative: NDArray[np.float64]

    @classmethod
    def of(cls, costs: np.ndarray) -> _Price:
        return cls(np.concatenate([[0.0], np.cumsum(costs, dtype=np.float64)]))

    def of_first(self, count: int) -> float:
        rounds, rest = divmod(count, max(1, len(self.cumulative) - 1))
        return float(rounds * self.cumulative[-1] + self.cumulative[rest])


def _largest(most: int, fits: Callable[[int], bool]) -> int:
    """The largest number up to `most` that fits, by bisection; 0 when none does."""
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low


def _copy(copies: np.ndarray, rows: np.ndarray, wanted: int) -> None:
    """Give each row its copies: all in turn, in order, until `wanted` is reached."""
    rounds, rest = divmod(wanted, max(1, len(rows)))
    copies[rows] = rounds
    copies[rows[:rest]] += 1


def _decisions(
    index: pl.DataFrame,
    cells: Cells,
    copies: np.ndarray,
    open_: np.ndarray,
    *,
    vectors: np.ndarray | None,
    unit: str,
) -> pl.DataFrame:
    gone = np.flatnonzero(copies == 0)
    score, witness = np.full(index.height, np.nan), np.full(index.height, -1)
    detail = np.full(index.height, "", dtype=object)
    for cell in np.unique(cells.of_row[gone]):
        inside = np.flatnonzero(cells.of_row == cell)
        rest, chosen = inside[copies[inside] == 0], inside[copies[inside] > 0]
        detail[rest] = f"{cells.name(int(cell), unit)}: kept {len(chosen)} of {len(inside)}"
        if vectors is not None and len(chosen):
            witness[rest], score[rest] = coverage.nearest_chosen(vectors, rest, chosen)
    frame = pl.DataFrame(
        {
            "id": index["id"].gather(gone),
            "action": pl.Series(["drop"], dtype=pl.String).new_from_index(0, len(gone)),
            "reason": np.where(open_[gone], "balance_bin", "balance_source").astype(str),
            "score": pl.Series(score[gone]).fill_nan(None),
            "witness": index["id"].gather(pl.Series(witness[gone]).replace(-1, None)),
            "detail": pl.Series(detail[gone].tolist(), dtype=pl.String),
        }
    )
    return conform(frame, DECISIONS)
