"""What stages have in common: from positions to ids and back, greedy leaders, families of equal texts."""

from __future__ import annotations

import numpy as np
import polars as pl

from siftune.curation import schema
from siftune.curation.corpus import Corpus
from siftune.curation.dedup import exact
from siftune.curation.dedup.leaders import Pairs, leaders
from siftune.curation.dedup.minhash import in_order
from siftune.curation.measurement import TEXT_COLUMNS
from siftune.curation.recipe.sections import GuardClass
from siftune.curation.schema import Key
from siftune.curation.text import words as text


def guard_hashes(corpus: Corpus, rows: np.ndarray, key: Key, classes: tuple[GuardClass, ...]) -> np.ndarray | None:
    """For each row a hash (uint64) of its guarded tokens in order, or None without a guard."""
    if not classes:
        return None
    hashed = text.key_guard_hash(key, classes).alias("hash")
    frames = corpus.frames(["core", "answer"], rows)
    hashes = list(in_order(lambda frame: frame.select(hashed)["hash"], frames))
    return pl.concat(hashes).to_numpy() if hashes else np.empty(0, np.uint64)


def as_pairs(alive: pl.DataFrame, found: Pairs, *, measure: str, guard: np.ndarray | None) -> pl.DataFrame:
    """PAIRS with the ids of the compared rows in place of their positions."""
    guarded = np.zeros(len(found.a), bool) if guard is None else guard[found.a] != guard[found.b]
    ids = alive["id"]
    return pl.DataFrame(
        {
            "a": ids.gather(found.a),
            "b": ids.gather(found.b),
            "measure": pl.Series([measure], dtype=pl.String).new_from_index(0, len(found.a)),
            "score": found.score,
            "guarded": guarded,
        },
        schema=schema.PAIRS,
    )


def positions(alive: pl.DataFrame, pairs: pl.DataFrame) -> tuple[Pairs, np.ndarray]:
    """PAIRS between rows that are alive, as positions in `alive` (a < b), and whether each is guarded."""
    place = alive.select("id").with_row_index("at")
    joined = pairs.join(place.rename({"id": "a", "at": "from"}), on="a", how="inner", maintain_order="left").join(
        place.rename({"id": "b", "at": "to"}), on="b", how="inner", maintain_order="left"
    )
    found = Pairs(joined["from"].to_numpy(), joined["to"].to_numpy(), joined["score"].to_numpy())
    return found, joined["guarded"].to_numpy()


def lead(alive: pl.DataFrame, measured: pl.DataFrame, *, threshold: float, reason: str) -> pl.DataFrame:
    """DECISIONS of greedy leaders: who is dropped for whom, and who would have been but for the guard."""
    found, guarded = positions(alive, measured)
    led = leaders(
        alive.height,
        alive["rank"].to_numpy(),
        found,
        threshold=threshold,
        guarded=guarded,
        pinned=alive["pinned"].to_numpy(),
    )
    ids = alive["id"]
    dropped = np.flatnonzero(~led.kept)
    spared = np.flatnonzero(led.kept & (led.guard_witness >= 0))
    frames = [
        told(ids, dropped, led.witness, led.score, action="drop", reason=reason, threshold=threshold),
        told(
            ids,
            spared,
            led.guard_witness,
            led.guard_score,
            action="guard",
            reason="differs_in_guarded_tokens",
            threshold=threshold,
        ),
    ]
    return pl.concat(frames)


def told(
    ids: pl.Series,
    at: np.ndarray,
    witness: np.ndarray,
    score: np.ndarray,
    *,
    action: str,
    reason: str,
    threshold: float,
) -> pl.DataFrame:
    """DECISIONS on the rows at the positions `at`, each with its witness (a position) and score."""
    frame = pl.DataFrame({"id": ids.gather(at), "witness": ids.gather(witness[at]), "score": score[at]})
    return decisions(frame, action=action, reason=reason, threshold=threshold)


def decisions(
    frame: pl.DataFrame, *, action: str, reason: str, threshold: float, score: float | None = None
) -> pl.DataFrame:
    """`frame` (id, witness, and score unless it is given) as DECISIONS of one action and reason."""
    said = frame.with_columns(
        pl.lit(action).alias("action"),
        pl.lit(reason).alias("reason"),
        pl.lit(threshold, pl.Float64).alias("threshold"),
        pl.lit(None, pl.String).alias("detail"),
    )
    return schema.conform(said if score is None else said.with_columns(pl.lit(score).alias("score")), schema.DECISIONS)


def same_text(corpus: Corpus, alive: pl.DataFrame, *, expression: pl.Expr, measure: str) -> pl.DataFrame:
    """PAIRS of each row with the first row of the same normalised text: a star a family, not a clique."""
    frames = corpus.frames(TEXT_COLUMNS, alive["row"].to_numpy())
    first = exact.groups(frame.select(expression.alias("text"))["text"] for frame in frames)
    later = np.flatnonzero(first != np.arange(alive.height))
    star = Pairs(first[later].astype(np.uint32), later.astype(np.uint32), np.ones(len(later)))
    return as_pairs(alive, star, measure=measure, guard=None)


def whole(key: Key) -> pl.Expr:
    """The whole compared text, template included: what rows of one text have in common."""
    prompt = pl.col("prompt")
    return pl.concat_str([prompt, pl.col("answer")], separator="\n") if key == "dialogue" else prompt


def families(alive: pl.DataFrame, stars: pl.DataFrame) -> pl.DataFrame:
    """INDEX columns of the rows in a family, in keep order, with the family's first in keep order as `witness`."""
    members = pl.concat(
        [
            stars.select(pl.col("a").alias("id"), pl.col("a").alias("family")),
            stars.select(pl.col("b").alias("id"), pl.col("a").alias("family")),
        ]
    ).unique()
    here = members.join(alive, on="id", how="inner").sort("rank")
    return here.with_columns(pl.col("id").first().over("family").alias("witness")).sort("row")
