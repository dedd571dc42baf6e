"""Lengths of rows before and after curation: histograms in words, and what balancing did."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from siftune.curation.run.folder import RunFolder
from siftune.curation.run.manifest import LengthBinRecord


def is_trained(rows: pl.DataFrame) -> NDArray[np.bool_]:
    """Which of ROWS are kept and stand in no held-out split: bool [n]."""
    held_out = pl.col("split").is_in(["test", "validation"]).fill_null(value=False)
    trained = ((pl.col("fate") == "kept") & ~held_out).fill_null(value=False)
    return rows.select(trained).to_series().to_numpy()


def length_histogram(rows: pl.DataFrame, column: str, *, bins: int = 24) -> pl.DataFrame:
    """Histogram over length in words, in log-spaced bins, of all rows and of those in training after curation.

    Args:
        rows: ROWS.
        column: `prompt_words` or `answer_words`.
        bins: how many bins there are at most, besides one for length 0.

    Returns:
        set (before, after), low and high (words; high excluded), rows, share (of the set).
    """
    words = rows[column].fill_null(0).to_numpy().astype(np.int64)
    top = max(2, int(words.max(initial=1)) + 1)
    edges = np.concatenate([[0], np.unique(np.round(np.geomspace(1, top, bins + 1)).astype(np.int64))])
    frames = []
    for name, part in (("before", words), ("after", words[is_trained(rows)])):
        counts = np.add.reduceat(np.bincount(part, minlength=edges[-1]), edges[:-1])
        frame = pl.DataFrame({"low": edges[:-1], "high": edges[1:], "rows": counts})
        frames.append(frame.with_columns(set=pl.lit(name), share=pl.col("rows") / max(1, len(part))))
    return pl.concat(frames)


def median_lengths(rows: pl.DataFrame, column: str) -> tuple[float, float]:
    """The median length in words of all rows, and of those in training after curation; 0 where there are none.

    Args:
        rows: ROWS.
        column: `prompt_words` or `answer_words`.
    """
    words = rows[column].fill_null(0)
    before, after = words.median(), words.filter(pl.Series(is_trained(rows))).median()
    return float(before or 0), float(after or 0)  # type: ignore[arg-type]


@dataclass(frozen=True)
class BalanceSummary:
    """What balancing did.

    Attributes:
        facts: names and values to read.
        bins: rows in each bin of length: bin, set (before, after), rows.
        sentence: the main number in words.
    """

    facts: list[tuple[str, str]]
    bins: pl.DataFrame
    sentence: str


def balance_summary(run: RunFolder) -> BalanceSummary | None:
    """What balancing did; None when the recipe has no balance."""
    record = run.manifest.balance
    if record is None or not record.bins:
        return None
    before, after = record.before, record.after
    effective = f"{before.effective_bins:.2f} → {after.effective_bins:.2f}"
    facts = [
        ("training rows", f"{before.rows:,} → {after.rows:,}"),
        ("effective number of bins", effective),
        ("entropy", f"{before.entropy:.3f} → {after.entropy:.3f} nats"),
        ("total variation distance to the target", f"{before.distance:.3f} → {after.distance:.3f}"),
        ("lengths in", record.unit),
        ("rows of a bin chosen by", record.chosen_by),
    ]
    if (diversity := run.manifest.diversity) is not None:
        facts.append(("Vendi score of the prompts", f"{diversity.before:,.1f} → {diversity.after:,.1f}"))
    lines = [
        {"bin": _bin_name(length_bin), "set": name, "rows": rows}
        for length_bin in record.bins
        for name, rows in (("before", length_bin.before), ("after", length_bin.after))
    ]
    return BalanceSummary(facts, pl.DataFrame(lines), f"Instruction length: effective number of bins {effective}.")


def _bin_name(length_bin: LengthBinRecord) -> str:
    low, high = length_bin.low, length_bin.high  # both ends belong to the bin
    span = f"{low}–{high}" if high > low else f"{low}"
    return span if length_bin.turns == "all" else f"{span}, {length_bin.turns}"
