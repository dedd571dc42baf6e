"""The rows that a run kept."""

from __future__ import annotations

import polars as pl

from siftune.curation.run.folder import RunFolder
from siftune.curation.split_names import TRAIN


def kept_index(run: RunFolder) -> pl.DataFrame:
    """INDEX (without rank and pinned) of the rows that a run kept; `split` is the split that holds the row."""
    kept = run.rows().filter(pl.col("fate") == "kept").select("id", pl.col("split").alias("kept_split"))
    index = pl.read_parquet(run.file("index"), glob=False).join(kept, on="id", how="inner", maintain_order="left")
    return index.with_columns(pl.col("kept_split").fill_null(TRAIN).alias("split")).drop("kept_split")
