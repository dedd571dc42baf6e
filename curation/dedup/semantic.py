"""Semantic duplicates: rows with the same meaning in other words, by the cosines of their embeddings.

Embeddings of whole rows propose the pairs; prompts and answers are then compared apart, see
`siftune.curation.dedup.side_cosines`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import polars as pl

from siftune.curation.corpus import Corpus
from siftune.curation.dedup import embedding_pairs
from siftune.curation.dedup.decisions import leader_decisions, pairs_frame
from siftune.curation.dedup.guard import guard_hashes
from siftune.curation.dedup.side_cosines import with_sides
from siftune.curation.dedup.system_prompts import same_system
from siftune.curation.embeddings.store import embedder
from siftune.curation.measurement import Knob, Measured, Similarity
from siftune.curation.progress import Progress
from siftune.curation.recipe.sections import GuardClass, Recipe, Semantic, SystemPrompts
from siftune.curation.schema import Key


@dataclass(frozen=True)
class SemanticDuplicates:
    """The same meaning in other words: greedy leaders over the cosine of embeddings, unless the guard objects."""

    name: ClassVar[str] = "semantic"
    title: ClassVar[str] = "Semantic duplicates"
    knobs: ClassVar[tuple[Knob, ...]] = (Knob("semantic", ("duplicates", "semantic")),)
    settings: Semantic
    compares: Key
    guard: tuple[GuardClass, ...]
    system: SystemPrompts
    encoder: str

    @classmethod
    def from_recipe(cls, recipe: Recipe, *, base: Path) -> Self | None:
        settings, encoder = recipe.duplicates.semantic, recipe.encoder
        if settings is None or encoder is None:
            return None
        duplicates = recipe.duplicates
        return cls(settings, recipe.keys.duplicates, tuple(duplicates.guard), duplicates.system, encoder)

    @property
    def similarity(self) -> Similarity:
        sides = ", the lesser of prompts and answers" if self.compares == "dialogue" else ""
        return Similarity(f"cosine of sentence embeddings{sides}", self.settings.threshold, self.settings.floor)

    def depends(self) -> dict[str, Any]:
        return {
            "key": self.compares,
            "guard": self.guard,
            "system": self.system,
            "encoder": embedder(self.encoder).encoder.name,
            **self.settings.model_dump(exclude={"threshold"}),
        }

    def measure(self, corpus: Corpus, alive: pl.DataFrame, progress: Progress | None) -> Measured:
        rows = alive["row"].to_numpy()
        store, batches = embedder(self.encoder), corpus.key_texts(self.compares, rows)
        rows_floor, exact_rows = self.settings.rows, self.settings.exact_rows
        if self.settings.preselect and len(rows) <= exact_rows:
            texts = pl.concat([pl.Series("text", [], pl.String), *batches])
            proposed = embedding_pairs.preselected_pairs(
                texts, store.embed, floor=rows_floor, exact_rows=exact_rows, progress=progress
            )
        else:
            vectors = store.embed(batches, progress=progress)
            proposed = embedding_pairs.cosine_pairs(vectors, floor=rows_floor, exact_rows=exact_rows, progress=progress)
        notes = {"search": proposed.method, "recall": f"{proposed.recall:.4f}", "sampled": str(proposed.sampled)}
        pairs = same_system(corpus, rows, proposed) if self.system == "distinguish" else proposed
        sides = ["core", "answer"] if self.compares == "dialogue" else ["core"]
        pairs = with_sides(pairs, corpus.frames(sides, rows), store, floor=self.settings.floor, progress=progress)
        guard = guard_hashes(corpus, rows, self.compares, self.guard)
        return Measured(pairs_frame(alive, pairs, measure=self.name, guard=guard), notes)

    def decide(self, alive: pl.DataFrame, measured: pl.DataFrame) -> pl.DataFrame:
        return leader_decisions(alive, measured, threshold=self.settings.threshold, reason="semantic_duplicate")
