"""The ledger: every decision in order, with the law of conservation asserted at each entry."""

from __future__ import annotations

from dataclasses import dataclass, field

import polars as pl

from siftune.curation import schema

#: The reason of a row that resembles a held-out row: the only one that a row restored by hand can be dropped for.
LEAK = "leak"


@dataclass
class Ledger:
    """What the stages decided so far, and what each did to the number of rows."""

    entries: list[pl.DataFrame] = field(default_factory=list)

    def enter(self, stage: str, decisions: pl.DataFrame, alive: pl.DataFrame) -> pl.DataFrame:
        """Write a stage's DECISIONS on the rows of `alive` (INDEX); returns the rows that are still alive.

        Raises:
            AssertionError: a decision names a row that was not alive, drops a row twice, or drops a row that a
                person restored (but for a leak: no wish makes a held-out row known). These are faults of a stage,
                never of the user.
        """
        known = decisions.join(alive.select("id", "row", "pinned"), on="id", how="left", maintain_order="left")
        assert known["row"].null_count() == 0, f"stage {stage} decided on rows that were not alive"
        dropped = known.filter(pl.col("action") == "drop")
        assert dropped["id"].n_unique() == dropped.height, f"stage {stage} dropped a row twice"
        wanted = dropped.filter("pinned", pl.col("reason") != LEAK)
        assert wanted.is_empty(), f"stage {stage} dropped a row that was restored by hand"
        self.append(stage, known.sort("row", "action", "reason", maintain_order=True))
        left = alive.join(dropped.select("id"), on="id", how="anti", maintain_order="left")
        assert left.height + dropped.height == alive.height, f"stage {stage} lost rows"
        return left

    def append(self, stage: str, decisions: pl.DataFrame) -> None:
        """Write DECISIONS that concern rows outside of the alive ones, such as quarantined rows."""
        told = decisions.with_columns(pl.lit(len(self.entries), pl.Int32).alias("step"), pl.lit(stage).alias("stage"))
        self.entries.append(schema.conform(told, schema.LEDGER))

    def frame(self) -> pl.DataFrame:
        """LEDGER."""
        return pl.concat(self.entries) if self.entries else schema.empty(schema.LEDGER)


def fates(ledger: pl.DataFrame) -> pl.DataFrame:
    """For each row that is not kept: id, fate (dropped, quarantined), stage, reason: the decision that ended it."""
    ended = ledger.filter(pl.col("action").is_in(["drop", "quarantine"]))
    fate = pl.when(pl.col("action") == "drop").then(pl.lit("dropped")).otherwise(pl.lit("quarantined"))
    return ended.select("id", fate.alias("fate"), "stage", "reason")
