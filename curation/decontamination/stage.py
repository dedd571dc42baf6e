"""The stage that compares rows with benchmarks. See `siftune.curation.stages.Stage` for its methods."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import polars as pl

from siftune.curation import schema
from siftune.curation.contamination_outcomes import settle
from siftune.curation.corpus import Corpus
from siftune.curation.decontamination.judges import judge_weights, open_judge
from siftune.curation.decontamination.matches import LAYERED_VERSION, find_matches
from siftune.curation.decontamination.published_rules import PublishedRules
from siftune.curation.decontamination.second_opinion import overrule
from siftune.curation.embeddings.store import embedder
from siftune.curation.ingest.references import read_reference
from siftune.curation.ingest.sources import sources_fingerprint
from siftune.curation.measurement import TEXT_COLUMNS, Knob, Measured
from siftune.curation.progress import Progress
from siftune.curation.recipe.recipe import Recipe
from siftune.curation.recipe.sections import Contamination, Reference, Source


@dataclass(frozen=True)
class Decontamination:
    """Rows that resemble an item of a benchmark, by the rules that the recipe names."""

    name: ClassVar[str] = "contamination"
    title: ClassVar[str] = "Contamination"
    knobs: ClassVar[tuple[Knob, ...]] = (Knob("contamination", ("contamination",), lowest=schema.LOWEST_SCORE),)
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
        on = {"references": references, "rules": rules, "token_ratios": token_ratios, "encoder": encoder}
        on["layered"] = LAYERED_VERSION
        if self.settings.verify is not None:
            # Where the key is, and how long to wait, do not change what is measured.
            on["verify"] = self.settings.verify.model_dump(exclude={"key_variable", "timeout"})
            on["judge"] = judge_weights(self.settings.verify, base=self.base)
        return on

    def measure(self, corpus: Corpus, alive: pl.DataFrame, progress: Progress | None) -> Measured:
        items = self.items()
        if items is None:
            return Measured(schema.empty(schema.MATCHES))
        published = PublishedRules(items, set(self.settings.rules), self.settings.token_ratios)
        matches = find_matches(
            lambda: corpus.frames([*TEXT_COLUMNS, "system"], alive["row"].to_numpy()),
            items,
            rules=self.settings.rules,
            embed=embedder(self.encoder).embed if self.encoder else None,
            progress=progress,
            published=published,
        )
        matches, notes = with_item_texts(matches, items), published.notes
        if self.settings.verify is not None:
            rows = corpus.frames(TEXT_COLUMNS, alive["row"].to_numpy())
            judge = open_judge(self.settings.verify, base=self.base)
            matches, opinion = overrule(matches, rows, judge=judge, progress=progress)
            notes |= opinion
        return Measured(matches, notes)

    def items(self) -> pl.DataFrame | None:
        """The items of all references (REFERENCE); None where the recipe names none."""
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
        return pl.concat(references) if references else None

    def decide(self, alive: pl.DataFrame, measured: pl.DataFrame) -> pl.DataFrame:
        settled = settle(measured, threshold=self.settings.threshold, most=self.settings.max_false_discovery)
        if self.settings.related == "off":
            settled = settled.filter(pl.col("outcome") == "same")
        is_same = pl.col("outcome") == "same"
        first_same = settled.sort(~is_same, maintain_order=True)  # the best match of a row is the same item, if any
        best = first_same.unique("id", keep="first", maintain_order=True)
        best = alive.select("id", "pinned").join(best, on="id", how="inner", maintain_order="left")
        action = pl.when(is_same).then(pl.lit(self.settings.action)).otherwise(pl.lit(self.settings.related))
        decided = best.with_columns(
            action=pl.when("pinned").then(pl.lit("report")).otherwise(action),
            reason=pl.when(is_same).then(pl.lit("contamination")).otherwise(pl.lit("related_item")),
            witness="reference",
            detail=pl.format("{}, {}: {} [{}]", "rule", "field", "detail", "span"),
        )
        return schema.conform(decided, schema.DECISIONS)


def with_item_texts(matches: pl.DataFrame, items: pl.DataFrame) -> pl.DataFrame:
    """MATCHES with the texts of their items; `items` are REFERENCE."""
    unique = items.unique("reference", keep="first", maintain_order=True)
    texts = unique.select("reference", schema.conform(unique, pl.Schema(schema.ITEM.to_schema())).to_struct("item"))
    matches = matches.drop("item").join(texts, on="reference", how="left", maintain_order="left")
    return schema.conform(matches, schema.MATCHES)


def _source(reference: Reference) -> Source:
    return Source.model_validate(reference.model_dump())
