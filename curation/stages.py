"""The stages of curation, in order: each measures (slow, stored) and decides (fast, replayable), apart.

A stage is a frozen object that holds its parameters. It never deletes: it returns decisions, and the ledger works out
who is still alive. A new stage joins by standing in `stages()`; the law tests run over that list.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import polars as pl

from siftune.curation.corpus import Corpus
from siftune.curation.decontamination.stage import Decontamination
from siftune.curation.dedup.stages import Conflicts, Exact, NearDuplicates, RepeatedAnswers, SemanticDuplicates
from siftune.curation.measurement import Measured
from siftune.curation.progress import Progress
from siftune.curation.recipe.sections import Near, Recipe
from siftune.curation.row_checks.stage import RowChecks
from siftune.curation.schema import Key


class Stage(Protocol):
    """One step of curation."""

    @property
    def name(self) -> str:
        """How the stage is called in the ledger."""

    def depends(self) -> dict[str, Any]:
        """What its measure depends on besides the rows: part of the measure's content address."""

    def measure(self, corpus: Corpus, alive: pl.DataFrame, progress: Progress | None) -> Measured:
        """Measure the rows that are alive (INDEX). The result is stored, and never depends on a threshold."""

    def decide(self, alive: pl.DataFrame, measured: pl.DataFrame) -> pl.DataFrame:
        """DECISIONS on the rows that are alive, from what was measured on these rows or more."""


def stages(recipe: Recipe, *, base: Path) -> list[Stage]:
    """The stages that a recipe asks for, in their order; `base` is the folder that its paths are relative to."""
    wanted = recipe.duplicates
    key: Key = recipe.keys.duplicates
    guard = tuple(wanted.guard)
    shingles = wanted.near or Near()
    listed: list[Stage | None] = [
        RowChecks(recipe.checks),
        Exact(key) if wanted.exact else None,
        NearDuplicates(wanted.near, key, guard) if wanted.near else None,
        RepeatedAnswers(wanted.answers, shingles.shingle, shingles.permutations) if wanted.answers else None,
        Conflicts(wanted.conflicts) if wanted.conflicts != "off" else None,
        SemanticDuplicates(wanted.semantic, key, guard, recipe.encoder) if wanted.semantic and recipe.encoder else None,
        Decontamination(recipe.contamination, recipe.encoder, base) if recipe.contamination else None,
    ]
    return [stage for stage in listed if stage is not None]
