"""What a stage measures, and what it says of itself: the names, numbers and settings that other rooms show."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

#: The columns of TEXTS that stages read.
TEXT_COLUMNS = ["id", "system", "prompt", "core", "answer"]


@dataclass(frozen=True)
class Measured:
    """What a stage measured: a frame, and notes on how it was measured (the method of a search, its recall)."""

    frame: pl.DataFrame
    notes: dict[str, str] = field(default_factory=dict)

    def write(self, path: Path) -> None:
        """Store both in one parquet file."""
        self.frame.write_parquet(path, compression="zstd", metadata=self.notes)


@dataclass(frozen=True)
class Similarity:
    """The score by which a stage calls two rows duplicates.

    Attributes:
        measure: what the score is, as in "Jaccard similarity of 3-word shingles".
        threshold: rows at least this similar are duplicates.
        floor: pairs at least this similar are stored; a replay can go down to here.
    """

    measure: str
    threshold: float
    floor: float


@dataclass(frozen=True)
class Knob:
    """A number of the recipe that `what-if NAME=VALUE` changes without measuring anything again.

    Attributes:
        name: what the user types.
        section: the section of the recipe that holds the number, from the top: ("duplicates", "near").
        field: the number's name in that section.
        whole_number: whether it is a whole number from 1 on. Otherwise it is a score, at most 1.
        lowest: the least score that was stored, for a section without a field `floor`.
    """

    name: str
    section: tuple[str, ...]
    field: str = "threshold"
    whole_number: bool = False
    lowest: float = 0.0
