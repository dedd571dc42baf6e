"""Instruction-length diversity: how many rows of each length, and which ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from siftune.curation.balance import coverage
from siftune.curation.balance.length_bins import LengthBins, length_record
from siftune.curation.recipe.sections import Balance
from siftune.curation.run.manifest import BalanceRecord, LengthBinRecord, LengthRecord
from siftune.curation.sampling import shuffle_keys, water_fill
from siftune.curation.schema import DECISIONS, conform

#: How often a row may stand in the set when the recipe allows repeats: up to four passes over the same data train
#: nearly as well as new data, more do not (Muennighoff et al. 2023, arXiv 2305.16264).
MOST_COPIES = 4
#: Without a budget: how far, in total variation, the outcome may stay from the target …
CLOSE_ENOUGH = 0.05
#: … unless that would cost more than this share of the rows.
KEPT_SHARE = 0.5
#: A token budget may turn out to buy more rows than mean costs promise; so many times as many rows are ordered.
_SPARE = 1.25
#: How often each row stands in a balanced set.
COPIES = pl.Schema({"id": pl.String, "copies": pl.UInt32})


@dataclass(frozen=True)
class BalanceResult:
    """The balanced set.

    Attributes:
        copies: how often each row stands in it, uint32 [n]; 0 for a row that was dropped.
        bins: a line for each bin that has a row or a target, see `LengthBinRecord`.
        before: how rows are distributed over the bins before balancing.
        after: and after it.
        unit: the unit of the lengths.
        chosen_by: the rule by which rows of a bin were chosen.
        decisions: DECISIONS on dropped rows. The witness is the nearest row that stays in the bin, by cosine.
    """

    copies: NDArray[np.uint32]
    bins: pl.DataFrame
    before: LengthRecord
    after: LengthRecord
    unit: str
    chosen_by: str
    decisions: pl.DataFrame

    def record(self) -> BalanceRecord:
        """The result for the manifest."""
        bins = [LengthBinRecord.model_validate(line) for line in self.bins.to_dicts()]
        return BalanceRecord(unit=self.unit, chosen_by=self.chosen_by, before=self.before, after=self.after, bins=bins)

    def copies_by_id(self, index: pl.DataFrame) -> pl.DataFrame:
        """COPIES of the rows that are in the set; `index` is the INDEX that was balanced."""
        return pl.DataFrame({"id": index["id"], "copies": self.copies}, schema=COPIES).filter(pl.col("copies") > 0)


def balance_lengths(
    index: pl.DataFrame,
    lengths: np.ndarray,
    *,
    settings: Balance,
    seed: int,
    unit: str = "words",
    vectors: np.ndarray | None = None,
    costs: np.ndarray | None = None,
    reference: np.ndarray | None = None,
    topics: pl.Series | None = None,
) -> BalanceResult:
    """Choose rows so that instruction lengths follow the target.

    How many: at most the budget, shared among the bins by the target; a bin that runs short passes its share on to the
    others (water-filling). Without a budget as many as leave the outcome within CLOSE_ENOUGH of the target, but at
    least KEPT_SHARE of the rows. Which: farthest-first or cluster coverage on `vectors`, else a seeded draw. A source
    above its cap first gives up rows, so that the rest of it is as near to the target as may be; then a topic above its
    cap. Pinned rows stay, whatever the budget and the caps.

    Args:
        index: INDEX of the n training rows.
        lengths: instruction length of each row in `unit`, whole numbers [n].
        settings: the recipe's section.
        seed: of all draws.
        unit: what lengths count, in the plural.
        vectors: embeddings [n, d] of any float type, of length 1 or not; None where there are none.
        costs: tokens of instruction and answer of each row, [n]; needed for a budget in tokens.
        reference: instruction lengths of the reference set, [m]; needed for that target.
        topics: the topic of each row [n]; needed for a cap on topics.
    """
    bins = LengthBins.from_rows(index, lengths, settings)
    target = bins.target(settings, reference)
    preference = _Preference.of(index, vectors, seed)

    # Which rows are open to choice: all, but of a source or a topic above its cap only so many.
    is_open, reason = np.ones(index.height, bool), np.full(index.height, "balance_bin", dtype=object)
    caps = (
        ("balance_source", index["source"], settings.max_per_source),
        ("balance_topic", topics, settings.max_per_topic),
    )
    for cap_reason, parts, cap in caps:
        if cap is not None:
            assert parts is not None, "a cap on topics needs the topic of each row"
            under_cap = _under_cap(parts, is_open, bins, target, preference, cap=cap)
            reason[is_open & ~under_cap] = cap_reason
            is_open = under_cap

    # How many rows of each bin, and the best rows of each bin in order.
    open_rows = bins.rows_per_bin(is_open)
    capacity = open_rows * (MOST_COPIES if settings.repeat else 1)
    if settings.tokens is None:
        total = settings.rows or rows_without_budget(target, capacity, rows=int(is_open.sum()))
        allotted = water_fill(target, capacity, total)
        ordered = preference.best_by_bin(bins.of_row, is_open, np.minimum(allotted, open_rows))
    else:
        assert costs is not None, "a budget in tokens needs the tokens of each row"
        ordered, allotted = _within_tokens(
            bins, is_open, target, capacity, preference, costs=costs, budget=settings.tokens
        )

    # Hand out copies: all rows of a bin in turn, in order, until the bin has what it was allotted.
    copies = np.zeros(index.height, np.uint32)
    for bin_number, rows in ordered.items():
        count = max(int(allotted[bin_number]), preference.pinned_among(rows))
        rounds, remainder = divmod(count, max(1, len(rows)))
        copies[rows] = rounds
        copies[rows[:remainder]] += 1

    before = bins.rows_per_bin()
    after = np.bincount(bins.of_row, weights=copies, minlength=bins.count).astype(np.int64)
    return BalanceResult(
        copies=copies,
        bins=bins.table({"before": before, "target": target, "allotted": allotted, "after": after}),
        before=length_record(before, target),
        after=length_record(after, target),
        unit=unit,
        chosen_by=preference.method,
        decisions=_decisions(index, bins, copies, reason, vectors=vectors, unit=unit),
    )


@dataclass(frozen=True)
class _Preference:
    """Which rows of a bin come first: pinned ones, then those that cover the embeddings, else a seeded draw.

    keys: uint64[n], the drawn order. pinned: bool[n]. vectors: embeddings [n, d], or None.
    """

    keys: NDArray[np.uint64]
    pinned: NDArray[np.bool_]
    vectors: np.ndarray | None

    @classmethod
    def of(cls, index: pl.DataFrame, vectors: np.ndarray | None, seed: int) -> _Preference:
        keys = shuffle_keys(index["id"], seed=seed, purpose="balance")
        return cls(keys, index["pinned"].to_numpy(), vectors)

    @property
    def method(self) -> str:
        if self.vectors is None:
            return "a seeded random draw, as there are no embeddings"
        return "coverage of the embeddings"

    def pinned_among(self, rows: np.ndarray) -> int:
        return int(self.pinned[rows].sum())

    def best(self, rows: np.ndarray, count: int) -> NDArray[np.int64]:
        """The first `count` of `rows` (positions), or all pinned ones when these are more."""
        rows = rows[np.lexsort((self.keys[rows], ~self.pinned[rows]))]
        pinned_count = self.pinned_among(rows)
        count = max(count, pinned_count)
        if self.vectors is None or count == pinned_count:
            return rows[:count]
        rows = np.sort(rows)
        pinned = np.flatnonzero(self.pinned[rows])
        return rows[coverage.covering_rows(self.vectors[rows], count, keys=self.keys[rows], first=pinned)]

    def best_by_bin(
        self, bin_of_row: np.ndarray, is_open: np.ndarray, counts: np.ndarray
    ) -> dict[int, NDArray[np.int64]]:
        """For each bin with open rows its best `counts[bin]` rows."""
        occupied = np.unique(bin_of_row[is_open]).tolist()
        members = {number: np.flatnonzero(is_open & (bin_of_row == number)) for number in occupied}
        return {number: self.best(rows, int(counts[number])) for number, rows in members.items()}


def rows_without_budget(target: np.ndarray, capacity: np.ndarray, *, rows: int) -> int:
    """How many rows to keep without a budget: as many as leave the outcome within CLOSE_ENOUGH of the target.

    The distance only grows with the number of rows: what full bins lack, others hold too much. At least KEPT_SHARE
    of the rows are kept, however far from the target that is.

    Args:
        target: the target shares of the bins, float64[k].
        capacity: how many rows each bin can give, int64[k].
        rows: how many rows there are.
    """

    def close_enough(total: int) -> bool:
        return bool(np.maximum(0.0, target - capacity / total).sum() <= CLOSE_ENOUGH + 1e-12)

    return max(_largest(rows, close_enough), int(np.ceil(KEPT_SHARE * rows)))


def _under_cap(
    parts: pl.Series,
    is_open: NDArray[np.bool_],
    bins: LengthBins,
    target: np.ndarray,
    preference: _Preference,
    *,
    cap: int,
) -> NDArray[np.bool_]:
    """Which of the open rows stay open, bool[n], when no part of the rows (a source, a topic) may have more than `cap`.

    Args:
        parts: the part that each row belongs to, [n].
        is_open: which rows are open now, bool[n].
        bins: the bins of the rows.
        target: the target shares of the bins, float64[k].
        preference: which rows of a bin come first.
        cap: the most open rows of a part.
    """
    is_open = is_open.copy()
    part = parts.rank("dense").fill_null(0).to_numpy()
    for number in np.flatnonzero(np.bincount(part[is_open]) > cap):
        in_part = is_open & (part == number)
        counts = water_fill(target, bins.rows_per_bin(in_part), cap)
        is_open &= ~in_part
        for rows in preference.best_by_bin(bins.of_row, in_part, counts).values():
            is_open[rows] = True
    return is_open


def _within_tokens(
    bins: LengthBins,
    is_open: np.ndarray,
    target: np.ndarray,
    capacity: np.ndarray,
    preference: _Preference,
    *,
    costs: np.ndarray,
    budget: int,
) -> tuple[dict[int, NDArray[np.int64]], NDArray[np.int64]]:
    """Rows in order for each bin, and the largest allotment int64[k] that costs no more than `budget` tokens."""
    # Mean costs say roughly how many rows the budget buys, and so how many rows of each bin to put in order.
    open_rows = bins.rows_per_bin(is_open)
    tokens = np.bincount(bins.of_row[is_open], weights=costs[is_open], minlength=bins.count)
    mean = np.divide(tokens, open_rows, out=np.zeros(bins.count), where=open_rows > 0)
    largest_total = int(np.where(target > 0, capacity, 0).sum())
    estimate = _largest(largest_total, lambda total: bool((water_fill(target, capacity, total) * mean).sum() <= budget))
    limit = min(largest_total, int(_SPARE * estimate) + bins.count)
    depth = water_fill(target, capacity, limit) + 1  # rounding may give a bin one row more for a smaller total
    ordered = preference.best_by_bin(bins.of_row, is_open, np.minimum(depth, open_rows))

    # Then the rows themselves say how many there may be: the cost of the first rows of each bin, summed up.
    cumulative = {
        number: np.concatenate([[0.0], np.cumsum(costs[rows], dtype=np.float64)]) for number, rows in ordered.items()
    }
    pinned = {number: preference.pinned_among(rows) for number, rows in ordered.items()}

    def affordable(total: int) -> bool:
        allotted, cost = water_fill(target, capacity, total), 0.0
        for number, sums in cumulative.items():
            # A bin that is allotted more than its rows repeats them all in turn.
            rounds, remainder = divmod(max(int(allotted[number]), pinned[number]), max(1, len(sums) - 1))
            cost += float(rounds * sums[-1] + sums[remainder])
        return cost <= budget

    total = _largest(limit, affordable)
    while total and not affordable(total):  # rounding may take from one bin what it gives to another
        total -= 1
    return ordered, water_fill(target, capacity, total)


def _largest(upper: int, fits: Callable[[int], bool]) -> int:
    """The largest number up to `upper` that fits, by bisection; 0 when none does."""
    low, high = 0, upper
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low


def _decisions(
    index: pl.DataFrame,
    bins: LengthBins,
    copies: np.ndarray,
    reason: np.ndarray,
    *,
    vectors: np.ndarray | None,
    unit: str,
) -> pl.DataFrame:
    """DECISIONS on the rows without a copy."""
    dropped = np.flatnonzero(copies == 0)
    score, witness = np.full(index.height, np.nan), np.full(index.height, -1)
    detail = np.full(index.height, "", dtype=object)
    for number in np.unique(bins.of_row[dropped]):
        members = np.flatnonzero(bins.of_row == number)
        rest, chosen = members[copies[members] == 0], members[copies[members] > 0]
        detail[rest] = f"{bins.name(int(number), unit)}: kept {len(chosen)} of {len(members)}"
        if vectors is not None and len(chosen):
            witness[rest], score[rest] = coverage.nearest_chosen(vectors, rest, chosen)
    frame = pl.DataFrame(
        {
            "id": index["id"].gather(dropped),
            "action": pl.Series(["drop"], dtype=pl.String).new_from_index(0, len(dropped)),
            "reason": pl.Series(reason[dropped].tolist(), dtype=pl.String),
            "score": pl.Series(score[dropped]).fill_nan(None),
            "witness": index["id"].gather(pl.Series(witness[dropped]).replace(-1, None)),
            "detail": pl.Series(detail[dropped].tolist(), dtype=pl.String),
        }
    )
    return conform(frame, DECISIONS)
