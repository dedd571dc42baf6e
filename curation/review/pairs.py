"""The stored pairs of similar rows, and of rows and items of benchmarks: the neighbours of a row, the pairs near a
threshold, scores as a histogram.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from siftune.curation import schema
from siftune.curation.dedup.decisions import sides_text
from siftune.curation.measurement import Similarity
from siftune.curation.review.matched_items import CONTAMINATION, settled_matches
from siftune.curation.run.folder import RunFolder
from siftune.curation.stages import stages

#: Why a pair is guarded: it is never a duplicate, however similar.
GUARDED = "guarded: numbers, names, a negation or the question differ"
#: What a stored pair can come to, and what a row can be similar to.
PAIR_KINDS = ("can be duplicates", GUARDED)
ITEM_KINDS = ("similar to an item of a benchmark", "similar to a decoy, which nobody published")
#: The fate of a row of an earlier set: no stage of the run decides on it.
EARLIER_FATE = "kept earlier"
#: What the score of a row and an item is.
ITEM_MEASURE = "score of a logistic model that a row is an item of a benchmark in other words, from 0 to 1"

NEIGHBOURS = pl.Schema(
    {
        "id": pl.String,
        "measure": pl.String,
        "score": pl.Float64,
        "guarded": pl.Boolean,
        "fate": pl.String,
        "stage": pl.String,
    }
)


@dataclass(frozen=True)
class ThresholdStage:
    """A stage of a run with a threshold: its name, a heading, and its score, threshold and floor."""

    name: str
    title: str
    similarity: Similarity


def threshold_stages(run: RunFolder) -> list[ThresholdStage]:
    """The stages with a threshold whose pairs the run holds, in their order; contamination where it used an encoder."""
    recipe, stored = run.recipe, run.manifest.files
    listed = []
    for stage in stages(recipe, base=Path()):
        similarity = stage.similarity
        settings = recipe.contamination
        if stage.name == CONTAMINATION and settings and recipe.encoder and "layered" in settings.rules:
            similarity = Similarity(ITEM_MEASURE, settings.threshold, schema.LOWEST_SCORE)
        if similarity is not None and stage.name in stored:
            listed.append(ThresholdStage(stage.name, stage.title, similarity))
    return listed


def pair_stages(run: RunFolder) -> list[str]:
    """The names of the stages that compare rows with one another and whose pairs the run holds, in their order."""
    stored = run.manifest.files
    return [stage.name for stage in stages(run.recipe, base=Path()) if stage.compares and stage.name in stored]


def neighbours(run: RunFolder, row_id: str, rows: pl.LazyFrame, *, most: int = 50) -> pl.DataFrame:
    """NEIGHBOURS: the rows most similar to one row by any stage, the most similar first.

    Rows that share the prompt (`conflicts`) or the text (`exact`) are found through the first row of their family.

    Args:
        run: the run.
        row_id: the row.
        rows: id, fate and stage of every row of the run.
        most: how many rows of each stage are returned.
    """
    frames = [schema.empty(pl.Schema(list(NEIGHBOURS.items())[:4]))]
    is_a, is_b = pl.col("a") == row_id, pl.col("b") == row_id
    for name in pair_stages(run):
        pairs = pl.scan_parquet(run.file(name), glob=False).filter(is_a | is_b)
        neighbour_id = pl.when(is_a).then("b").otherwise("a").alias("id")
        best = pairs.select(neighbour_id, pl.lit(name).alias("measure"), "score", "guarded").sort(
            "score", "id", descending=[True, False]
        )
        frames.append(best.head(most).collect())
    similar = pl.concat(frames).sort("score", descending=True, maintain_order=True)
    fates = rows.filter(pl.col("id").is_in(similar["id"].unique().implode())).select(
        "id", pl.col("fate", "stage").cast(pl.String)
    )
    with_fates = similar.join(fates.collect(), on="id", how="left", maintain_order="left")
    return with_fates.with_columns(pl.col("fate").fill_null(EARLIER_FATE))


def threshold_pairs(run: RunFolder, stage: str, threshold: float) -> pl.LazyFrame:
    """The pairs of a stage that a threshold decides about: `a`, `b`, `score`, `threshold` and `detail`.

    Of a duplicate stage these are its PAIRS that are not guarded, and `detail` says how alike prompts and answers are.
    Of contamination `a` is a row and `b` the item of a benchmark that it is most similar to, one of each benchmark;
    `threshold` is that of the benchmark, which is higher where the lowest one would let in too many false matches, and
    `detail` says what the two share and what they do not.

    Args:
        run: the run.
        stage: the name of the stage.
        threshold: the threshold, which may be another than the run's.
    """
    if stage != CONTAMINATION:
        pairs = pl.scan_parquet(run.file(stage), schema=schema.PAIRS, missing_columns="insert", glob=False)
        detail = sides_text(prompt_score=pl.col("prompt_score"), answer_score=pl.col("answer_score"))
        columns = ("a", "b", "score", pl.lit(threshold).alias("threshold"), detail.alias("detail"))
        return pairs.filter(~pl.col("guarded")).select(columns)
    settled = settled_matches(run, threshold).filter(pl.col("rule") == schema.PARAPHRASE)
    best = settled.sort("score", "id", "reference", descending=[True, False, False]).unique(
        ["id", "benchmark"], keep="first", maintain_order=True
    )
    return best.lazy().select("score", "threshold", "detail", a="id", b="reference")


def borderline(run: RunFolder, stage: str, threshold: float, *, most: int = 12) -> pl.DataFrame:
    """The pairs of `threshold_pairs` nearest to their threshold, half of them from each side, the nearest first.

    Args:
        run: the run.
        stage: the name of the stage.
        threshold: the threshold, which may be another than the run's.
        most: how many pairs are returned.
    """
    pairs = threshold_pairs(run, stage, threshold)
    margin, reached = (pl.col("score") - pl.col("threshold")).abs(), pl.col("score") >= pl.col("threshold")
    by_margin = pairs.sort(margin, "score", "a", "b", descending=[False, True, False, False])
    sides = [by_margin.filter(side).head(most // 2).collect() for side in (reached, ~reached)]
    return pl.concat(sides).sort(margin, maintain_order=True)


def score_histogram(run: RunFolder, stage: str, *, bins: int = 40) -> pl.DataFrame:
    """Stored pairs of a stage by similarity: score and to (the ends of a bin), pairs, kind (of PAIR_KINDS).

    For contamination the kinds are ITEM_KINDS.
    """
    if stage == CONTAMINATION:
        scored = run.measured_matches().filter(pl.col("rule") == schema.PARAPHRASE)
        kinds, is_second = ITEM_KINDS, (pl.col("outcome") == "decoy").fill_null(value=False)
    else:
        scored, kinds, is_second = pl.scan_parquet(run.file(stage), glob=False), PAIR_KINDS, pl.col("guarded")
    pairs = scored.select("score", is_second.alias("second")).collect()
    scores, second = pairs["score"].to_numpy(), pairs["second"].to_numpy()
    lowest = schema.LOWEST_SCORE if stage == CONTAMINATION else 1.0
    span = (float(scores.min(initial=lowest)), 1.0 + 1e-9)
    frames = []
    for kind, part in zip(kinds, (scores[~second], scores[second]), strict=True):
        counts, edges = np.histogram(part, bins=bins, range=span)
        frames.append(pl.DataFrame({"score": edges[:-1], "to": edges[1:], "pairs": counts, "kind": kind}))
    return pl.concat(frames)


def with_scores(run: RunFolder, stage: str, labels: pl.DataFrame, *, threshold: float) -> pl.DataFrame:
    """`labels` (a, b and others) of pairs that the stage stored, with the `score` of each, and `decided`: whether the
    stage takes the two for the same.

    Args:
        run: the run.
        stage: the name of the stage.
        labels: the pairs.
        threshold: the threshold, which may be another than the run's; that of a benchmark can be higher.
    """
    if stage == CONTAMINATION:
        settled = settled_matches(run, threshold).filter(pl.col("rule") == schema.PARAPHRASE)
        scored = settled.lazy().select("score", "threshold", a="id", b="reference")
    else:
        pairs = pl.scan_parquet(run.file(stage), glob=False)
        scored = pairs.select("a", "b", "score", pl.lit(threshold).alias("threshold"))
    joined = scored.join(labels.lazy(), on=["a", "b"], how="inner")
    return joined.with_columns(decided=pl.col("score") >= pl.col("threshold")).drop("threshold").collect()
