"""A run in tables: decisions by reason, rows by source, contamination by benchmark."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl

from siftune.curation.checksums import whole
from siftune.curation.contamination_outcomes import FALSE_DISCOVERY, benchmark, false_discovery
from siftune.curation.review.decision_words import duplicate_stages
from siftune.curation.review.matched_items import settled_matches
from siftune.curation.run.folder import RunFolder
from siftune.curation.stages import stages

_BENCHMARK_COLUMNS = pl.Schema([*FALSE_DISCOVERY.items(), ("same", pl.UInt32()), ("related", pl.UInt32())])
_BY_FIELD = {"prompt only": "prompt", "answer only": "answer", "both": "both"}


def decision_counts(run: RunFolder) -> pl.DataFrame:
    """Rows of the ledger by kind: step, stage, action, reason, rows; in the order of the stages, most rows first."""
    ledger = pl.scan_parquet(whole(run.ledger_path), glob=False)
    kinds = ledger.group_by("step", "stage", "action", "reason").len("rows")
    return kinds.sort("step", "rows", "reason", "action", descending=[False, True, False, False]).collect()


def decisions(
    run: RunFolder, *, stage: str, action: str, reason: str | None, page: int = 0, size: int = 12
) -> pl.DataFrame:
    """A page of the decisions of one kind, those closest to their threshold first.

    Args:
        run: the run.
        stage: of this stage only.
        action: of this action only.
        reason: of this reason only; None: decisions without a reason.
        page: the number of the page, from 0.
        size: rows on a page.

    Returns:
        LEDGER and `margin`, |score - threshold|.
    """
    same_kind = (pl.col("stage") == stage) & (pl.col("action") == action) & pl.col("reason").eq_missing(reason)
    margin = (pl.col("score") - pl.col("threshold")).abs().alias("margin")
    kind = pl.scan_parquet(whole(run.ledger_path), glob=False).filter(same_kind).with_columns(margin)
    return kind.sort("margin", maintain_order=True, nulls_last=True).slice(page * size, size).collect()


def duplicate_groups(run: RunFolder, *, most: int = 100) -> pl.DataFrame:
    """The rows with the most duplicates: witness, rows (dropped for it), and the first 50 with their scores."""
    is_duplicate = pl.col("witness").is_not_null() & pl.col("stage").is_in(duplicate_stages(run))
    dropped = pl.scan_parquet(whole(run.ledger_path), glob=False).filter(pl.col("action") == "drop", is_duplicate)
    table = dropped.group_by("witness").agg(pl.len().alias("rows"), pl.col("id").head(50), pl.col("score").head(50))
    return table.sort("rows", "witness", descending=[True, False]).head(most).collect()


def source_table(rows: pl.DataFrame) -> pl.DataFrame:
    """ROWS by source: source, rows, kept, dropped, quarantined, share (kept); the largest source first."""
    counts = [(pl.col("fate") == fate).sum().alias(fate) for fate in ("kept", "dropped", "quarantined")]
    table = rows.lazy().group_by(pl.col("source").cast(pl.String)).agg(pl.len().alias("rows"), *counts)
    ordered = table.with_columns(share=pl.col("kept") / pl.col("rows")).sort("rows", "source", descending=[True, False])
    return ordered.collect()


def topic_table(rows: pl.DataFrame) -> pl.DataFrame:
    """ROWS by topic: topic, rows, kept, dropped, share (kept), and `sources`, how many rows are from each source as
    (source, rows, kept), the largest first; the largest topic first. Empty where the run has no topics.
    """
    kept = (pl.col("fate") == "kept").sum().alias("kept")
    named = rows.lazy().filter(pl.col("topic").is_not_null())
    named = named.with_columns(pl.col("topic", "source").cast(pl.String))
    by_source = named.group_by("topic", "source").agg(pl.len().alias("rows"), kept)
    ordered = by_source.sort("rows", "source", descending=[True, False])
    sources = ordered.group_by("topic", maintain_order=True).agg(pl.struct("source", "rows", "kept").alias("sources"))
    counts = named.group_by("topic").agg(
        pl.len().alias("rows"), kept, (pl.col("fate") == "dropped").sum().alias("dropped")
    )
    table = counts.join(sources, on="topic").with_columns(share=pl.col("kept") / pl.col("rows"))
    columns = ["topic", "rows", "kept", "dropped", "share", "sources"]
    return table.sort("rows", "topic", descending=[True, False]).select(columns).collect()


def sources_text(sources: list[dict[str, Any]], most: int = 4) -> str:
    """The sources of a line of `topic_table` in words, such as "alpaca 40 of 52, dolly 3 of 3".

    Args:
        sources: what stands in its column `sources`.
        most: how many sources are named.
    """
    named = [f"{one['source']} {one['kept']:,} of {one['rows']:,}" for one in sources[:most]]
    return ", ".join([*named, f"{len(sources) - most} more"] if len(sources) > most else named)


def duplicates_by_source(run: RunFolder) -> pl.DataFrame:
    """Rows dropped as duplicates, by their source and that of the row they were dropped for.

    Columns: source, source of the witness, rows; most rows first.
    """
    compared = [stage.name for stage in stages(run.recipe, base=Path()) if stage.compares]
    source = run.rows().select("id", "source")
    earlier = run.earlier().select("id", pl.format("{} (earlier)", "source").alias("source"))
    drops = run.ledger().filter(pl.col("action") == "drop", pl.col("stage").is_in(compared))
    with_sources = drops.join(source, on="id").join(
        pl.concat([source, earlier]), left_on="witness", right_on="id", suffix=" of the witness"
    )
    counted = with_sources.group_by("source", "source of the witness").len("rows")
    return counted.sort("rows", "source", "source of the witness", descending=[True, False, False])


def contamination_table(run: RunFolder) -> pl.DataFrame:
    """For each benchmark and rule: items hit, rows that are the same item, and how many of these rows match by what.

    Columns: benchmark, rule, items hit, rows, prompt only, answer only, both. `both` are rows with a match of both
    texts at once, or with one of the prompt and one of the answer.
    """
    matches = run.matches().filter(pl.col("outcome") == "same").with_columns(benchmark=benchmark())
    by = ["benchmark", "rule"]
    items = matches.group_by(by).agg(pl.col("reference").n_unique().alias("items hit"))
    alone = pl.when(pl.col("field").n_unique() == 1).then(pl.col("field").first()).otherwise(pl.lit("both"))
    rows = matches.group_by(*by, "id").agg(alone.alias("field"))
    counts = rows.group_by(by).agg(
        pl.len().alias("rows"),
        *((pl.col("field") == field).sum().alias(name) for name, field in _BY_FIELD.items()),
    )
    return items.join(counts, on=by).sort(by)


def benchmark_table(run: RunFolder, threshold: float | None = None) -> pl.DataFrame:
    """For each benchmark that rows match, what became of them, and how much of it is estimated to be false.

    Args:
        run: the run.
        threshold: the lowest score at which a row may be an item in other words; None: as the recipe says.

    Returns:
        FALSE_DISCOVERY, `same` (rows that are an item by any rule) and `related` (other rows with a related item).
    """
    settings = run.recipe.contamination
    if settings is None:
        return pl.DataFrame(schema=_BENCHMARK_COLUMNS)
    lowest = settings.threshold if threshold is None else threshold
    is_same = pl.col("outcome") == "same"
    rows = settled_matches(run, lowest).group_by("benchmark", "id").agg(is_same.any().alias("same"))
    counts = rows.group_by("benchmark").agg(pl.col("same").sum(), (~pl.col("same")).sum().alias("related"))
    matches = run.measured_matches().select("id", "reference", "rule", "outcome", "score").collect()
    rates = false_discovery(matches, threshold=lowest, most=settings.max_false_discovery)
    return rates.join(counts, on="benchmark", how="inner", maintain_order="left").select(list(_BENCHMARK_COLUMNS))


def no_contamination_sentence(run: RunFolder) -> str:
    """Why `contamination_table` is empty."""
    if run.recipe.contamination is not None and run.recipe.contamination.references:
        return "No row matches an item of the benchmarks."
    return "No benchmark was given. Name one under `contamination: references:` in the recipe."
