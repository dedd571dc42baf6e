"""The stages that look at each row by itself or beside a benchmark. See `curation.stages.Stage` for their methods."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from curation import ingest, schema
from curation.corpus import Corpus
from curation.ingest.references import read_reference
from curation.measures import checks, contamination
from curation.progress import Progress
from curation.recipe import Checks, Contamination, Reference, Source
from curation.stages.deciding import TEXT_COLUMNS, Measured, embedder


@dataclass(frozen=True)
class RowChecks:
    """Each row by itself, before rows are compared."""

    settings: Checks
    name: str = "checks"

    def depends(self) -> dict[str, Any]:
        return self.settings.model_dump()

    def measure(self, corpus: Corpus, alive: pl.DataFrame, progress: Progress | None) -> Measured:
        found = [schema.empty(schema.FINDINGS)]
        for frame in corpus.frames(TEXT_COLUMNS, alive["row"].to_numpy()):
            found.append(checks.findings(frame, self.settings))
            if progress:
                progress("checking rows", sum(map(len, found)), alive.height)
        return Measured(pl.concat(found))

    def decide(self, alive: pl.DataFrame, measured: pl.DataFrame) -> pl.DataFrame:
        severity = {name: value for name, value in self.settings.model_dump().items() if isinstance(value, str)}
        action = pl.col("check").replace_strict(severity, default="report")
        spared = pl.col("pinned") & (action == "drop")
        return schema.conform(
            measured.join(alive.select("id", "pinned"), on="id", how="inner", maintain_order="left").select(
                "id",
                pl.when(spared).then(pl.lit("report")).otherwise(action).alias("action"),
                pl.col("check").alias("reason"),
                "score",
                "detail",
            ),
            schema.DECISIONS,
        )


@dataclass(frozen=True)
class Decontamination:
    """Rows that resemble an item of a benchmark, by the rules that the recipe names."""

    settings: Contamination
    encoder: str | None
    base: Path
    name: str = "contamination"

    def depends(self) -> dict[str, Any]:
        references = [
            [each.model_dump(), ingest.fingerprint([_source(each)], base=self.base)]
            for each in self.settings.references
        ]
        encoder = self.encoder and embedder(self.encoder).encoder.name
        return {"references": references, "rules": self.settings.rules, "encoder": encoder}

    def measure(self, corpus: Corpus, alive: pl.DataFrame, progress: Progress | None) -> Measured:
        references = [
            read_reference(each.path, base=self.base, name=each.name, format=each.format, columns=each.columns)
            for each in self.settings.references
        ]
        if not references:
            return Measured(schema.empty(schema.MATCHES))
        found = contamination.matches(
            lambda: corpus.frames(TEXT_COLUMNS, alive["row"].to_numpy()),
            pl.concat(references),
            rules=self.settings.rules,
            embed=embedder(self.encoder).embed if self.encoder else None,
            progress=progress,
        )
        return Measured(found)

    def decide(self, alive: pl.DataFrame, measured: pl.DataFrame) -> pl.DataFrame:
        counted = measured.filter(schema.counted(self.settings.threshold))
        matched = counted.join(alive.select("id", "pinned"), on="id", how="inner", maintain_order="left")
        best = matched.unique("id", keep="first", maintain_order=True)
        spared = pl.lit(self.settings.action == "report") | pl.col("pinned")
        told = best.with_columns(
            action=pl.when(spared).then(pl.lit("report")).otherwise(pl.lit("drop")),
            reason=pl.lit("contamination"),
            threshold=pl.when(pl.col("rule") == schema.REPHRASED).then(self.settings.threshold),
            witness="reference",
            detail=pl.format("{}, {}: {}", "rule", "field", "span"),
        )
        return schema.conform(told, schema.DECISIONS)


def _source(reference: Reference) -> Source:
    return Source.model_validate(reference.model_dump())
