"""Truncated rows in the ledger of the run: one stage for each trained arm, one for the evaluation.

The decisions of curation stay the beginning of ledger.parquet. What training and evaluation truncated follows them and
is replaced as a whole, so doing either again leaves the same bytes; curating again starts from curation alone.
"""

from __future__ import annotations

from pathlib import Path

import polars as pl

from siftune.curation import schema
from siftune.curation.atomic_files import write_parquet
from siftune.curation.checksums import whole
from siftune.curation.run.paths import RunPaths
from siftune.training.arm_names import arm_sort_key

EVALUATION_STAGE = "judge"
_TRAIN = "train/"


def training_stage(arm: str) -> str:
    """The ledger's stage for the truncated rows of an arm; they are the same for every seed."""
    return _TRAIN + arm


def record(run: Path, stage: str, truncated: pl.DataFrame) -> None:
    """Write truncated rows into the ledger of a run, in place of what `stage` wrote before.

    Args:
        run: The run folder.
        stage: `training_stage` of an arm, or EVALUATION_STAGE.
        truncated: LEDGER rows, action `truncate`.
    """
    path = RunPaths(run).ledger_path
    ledger = pl.read_parquet(whole(path), glob=False).filter(pl.col("stage") != stage)

    # Curation's decisions stay as they are; behind them one group of rows for each stage, in a fixed order.
    is_later = pl.col("stage").str.starts_with(_TRAIN) | (pl.col("stage") == EVALUATION_STAGE)
    curation = ledger.filter(~is_later)
    by_stage = {str(name): rows for (name,), rows in ledger.filter(is_later).group_by("stage", maintain_order=True)}
    by_stage[stage] = truncated
    stages = sorted((name for name, rows in by_stage.items() if rows.height), key=_stage_sort_key)

    # Steps are numbered on from curation's last one.
    first_step = int(curation.select(pl.col("step").max().fill_null(-1)).item()) + 1
    later = [
        by_stage[name].with_columns(pl.lit(name).alias("stage"), pl.lit(first_step + index, pl.Int32).alias("step"))
        for index, name in enumerate(stages)
    ]
    frames = [schema.conform(rows, schema.LEDGER) for rows in (curation, *later)]
    write_parquet(pl.concat(frames, rechunk=True), path, checked=True)


def _stage_sort_key(stage: str) -> tuple[bool, tuple[int, str]]:
    """Arms in their order, then the evaluation."""
    return stage == EVALUATION_STAGE, arm_sort_key(stage.removeprefix(_TRAIN))
