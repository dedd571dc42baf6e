"""What a stage measured, with what there is to say of how."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

#: The columns of TEXTS that stages read.
TEXT_COLUMNS = ["id", "prompt", "core", "answer"]


@dataclass(frozen=True)
class Measured:
    """What a stage measured, and what there is to say of how (the method of a search, its recall)."""

    frame: pl.DataFrame
    notes: dict[str, str] = field(default_factory=dict)

    def write(self, path: Path) -> None:
        """Store both in one parquet file."""
        self.frame.write_parquet(path, compression="zstd", metadata=self.notes)
