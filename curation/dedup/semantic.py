"""Semantic duplicates: rows with the same meaning in other words, by the cosines of their embeddings.

Rows whose prompt resembles no other prompt have no duplicate, and prompts are short: they are encoded first. Embeddings
of the whole rows that remain propose the pairs; prompts and answers are then compared apart, see
`siftune.curation.dedup.side_cosines`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import polars as pl

from siftune.curation.corpus import Corpus
from siftune.curation.dedup import embedding_pairs
from siftune.curation.dedup.decisions import leader_decisions, pairs_frame
from siftune.curation.dedup.embedding_pairs import EmbeddingPairs
from siftune.curation.dedup.guard import guard_hashes
from siftune.curation.dedup.side_cosines import with_sides
from siftune.curation.dedup.system_prompts import same_system
from siftune.curation.embeddings.store import EmbeddingStore, embedder
from siftune.curation.measurement import Knob, Measured, Similarity
from siftune.curation.progress import Progress
from siftune.curation.recipe.recipe import Recipe
from siftune.curation.recipe.sections import GuardClass, Semantic, SystemPrompts
from siftune.curation.schema import Key

#: A prompt counts as unlike all others if its cosine with each is so far below the floor of a side. A side may score
#: more than the cosine of the whole prompts: sentences that both have are left out, long texts are read in windows.
#: `tests/benchmarks/preselect.py` measures what this loses.
PROMPT_MARGIN = 0.05


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
        store, exact_rows = embedder(self.encoder), self.settings.exact_rows
        searched, new = alive, _new_rows(corpus, alive)
        if self.settings.preselect and self.compares == "dialogue" and (new is not None or alive.height <= exact_rows):
            prompts = _texts(frame["core"] for frame in corpus.frames(["core"], alive["row"].to_numpy()))
            least = self.settings.floor - PROMPT_MARGIN
            near = embedding_pairs.has_neighbour(prompts, store.embed, floor=least, new=new, progress=progress)
            searched = alive.filter(pl.Series(near))
        rows = searched["row"].to_numpy()
        proposed = self._proposed(corpus, searched, store, progress)
        notes = {"search": proposed.method, "recall": f"{proposed.recall:.4f}", "sampled": str(proposed.sampled)}
        if searched.height < alive.height and new is None:
            notes["prompts"] = f"{searched.height:,} of {alive.height:,} rows have a prompt like another one"
        pairs = same_system(corpus, rows, proposed) if self.system == "distinguish" else proposed
        sides = ["core", "answer"] if self.compares == "dialogue" else ["core"]
        pairs = with_sides(pairs, corpus.frames(sides, rows), store, floor=self.settings.floor, progress=progress)
        guard = guard_hashes(corpus, rows, self.compares, self.guard)
        return Measured(pairs_frame(searched, pairs, measure=self.name, guard=guard), notes)

    def _proposed(
        self, corpus: Corpus, searched: pl.DataFrame, store: EmbeddingStore, progress: Progress | None
    ) -> EmbeddingPairs:
        """Pairs of rows that resemble each other as a whole, as positions in `searched` (INDEX)."""
        floor, exact_rows = self.settings.rows, self.settings.exact_rows
        batches = corpus.key_texts(self.compares, searched["row"].to_numpy())
        new = _new_rows(corpus, searched)
        if self.settings.preselect and new is None and searched.height <= exact_rows:
            return embedding_pairs.preselected_pairs(
                _texts(batches), store.embed, floor=floor, exact_rows=exact_rows, progress=progress
            )
        vectors = store.embed(batches, progress=progress)
        return embedding_pairs.cosine_pairs(vectors, floor=floor, exact_rows=exact_rows, new=new, progress=progress)

    def decide(self, alive: pl.DataFrame, measured: pl.DataFrame) -> pl.DataFrame:
        return leader_decisions(alive, measured, threshold=self.settings.threshold, reason="semantic_duplicate")


def _new_rows(corpus: Corpus, rows: pl.DataFrame) -> int | None:
    """How many of these rows are the run's own, where there are rows of earlier sets; these come after them."""
    return int((rows["row"] < corpus.own_rows).sum()) if corpus.earlier else None


def _texts(batches: Iterable[pl.Series]) -> pl.Series:
    return pl.concat([pl.Series("text", [], pl.String), *(batch.alias("text") for batch in batches)])
