"""From what was measured to an outcome: same item, related item, or nothing; and how much of it is estimated false."""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from siftune.curation import schema

#: What `false_discovery` says of each benchmark.
FALSE_DISCOVERY = pl.Schema(
    {
        "benchmark": pl.String,
        "threshold": pl.Float64,
        "matches": pl.Int64,
        "decoys": pl.Int64,
        "rate": pl.Float64,
        "low": pl.Float64,
        "high": pl.Float64,
    }
)


def benchmark() -> pl.Expr:
    """The reference that an item (`name:row`, the column `reference`) belongs to."""
    return pl.col("reference").str.replace(r":\d+$", "")


def settle(matches: pl.DataFrame, *, threshold: float, most: float | None) -> pl.DataFrame:
    """MATCHES that count, without decoys, and `threshold`, the lowest score of their benchmark (null by other rules).

    A paraphrase that scores below the threshold of its benchmark is a related item.

    Args:
        matches: MATCHES as they were measured, with decoys.
        threshold: the lowest score at which a paraphrase may be the same item.
        most: as `false_discovery` takes it.
    """
    rates = false_discovery(matches, threshold=threshold, most=most)
    counted = matches.filter(pl.col("outcome") != "decoy").with_columns(benchmark=benchmark())
    of_benchmark = rates.select("benchmark", "threshold")
    counted = counted.join(of_benchmark, on="benchmark", how="left", maintain_order="left").drop("benchmark")
    is_paraphrase = pl.col("rule") == schema.PARAPHRASE
    below = is_paraphrase & (pl.col("score") < pl.col("threshold"))
    return counted.with_columns(
        outcome=pl.when(below).then(pl.lit("related")).otherwise("outcome"),
        threshold=pl.when(is_paraphrase).then("threshold"),
    )


def false_discovery(matches: pl.DataFrame, *, threshold: float, most: float | None) -> pl.DataFrame:
    """For each benchmark the threshold of the score, and how much of what it flags is estimated to be false.

    A row is a false match where a decoy and no item reaches the threshold: a true copy of an item also resembles that
    item's decoy, which says nothing against it. As many false matches are expected among items as among decoys; the
    interval is the exact one of a Poisson count, at 95 % (Garwood 1936), over the matches.

    Args:
        matches: MATCHES as they were measured, with decoys.
        threshold: the lowest score that may count.
        most: the greatest rate that is accepted: the threshold of a benchmark is raised to the lowest score at which
            the rate is at most this; null leaves it as it is.

    Returns:
        FALSE_DISCOVERY, in the order of the benchmarks' names: `matches` rows at the threshold or above, `decoys` those
        that match a decoy, `rate` their ratio (null without matches) with its interval. A benchmark where no
        threshold will do has the threshold infinity.
    """
    counted = matches.filter(pl.col("rule") == schema.PARAPHRASE).with_columns(benchmark=benchmark())
    best = counted.group_by("benchmark", "id").agg(
        item=pl.col("score").filter(pl.col("outcome") == "same").max().fill_null(0.0),
        decoy=pl.col("score").filter(pl.col("outcome") == "decoy").max().fill_null(0.0),
    )
    lines = []
    for name in matches.select(benchmark().unique().sort()).to_series():
        of_benchmark = best.filter(pl.col("benchmark") == name)
        item, decoy = of_benchmark["item"].to_numpy(), of_benchmark["decoy"].to_numpy()
        scores = np.unique(np.concatenate([item, decoy]))
        thresholds = np.concatenate([[threshold], scores[scores > threshold], [np.inf]])
        items = _at_least(item, thresholds)
        decoys = _at_least(decoy, thresholds) - _at_least(np.minimum(item, decoy), thresholds)
        accepted = decoys <= most * items if most is not None else np.ones(len(thresholds), np.bool_)
        chosen = int(np.argmax(accepted))
        lines.append((name, float(thresholds[chosen]), *_rate(int(items[chosen]), int(decoys[chosen]))))
    return pl.DataFrame(lines, schema=FALSE_DISCOVERY, orient="row")


def _at_least(scores: NDArray[np.float64], thresholds: NDArray[np.float64]) -> NDArray[np.int64]:
    """How many of `scores` reach each threshold, int64 [t]."""
    return len(scores) - np.searchsorted(np.sort(scores), thresholds, side="left")


def _rate(matched: int, false: int) -> tuple[int, int, float | None, float | None, float | None]:
    """Matches of items and of decoys, their ratio and its interval; nothing is known without matches of items."""
    if not matched:
        return 0, 0, None, None, None
    from scipy.special import gammaincinv  # half of a quantile of chi squared; scipy.stats takes a second to import

    low = float(gammaincinv(false, 0.025)) if false else 0.0
    high = float(gammaincinv(false + 1, 0.975))
    return matched, false, min(1.0, false / matched), min(1.0, low / matched), min(1.0, high / matched)
