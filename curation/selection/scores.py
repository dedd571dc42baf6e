"""Numbers that rows came with: a reward model's, a judge's, stars. Read from their other columns, and chosen by."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import orjson
import polars as pl
from numpy.typing import NDArray

from siftune.curation.balance.length_bins import bin_edges
from siftune.curation.corpus import batches
from siftune.curation.errors import UserError, did_you_mean
from siftune.curation.recipe.arm_sections import ScoreSelection
from siftune.curation.sampling import shuffled_positions, water_fill

#: Bins of the answer's length in words, evenly spaced in the logarithm; as many strata as most mixtures have sources.
_LENGTH_BINS = 8


def read_numbers(examples: Path, rows: NDArray[np.uint32], column: str) -> NDArray[np.float64]:
    """The numbers of a column that is in no message, float64 [n]; NaN for a row without one.

    A text that is a number counts as one, as CSV files have them; true, false, NaN and infinity do not.

    Args:
        examples: parquet with EXAMPLES.
        rows: uint32 [n], ascending positions.
        column: its name, or `a.b` for `b` inside of the column `a`.

    Raises:
        UserError: no row has a number there.
    """
    numbers = np.full(len(rows), np.nan)
    numeric: dict[str, None] = {}
    start = done = 0
    for batch in batches(examples, ["meta"]):
        part = rows[done : np.searchsorted(rows, start + batch.height)]
        for meta in batch["meta"].gather(part - start):
            cells = orjson.loads(meta)
            numbers[done] = _number(_cell(cells, column))
            if np.isnan(numbers[done]):
                numeric |= dict.fromkeys(name for name, value in cells.items() if not np.isnan(_number(value)))
            done += 1
        start += batch.height
    if len(rows) and np.isnan(numbers).all():
        names = ", ".join(list(numeric)[:10]) or "none"
        raise UserError(
            f"No curated training row has a number in the column {column!r}.{did_you_mean(column, numeric)} Columns "
            f"with numbers: {names}."
        )
    return numbers


def _cell(cells: Any, column: str) -> Any:
    """The value of a column, or what stands at a path with dots."""
    if column in cells:
        return cells[column]
    for name in column.split("."):
        cells = cells.get(name) if isinstance(cells, dict) else None
    return cells


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return math.nan
    try:
        number = float(value)
    except ValueError:
        return math.nan
    return number if math.isfinite(number) else math.nan


def scaled(numbers: NDArray[np.float64]) -> NDArray[np.float64]:
    """Numbers, float64 [n], on a scale from 0 for the least to 1 for the greatest; all 1 where they are equal."""
    low, high = numbers.min(initial=np.inf), numbers.max(initial=-np.inf)
    return (numbers - low) / (high - low) if high > low else np.ones(len(numbers))


def choose_by_score(
    pool: pl.DataFrame, scores: NDArray[np.float64], count: int | None, *, settings: ScoreSelection, seed: int
) -> NDArray[np.int64]:
    """The positions of the rows that are chosen by their scores, int64, in the order in which they are taken.

    Equal scores come in the order of the rows.

    Args:
        pool: INDEX of the rows.
        scores: float64 [n]; NaN for a row without one, which is never chosen.
        count: how many rows, as far as there are so many; None, for `range`, all of them.
        settings: how they are chosen.
        seed: of the draw of `range`.
    """
    low, high = (
        (-np.inf if settings.low is None else settings.low),
        (np.inf if settings.high is None else settings.high),
    )
    inside = np.flatnonzero((scores >= low) & (scores <= high))
    best_first = inside[np.argsort(-scores[inside], kind="stable")]
    if settings.take == "top":
        return best_first[:count]
    if settings.take == "range":
        if count is None or count >= len(inside):
            return best_first
        drawn = shuffled_positions(pool["id"].gather(inside), seed=seed, purpose="range of scores")[:count]
        return best_first[np.isin(best_first, inside[drawn])]

    # The best rows of each stratum, as many as its share of the rows with a score.
    stratum = strata_of(pool, settings.strata).gather(best_first)
    counts = stratum.value_counts().sort("stratum")
    take = counts.with_columns(
        take=pl.Series(water_fill(counts["count"].to_numpy(), counts["count"].to_numpy(), count or 0))
    )
    ordered = pl.DataFrame({"position": best_first, "stratum": stratum})
    ordered = ordered.join(take, on="stratum", how="left", maintain_order="left")
    chosen = ordered.filter(pl.int_range(pl.len()).over("stratum") < pl.col("take"))
    return chosen["position"].to_numpy()


def strata_of(pool: pl.DataFrame, strata: Literal["source", "length"]) -> pl.Series:
    """The stratum of each row of `pool` (INDEX) in words: its source, or the bin of its answer's words."""
    if strata == "source":
        return pool["source"].fill_null("").rename("stratum")
    words = pool["answer_words"].to_numpy().astype(np.int64)
    edges = bin_edges(words, bins=_LENGTH_BINS, spacing="log")
    bins = np.searchsorted(edges, words, side="right") - 1
    names = [f"answers of {low} to {high - 1} words" for low, high in pairwise(edges.tolist())]
    return pl.Series("stratum", [names[number] for number in bins], dtype=pl.String)
