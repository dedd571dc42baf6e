"""From sources to a corpus: ingest, repair, derive the compared texts, each stored under its content address."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import polars as pl

from siftune.curation import schema
from siftune.curation.atomic_files import write_json
from siftune.curation.corpus import Corpus, batches, measure_index, write_batches, write_texts
from siftune.curation.ingest.sources import IngestedRow, read_sources, sources_fingerprint
from siftune.curation.progress import Progress
from siftune.curation.recipe.sections import Recipe
from siftune.curation.row_checks import mojibake
from siftune.curation.run.cache_key import measure_key
from siftune.curation.run.folder import RunFolder
from siftune.curation.run.manifest import SourceRecord
from siftune.curation.split_names import HELD_OUT, standard_splits

_LASTING = pl.Schema([(name, kind) for name, kind in schema.INDEX.items() if name not in ("rank", "pinned")])


@dataclass(frozen=True)
class Prepared:
    """A corpus with what was found on the way: `index` is INDEX, in the order of EXAMPLES."""

    corpus: Corpus
    index: pl.DataFrame
    repairs: pl.DataFrame
    quarantined: pl.DataFrame
    quarantine: Path
    sources: list[SourceRecord]
    files: dict[str, Path]
    reused: bool

    def quarantined_decisions(self) -> pl.DataFrame:
        """DECISIONS on the rows that could not be read."""
        said = self.quarantined.with_columns(pl.lit("quarantine").alias("action"))
        return schema.conform(said, schema.DECISIONS)


def prepare(
    recipe: Recipe,
    run: RunFolder,
    *,
    base: Path,
    progress: Progress | None = None,
    on_row: Callable[[IngestedRow], None] | None = None,
) -> Prepared:
    """Read the sources of a recipe into the run's measures; reuse what is there.

    Args:
        recipe: what is read, and how it is repaired and compared.
        run: where the measures are stored.
        base: the folder that the recipe's paths are relative to.
        progress: called while long work goes on.
        on_row: called with every input row; not when the rows were read by an earlier run.

    Raises:
        UserError: a source is missing, unreadable, or of no known format.
    """
    read = measure_key("ingest", {}, sources_fingerprint(recipe.sources, base=base))
    quarantine = run.measure_path("quarantine", read, suffix="jsonl")
    report = run.measure_path("ingest", read, suffix="json")

    def ingested(out: Path) -> None:
        found = read_sources(
            recipe.sources, base=base, out=out, quarantine=quarantine, on_row=on_row, progress=progress
        )
        write_json(asdict(found), report)

    raw, reused = run.measure("ingested", read, ingested)
    repaired = measure_key("repair", {"encoding": recipe.checks.encoding}, read)
    examples, repairs = _repair(run, raw, key=repaired) if recipe.checks.encoding == "repair" else (raw, None)
    compared = measure_key("texts", recipe.keys.model_dump(include={"template_rows", "template_share"}), repaired)
    texts, _ = run.measure("texts", compared, lambda out: write_texts(examples, out, recipe.keys))
    index, _ = run.measure("index", compared, lambda out: write_batches(measure_index(examples, texts), out, _LASTING))
    return Prepared(
        corpus=Corpus(examples=examples, texts=texts, key=compared),
        index=rank(pl.read_parquet(index), recipe),
        repairs=schema.empty(schema.DECISIONS) if repairs is None else pl.read_parquet(repairs),
        quarantined=_quarantined(quarantine),
        quarantine=quarantine,
        sources=[SourceRecord.model_validate(source) for source in json.loads(report.read_text("utf-8"))["sources"]],
        files={"examples": examples, "texts": texts, "index": index},
        reused=reused,
    )


def _repair(run: RunFolder, raw: Path, *, key: str) -> tuple[Path, Path]:
    """EXAMPLES with broken encodings mended, and the DECISIONS that say so."""
    decisions = [schema.empty(schema.DECISIONS)]

    def mended() -> Iterator[pl.DataFrame]:
        for batch in batches(raw):
            frame, told = mojibake.repair_batch(batch)
            decisions.append(told)
            yield frame

    def make(out: Path) -> None:
        write_batches(mended(), out, schema.EXAMPLES)
        pl.concat(decisions).write_parquet(run.measure_path("repairs", key))

    examples, _ = run.measure("examples", key, make)
    return examples, run.measure_path("repairs", key)


def _quarantined(path: Path) -> pl.DataFrame:
    """Columns id, source, reason and detail (`file:row`) of the rows that could not be read."""
    columns = {"id": pl.String, "source": pl.String, "file": pl.String, "row": pl.Int64, "reason": pl.String}
    if path.stat().st_size == 0:
        return pl.DataFrame(schema={"id": pl.String, "source": pl.String, "reason": pl.String, "detail": pl.String})
    found = pl.read_ndjson(path, schema=columns)
    place = pl.concat_str(["file", "row"], separator=":").alias("detail")
    return found.select("id", "source", "reason", place)


def rank(index: pl.DataFrame, recipe: Recipe) -> pl.DataFrame:
    """INDEX with the place of each row in keep order, by the recipe's `keep`.

    Where the data came with splits, the rows that must not give way come first: a duplicate across splits then costs
    the side that yields.
    """
    yields = recipe.splits.yield_to if recipe.splits else "eval"
    held_out = standard_splits(index["split"]).is_in(HELD_OUT).fill_null(value=False)
    first = pl.col("row").min().over(pl.col("id").str.replace(r":\d+$", ""))  # parts of a mixture are trusted alike
    order = {"source": first, "answer": -pl.col("answer_words").cast(pl.Int64), "row": pl.col("row")}
    by = [held_out if yields == "train" else ~held_out, *(order[name] for name in recipe.keep), pl.col("row")]
    ranked = index.sort(by).with_row_index("rank").sort("row")
    return schema.conform(ranked.with_columns(pl.lit(value=False).alias("pinned")), schema.INDEX)
