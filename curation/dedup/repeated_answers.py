"""Repeated answers: the same answer, exactly or nearly, under many different prompts. There is no guard here.

Ten thousand copies of one answer must cost nothing, so answers with the same shingles are one class. What is stored
are *stars*: each row of a class is paired with the class's first row, score 1.0, and first rows of different classes
are paired where their similarity (then below 1.0) reaches the floor. The decision completes the stars, so it is the
one that all pairs would have given, at every threshold from the floor on.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import polars as pl
from numpy.typing import NDArray

from siftune.curation.corpus import Corpus
from siftune.curation.dedup import leaders_kernels
from siftune.curation.dedup.decisions import decisions, pair_positions, pairs_frame, sides_text
from siftune.curation.dedup.leaders import Leaders, Pairs
from siftune.curation.dedup.minhash import Sketches, first_equal_set, similar_pairs, sketch
from siftune.curation.measurement import Knob, Measured, Similarity
from siftune.curation.progress import Progress
from siftune.curation.recipe.recipe import Recipe
from siftune.curation.recipe.sections import Answers, Near
from siftune.curation.row_features import RowFeatures, row_features
from siftune.curation.schema import Key
from siftune.curation.text.words import word_count


@dataclass(frozen=True)
class RepeatedAnswers:
    """The same answer, exactly or nearly, under many prompts: only so many stay. No guard protects copies."""

    name: ClassVar[str] = "answers"
    title: ClassVar[str] = "Repeated answers"
    knobs: ClassVar[tuple[Knob, ...]] = (
        Knob("answers", ("duplicates", "answers")),
        Knob("max_per_answer", ("duplicates", "answers"), field="max_per_answer", whole_number=True),
    )
    compares: ClassVar[Key] = "answer"
    settings: Answers
    shingle: int
    permutations: int

    @classmethod
    def from_recipe(cls, recipe: Recipe, *, base: Path) -> Self | None:
        near = recipe.duplicates.near or Near()
        settings = recipe.duplicates.answers
        return cls(settings, near.shingle, near.permutations) if settings else None

    @property
    def similarity(self) -> Similarity:
        measure = f"Jaccard similarity of {self.shingle}-word shingles of the answers"
        return Similarity(measure, self.settings.threshold, self.settings.floor)

    def depends(self) -> dict[str, Any]:
        settings = self.settings.model_dump(include={"floor", "min_words"})
        return {"shingle": self.shingle, "permutations": self.permutations, **settings}

    def measure(self, corpus: Corpus, alive: pl.DataFrame, progress: Progress | None) -> Measured:
        def sketch_rows(some: NDArray[np.uint32]) -> RowFeatures:
            return sketch_answers(
                corpus.key_texts(self.compares, some),
                shingle=self.shingle,
                permutations=self.permutations,
                floor=self.settings.floor,
                min_words=self.settings.min_words,
                progress=progress,
            ).features()

        rows = alive["row"].to_numpy()
        features = row_features(corpus, rows, name="answer-sketches", settings=self.depends(), compute=sketch_rows)
        # Rows of earlier sets are compared with one another too: they say who is in whose family.
        return self.measured(alive, answer_stars(Sketches.of(features), floor=self.settings.floor, progress=progress))

    def measured(self, alive: pl.DataFrame, stars: Pairs) -> Measured:
        """What is stored of `stars`, positions in `alive` (INDEX)."""
        return Measured(pairs_frame(alive, stars, measure=self.name, sides=("answer_score",)))

    def decide(self, alive: pl.DataFrame, measured: pl.DataFrame) -> pl.DataFrame:
        # The first row of a class of equal answers holds its pairs together, even where it is not alive any more.
        measured_ids = pl.concat([measured["a"], measured["b"]]).unique(maintain_order=True).to_frame("id")
        absent = measured_ids.join(alive, on="id", how="anti", maintain_order="left")
        rows = pl.concat([alive.select("id"), absent])
        stars, _ = pair_positions(rows, measured)
        # Rows that are not alive come last in keep order and take no part.
        last = int(alive["rank"].max() or 0)  # type: ignore[arg-type]
        nobody = np.zeros(absent.height, bool)
        decided = answer_leaders(
            rows.height,
            np.concatenate([alive["rank"].to_numpy(), np.arange(last + 1, last + 1 + absent.height)]),
            stars,
            threshold=self.settings.threshold,
            cap=self.settings.max_per_answer,
            pinned=np.concatenate([alive["pinned"].to_numpy(), nobody]),
            alive=np.concatenate([np.ones(alive.height, bool), nobody]),
        )
        dropped = np.flatnonzero(~decided.kept[: alive.height])
        ids = rows["id"]
        drops = pl.DataFrame(
            {
                "id": ids.gather(dropped),
                "witness": ids.gather(decided.witness[dropped]),
                "score": decided.score[dropped],
            }
        )
        dropped_rows = decisions(drops, action="drop", reason="repeated_answer", threshold=self.settings.threshold)
        return dropped_rows.with_columns(detail=sides_text(answer_score=pl.col("score")))


def sketch_answers(
    texts: Iterable[pl.Series],
    *,
    shingle: int,
    permutations: int,
    floor: float,
    min_words: int,
    seed: int = 1,
    progress: Progress | None = None,
) -> Sketches:
    """Sketches of answers, as `siftune.curation.dedup.minhash.sketch` makes them.

    Args:
        texts: batches of answers; positions count through all of them.
        shingle: words in a shingle.
        permutations: MinHash permutations.
        floor: the similarity that the bands are chosen for.
        min_words: shorter answers may repeat freely: they have no shingles.
        seed: of the permutations.
        progress: as there.
    """
    long_enough = (_blank_short(batch, min_words) for batch in texts)
    return sketch(long_enough, shingle=shingle, permutations=permutations, floor=floor, seed=seed, progress=progress)


def answer_stars(sketches: Sketches, *, floor: float, progress: Progress | None = None) -> Pairs:
    """Stars of equal answers and pairs of similar ones (see the module), sorted by (a, b).

    Args:
        sketches: of the answers.
        floor: the least similarity that is returned.
        progress: as in `siftune.curation.dedup.minhash.similar_pairs`.

    Raises:
        UserError: more comparisons would be needed than are affordable.
    """
    first = first_equal_set(sketches)
    is_first = first == np.arange(first.size)
    copies = np.flatnonzero(~is_first & (np.diff(sketches.offsets) > 0))
    between_classes = similar_pairs(sketches, floor=floor, rows=np.flatnonzero(is_first), progress=progress)
    return stars_of(first[copies], copies, between_classes)


def stars_of(first: NDArray[np.int64], copies: NDArray[np.int64], between_classes: Pairs) -> Pairs:
    """Stars of the `copies` of each `first` row of a class and pairs of such first rows, sorted by (a, b)."""
    a = np.concatenate([between_classes.a, first.astype(np.uint32)])
    b = np.concatenate([between_classes.b, copies.astype(np.uint32)])
    score = np.concatenate([between_classes.score, np.ones(copies.size)])
    order = np.lexsort((b, a))
    return Pairs(a[order], b[order], score[order])


def _blank_short(batch: pl.Series, min_words: int) -> pl.Series:
    short = word_count(pl.col("text").fill_null("")) < min_words
    return batch.to_frame("text").select(pl.when(short).then(pl.lit("")).otherwise("text").alias("text"))["text"]


def answer_leaders(
    n: int,
    rank: NDArray[np.integer],
    stars: Pairs,
    *,
    threshold: float,
    cap: int,
    pinned: NDArray[np.bool_] | None = None,
    alive: NDArray[np.bool_] | None = None,
) -> Leaders:
    """Greedy leaders, as `siftune.curation.dedup.leaders.leaders` decides on all pairs that the stars stand for.

    Args:
        n: number of rows that the pairs speak of; the first of a class must be among them, alive or not.
        rank: distinct numbers, [n]; the lowest is kept first.
        stars: what `answer_stars` returned.
        threshold: the least similarity of answers that count as the same.
        cap: how many rows may share an answer.
        pinned: bool [n], rows that must stay; default: none.
        alive: bool [n], rows that take part; default: all. Others come back as not kept, without a witness.
    """
    # Each row belongs to the class that is named by its first row.
    is_star = stars.score == 1.0
    answer_class = np.arange(n)
    answer_class[stars.b[is_star]] = stars.a[is_star]
    # Similar classes are filed under both of their names.
    similar = ~is_star & (stars.score >= threshold)
    classes = np.concatenate([stars.a[similar], stars.b[similar]]).astype(np.int64)
    others = np.concatenate([stars.b[similar], stars.a[similar]]).astype(np.int64)
    scores = np.tile(stars.score[similar], 2)
    order = np.argsort(classes, kind="stable")
    starts = np.searchsorted(classes[order], np.arange(n + 1))
    kept, witness, score = leaders_kernels.decide_classes(
        np.argsort(rank, kind="stable"),
        answer_class,
        starts,
        others[order],
        scores[order],
        cap,
        np.ones(n, np.bool_) if alive is None else alive,
        np.zeros(n, np.bool_) if pinned is None else pinned,
    )
    return Leaders(kept, witness, score, np.full(n, -1, np.int64), np.full(n, np.nan))
