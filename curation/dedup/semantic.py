"""Semantic duplicates: rows with the same meaning in other words, by the cosine of their embeddings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import polars as pl

from siftune.curation.corpus import Corpus
from siftune.curation.dedup import embedding_pairs
from siftune.curation.dedup.decisions import leader_decisions, pairs_frame
from siftune.curation.dedup.guard import guard_hashes
from siftune.curation.embeddings.store import embedder
from siftune.curation.measurement import Knob, Measured, Similarity
from siftune.curation.progress import Progress
from siftune.curation.recipe.sections import GuardClass, Recipe, Semantic
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
    encoder: str

    @classmethod
    def from_recipe(cls, recipe: Recipe, *, base: Path) -> Self | None:
        settings, encoder = recipe.duplicates.semantic, recipe.encoder
        if settings is None or encoder is None:
            return None
        return cls(settings, recipe.keys.duplicates, tuple(recipe.duplicates.guard), encoder)

    @property
    def similarity(self) -> Similarity:
        return Similarity("cosine of sentence embeddings", self.settings.threshold, self.settings.floor)

    def depends(self) -> dict[str, Any]:
        return {
            "key": self.compares,
            "guard": self.guard,
            "encoder": embedder(self.encoder).encoder.name,
            **self.settings.model_dump(exclude={"threshold"}),
        }

    def measure(self, corpus: Corpus, alive: pl.DataFrame, progress: Progress | None) -> Measured:
        rows = alive["row"].to_numpy()
        embed, batches = embedder(self.encoder).embed, corpus.key_texts(self.compares, rows)
        floor, exact_rows = self.settings.floor, self.settings.exact_rows
        if self.settings.preselect and len(rows) <= exact_rows:
            texts = pl.concat([pl.Series("text", [], pl.String), *batches])
            pairs = embedding_pairs.preselected_pairs(
                texts, embed, floor=floor, exact_rows=exact_rows, progress=progress
            )
        else:
            vectors = embed(batches, progress=progress)
            pairs = embedding_pairs.cosine_pairs(vectors, floor=floor, exact_rows=exact_rows, progress=progress)
        guard = guard_hashes(corpus, rows, self.compares, self.guard)
        notes = {"search": pairs.method, "recall": f"{pairs.recall:.4f}", "sampled": str(pairs.sampled)}
        return Measured(pairs_frame(alive, pairs, measure=self.name, guard=guard), notes)

    def decide(self, alive: pl.DataFrame, measured: pl.DataFrame) -> pl.DataFrame:
        return leader_decisions(alive, measured, threshold=self.settings.threshold, reason="semantic_duplicate")
