"""Turns of EXAMPLES that are rewritten: mojibake that is repaired, personal data that are masked."""

from __future__ import annotations

import polars as pl


def turns_of(batch: pl.DataFrame) -> pl.DataFrame:
    """One line for each turn of EXAMPLES: `position` of the row, `id`, `turn`, `role` and `content`."""
    rows = batch.with_row_index("position").select("position", "id", "messages")
    turns = rows.explode("messages", empty_as_null=False).with_columns(pl.col("messages").struct.unnest())
    return turns.with_columns(pl.int_range(pl.len()).over("position").alias("turn")).drop("messages")


def rewrite(batch: pl.DataFrame, turns: pl.DataFrame, changed: pl.DataFrame) -> pl.DataFrame:
    """EXAMPLES with the content of some turns replaced; rows, their order and everything else stay as they are.

    Args:
        batch: EXAMPLES.
        turns: `turns_of(batch)`.
        changed: `position`, `turn` and `after`, the new content, of the turns that are replaced.
    """
    of_changed = turns.join(changed, on="position", how="semi", maintain_order="left")
    after = changed.select("position", "turn", "after")
    of_changed = of_changed.join(after, on=["position", "turn"], how="left", maintain_order="left")
    content = pl.coalesce("after", "content").alias("content")
    rewritten = of_changed.group_by("position", maintain_order=True).agg(pl.struct("role", content).alias("rewritten"))
    return (
        batch.with_row_index("position")
        .join(rewritten, on="position", how="left", maintain_order="left")
        .with_columns(pl.coalesce("rewritten", "messages").alias("messages"))
        .select(batch.columns)
    )
