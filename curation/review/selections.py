"""Why a row is in a selected arm or not, in words."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from siftune.curation.run.folder import RunFolder
from siftune.curation.schema import SELECTION


@dataclass(frozen=True)
class SelectionLine:
    """One selected arm and one row: the rank at which it was taken, None where it was not, and why in a sentence."""

    arm: str
    rank: int | None
    sentence: str


def selections_of(run: RunFolder, row_id: str) -> list[SelectionLine]:
    """What the selected arms of a run say of a row; nothing of a row that is no curated training row."""
    lines = []
    for arm in run.selections():
        stored = pl.scan_parquet(run.selection(arm), glob=False).filter(pl.col("id") == row_id).collect()
        for row in stored.select(list(SELECTION)).to_dicts():
            numbers = [(name, row[name]) for name in ("score", "gain", "quality") if row[name] is not None]
            measured = ", ".join(f"{name} {value:,.4g}" for name, value in numbers)
            cosine = "" if row["similarity"] is None else f" (cosine {row['similarity']:.3f})"
            witness = "" if row["witness"] is None else f": {row['witness']}{cosine}"
            start = "not taken" if row["rank"] is None else f"taken as number {row['rank']:,}"
            parts = [start, *filter(None, [measured, f"{row['detail']}{witness}"])]
            lines.append(SelectionLine(arm, row["rank"], "; ".join(parts)))
    return lines
