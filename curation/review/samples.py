"""Rows to look at: samples of every decision, and the pairs closest to each threshold, with what differs marked."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import polars as pl

from siftune.curation import schema
from siftune.curation.review.matched_items import CONTAMINATION, matched_items
from siftune.curation.review.pairs import ThresholdStage, borderline, score_histogram, threshold_stages
from siftune.curation.run.folder import RunFolder
from siftune.curation.text.differences import DiffSpan, word_differences

_SAMPLES = 10  # of each reason
_BORDERLINE = 6  # pairs of each threshold
_MAX_CHARACTERS = 900  # of each text
_MAX_CHANGED = 200  # characters of what only one side has


@dataclass(frozen=True)
class Sample:
    """A row beside its witness, another row or an item of a reference, or beside the other one of a stored pair.

    `left` is the text of the row and `right` that of the witness, cut into spans that both share and spans that differ.
    Without a witness `right` is empty.
    """

    id: str
    witness: str | None
    score: float | None
    detail: str | None
    left: list[DiffSpan]
    right: list[DiffSpan]


@dataclass(frozen=True)
class ThresholdSamples:
    """A stage with a threshold, its stored pairs, and those closest to the threshold on each side.

    `histogram` is that of `siftune.curation.review.pairs.score_histogram`.
    """

    stage: ThresholdStage
    histogram: pl.DataFrame
    above: list[Sample]
    below: list[Sample]

    @property
    def stored(self) -> str:
        """How many pairs are stored, in words; empty without any."""
        counts = self.histogram.group_by("kind", maintain_order=True).agg(pl.col("pairs").sum())
        return ", ".join(f"{pairs:,} {kind}" for kind, pairs in counts.iter_rows() if pairs)


def decision_samples(run: RunFolder) -> dict[tuple[str, str, str], list[Sample]]:
    """The first samples of every (stage, action, reason); of scored ones, those closest to their threshold."""
    distance = (pl.col("score") - pl.col("threshold")).abs()
    ordered = run.ledger().filter(pl.col("stage") != "ingest").sort("step", distance, "id", nulls_last=True)
    first = ordered.filter(pl.int_range(pl.len()).over("stage", "action", "reason") < _SAMPLES)
    texts = compared_texts(run, first["id"])
    witnesses = {
        stage: witness_texts(run, stage, group["witness"].drop_nulls())
        for (stage,), group in first.group_by("stage", maintain_order=True)
    }
    samples: dict[tuple[str, str, str], list[Sample]] = {}
    for row in first.iter_rows(named=True):
        text = texts.get(row["id"], "")
        sample = _sample(row, text=text, witness_text=witnesses[row["stage"]].get(row["witness"]))
        samples.setdefault((row["stage"], row["action"], row["reason"]), []).append(sample)
    return samples


def threshold_samples(run: RunFolder) -> list[ThresholdSamples]:
    """The pairs closest to each threshold of the run, the closest first."""
    stage_samples = []
    for stage in threshold_stages(run):
        threshold = stage.similarity.threshold
        pairs = borderline(run, stage.name, threshold, most=_BORDERLINE)
        # Of two rows the earlier one is the witness.
        names = {"a": "id", "b": "witness"} if stage.name == CONTAMINATION else {"a": "witness", "b": "id"}
        pairs = schema.conform(pairs.rename(names), schema.DECISIONS)
        texts = compared_texts(run, pairs["id"])
        witnesses = witness_texts(run, stage.name, pairs["witness"])
        above: list[Sample] = []
        below: list[Sample] = []
        for row in pairs.iter_rows(named=True):
            sample = _sample(row, text=texts.get(row["id"], ""), witness_text=witnesses.get(row["witness"]))
            (above if row["score"] >= row["threshold"] else below).append(sample)
        stage_samples.append(ThresholdSamples(stage, score_histogram(run, stage.name), above, below))
    return stage_samples


def changed_words(spans: list[DiffSpan]) -> str:
    """What only one side of a comparison has, in short, with an ellipsis where both sides have words.

    >>> changed_words([("changed", "What"), ("same", " "), ("changed", "is"), ("same", " a "), ("changed", "list")])
    'What is … list'
    """
    pieces = [text if kind == "changed" or text.isspace() else " … " for kind, text in spans]
    changed = " ".join("".join(pieces).split()).strip(" …")
    return changed if len(changed) <= _MAX_CHANGED else f"{changed[:_MAX_CHANGED]}…"


def compared_texts(run: RunFolder, ids: Iterable[str]) -> dict[str, str]:
    """The compared texts of some rows: everything asked and answered. Rows that were quarantined have none."""
    unique = pl.Series("id", sorted(set(ids)), dtype=pl.String)
    columns = ("id", "prompt", "answer")
    own = pl.scan_parquet(run.texts, glob=False).select(columns)
    texts = pl.concat([own, run.earlier().lazy().select(columns)]).filter(pl.col("id").is_in(unique.implode()))
    return {row_id: f"{prompt}\n{answer}" for row_id, prompt, answer in texts.collect().iter_rows()}


def witness_texts(run: RunFolder, stage: str, witnesses: Iterable[str]) -> dict[str, str]:
    """The texts of what a stage compared rows with: of items of a reference, or of other rows."""
    if stage == CONTAMINATION:
        return {reference: item.text for reference, item in matched_items(run, witnesses).items()}
    return compared_texts(run, witnesses)


def _sample(decision: dict[str, Any], *, text: str, witness_text: str | None) -> Sample:
    facts = (decision["id"], decision["witness"], decision["score"], decision["detail"])
    if witness_text is None:
        return Sample(*facts, [("same", text[:_MAX_CHARACTERS])], [])
    return Sample(*facts, *word_differences(text[:_MAX_CHARACTERS], witness_text[:_MAX_CHARACTERS]))
