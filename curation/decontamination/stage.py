"""The stage that compares rows with benchmarks. See `siftune.curation.stages.Stage` for its methods."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import polars as pl

from siftune.curation import schema
from siftune.curation.corpus import Corpus
from siftune.curation.decontamination.matches import find_matches
from siftune.curation.decontamination.published_rules import PublishedRules
from siftune.curation.embeddings.store import embedder
from siftune.curation.ingest.references import read_reference
from siftune.curation.ingest.sources import sources_fingerprint
from siftune.curation.measurement import TEXT_COLUMNS, Knob, Measured
from siftune.curation.progress import Progress
from siftune.curation.recipe.sections import Contamination, Recipe, Reference, Source


@dataclass(frozen=True)
class Decontamination:
    """Rows that resemble an item of a benchmark, by the rules that the recipe names."""

    name: ClassVar[str] = "contamination"
    title: ClassVar[str] = "Contamination"
    knobs: ClassVar[tuple[Knob, ...]] = (Knob("contamination", ("contamination",), lowest=schema.LOWEST_PROBABILITY),)
    compares: ClassVar[None] = None
    similarity: ClassVar[None] = None
    settings: Contamination
    encoder: str | None
    base: Path

    @classmethod
    def from_recipe(cls, recipe: Recipe, *, base: Path) -> Self | None:
        return cls(recipe.contamination, recipe.encoder, base) if recipe.contamination else None

    def depends(self) -> dict[str, Any]:
        references = [
            [reference.model_dump(), sources_fingerprint([_source(reference)], base=self.base)]
            for reference in self.settings.references
        ]
        encoder = self.encoder and embedder(self.encoder).encoder.name
        rules, token_ratios = self.settings.rules, self.settings.token_ratios
        return {"references": references, "rules": rules, "token_ratios": token_ratios, "encoder": encoder}

    def measure(self, corpus: Corpus, alive: pl.DataFrame, progress: Progress | None) -> Measured:
        references = [
            read_reference(
                reference.path,
                base=self.base,
                name=reference.name,
                format=reference.format,
                columns=reference.columns,
            )
            for reference in self.settings.references
        ]
        if not references:
            return Measured(schema.empty(schema.MATCHES))
        items = pl.concat(references)
        published = PublishedRules(items, set(self.settings.rules), self.settings.token_ratios)
        matches = find_matches(
            lambda: corpus.frames(TEXT_COLUMNS, alive["row"].to_numpy()),
            items,
            rules=self.settings.rules,
            embed=embedder(self.encoder).embed if self.encoder else None,
            progress=progress,
            published=published,
        )
        return Measured(matches, published.notes)

    def decide(self, alive: pl.DataFrame, measured: pl.DataFrame) -> pl.DataFrame:
        counted = measured.filter(schema.counted(self.settings.threshold))
        matched = counted.join(alive.select("id", "pinned"), on="id", how="inner", maintain_order="left")
        best = matched.unique("id", keep="first", maintain_order=True)
        spared = pl.lit(self.settings.action == "report") | pl.col("pinned")
        decided = best.with_columns(
            action=pl.when(spared).then(pl.lit("report")).otherwise(pl.lit("drop")),
            reason=pl.lit("contamination"),
            threshold=pl.when(pl.col("rule") == schema.PARAPHRASE).then(self.settings.threshold),
            witness="reference",
            detail=pl.format("{}, {}: {}", "rule", "field", "span"),
        )
        return schema.conform(decided, schema.DECISIONS)


def _source(reference: Reference) -> Source:
    return Source.model_validate(reference.model_dump())
