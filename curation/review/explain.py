"""The story of one row: its text, every decision on it, and what became of the rows it was compared with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import polars as pl

from siftune.curation import schema
from siftune.curation.errors import UserError, did_you_mean
from siftune.curation.review.matched_items import CONTAMINATION
from siftune.curation.review.pairs import EARLIER_FATE, neighbours
from siftune.curation.review.samples import compared_texts, witness_texts
from siftune.curation.review.selections import SelectionLine, selections_of
from siftune.curation.run.folder import RunFolder
from siftune.curation.run.overrides import Override, read_overrides
from siftune.curation.text.differences import DiffSpan, word_differences

_CLOSEST = 5  # rows of each measure


@dataclass(frozen=True)
class Chapter:
    """One decision on a row, with the witness's fate and where the two texts differ.

    A witness that is an item of a reference has no fate; a witness whose text is not known has no differences.
    """

    decision: dict[str, Any]
    witness_fate: str | None
    differences: tuple[list[DiffSpan], list[DiffSpan]] | None


@dataclass(frozen=True)
class Story:
    """All that a run knows of a row.

    Attributes:
        row: its ROWS.
        messages: its turns, role and content.
        chapters: every decision on it.
        chain: the row that it was dropped for, the row that that one was dropped for, and so on until a kept row.
        neighbours: the rows most similar to it, as in `siftune.curation.review.pairs.neighbours`.
        selections: what each selected arm says of it.
        override: what the user decided on it since it was curated; None where nothing, or where the run obeyed it.
    """

    row: dict[str, Any]
    messages: list[dict[str, str]]
    chapters: list[Chapter]
    chain: list[dict[str, Any]]
    neighbours: list[dict[str, Any]]
    selections: list[SelectionLine]
    override: Override | None = None


def explain(run: RunFolder, row_id: str) -> Story:
    """Tell the story of a row.

    Raises:
        UserError: the run has no such row.
    """
    rows = pl.concat([run.rows(), _earlier_rows(run)]).lazy()
    row = _one(rows, row_id)
    if row is None:
        raise UserError(_unknown(run, row_id))
    ledger = run.ledger()
    decisions = ledger.filter(pl.col("id") == row_id).to_dicts()
    chapters = [_chapter(run, rows, row_id, decision) for decision in decisions]
    similar = neighbours(run, row_id, rows, most=_CLOSEST).to_dicts()
    chain, selections = _chain(rows, ledger, row_id), selections_of(run, row_id)
    override = read_overrides(run.overrides_path).get(row_id)
    obeyed = {decision["action"] for decision in decisions if decision["stage"] == "overrides"}
    if override is not None and override.action in obeyed:
        override = None
    return Story(row, messages(run, row_id), chapters, chain, similar, selections, override)


def messages(run: RunFolder, row_id: str) -> list[dict[str, str]]:
    """The turns of a row; none for a row that was quarantined."""
    stored = [pl.scan_parquet(run.examples, glob=False), run.earlier().lazy()]
    example = pl.concat(frame.filter(pl.col("id") == row_id).select("messages") for frame in stored).collect()
    return example["messages"][0].to_list() if example.height else []


def _earlier_rows(run: RunFolder) -> pl.DataFrame:
    """ROWS of the rows of earlier sets that the run names."""
    return schema.conform(run.earlier().with_columns(fate=pl.lit(EARLIER_FATE)), schema.ROWS)


def _chapter(run: RunFolder, rows: pl.LazyFrame, row_id: str, decision: dict[str, Any]) -> Chapter:
    stage, witness = decision["stage"], decision["witness"]
    if witness is None:
        return Chapter(decision, None, None)
    row = _one(rows, witness) if stage != CONTAMINATION else None
    witness_text = witness_texts(run, stage, [witness]).get(witness)
    fate = row["fate"] if row else None
    if witness_text is None:
        return Chapter(decision, fate, None)
    text = compared_texts(run, [row_id]).get(row_id, "")
    return Chapter(decision, fate, word_differences(text, witness_text))


def _chain(rows: pl.LazyFrame, ledger: pl.DataFrame, row_id: str) -> list[dict[str, Any]]:
    """The row that it was dropped for, the row that that one was dropped for, … until a row that was kept.

    An item of a reference ends the chain, without a fate.
    """
    drops = ledger.filter(pl.col("action") == "drop")
    chain: list[dict[str, Any]] = []
    seen = {row_id}
    current = row_id
    while True:
        step = drops.filter(pl.col("id") == current).select("stage", "reason", "score", "witness").to_dicts()
        witness = step[0]["witness"] if step else None
        if witness is None or witness in seen:
            return chain
        is_item = step[0]["stage"] == CONTAMINATION
        row = None if is_item else _one(rows, witness)
        chain.append({**step[0], "fate": row["fate"] if row else None})
        if is_item:
            return chain
        seen.add(witness)
        current = witness


def _one(rows: pl.LazyFrame, row_id: str) -> dict[str, Any] | None:
    matching = rows.filter(pl.col("id") == row_id).collect().to_dicts()
    return matching[0] if matching else None


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
