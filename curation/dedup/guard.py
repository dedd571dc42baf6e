"""The guard: rows that differ in a number, an operator, an identifier, a negation or a question are no duplicates."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from siftune.curation.corpus import Corpus
from siftune.curation.dedup.minhash import map_in_order
from siftune.curation.dedup.replaced_words import replaced_words
from siftune.curation.recipe.sections import GuardClass
from siftune.curation.row_features import RowFeatures, row_features
from siftune.curation.schema import Key
from siftune.curation.text import guard_tokens

_LONGEST_DETAIL = 240  # characters


def guard_hashes(
    corpus: Corpus, rows: NDArray[np.uint32], key: Key, classes: Sequence[GuardClass]
) -> NDArray[np.uint64] | None:
    """For each row a hash of its guarded tokens in order: uint64 [n]; None without a guard.

    Args:
        corpus: the texts.
        rows: ascending positions in EXAMPLES, [n].
        key: the compared text.
        classes: the classes of tokens that are guarded.
    """
    if not classes:
        return None
    hashed = guard_tokens.key_guard_hash(key, classes).alias("hash")

    def hash_rows(some: NDArray[np.uint32]) -> RowFeatures:
        frames = corpus.frames(["core", "answer"], some)
        hashes = list(map_in_order(lambda frame: frame.select(hashed)["hash"], frames))
        return RowFeatures.of_rows(hash=pl.concat(hashes).to_numpy() if hashes else np.empty(0, np.uint64))

    on = {"key": key, "classes": list(classes)}
    return row_features(corpus, rows, name="guard-hashes", settings=on, compute=hash_rows).by_row["hash"]


def add_guard_details(
    decisions: pl.DataFrame, corpus: Corpus, alive: pl.DataFrame, *, key: Key, classes: Sequence[GuardClass]
) -> pl.DataFrame:
    """DECISIONS, with "1.022 ≠ 1.032" added to the detail of every row that the guard kept.

    Where the guarded tokens are the same, the guard kept the row for its question: the differing words of the prompts.

    Args:
        decisions: DECISIONS on rows of `alive`.
        corpus: the texts; only those of guarded rows and of their witnesses are read.
        alive: INDEX.
        key: the compared text.
        classes: the classes of tokens that are guarded.
    """
    guarded = decisions.filter(pl.col("action") == "guard").select("id", "witness")
    if guarded.is_empty():
        return decisions
    # Read the guarded tokens of both rows of each pair.
    ids = pl.concat([guarded["id"], guarded["witness"]]).unique()
    rows = alive.filter(pl.col("id").is_in(ids.implode())).select("id", "row")
    token_lists = [
        frame.select("core", guard_tokens.key_guard_tokens(key, classes).alias("tokens"))
        for frame in corpus.frames(["core", "answer"], rows["row"].to_numpy())
    ]
    tokens = rows.select("id").hstack(pl.concat(token_lists))
    pairs = guarded.join(tokens, on="id", how="left", maintain_order="left").join(
        tokens, left_on="witness", right_on="id", how="left", maintain_order="left", suffix="_witness"
    )
    # Write down where they differ: in guarded tokens, else in the words of the prompts.
    token_pairs = list(pairs.select("tokens", "tokens_witness").iter_rows())
    same_tokens = pl.Series([list(tokens) == list(of_witness) for tokens, of_witness in token_pairs], dtype=pl.Boolean)
    words = iter(replaced_words(pairs.filter(same_tokens).select("core", "core_witness")))
    differences = [
        (next(words) if is_same else guard_tokens.guard_difference(tokens, of_witness))[:_LONGEST_DETAIL]
        for (tokens, of_witness), is_same in zip(token_pairs, same_tokens, strict=True)
    ]
    details = pl.DataFrame(
        {"id": guarded["id"], "action": "guard", "difference": pl.Series(differences, dtype=pl.String)},
        schema_overrides={"action": pl.String},
    )
    joined = decisions.join(details, on=["id", "action"], how="left", maintain_order="left")
    detail = pl.concat_str("detail", "difference", separator="; ", ignore_nulls=True)
    return joined.with_columns(detail=pl.when(detail != "").then(detail)).drop("difference")
