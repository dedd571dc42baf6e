"""The stage that looks at each row by itself. See `siftune.curation.stages.Stage` for its methods."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import polars as pl

from siftune.curation import schema
from siftune.curation.corpus import Corpus
from siftune.curation.measurement import TEXT_COLUMNS, Knob, Measured
from siftune.curation.progress import Progress
from siftune.curation.recipe.recipe import Recipe
from siftune.curation.recipe.sections import Checks
from siftune.curation.row_checks import checks
from siftune.curation.row_checks.personal_data import kinds_with


@dataclass(frozen=True)
class RowChecks:
    """Each row by itself, before rows are compared."""

    name: ClassVar[str] = "checks"
    title: ClassVar[str] = "Row checks"
    knobs: ClassVar[tuple[Knob, ...]] = ()
    compares: ClassVar[None] = None
    similarity: ClassVar[None] = None
    settings: Checks

    @classmethod
    def from_recipe(cls, recipe: Recipe, *, base: Path) -> Self | None:
        return cls(recipe.checks)

    def depends(self) -> dict[str, Any]:
        return self.settings.model_dump()

    def measure(self, corpus: Corpus, alive: pl.DataFrame, progress: Progress | None) -> Measured:
        findings = [schema.empty(schema.FINDINGS)]
        checked = 0
        kinds_with(self.settings, "report", "drop")  # says what is not installed before anything is checked
        for frame in corpus.frames(TEXT_COLUMNS, alive["row"].to_numpy()):
            findings.append(checks.findings(frame, self.settings))
            checked += frame.height
            if progress:
                progress("checking rows", checked, alive.height)
        return Measured(pl.concat(findings))

    def decide(self, alive: pl.DataFrame, measured: pl.DataFrame) -> pl.DataFrame:
        severity = {name: value for name, value in self.settings.model_dump().items() if isinstance(value, str)}
        action = pl.col("check").replace_strict(severity, default="report")
        is_spared = pl.col("pinned") & (action == "drop")
        return schema.conform(
            measured.join(alive.select("id", "pinned"), on="id", how="inner", maintain_order="left").select(
                "id",
                pl.when(is_spared).then(pl.lit("report")).otherwise(action).alias("action"),
                pl.col("check").alias("reason"),
                "score",
                "detail",
            ),
            schema.DECISIONS,
        )
