"""The story of one row: its text, every decision on it, and what became of the rows it was compared with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import polars as pl

from siftune.curation.errors import UserError, did_you_mean
from siftune.curation.run.folder import RunFolder
from siftune.curation.text.differences import Part, word_differences

_CLOSEST = 5


@dataclass(frozen=True)
class Chapter:
    """One decision on a row, with the witness's fate and where the two texts differ."""

    decision: dict[str, Any]
    witness_fate: str | None
    differences: tuple[list[Part], list[Part]] | None


@dataclass(frozen=True)
class Story:
    """All that a run knows of a row. `chain` follows witnesses until one was kept."""

    row: dict[str, Any]
    messages: list[dict[str, str]]
    chapters: list[Chapter]
    chain: list[dict[str, Any]]
    neighbours: list[dict[str, Any]]


def explain(run: RunFolder, row_id: str) -> Story:
    """Tell the story of a row.

    Raises:
        UserError: the run has no such row.
    """
    rows = run.rows().lazy()
    row = _one(rows, row_id)
    if row is None:
        raise UserError(_unknown(run, row_id))
    ledger = run.ledger()
    decisions = ledger.filter(pl.col("id") == row_id).to_dicts()
    chapters = [_chapter(run, rows, row_id, decision) for decision in decisions]
    return Story(row, messages(run, row_id), chapters, _chain(rows, ledger, row_id), neighbours(run, row_id))


def messages(run: RunFolder, row_id: str) -> list[dict[str, str]]:
    """The turns of a row; none for a row that was quarantined."""
    found = pl.scan_parquet(run.examples).filter(pl.col("id") == row_id).select("messages").collect()
    return found["messages"][0].to_list() if found.height else []


def neighbours(run: RunFolder, row_id: str) -> list[dict[str, Any]]:
    """The most similar rows of every stored measure: measure, id, score, guarded, fate."""
    found: list[dict[str, Any]] = []
    rows = run.rows().lazy().select("id", "fate", "stage")
    for measure in ("near", "answers", "semantic"):
        if measure not in run.manifest["files"]:
            continue
        pairs = pl.scan_parquet(run.file(measure)).filter((pl.col("a") == row_id) | (pl.col("b") == row_id))
        other = pl.when(pl.col("a") == row_id).then("b").otherwise("a").alias("id")
        best = (
            pairs.select("measure", other, "score", "guarded")
            .sort("score", "id", descending=[True, False])
            .head(_CLOSEST)
        )
        found += best.join(rows, on="id", how="left", maintain_order="left").collect().to_dicts()
    return found


def _chapter(run: RunFolder, rows: pl.LazyFrame, row_id: str, decision: dict[str, Any]) -> Chapter:
    witness = decision["witness"]
    row = _one(rows, witness) if witness else None
    if row is None:
        return Chapter(decision, None, None)
    return Chapter(decision, row["fate"], word_differences(spoken(run, row_id), spoken(run, witness)))


def spoken(run: RunFolder, row_id: str) -> str:
    """The compared text of a row: everything asked and answered."""
    found = pl.scan_parquet(run.texts).filter(pl.col("id") == row_id).select("prompt", "answer").collect()
    return "\n".join(found.row(0)) if found.height else ""


def _chain(rows: pl.LazyFrame, ledger: pl.DataFrame, row_id: str) -> list[dict[str, Any]]:
    """The row that it was dropped for, the row that that one was dropped for, … until a row that was kept."""
    drops = ledger.filter(pl.col("action") == "drop")
    chain: list[dict[str, Any]] = []
    seen = {row_id}
    current = row_id
    while True:
        step = drops.filter(pl.col("id") == current).select("stage", "reason", "score", "witness").to_dicts()
        witness = step[0]["witness"] if step else None
        if witness is None or witness in seen:
            return chain
        row = _one(rows, witness)
        chain.append({**step[0], "fate": row["fate"] if row else None})
        seen.add(witness)
        current = witness


def _one(rows: pl.LazyFrame, row_id: str) -> dict[str, Any] | None:
    found = rows.filter(pl.col("id") == row_id).collect().to_dicts()
    return found[0] if found else None


def _unknown(run: RunFolder, row_id: str) -> str:
    named = run.rows().select(pl.col("id").str.replace(r":\d+$", "").alias("source"))["source"]
    sources = named.unique().sort().to_list()
    source, _, number = row_id.rpartition(":")
    if source in sources:
        last = int((named == source).sum()) - 1
        return f"{run.path} has no row {row_id!r}: {source} has rows 0 to {last}."
    return (
        f"{run.path} has no row {row_id!r}. An id is SOURCE:ROW.{did_you_mean(source, sources)} "
        f"Sources: {', '.join(sources[:10])}." + ("" if number.isdigit() else " ROW is a number from 0.")
    )
