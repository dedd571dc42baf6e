"""From sources to a corpus: ingest, repair, derive the compared texts, each stored under its cache key."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from siftune.curation import schema
from siftune.curation.atomic_files import write_json, write_parquet
from siftune.curation.corpus import (
    STORED_INDEX,
    Corpus,
    EarlierSet,
    batches,
    measure_index,
    template_counts,
    write_batches,
    write_texts,
)
from siftune.curation.errors import UserError
from siftune.curation.ingest.curated_sets import CuratedNotes
from siftune.curation.ingest.sources import IngestedRow, curated_notes, read_sources, sources_fingerprint
from siftune.curation.progress import Progress
from siftune.curation.recipe.recipe import Recipe
from siftune.curation.row_checks import mojibake, personal_data
from siftune.curation.row_checks.personal_data import detector_versions, kinds_with
from siftune.curation.run.cache_key import measure_key, rows_key
from siftune.curation.run.folder import RunFolder
from siftune.curation.run.manifest import SourceRecord
from siftune.curation.split_names import HELD_OUT, standard_splits


@dataclass(frozen=True)
class Prepared:
    """The input of a run, ready to be compared.

    Attributes:
        corpus: EXAMPLES and TEXTS.
        index: INDEX of the examples, in the order of EXAMPLES.
        repairs: DECISIONS on texts whose encoding was repaired.
        masks: DECISIONS on rows in which personal data were masked.
        quarantined: columns id, source, reason and detail (`file:row`) of the rows that could not be read.
        quarantine: the JSON Lines file that they stand in.
        sources: each source as it was read.
        files: the stored measures by name.
        reused: whether the sources were read by an earlier run.
        curated: by name, the sources that are curated sets, with what they say of themselves.
        earlier: INDEX of the rows of earlier sets, pinned, ranked from 0 on; empty without any.
        common: uint64, the hashes of passages that identify no row, as earlier runs counted them.
    """

    corpus: Corpus
    index: pl.DataFrame
    repairs: pl.DataFrame
    masks: pl.DataFrame
    quarantined: pl.DataFrame
    quarantine: Path
    sources: list[SourceRecord]
    files: dict[str, Path]
    reused: bool
    curated: dict[str, CuratedNotes]
    earlier: pl.DataFrame = field(default_factory=lambda: schema.empty(schema.INDEX))
    common: NDArray[np.uint64] = field(default_factory=lambda: np.empty(0, np.uint64))

    def against(self, sets: Sequence[EarlierSet], index: pl.DataFrame, common: NDArray[np.uint64]) -> Prepared:
        """The same rows, to be compared with those of earlier sets too.

        Args:
            sets: the earlier sets.
            index: as `earlier`.
            common: as the attribute of that name.
        """
        key = measure_key("earlier", {}, self.corpus.key, *(one.texts.name for one in sets), rows_key(index["id"]))
        corpus = replace(self.corpus, earlier=tuple(sets), key=key)
        return replace(self, corpus=corpus, earlier=index, common=common)

    def quarantined_decisions(self) -> pl.DataFrame:
        """DECISIONS on the rows that could not be read."""
        return schema.conform(self.quarantined.with_columns(action=pl.lit("quarantine")), schema.DECISIONS)


def prepare(
    recipe: Recipe,
    run: RunFolder,
    *,
    base: Path,
    progress: Progress | None = None,
    on_row: Callable[[IngestedRow], None] | None = None,
    earlier_texts: Sequence[Path] = (),
) -> Prepared:
    """Read the sources of a recipe into the run's measures; reuse what is there.

    Args:
        recipe: what is read, and how it is repaired and compared.
        run: where the measures are stored.
        base: the folder that the recipe's paths are relative to.
        progress: called while long work goes on.
        on_row: called with every input row; not when the rows were read by an earlier run.
        earlier_texts: TEXTS of earlier runs: what is a template there is one here too, in a source of the same name.

    Raises:
        UserError: a source is missing, unreadable, or of no known format.
    """
    # Rows in the sources become EXAMPLES, or go to the quarantine.
    fingerprint = sources_fingerprint(recipe.sources, base=base)
    ingest_key = measure_key("ingest", {}, fingerprint)
    quarantine = run.measure_path("quarantine", ingest_key, suffix="jsonl")
    report = run.measure_path("ingest", ingest_key, suffix="json")

    def ingest(out: Path) -> None:
        ingested = read_sources(
            recipe.sources, base=base, out=out, quarantine=quarantine, on_row=on_row, progress=progress
        )
        if sources_fingerprint(recipe.sources, base=base) != fingerprint:  # the key would name other rows
            quarantine.unlink()
            raise UserError("A source changed while it was read; nothing of it was kept. Run the same command again.")
        write_json({"sources": [source.model_dump() for source in ingested.sources]}, report)

    examples, reused = run.measure("ingested", ingest_key, ingest, beside=[quarantine, report])

    # Broken encodings are repaired; each repair is a decision.
    encoding = recipe.checks.encoding
    repair_key = measure_key("repair", {"encoding": encoding}, ingest_key)
    repairs = schema.empty(schema.DECISIONS)
    if encoding == "repair":
        raw, repairs_path = examples, run.measure_path("repairs", repair_key)
        examples, _ = run.measure(
            "examples",
            repair_key,
            lambda out: _rewrite(raw, out, repairs_path, mojibake.repair_batch),
            beside=[repairs_path],
        )
        repairs = pl.read_parquet(repairs_path, glob=False)

    # Personal data are masked before anything is compared: rows that differ in nothing else are duplicates then.
    masked_kinds, masks, masked_key = kinds_with(recipe.checks, "mask"), schema.empty(schema.DECISIONS), repair_key
    if masked_kinds:
        unmasked, regions = examples, recipe.checks.phone_regions
        by = {"kinds": masked_kinds, "regions": regions, "detectors": detector_versions(masked_kinds)}
        masked_key = measure_key("mask", by, repair_key)
        masks_path = run.measure_path("masks", masked_key)
        examples, _ = run.measure(
            "masked",
            masked_key,
            lambda out: _rewrite(
                unmasked, out, masks_path, lambda batch: personal_data.mask_batch(batch, masked_kinds, regions)
            ),
            beside=[masks_path],
        )
        masks = pl.read_parquet(masks_path, glob=False)

    # The texts that are compared, and the light frame that stages decide on.
    template_settings = recipe.keys.model_dump(include={"template_rows", "template_share"})
    texts_key = measure_key("texts", template_settings, masked_key, *(path.name for path in earlier_texts))
    curated = curated_notes(recipe.sources, base=base)
    counted = {name: notes.templates for name, notes in curated.items() if notes.templates is not None}
    earlier = [counts for path in earlier_texts if (counts := template_counts(path)) is not None]
    texts, _ = run.measure("texts", texts_key, lambda out: write_texts(examples, out, recipe.keys, counted, earlier))
    index, _ = run.measure(
        "index", texts_key, lambda out: write_batches(measure_index(examples, texts), out, STORED_INDEX)
    )
    sources = json.loads(report.read_text(encoding="utf-8"))["sources"]
    return Prepared(
        corpus=Corpus(examples=examples, texts=texts, key=texts_key),
        index=rank(pl.read_parquet(index, glob=False), recipe),
        repairs=repairs,
        masks=masks,
        quarantined=read_quarantine(quarantine),
        quarantine=quarantine,
        sources=[SourceRecord.model_validate(source) for source in sources],
        files={"examples": examples, "texts": texts, "index": index},
        reused=reused,
        curated=curated,
    )


def _rewrite(
    examples: Path,
    out: Path,
    decisions_path: Path,
    rewrite: Callable[[pl.DataFrame], tuple[pl.DataFrame, pl.DataFrame]],
) -> None:
    """Write EXAMPLES as `rewrite` makes them batch by batch, and the DECISIONS on the rows that it changed."""
    decisions = [schema.empty(schema.DECISIONS)]

    def rewritten_batches() -> Iterator[pl.DataFrame]:
        for batch in batches(examples):
            rewritten, batch_decisions = rewrite(batch)
            decisions.append(batch_decisions)
            yield rewritten

    write_batches(rewritten_batches(), out, schema.EXAMPLES)
    write_parquet(pl.concat(decisions), decisions_path)


def read_quarantine(path: Path) -> pl.DataFrame:
    """Columns id, source, reason and detail (`file:row`) of the rows that could not be read."""
    columns = {"id": pl.String, "source": pl.String, "file": pl.String, "row": pl.Int64, "reason": pl.String}
    if path.stat().st_size == 0:  # polars reads no columns from an empty file
        return pl.DataFrame(schema={"id": pl.String, "source": pl.String, "reason": pl.String, "detail": pl.String})
    rows = pl.read_ndjson(path.read_bytes(), schema=columns)  # a path would be read as a glob
    return rows.select("id", "source", "reason", pl.concat_str(["file", "row"], separator=":").alias("detail"))


def rank(index: pl.DataFrame, recipe: Recipe) -> pl.DataFrame:
    """INDEX with the rank of each row in keep order, by the recipe's `keep`; 0 is kept first.

    Where the data came with splits, the rows that must not give way come first: a duplicate across splits then costs
    the side that yields.
    """
    yielding = recipe.splits.yield_to if recipe.splits else "eval"
    held_out = standard_splits(index["split"]).is_in(HELD_OUT).fill_null(value=False)
    first_of_source = (
        pl.col("row").min().over(pl.col("id").str.replace(r":\d+$", ""))
    )  # parts of a mixture are trusted alike
    orders = {"source": first_of_source, "answer": -pl.col("answer_words").cast(pl.Int64), "row": pl.col("row")}
    by = [held_out if yielding == "train" else ~held_out, *(orders[name] for name in recipe.keep), pl.col("row")]
    ranked = index.sort(by).with_row_index("rank").sort("row")
    return schema.conform(ranked.with_columns(pl.lit(value=False).alias("pinned")), schema.INDEX)
