"""The ledger: every decision in order; at each entry it is checked that no row was lost or decided on twice."""

from __future__ import annotations

from dataclasses import dataclass, field

import polars as pl

from siftune.curation import schema
from siftune.curation.errors import require_conserved

#: The reason of a row that resembles a held-out row: the only one that a row restored by hand can be dropped for.
LEAK = "leak"


@dataclass
class Ledger:
    """What the stages decided so far, and what each did to the number of rows."""

    entries: list[pl.DataFrame] = field(default_factory=list)

    def enter(self, stage: str, decisions: pl.DataFrame, alive: pl.DataFrame) -> pl.DataFrame:
        """Write a stage's DECISIONS on the rows of `alive` (INDEX).

        Returns:
            The rows that are still alive (INDEX).

        Raises:
            ConservationError: a decision names a row that was not alive, drops a row twice, or drops a row that a
                person restored (but for a leak: a decision by hand cannot let a held-out row into training).
        """
        located = decisions.join(alive.select("id", "row", "pinned"), on="id", how="left", maintain_order="left")
        require_conserved(located["row"].null_count() == 0, f"Stage {stage} decided on rows that were not alive")
        dropped = located.filter(pl.col("action") == "drop")
        require_conserved(dropped["id"].n_unique() == dropped.height, f"Stage {stage} dropped a row twice")
        restored = dropped.filter("pinned", pl.col("reason") != LEAK)
        require_conserved(restored.is_empty(), f"Stage {stage} dropped a row that was restored by hand")
        self.append(stage, located.sort("row", "action", "reason", maintain_order=True))
        remaining = alive.join(dropped.select("id"), on="id", how="anti", maintain_order="left")
        require_conserved(remaining.height + dropped.height == alive.height, f"Stage {stage} lost rows")
        return remaining

    def append(self, stage: str, decisions: pl.DataFrame) -> None:
        """Write DECISIONS that concern rows outside of the alive ones, such as quarantined rows."""
        step = pl.lit(len(self.entries), pl.Int32).alias("step")
        entry = decisions.with_columns(step, pl.lit(stage).alias("stage"))
        self.entries.append(schema.conform(entry, schema.LEDGER))

    def frame(self) -> pl.DataFrame:
        """LEDGER."""
        return pl.concat(self.entries) if self.entries else schema.empty(schema.LEDGER)


def fates(ledger: pl.DataFrame) -> pl.DataFrame:
    """For each row that is not kept: id, fate (dropped, quarantined), stage, reason: the decision that ended it."""
    removals = ledger.filter(pl.col("action").is_in(["drop", "quarantine"]))
    fate = pl.when(pl.col("action") == "drop").then(pl.lit("dropped")).otherwise(pl.lit("quarantined"))
    return removals.select("id", fate.alias("fate"), "stage", "reason")
