"""Two runs of the same input: which rows changed fate, and who decided."""

from __future__ import annotations

import polars as pl

from siftune.curation.errors import UserError
from siftune.curation.run.folder import RunFolder


def diff(before: RunFolder, after: RunFolder) -> pl.DataFrame:
    """Rows whose fate, deciding stage or reason differs: id, source, and fate, stage, reason before and after.

    A row that only one run has reads `absent` in the other.

    Raises:
        UserError: the runs share no row at all.
    """
    columns = ["id", "source", "fate", "stage", "reason"]
    left, right = before.rows().select(columns), after.rows().select(columns)
    joined = left.join(right, on="id", how="full", coalesce=True, suffix="_after", maintain_order="left_right")
    if left.height and right.height and joined.height == left.height + right.height:
        raise UserError(f"{before.path} and {after.path} share no row id; they were made from different sources.")
    absent = pl.lit("absent")
    filled = joined.with_columns(
        pl.col("fate", "fate_after").fill_null(absent), pl.col("source").fill_null(pl.col("source_after"))
    )
    changed = pl.any_horizontal(
        pl.col(name).ne_missing(pl.col(f"{name}_after")) for name in ("fate", "stage", "reason")
    )
    return filled.filter(changed).drop("source_after")


def summary(changed: pl.DataFrame) -> pl.DataFrame:
    """How many rows moved from which fate and stage to which."""
    by = ["fate", "stage", "fate_after", "stage_after"]
    return changed.group_by(by).len("rows").sort("rows", *by, descending=[True, *[False] * 4], nulls_last=True)
