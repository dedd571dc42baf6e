"""Conflicts: the same prompt with different answers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import polars as pl

from siftune.curation.corpus import Corpus
from siftune.curation.dedup.decisions import decisions
from siftune.curation.dedup.exact import apart, equal_text_pairs, later_rows
from siftune.curation.measurement import Knob, Measured
from siftune.curation.progress import Progress
from siftune.curation.recipe.recipe import Recipe
from siftune.curation.recipe.sections import Severity, SystemPrompts
from siftune.curation.schema import Key


@dataclass(frozen=True)
class ConflictingAnswers:
    """The same prompt with different answers: reported, and dropped only when the recipe says so."""

    name: ClassVar[str] = "conflicts"
    title: ClassVar[str] = "Conflicting answers"
    knobs: ClassVar[tuple[Knob, ...]] = ()
    similarity: ClassVar[None] = None
    compares: ClassVar[Key] = "prompt"
    severity: Severity
    system: SystemPrompts

    @classmethod
    def from_recipe(cls, recipe: Recipe, *, base: Path) -> Self | None:
        duplicates = recipe.duplicates
        return cls(duplicates.conflicts, duplicates.system) if duplicates.conflicts != "off" else None

    def depends(self) -> dict[str, Any]:
        return {"system": self.system}

    def measure(self, corpus: Corpus, alive: pl.DataFrame, progress: Progress | None) -> Measured:
        text = apart(["prompt"], self.system)
        return Measured(equal_text_pairs(corpus, alive, text=text, measure=self.name, compared=self.depends()))

    def decide(self, alive: pl.DataFrame, measured: pl.DataFrame) -> pl.DataFrame:
        later = later_rows(alive, measured)
        decided = decisions(later, action="drop", reason="conflicting_answers", threshold=1.0)
        spared = later["pinned"] | (self.severity == "report")
        action = pl.when(spared).then(pl.lit("report")).otherwise(pl.lit("drop"))
        return decided.with_columns(action.alias("action"), pl.lit("prompt 1.00, other answer").alias("detail"))
