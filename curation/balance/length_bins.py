"""Bins over instruction length, the target distribution over them, and how even a distribution is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from siftune.curation.recipe.sections import Balance
from siftune.curation.run.manifest import LengthRecord

#: INDEX.turns counts messages: a system prompt, a question and an answer are one turn of conversation.
_SINGLE_TURN_MESSAGES = 3


def length_record(rows: np.ndarray, target: np.ndarray) -> LengthRecord:
    """How rows are distributed over bins: rows per bin, int[k], beside target shares, float64[k].

    entropy: Shannon entropy of the bins' shares, in nats. effective_bins: exp(entropy), the number of equally full
    bins with that entropy (the Hill number of order 1, Hill 1973); 0 without rows. distance: total-variation distance
    to the target shares, in [0, 1].
    """
    total = int(rows.sum())
    shares = rows / max(1, total)
    positive = shares[shares > 0]
    entropy = float(-(positive * np.log(positive)).sum()) + 0.0
    return LengthRecord(
        rows=total,
        entropy=entropy,
        effective_bins=float(np.exp(entropy)) if total else 0.0,
        distance=float(np.abs(shares - target).sum() / 2),
    )


def bin_edges(lengths: np.ndarray, *, bins: int, spacing: str) -> NDArray[np.int64]:
    """Whole-number bin edges int64[k + 1], k <= bins: bin i holds lengths edges[i] <= length < edges[i + 1].

    Args:
        lengths: whole numbers [n].
        bins: how many bins are asked for; edges that fall together are one.
        spacing: `log` cuts the range evenly in the logarithm, `quantile` so that bins hold equally many rows.
    """
    if not len(lengths):
        return np.asarray([0, 1])
    low, high = int(lengths.min()), int(lengths.max()) + 1
    if spacing == "log":
        inner = np.geomspace(max(1, low), high, bins + 1)[1:-1]
    else:
        inner = np.quantile(lengths, np.linspace(0, 1, bins + 1)[1:-1])
    rounded = np.ceil(inner - 1e-9).astype(np.int64)
    return np.unique(np.concatenate([[low], rounded[(rounded > low) & (rounded < high)], [high]]))


@dataclass(frozen=True)
class LengthBins:
    """The bins of a balanced set: ranges of length, or of length and turns (single turn, multi-turn) together.

    edges: int64[k + 1], the edges of the ranges of length. turn_kinds: 1, or 2 when single-turn and multi-turn rows
    have bins of their own; bin `turn_kinds * range + kind`. of_row: int64[n], the bin of each row.
    """

    edges: NDArray[np.int64]
    turn_kinds: int
    of_row: NDArray[np.int64]

    @classmethod
    def from_rows(cls, index: pl.DataFrame, lengths: np.ndarray, settings: Balance) -> LengthBins:
        """Bin the rows of `index` (INDEX) by their lengths [n], and by turns when the recipe says so."""
        edges = bin_edges(lengths, bins=settings.bins, spacing=settings.spacing)
        length_range = np.searchsorted(edges, lengths, side="right") - 1
        if not settings.by_turns:
            return cls(edges, 1, length_range.astype(np.int64))
        multi_turn = (index["turns"] > _SINGLE_TURN_MESSAGES).to_numpy()
        return cls(edges, 2, (2 * length_range + multi_turn).astype(np.int64))

    @property
    def count(self) -> int:
        """How many bins there are, empty ones too."""
        return (len(self.edges) - 1) * self.turn_kinds

    def rows_per_bin(self, rows: np.ndarray | slice = slice(None)) -> NDArray[np.int64]:
        """How many rows each bin holds, int64[count]; `rows` selects some of them (positions, or bool[n])."""
        return np.bincount(self.of_row[rows], minlength=self.count)

    def target(self, settings: Balance, reference: np.ndarray | None) -> NDArray[np.float64]:
        """The target shares, float64[count], which sum to 1.

        `uniform`: every bin that has rows has the same share. `temperature`: shares are the data's to the power of
        `settings.temperature`, renormalised. `reference`: those of the lengths `reference`, an array [m].
        """
        rows = self.rows_per_bin().astype(np.float64)
        if settings.target == "reference":
            assert reference is not None, "this target needs the lengths of the reference set"
            return self._reference_shares(reference, rows)
        power = 0.0 if settings.target == "uniform" else settings.temperature
        shares = np.where(rows > 0, np.maximum(rows, 1) ** power, 0.0)
        return shares / max(shares.sum(), 1.0)

    def _reference_shares(self, reference: np.ndarray, rows: np.ndarray) -> NDArray[np.float64]:
        """The reference's shares; lengths beyond the data count in the outer bins, turns are mixed as in the data."""
        ranges = len(self.edges) - 1
        length_range = np.clip(np.searchsorted(self.edges, reference, side="right") - 1, 0, ranges - 1)
        shares = np.bincount(length_range, minlength=ranges) / max(1, len(reference))
        mix = rows.reshape(ranges, self.turn_kinds)
        total = mix.sum(axis=1, keepdims=True)
        mix = np.divide(mix, total, out=np.full_like(mix, 1 / self.turn_kinds), where=total > 0)
        return (shares[:, None] * mix).ravel()

    def name(self, bin_number: int, unit: str) -> str:
        """A bin in words: "12 to 23 tokens"."""
        low, high, turns = self._describe(bin_number)
        words = f"{low} to {high} {unit}" if high > low else f"{low} {unit}"
        return words if turns == "all" else f"{words}, {turns} turn"

    def table(self, columns: Mapping[str, np.ndarray]) -> pl.DataFrame:
        """One line for each bin with rows `before` or a `target`: bin, low, high, turns, and the columns, [count]."""
        descriptions = [self._describe(bin_number) for bin_number in range(self.count)]
        schema = {"low": pl.Int64, "high": pl.Int64, "turns": pl.String}
        frame = pl.DataFrame(descriptions, schema=schema, orient="row").with_row_index("bin")
        frame = frame.with_columns(pl.Series(name, values) for name, values in columns.items())
        return frame.filter((pl.col("before") > 0) | (pl.col("target") > 0))

    def _describe(self, bin_number: int) -> tuple[int, int, str]:
        """The least and the greatest length of a bin, and its turns: `all`, `single` or `multi`."""
        length_range, kind = divmod(bin_number, self.turn_kinds)
        turns = "all" if self.turn_kinds == 1 else ("single", "multi")[kind]
        return int(self.edges[length_range]), int(self.edges[length_range + 1]) - 1, turns
