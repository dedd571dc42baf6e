"""Bins over instruction length, the wanted distribution over them, and how even a distribution is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from siftune.curation.recipe.sections import Balance

#: INDEX.turns counts messages: a system prompt, a question and an answer are one turn of conversation.
_SINGLE_TURN_MESSAGES = 3


@dataclass(frozen=True)
class Shape:
    """A distribution over bins: its entropy in nats, exp(entropy) = the effective number of bins, and its total-
    variation distance to the target, in [0, 1].
    """

    rows: int
    entropy: float
    effective_bins: float
    distance: float

    @classmethod
    def of(cls, rows: np.ndarray, target: np.ndarray) -> Shape:
        """The shape of `rows` [k] over bins whose target shares are `target` [k]."""
        total = int(rows.sum())
        shares = rows / max(1, total)
        some = shares[shares > 0]
        entropy = float(-(some * np.log(some)).sum()) + 0.0
        distance = float(np.abs(shares - target).sum() / 2)
        return cls(total, entropy, float(np.exp(entropy)) if total else 0.0, distance)


def edges(lengths: np.ndarray, *, bins: int, spacing: str) -> NDArray[np.int64]:
    """Whole-number bin edges int64[k + 1], k <= bins: bin i holds lengths edges[i] <= length < edges[i + 1].

    `log` cuts the range evenly in the logarithm, `quantile` so that bins hold equally many rows; edges that fall
    together are one.
    """
    if not len(lengths):
        return np.asarray([0, 1])
    low, high = int(lengths.min()), int(lengths.max()) + 1
    if spacing == "log":
        inner = np.geomspace(max(1, low), high, bins + 1)[1:-1]
    else:
        inner = np.quantile(lengths, np.linspace(0, 1, bins + 1)[1:-1])
    inside = np.ceil(inner - 1e-9).astype(np.int64)
    return np.unique(np.concatenate([[low], inside[(inside > low) & (inside < high)], [high]]))


@dataclass(frozen=True)
class Cells:
    """Bins over length, each one cell, or two (single turn, multi-turn) when they are joint with turns."""

    edges: NDArray[np.int64]
    ways: int
    of_row: NDArray[np.int64]

    @classmethod
    def cut(cls, index: pl.DataFrame, lengths: np.ndarray, settings: Balance) -> Cells:
        """Cut the rows of `index` by their lengths, and by turns when the recipe says so."""
        at = edges(lengths, bins=settings.bins, spacing=settings.spacing)
        cell = np.searchsorted(at, lengths, side="right") - 1
        if not settings.by_turns:
            return cls(at, 1, cell.astype(np.int64))
        several = (index["turns"] > _SINGLE_TURN_MESSAGES).to_numpy()
        return cls(at, 2, (2 * cell + several).astype(np.int64))

    @property
    def count(self) -> int:
        """How many cells there are, empty ones too."""
        return (len(self.edges) - 1) * self.ways

    def target(self, settings: Balance, reference: np.ndarray | None) -> NDArray[np.float64]:
        """The wanted shares, float64[count]."""
        rows = np.bincount(self.of_row, minlength=self.count).astype(np.float64)
        if settings.target == "reference":
            assert reference is not None, "this target needs the lengths of the reference set"
            return self._as_reference(reference, rows)
        power = 0.0 if settings.target == "uniform" else settings.temperature
        shares = np.where(rows > 0, np.maximum(rows, 1) ** power, 0.0)
        return shares / max(shares.sum(), 1.0)

    def _as_reference(self, reference: np.ndarray, rows: np.ndarray) -> NDArray[np.float64]:
        """The reference's shares; lengths beyond the data count in the outer bins, turns are mixed as in the data."""
        bins = len(self.edges) - 1
        at = np.clip(np.searchsorted(self.edges, reference, side="right") - 1, 0, bins - 1)
        shares = np.bincount(at, minlength=bins) / max(1, len(reference))
        mix = rows.reshape(bins, self.ways)
        total = mix.sum(axis=1, keepdims=True)
        mix = np.divide(mix, total, out=np.full_like(mix, 1 / self.ways), where=total > 0)
        return (shares[:, None] * mix).ravel()

    def name(self, cell: int, unit: str) -> str:
        """A cell in words: "12 to 23 tokens"."""
        low, high, turns = self._describe(cell)
        words = f"{low} to {high} {unit}" if high > low else f"{low} {unit}"
        return words if turns == "all" else f"{words}, {turns} turn"

    def table(self, columns: Mapping[str, np.ndarray]) -> pl.DataFrame:
        """One line for each cell with rows `before` or a `target`: bin, low, high, turns, and the given columns."""
        described = [self._describe(cell) for cell in range(self.count)]
        schema = {"low": pl.Int64, "high": pl.Int64, "turns": pl.String}
        frame = pl.DataFrame(described, schema=schema, orient="row").with_row_index("bin")
        frame = frame.with_columns(pl.Series(name, values) for name, values in columns.items())
        return frame.filter((pl.col("before") > 0) | (pl.col("target") > 0))

    def _describe(self, cell: int) -> tuple[int, int, str]:
        bin_, way = divmod(cell, self.ways)
        turns = "all" if self.ways == 1 else ("single", "multi")[way]
        return int(self.edges[bin_]), int(self.edges[bin_ + 1]) - 1, turns
