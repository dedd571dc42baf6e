"""A logistic model over named columns."""

from __future__ import annotations

from dataclasses import dataclass, fields

import polars as pl


@dataclass(frozen=True)
class LogisticModel:
    """A constant; each further field of a subclass is the weight of the column of its name."""

    constant: float

    def log_odds(self) -> pl.Expr:
        """The constant and the weighted sum of the columns."""
        log_odds = pl.lit(self.constant)
        for feature in fields(self)[1:]:
            log_odds = log_odds + getattr(self, feature.name) * pl.col(feature.name)
        return log_odds
