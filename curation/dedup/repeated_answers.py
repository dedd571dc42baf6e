"""The same answer, exactly or nearly, under many different prompts; there is no guard here.

Ten thousand copies of one answer must cost nothing, so answers with the same shingles are one class. What is stored
are *stars*: each row of a class is paired with the class's first row, score 1.0, and first rows of different classes
are paired where their similarity (then below 1.0) reaches the floor. `decide` completes the stars, so it decides as
all pairs would have, at every threshold from the floor on.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import polars as pl
from numpy.typing import NDArray

from siftune.curation.dedup import leaders_kernels as kernels_leaders
from siftune.curation.dedup.leaders import Leaders, Pairs
from siftune.curation.dedup.minhash import distinct, similar_pairs, sketch
from siftune.curation.progress import Progress
from siftune.curation.text.words import word_count


def pairs(
    texts: Iterable[pl.Series],
    *,
    shingle: int,
    permutations: int,
    floor: float,
    min_words: int,
    seed: int = 1,
    progress: Progress | None = None,
) -> Pairs:
    """Stars of equal answers and pairs of similar ones, sorted; see the module and `measures.near.pairs`.

    Args:
        texts: batches of answers; positions count through all of them.
        min_words: shorter answers may repeat freely and are in no pair.

    Raises:
        UserError: more comparisons would be needed than are affordable.
    """
    long = (_blank_short(batch, min_words) for batch in texts)
    sketches = sketch(long, shingle=shingle, permutations=permutations, floor=floor, seed=seed, progress=progress)
    first = distinct(sketches)
    head = first == np.arange(first.size)
    copies = np.flatnonzero(~head & (np.diff(sketches.offsets) > 0))
    among = similar_pairs(sketches, floor=floor, rows=np.flatnonzero(head), progress=progress)
    a = np.concatenate([among.a, first[copies].astype(np.uint32)])
    b = np.concatenate([among.b, copies.astype(np.uint32)])
    score = np.concatenate([among.score, np.ones(copies.size)])
    order = np.lexsort((b, a))
    return Pairs(a[order], b[order], score[order])


def _blank_short(batch: pl.Series, min_words: int) -> pl.Series:
    short = word_count(pl.col("text").fill_null("")) < min_words
    return batch.to_frame("text").select(pl.when(short).then(pl.lit("")).otherwise("text").alias("text"))["text"]


def decide(
    n: int,
    rank: NDArray[np.integer],
    pairs: Pairs,
    *,
    threshold: float,
    cap: int,
    pinned: NDArray[np.bool_] | None = None,
    alive: NDArray[np.bool_] | None = None,
) -> Leaders:
    """Greedy leaders, as `siftune.curation.dedup.leaders.leaders` decides on all pairs of which `pairs` holds the stars.

    Args:
        n: number of rows that the pairs speak of; the first of a class must be among them, alive or not.
        rank: distinct numbers, [n]; the lowest is kept first.
        pairs: what `pairs` returned.
        threshold: the least similarity of answers that count as the same.
        cap: how many rows may share an answer.
        pinned: for each row whether it must stay; default: none.
        alive: for each row whether it takes part; default: all. Others come back as not kept, without a witness.
    """
    star = pairs.score == 1.0
    kind = np.arange(n)
    kind[pairs.b[star]] = pairs.a[star]
    near = ~star & (pairs.score >= threshold)
    ends = np.concatenate([pairs.a[near], pairs.b[near]]).astype(np.int64)
    others = np.concatenate([pairs.b[near], pairs.a[near]]).astype(np.int64)
    scores = np.tile(pairs.score[near], 2)
    filed = np.argsort(ends, kind="stable")
    starts = np.searchsorted(ends[filed], np.arange(n + 1))
    kept, witness, best = kernels_leaders.decide_classes(
        np.argsort(rank, kind="stable"),
        kind,
        starts,
        others[filed],
        scores[filed],
        cap,
        np.ones(n, np.bool_) if alive is None else alive,
        np.zeros(n, np.bool_) if pinned is None else pinned,
    )
    return Leaders(kept, witness, best, np.full(n, -1, np.int64), np.full(n, np.nan))
