"""From pairs of rows to decisions: positions to ids and back, and greedy leaders as DECISIONS."""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from siftune.curation import schema
from siftune.curation.dedup.leaders import Pairs, leaders


def pairs_frame(
    alive: pl.DataFrame,
    pairs: Pairs,
    *,
    measure: str,
    guard: NDArray[np.uint64] | None = None,
    another_task: NDArray[np.bool_] | None = None,
    sides: tuple[str, ...] = ("prompt_score",),
) -> pl.DataFrame:
    """PAIRS with the ids of the compared rows in place of their positions.

    Args:
        alive: INDEX of the n rows that were compared.
        pairs: positions in `alive`.
        measure: the name of the stage.
        guard: for each row the hash of its guarded tokens, uint64 [n]; pairs with two different hashes are marked as
            guarded. None: no pair is guarded.
        another_task: pairs that are guarded in any case, bool [m].
        sides: the columns of the sides that the score speaks of, where `pairs` does not hold one for each.
    """
    guarded = np.zeros(len(pairs), bool) if guard is None else guard[pairs.a] != guard[pairs.b]
    if another_task is not None:
        guarded |= another_task
    if pairs.sides is None:
        side_scores = dict.fromkeys(sides, pairs.score)
    else:
        side_scores = {"prompt_score": pairs.sides[:, 0], "answer_score": pairs.sides[:, 1]}
    ids = alive["id"]
    columns = pl.DataFrame(
        {
            "a": ids.gather(pairs.a),
            "b": ids.gather(pairs.b),
            "measure": pl.Series([measure], dtype=pl.String).new_from_index(0, len(pairs)),
            "score": pairs.score,
            **side_scores,
            "guarded": guarded,
        }
    )
    return schema.conform(columns, schema.PAIRS)


def pair_positions(alive: pl.DataFrame, pairs: pl.DataFrame) -> tuple[Pairs, NDArray[np.bool_]]:
    """PAIRS between rows that are alive, as positions in `alive` (a < b), and for each whether it is guarded, bool [m].

    Pairs with a row that is not alive are left out.
    """
    position = alive.select("id").with_row_index("position")
    joined = pairs.join(position.rename({"id": "a", "position": "from"}), on="a", how="inner", maintain_order="left")
    joined = joined.join(position.rename({"id": "b", "position": "to"}), on="b", how="inner", maintain_order="left")
    positions = Pairs(joined["from"].to_numpy(), joined["to"].to_numpy(), joined["score"].to_numpy())
    return positions, joined["guarded"].to_numpy()


def leader_decisions(alive: pl.DataFrame, measured: pl.DataFrame, *, threshold: float, reason: str) -> pl.DataFrame:
    """DECISIONS of greedy leaders: who is dropped for whom, and who would have been but for the guard.

    Args:
        alive: INDEX.
        measured: PAIRS of these rows or more.
        threshold: rows at least this similar are duplicates.
        reason: the reason of the drops.
    """
    pairs, guarded = pair_positions(alive, measured)
    decided = leaders(
        alive.height,
        alive["rank"].to_numpy(),
        pairs,
        threshold=threshold,
        guarded=guarded,
        pinned=alive["pinned"].to_numpy(),
    )
    ids = alive["id"]
    dropped = np.flatnonzero(~decided.kept)
    spared = np.flatnonzero(decided.kept & (decided.guard_witness >= 0))
    drops = pl.DataFrame(
        {"id": ids.gather(dropped), "witness": ids.gather(decided.witness[dropped]), "score": decided.score[dropped]}
    )
    guards = pl.DataFrame(
        {
            "id": ids.gather(spared),
            "witness": ids.gather(decided.guard_witness[spared]),
            "score": decided.guard_score[spared],
        }
    )
    decided_rows = pl.concat(
        [
            decisions(drops, action="drop", reason=reason, threshold=threshold),
            decisions(guards, action="guard", reason="differs_in_guarded_tokens", threshold=threshold),
        ]
    )
    return with_side_scores(decided_rows, measured)


def with_side_scores(decided: pl.DataFrame, measured: pl.DataFrame) -> pl.DataFrame:
    """DECISIONS with "prompt 0.97, answer 1.00" as the detail: how alike each row and its witness are on each side.

    Args:
        decided: DECISIONS with witnesses.
        measured: PAIRS that hold each row beside its witness; others keep their detail.
    """
    pairs = schema.conform(measured, schema.PAIRS).select("a", "b", "prompt_score", "answer_score")
    with_witness = decided.select("id", "witness").unique()
    scores = pl.concat(
        pairs.join(with_witness, left_on=[one, two], right_on=["id", "witness"], how="semi").select(
            pl.col(one).alias("id"), pl.col(two).alias("witness"), "prompt_score", "answer_score"
        )
        for one, two in (("a", "b"), ("b", "a"))
    ).with_columns(sides=sides_text(prompt_score=pl.col("prompt_score"), answer_score=pl.col("answer_score")))
    joined = decided.join(scores, on=["id", "witness"], how="left", maintain_order="left")
    return joined.with_columns(detail=pl.coalesce("detail", "sides")).select(decided.columns)


def sides_text(**scores: pl.Expr) -> pl.Expr:
    """ "prompt 0.97, answer 1.00" from `prompt_score` and `answer_score`: two digits, cut and not rounded.

    A score that is null is left out; null where there is none.
    """
    parts = []
    for name, score in scores.items():
        hundredths = (score * 100 + 1e-6).floor().cast(pl.Int64)
        digits = (hundredths % 100).cast(pl.String).str.zfill(2)
        parts.append(pl.format(name.removesuffix("_score") + " {}.{}", hundredths // 100, digits))
    text = pl.concat_str(parts, separator=", ", ignore_nulls=True)
    return pl.when(text != "").then(text)


def decisions(frame: pl.DataFrame, *, action: schema.Action, reason: str, threshold: float) -> pl.DataFrame:
    """DECISIONS of one action and reason.

    Args:
        frame: id, witness and score of the rows.
        action: what is done with them.
        reason: why.
        threshold: the threshold that the scores were compared with.
    """
    columns = frame.with_columns(
        pl.lit(action).alias("action"), pl.lit(reason).alias("reason"), pl.lit(threshold, pl.Float64).alias("threshold")
    )
    return schema.conform(columns, schema.DECISIONS)
