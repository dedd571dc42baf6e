"""The stored pairs of similar rows, and of rows and items of benchmarks: the neighbours of a row, the pairs near a
threshold, scores as a histogram.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

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


def threshold_pairs(run: RunFolder, stage: str, threshold: float, *, guarded: bool = False) -> pl.LazyFrame:
    """The pairs of a stage that a threshold decides about: `a`, `b`, `score`, `threshold` and `detail`.

    Of a duplicate stage these are its PAIRS that are not guarded (or those that are, which no threshold decides about),
    and `detail` says how alike prompts and answers are.
    Of contamination `a` is a row and `b` the item of a benchmark that it is most similar to, one of each benchmark;
    `threshold` is that of the benchmark, which is higher where the lowest one would let in too many false matches, and
    `detail` says what the two share and what they do not.

    Args:
        run: the run.
        stage: the name of the stage.
        threshold: the threshold, which may be another than the run's.
        guarded: the guarded pairs instead; contamination has none.
    """
    if stage != CONTAMINATION:
        pairs = pl.scan_parquet(run.file(stage), schema=schema.PAIRS, missing_columns="insert", glob=False)
        detail = sides_text(prompt_score=pl.col("prompt_score"), answer_score=pl.col("answer_score"))
        columns = ("a", "b", "score", pl.lit(threshold).alias("threshold"), detail.alias("detail"))
        return pairs.filter(pl.col("guarded") == guarded).select(columns)
    settled = settled_matches(run, threshold).filter(pl.col("rule") == schema.PARAPHRASE)
    best = settled.sort("score", "id", "reference", descending=[True, False, False]).unique(
        ["id", "benchmark"], keep="first", maintain_order=True
    )
    return best.lazy().filter(not guarded).select("score", "threshold", "detail", a="id", b="reference")


def borderline(run: RunFolder, stage: str, threshold: float, *, most: int = 12, guarded: bool = False) -> pl.DataFrame:
    """The pairs of `threshold_pairs` nearest to their threshold, half of them from each side, the nearest first.

    Args:
        run: the run.
        stage: the name of the stage.
        threshold: the threshold, which may be another than the run's.
        most: how many pairs are returned.
        guarded: of the guarded pairs instead.
    """
    pairs = threshold_pairs(run, stage, threshold, guarded=guarded)
    margin, reached = (pl.col("score") - pl.col("threshold")).abs(), pl.col("score") >= pl.col("threshold")
    by_margin = pairs.sort(margin, "score", "a", "b", descending=[False, True, False, False])
    sides = [by_margin.filter(side).head(most // 2).collect() for side in (reached, ~reached)]
    return pl.concat(sides).sort(margin, maintain_order=True)


@dataclass(frozen=True)
class ReachedPairs:
    """How many stored pairs reach a threshold, and how many of them are guarded, so that they stay."""

    pairs: int
    guarded: int

    @property
    def sentence(self) -> str:
        """What becomes of the guarded ones; empty where there are none."""
        if not self.guarded:
            return ""
        which = f"{self.guarded:,} of {self.pairs:,} pairs"
        if self.guarded == self.pairs:
            which = f"All {self.pairs:,} pairs" if self.pairs > 1 else "The one pair"
        verbs = ("are", "they differ", "stay") if self.guarded > 1 else ("is", "its rows differ", "stays")
        return (
            f"{which} right of the line {verbs[0]} guarded: {verbs[1]} in a number, a name, a negation or what is "
            f"asked, and {verbs[2]}."
        )


def reached_pairs(run: RunFolder, stage: str, threshold: float) -> ReachedPairs:
    """The stored pairs of a duplicate stage whose score is at least `threshold`."""
    reached = pl.scan_parquet(run.file(stage), glob=False).filter(pl.col("score") >= threshold)
    return ReachedPairs(*reached.select(pl.len(), pl.col("guarded").sum().alias("guarded")).collect().row(0))


def score_histogram(run: RunFolder, stage: str, *, threshold: float | None = None, bins: int = 40) -> pl.DataFrame:
    """Stored pairs of a stage by similarity: score and to (the ends of a bin), pairs, kind (of PAIR_KINDS).

    A bin begins at the threshold, so that a pair with this very score, which is decided as the same, is right of it.

    Args:
        run: the run.
        stage: the name of the stage; for contamination the kinds are ITEM_KINDS.
        threshold: the threshold; None: the run's own.
        bins: about how many bins.
    """
    if stage == CONTAMINATION:
        scored = run.measured_matches().filter(pl.col("rule") == schema.PARAPHRASE)
        kinds, is_second = ITEM_KINDS, (pl.col("outcome") == "decoy").fill_null(value=False)
    else:
        scored, kinds, is_second = pl.scan_parquet(run.file(stage), glob=False), PAIR_KINDS, pl.col("guarded")
    pairs = scored.select("score", is_second.alias("second")).collect()
    scores, second = pairs["score"].to_numpy(), pairs["second"].to_numpy()
    lowest = schema.LOWEST_SCORE if stage == CONTAMINATION else 1.0
    if threshold is None:
        own = (one.similarity.threshold for one in threshold_stages(run) if one.name == stage)
        threshold = next(own, 1.0)
    edges = _edges(float(scores.min(initial=lowest)), threshold, bins)
    frames = []
    for kind, part in zip(kinds, (scores[~second], scores[second]), strict=True):
        counts, _ = np.histogram(part, bins=edges)
        frames.append(pl.DataFrame({"score": edges[:-1], "to": edges[1:], "pairs": counts, "kind": kind}))
    return pl.concat(frames)


def _edges(lowest: float, threshold: float, bins: int) -> NDArray[np.float64]:
    """The edges of bins of whole hundredths from `lowest` or below to 1 or above, one of them at the threshold.

    >>> _edges(0.93, 0.95, 40)
    array([0.93, 0.94, 0.95, 0.96, 0.97, 0.98, 0.99, 1.  ])
    >>> _edges(0.5, 1.0, 4)
    array([0.48, 0.61, 0.74, 0.87, 1.  , 1.13])
    """
    low = min(lowest, threshold)
    width = 0.01 * max(1, ceil((1.0 - low) * 100 / bins - 1e-9))
    below = ceil((threshold - low) / width - 1e-9)
    above = max(1, ceil((1.0 - threshold) / width - 1e-9))
    edges = np.round(threshold + width * np.arange(-below, above + 1), 9)
    edges[below] = threshold
    # What rounding left outside belongs to the outermost bins.
    edges[0], edges[-1] = min(edges[0], low), max(edges[-1], 1.0)
    return edges


def with_scores(run: RunFolder, stage: str, labels: pl.DataFrame, *, threshold: float) -> pl.DataFrame:
    """`labels` (a, b and others) of pairs that the stage stored, with the `score` of each, and `decided`: whether the
    stage takes the two for the same. Guarded pairs are left out: no threshold decides about them.

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
        pairs = pl.scan_parquet(run.file(stage), glob=False).filter(~pl.col("guarded"))
        scored = pairs.select("a", "b", "score", pl.lit(threshold).alias("threshold"))
    joined = scored.join(labels.lazy(), on=["a", "b"], how="inner")
    return joined.with_columns(decided=pl.col("score") >= pl.col("threshold")).drop("threshold").collect()
