"""What the guard saw: the tokens in which a row that it kept differs from the row that it resembles."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from siftune.curation.corpus import Corpus
from siftune.curation.recipe.sections import GuardClass
from siftune.curation.schema import Key
from siftune.curation.text import words as text

_LONGEST = 240


def spell(
    decisions: pl.DataFrame, corpus: Corpus, alive: pl.DataFrame, *, key: Key, classes: Sequence[GuardClass]
) -> pl.DataFrame:
    """DECISIONS on rows of `alive` (INDEX), with "1.022 ≠ 1.032" as the detail of every row that the guard kept.

    Only the texts of these rows and of their witnesses are read.
    """
    kept = decisions.filter(pl.col("action") == "guard").select("id", "witness")
    if kept.is_empty():
        return decisions
    tokens = _tokens(corpus, alive, pl.concat([kept["id"], kept["witness"]]), key=key, classes=classes)
    both = kept.join(tokens, on="id", how="left", maintain_order="left").join(
        tokens, left_on="witness", right_on="id", how="left", maintain_order="left", suffix="_witness"
    )
    said = [
        text.guard_difference(mine, other)[:_LONGEST]
        for mine, other in both.select("tokens", "tokens_witness").iter_rows()
    ]
    spelled = pl.DataFrame(
        {"id": kept["id"], "action": "guard", "said": pl.Series(said, dtype=pl.String)},
        schema_overrides={"action": pl.String},
    )
    joined = decisions.join(spelled, on=["id", "action"], how="left", maintain_order="left")
    return joined.with_columns(pl.coalesce("said", "detail").alias("detail")).drop("said")


def _tokens(
    corpus: Corpus, alive: pl.DataFrame, ids: pl.Series, *, key: Key, classes: Sequence[GuardClass]
) -> pl.DataFrame:
    """Columns id and tokens (a list of strings) of the named rows."""
    rows = alive.filter(pl.col("id").is_in(ids.unique().implode())).select("id", "row")
    lists = [
        frame.select(text.key_guard_tokens(key, classes).alias("tokens"))
        for frame in corpus.frames(["core", "answer"], rows["row"].to_numpy())
    ]
    return rows.select("id").hstack(pl.concat(lists))
