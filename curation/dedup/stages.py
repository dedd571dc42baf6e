"""The stages that look for rows that repeat one another. See `siftune.curation.stages.Stage` for what their methods do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from siftune.curation.corpus import Corpus
from siftune.curation.dedup import embedding_pairs, near, repeated_answers
from siftune.curation.dedup.decisions import (
    as_pairs,
    decisions,
    families,
    guard_hashes,
    lead,
    positions,
    same_text,
    told,
    whole,
)
from siftune.curation.embeddings.store import embedder
from siftune.curation.measurement import Measured
from siftune.curation.progress import Progress
from siftune.curation.recipe.sections import Answers, GuardClass, Near, Semantic, Severity
from siftune.curation.schema import Key


@dataclass(frozen=True)
class Exact:
    """The same normalised text: the first in keep order stays."""

    key: Key
    name: str = "exact"

    def depends(self) -> dict[str, Any]:
        return {"key": self.key}

    def measure(self, corpus: Corpus, alive: pl.DataFrame, progress: Progress | None) -> Measured:
        return Measured(same_text(corpus, alive, expression=whole(self.key), measure=self.name))

    def decide(self, alive: pl.DataFrame, measured: pl.DataFrame) -> pl.DataFrame:
        family = families(alive, measured).filter(pl.col("id") != pl.col("witness"), ~pl.col("pinned"))
        return decisions(family, action="drop", reason="exact_duplicate", score=1.0, threshold=1.0)


@dataclass(frozen=True)
class NearDuplicates:
    """Nearly the same text: greedy leaders over verified Jaccard similarity, unless the guard objects."""

    settings: Near
    key: Key
    guard: tuple[GuardClass, ...]
    name: str = "near"

    def depends(self) -> dict[str, Any]:
        return {"key": self.key, "guard": self.guard, **self.settings.model_dump(exclude={"threshold"})}

    def measure(self, corpus: Corpus, alive: pl.DataFrame, progress: Progress | None) -> Measured:
        rows = alive["row"].to_numpy()
        guard = guard_hashes(corpus, rows, self.key, self.guard)
        found = near.pairs(
            corpus.key_texts(self.key, rows),
            shingle=self.settings.shingle,
            permutations=self.settings.permutations,
            floor=self.settings.floor,
            guard=guard,
            progress=progress,
        )
        return Measured(as_pairs(alive, found, measure=self.name, guard=guard))

    def decide(self, alive: pl.DataFrame, measured: pl.DataFrame) -> pl.DataFrame:
        return lead(alive, measured, threshold=self.settings.threshold, reason="near_duplicate")


@dataclass(frozen=True)
class RepeatedAnswers:
    """The same answer, exactly or nearly, under many prompts: only so many stay. No guard protects copies."""

    settings: Answers
    shingle: int
    permutations: int
    name: str = "answers"

    def depends(self) -> dict[str, Any]:
        wanted = self.settings.model_dump(include={"floor", "min_words"})
        return {"shingle": self.shingle, "permutations": self.permutations, **wanted}

    def measure(self, corpus: Corpus, alive: pl.DataFrame, progress: Progress | None) -> Measured:
        found = repeated_answers.pairs(
            corpus.key_texts("answer", alive["row"].to_numpy()),
            shingle=self.shingle,
            permutations=self.permutations,
            floor=self.settings.floor,
            min_words=self.settings.min_words,
            progress=progress,
        )
        return Measured(as_pairs(alive, found, measure=self.name, guard=None))

    def decide(self, alive: pl.DataFrame, measured: pl.DataFrame) -> pl.DataFrame:
        # The first row of a class of equal answers holds its pairs together, even where it is not alive any more.
        named = pl.concat([measured["a"], measured["b"]]).unique(maintain_order=True).to_frame("id")
        others = named.join(alive, on="id", how="anti", maintain_order="left")
        everyone = pl.concat([alive.select("id"), others])
        found, _ = positions(everyone, measured)
        least = int(alive["rank"].max() or 0) + 1  # type: ignore[arg-type]
        rank = np.concatenate([alive["rank"].to_numpy(), np.arange(least, least + others.height)])
        absent = np.zeros(others.height, bool)
        led = repeated_answers.decide(
            everyone.height,
            rank,
            found,
            threshold=self.settings.threshold,
            cap=self.settings.max_per_answer,
            pinned=np.concatenate([alive["pinned"].to_numpy(), absent]),
            alive=np.concatenate([np.ones(alive.height, bool), absent]),
        )
        dropped = np.flatnonzero(~led.kept[: alive.height])
        return told(
            everyone["id"],
            dropped,
            led.witness,
            led.score,
            action="drop",
            reason="repeated_answer",
            threshold=self.settings.threshold,
        )


@dataclass(frozen=True)
class Conflicts:
    """The same prompt with different answers: said, and dropped only when the recipe says so."""

    severity: Severity
    name: str = "conflicts"

    def depends(self) -> dict[str, Any]:
        return {}

    def measure(self, corpus: Corpus, alive: pl.DataFrame, progress: Progress | None) -> Measured:
        return Measured(same_text(corpus, alive, expression=pl.col("prompt"), measure=self.name))

    def decide(self, alive: pl.DataFrame, measured: pl.DataFrame) -> pl.DataFrame:
        later = families(alive, measured).filter(pl.col("id") != pl.col("witness"))
        decided = decisions(later, action="drop", reason="conflicting_answers", score=1.0, threshold=1.0)
        spared = later["pinned"] | (self.severity == "report")
        action = pl.when(spared).then(pl.lit("report")).otherwise(pl.lit("drop"))
        return decided.with_columns(action.alias("action"))


@dataclass(frozen=True)
class SemanticDuplicates:
    """The same meaning in other words: greedy leaders over the cosine of embeddings, unless the guard objects."""

    settings: Semantic
    key: Key
    guard: tuple[GuardClass, ...]
    encoder: str
    name: str = "semantic"

    def depends(self) -> dict[str, Any]:
        return {
            "key": self.key,
            "guard": self.guard,
            "encoder": embedder(self.encoder).encoder.name,
            **self.settings.model_dump(exclude={"threshold"}),
        }

    def measure(self, corpus: Corpus, alive: pl.DataFrame, progress: Progress | None) -> Measured:
        rows = alive["row"].to_numpy()
        embed, texts = embedder(self.encoder).embed, corpus.key_texts(self.key, rows)
        floor, exact_rows = self.settings.floor, self.settings.exact_rows
        if self.settings.preselect and len(rows) <= exact_rows:
            every = pl.concat([pl.Series("text", [], pl.String), *texts])
            found = embedding_pairs.preselected_pairs(
                every, embed, floor=floor, exact_rows=exact_rows, progress=progress
            )
        else:
            found = embedding_pairs.pairs(
                embed(texts, progress=progress), floor=floor, exact_rows=exact_rows, progress=progress
            )
        guard = guard_hashes(corpus, rows, self.key, self.guard)
        notes = {"search": found.method, "recall": f"{found.recall:.4f}", "sampled": str(found.sampled)}
        return Measured(as_pairs(alive, found, measure=self.name, guard=guard), notes)

    def decide(self, alive: pl.DataFrame, measured: pl.DataFrame) -> pl.DataFrame:
        return lead(alive, measured, threshold=self.settings.threshold, reason="semantic_duplicate")
