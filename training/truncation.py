"""Rows that were cut to the longest length trained, in the ledger of the run: one stage an arm, one for judging.

The decisions of curation stay the beginning of ledger.parquet. What training and judging cut follows them and is
replaced as a whole, so doing either again leaves the same bytes; curating again starts from curation alone.
"""

from __future__ import annotations

from pathlib import Path

import polars as pl

from siftune.curation import schema
from siftune.curation.atomic_files import write_parquet
from siftune.training.arm_names import arm_sort_key

EVALUATION_STAGE = "judge"
_TRAIN = "train/"


def training_stage(arm: str) -> str:
    """The stage of the ledger that tells what training cut of an arm; the seeds of an arm cut the same rows."""
    return _TRAIN + arm


def record(run: Path, stage: str, cuts: pl.DataFrame) -> None:
    """Write `cuts` (LEDGER, action `truncate`) into the ledger of a run, in place of what `stage` told before."""
    path = run / "ledger.parquet"
    told = pl.read_parquet(path).filter(pl.col("stage") != stage)
    later = pl.col("stage").str.starts_with(_TRAIN) | (pl.col("stage") == EVALUATION_STAGE)
    curated = told.filter(~later)
    parts = {str(name): part for (name,), part in told.filter(later).group_by("stage", maintain_order=True)}
    parts[stage] = cuts
    first = int(curated.select(pl.col("step").max().fill_null(-1)).item()) + 1
    entries = [
        parts[name].with_columns(pl.lit(name).alias("stage"), pl.lit(first + place, pl.Int32).alias("step"))
        for place, name in enumerate(sorted((name for name, part in parts.items() if part.height), key=_place))
    ]
    frames = [schema.conform(frame, schema.LEDGER) for frame in (curated, *entries)]
    write_parquet(pl.concat(frames, rechunk=True), path)


def _place(stage: str) -> tuple[bool, tuple[int, str]]:
    """Arms in their order, then the judging."""
    return stage == EVALUATION_STAGE, arm_sort_key(stage.removeprefix(_TRAIN))
