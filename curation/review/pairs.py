"""The stored pairs of similar rows: neighbours of a row, pairs near a threshold, scores as a histogram."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from siftune.curation import schema
from siftune.curation.measurement import Similarity
from siftune.curation.run.folder import RunFolder
from siftune.curation.stages import stages

#: Why a pair is guarded: it is never a duplicate, however similar.
GUARDED = "guarded: numbers, names, a negation or the question differ"
#: What a stored pair can come to.
PAIR_KINDS = ("can be duplicates", GUARDED)

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
    """A duplicate stage of a run with a threshold: its name, a heading, and its score, threshold and floor."""

    name: str
    title: str
    similarity: Similarity


def threshold_stages(run: RunFolder) -> list[ThresholdStage]:
    """The duplicate stages with a threshold whose pairs the run holds, in their order."""
    stored = run.manifest.files
    return [
        ThresholdStage(stage.name, stage.title, stage.similarity)
        for stage in stages(run.recipe, base=Path())
        if stage.similarity is not None and stage.name in stored
    ]


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
    return similar.join(fates.collect(), on="id", how="left", maintain_order="left")


def borderline(run: RunFolder, stage: str, threshold: float, *, most: int = 12) -> pl.DataFrame:
    """PAIRS of a stage nearest to a threshold, half of them from each side, the nearest first.

    Guarded pairs are left out: the threshold decides nothing about them.

    Args:
        run: the run.
        stage: the name of the stage.
        threshold: the threshold, which may be another than the run's.
        most: how many pairs are returned.
    """
    pairs = pl.scan_parquet(run.file(stage), glob=False).filter(~pl.col("guarded"))
    reached = pl.col("score") >= threshold
    above = pairs.filter(reached).sort("score", "a", "b").head(most // 2)
    below = pairs.filter(~reached).sort("score", "a", "b", descending=[True, False, False]).head(most // 2)
    return pl.concat([above.collect(), below.collect()]).sort((pl.col("score") - threshold).abs(), maintain_order=True)


def score_histogram(run: RunFolder, stage: str, *, bins: int = 40) -> pl.DataFrame:
    """Stored pairs of a stage by similarity: score and to (the ends of a bin), pairs, kind (of PAIR_KINDS)."""
    pairs = pl.scan_parquet(run.file(stage), glob=False).select("score", "guarded").collect()
    scores, guarded = pairs["score"].to_numpy(), pairs["guarded"].to_numpy()
    span = (float(scores.min(initial=1.0)), 1.0 + 1e-9)
    frames = []
    for kind, part in zip(PAIR_KINDS, (scores[~guarded], scores[guarded]), strict=True):
        counts, edges = np.histogram(part, bins=bins, range=span)
        frames.append(pl.DataFrame({"score": edges[:-1], "to": edges[1:], "pairs": counts, "kind": kind}))
    return pl.concat(frames)


def with_scores(run: RunFolder, stage: str, labels: pl.DataFrame) -> pl.DataFrame:
    """`labels` (a, b and others) of pairs that the stage stored, with the `score` of each."""
    pairs = pl.scan_parquet(run.file(stage), glob=False).select("a", "b", "score")
    return pairs.join(labels.lazy(), on=["a", "b"], how="inner").collect()
