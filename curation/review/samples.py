"""Rows to look at: samples of every decision, and the pairs closest to each threshold, with what differs marked."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import polars as pl

from siftune.curation.review.pairs import ThresholdStage, borderline, score_histogram, threshold_stages
from siftune.curation.run.folder import RunFolder
from siftune.curation.text.differences import DiffSpan, word_differences

_SAMPLES = 10  # of each reason
_BORDERLINE = 6  # pairs of each threshold
_MAX_CHARACTERS = 900  # of each text


@dataclass(frozen=True)
class Sample:
    """A row beside its witness, or beside the other row of a stored pair.

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

    `histogram` is that of `siftune.curation.review.pairs.score_histogram`, `stored` the number of its pairs.
    """

    stage: ThresholdStage
    histogram: pl.DataFrame
    stored: int
    above: list[Sample]
    below: list[Sample]


def decision_samples(run: RunFolder) -> dict[tuple[str, str, str], list[Sample]]:
    """The first samples of every (stage, action, reason); of scored ones, those closest to their threshold."""
    distance = (pl.col("score") - pl.col("threshold")).abs()
    ordered = run.ledger().filter(pl.col("stage") != "ingest").sort("step", distance, "id", nulls_last=True)
    first = ordered.filter(pl.int_range(pl.len()).over("stage", "action", "reason") < _SAMPLES)
    texts = compared_texts(run, [*first["id"], *first["witness"].drop_nulls()])
    samples: dict[tuple[str, str, str], list[Sample]] = {}
    for row in first.iter_rows(named=True):
        sample = _sample(texts, row["id"], row["witness"], row["score"], row["detail"])
        samples.setdefault((row["stage"], row["action"], row["reason"]), []).append(sample)
    return samples


def threshold_samples(run: RunFolder) -> list[ThresholdSamples]:
    """The pairs closest to each threshold of the run, the closest first."""
    stage_samples = []
    for stage in threshold_stages(run):
        threshold = stage.similarity.threshold
        pairs = borderline(run, stage.name, threshold, most=_BORDERLINE)
        texts = compared_texts(run, [*pairs["a"], *pairs["b"]])
        samples = [_sample(texts, row["b"], row["a"], row["score"], None) for row in pairs.iter_rows(named=True)]
        above = [sample for sample in samples if (sample.score or 0.0) >= threshold]
        below = [sample for sample in samples if (sample.score or 0.0) < threshold]
        histogram = score_histogram(run, stage.name)
        stage_samples.append(ThresholdSamples(stage, histogram, int(histogram["pairs"].sum()), above, below))
    return stage_samples


def compared_texts(run: RunFolder, ids: Iterable[str]) -> dict[str, str]:
    """The compared texts of some rows: everything asked and answered. Rows that were quarantined have none."""
    unique = pl.Series("id", sorted(set(ids)), dtype=pl.String)
    texts = (
        pl.scan_parquet(run.texts, glob=False)
        .filter(pl.col("id").is_in(unique.implode()))
        .select("id", "prompt", "answer")
    )
    return {row_id: f"{prompt}\n{answer}" for row_id, prompt, answer in texts.collect().iter_rows()}


def _sample(texts: dict[str, str], row_id: str, witness: str | None, score: float | None, detail: str | None) -> Sample:
    text = texts.get(row_id, "")[:_MAX_CHARACTERS]
    if witness is None or witness not in texts:
        return Sample(row_id, witness, score, detail, [("same", text)], [])
    left, right = word_differences(text, texts[witness][:_MAX_CHARACTERS])
    return Sample(row_id, witness, score, detail, left, right)
