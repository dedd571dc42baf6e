"""Near duplicates: rows with nearly the same words, by the Jaccard similarity of their word shingles."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import polars as pl
from numpy.typing import NDArray

from siftune.curation.corpus import Corpus
from siftune.curation.dedup.decisions import leader_decisions, pairs_frame
from siftune.curation.dedup.guard import guard_hashes
from siftune.curation.dedup.minhash import Sketches, similar_pairs, sketch
from siftune.curation.dedup.replaced_words import asks_for_another_thing
from siftune.curation.dedup.system_prompts import same_system
from siftune.curation.measurement import Knob, Measured, Similarity
from siftune.curation.progress import Progress
from siftune.curation.recipe.recipe import Recipe
from siftune.curation.recipe.sections import GuardClass, Near, SystemPrompts
from siftune.curation.row_features import RowFeatures, row_features
from siftune.curation.schema import Key


@dataclass(frozen=True)
class NearDuplicates:
    """Nearly the same prompt and answer: greedy leaders over verified Jaccard similarity, unless the guard objects."""

    name: ClassVar[str] = "near"
    title: ClassVar[str] = "Near duplicates"
    knobs: ClassVar[tuple[Knob, ...]] = (Knob("near", ("duplicates", "near")),)
    settings: Near
    compares: Key
    guard: tuple[GuardClass, ...]
    system: SystemPrompts

    @classmethod
    def from_recipe(cls, recipe: Recipe, *, base: Path) -> Self | None:
        duplicates = recipe.duplicates
        if duplicates.near is None:
            return None
        return cls(duplicates.near, recipe.keys.duplicates, tuple(duplicates.guard), duplicates.system)

    @property
    def similarity(self) -> Similarity:
        sides = ", the lesser of prompts and answers" if self.compares == "dialogue" else ""
        measure = f"Jaccard similarity of {self.settings.shingle}-word shingles{sides}"
        return Similarity(measure, self.settings.threshold, self.settings.floor)

    def depends(self) -> dict[str, Any]:
        settings = self.settings.model_dump(exclude={"threshold"})
        return {"key": self.compares, "guard": self.guard, "system": self.system, **settings}

    def measure(self, corpus: Corpus, alive: pl.DataFrame, progress: Progress | None) -> Measured:
        rows = alive["row"].to_numpy()
        guard = guard_hashes(corpus, rows, self.compares, self.guard)
        both_sides = self.compares == "dialogue"
        pairs = similar_pairs(
            self.sketches(corpus, rows, progress),
            floor=self.floor,
            answer_floor=self.settings.answers,
            new=int(np.searchsorted(rows, corpus.own_rows)) if corpus.earlier else None,
            guard=guard,
            progress=progress,
        )
        if self.system == "distinguish":
            pairs = same_system(corpus, rows, pairs)
        protects_questions = both_sides and "questions" in self.guard
        another = asks_for_another_thing(corpus, rows, pairs) if protects_questions else None
        return Measured(pairs_frame(alive, pairs, measure=self.name, guard=guard, another_task=another))

    @property
    def floor(self) -> float:
        """The similarity that both sides of a pair have at least."""
        settings = self.settings
        return settings.floor if self.compares == "dialogue" else max(settings.floor, settings.answers)

    def sketches(self, corpus: Corpus, rows: NDArray[np.uint32], progress: Progress | None) -> Sketches:
        """Shingle sets and band keys of the rows at the ascending positions `rows`; what is stored is read."""
        settings, both_sides = self.settings, self.compares == "dialogue"
        sides = ["core", "answer"] if both_sides else ["core"]

        def sketch_rows(some: NDArray[np.uint32]) -> RowFeatures:
            frames = (frame.rename({"core": "prompt"}) for frame in corpus.frames(sides, some))
            return sketch(
                frames if both_sides else (frame["prompt"] for frame in frames),
                shingle=settings.shingle,
                permutations=settings.permutations,
                floor=self.floor,
                progress=progress,
            ).features()

        on = {"sides": sides, "shingle": settings.shingle, "permutations": settings.permutations, "floor": self.floor}
        return Sketches.of(row_features(corpus, rows, name="near-sketches", settings=on, compute=sketch_rows))

    def decide(self, alive: pl.DataFrame, measured: pl.DataFrame) -> pl.DataFrame:
        return leader_decisions(alive, measured, threshold=self.settings.threshold, reason="near_duplicate")
