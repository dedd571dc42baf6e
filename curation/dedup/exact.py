"""Exact duplicates: rows whose normalised texts are the same."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import polars as pl
from numpy.typing import NDArray

from siftune.curation.corpus import Corpus
from siftune.curation.dedup.decisions import decisions, pairs_frame
from siftune.curation.dedup.leaders import Pairs
from siftune.curation.measurement import TEXT_COLUMNS, Knob, Measured
from siftune.curation.progress import Progress
from siftune.curation.recipe.recipe import Recipe
from siftune.curation.recipe.sections import SystemPrompts
from siftune.curation.row_features import RowFeatures, row_features
from siftune.curation.schema import Key
from siftune.curation.text.words import normalise

_SEPARATOR = "\x1e"


@dataclass(frozen=True)
class ExactDuplicates:
    """The same normalised text: the first in keep order stays. See `siftune.curation.stages.Stage` for the methods."""

    name: ClassVar[str] = "exact"
    title: ClassVar[str] = "Exact duplicates"
    knobs: ClassVar[tuple[Knob, ...]] = ()
    similarity: ClassVar[None] = None
    compares: Key
    system: SystemPrompts

    @classmethod
    def from_recipe(cls, recipe: Recipe, *, base: Path) -> Self | None:
        return cls(recipe.keys.duplicates, recipe.duplicates.system) if recipe.duplicates.exact else None

    def depends(self) -> dict[str, Any]:
        return {"key": self.compares, "system": self.system}

    def measure(self, corpus: Corpus, alive: pl.DataFrame, progress: Progress | None) -> Measured:
        # The full text, template included: rows that differ in a template only are not the same.
        compared = ["prompt", "answer"] if self.compares == "dialogue" else ["prompt"]
        text = apart(compared, self.system)
        sides = tuple(f"{side}_score" for side in compared)
        return Measured(
            equal_text_pairs(corpus, alive, text=text, measure=self.name, sides=sides, compared=self.depends())
        )

    def decide(self, alive: pl.DataFrame, measured: pl.DataFrame) -> pl.DataFrame:
        later = later_rows(alive, measured).filter(~pl.col("pinned"))
        decided = decisions(later, action="drop", reason="exact_duplicate", threshold=1.0)
        alike = "prompt 1.00, answer 1.00" if self.compares == "dialogue" else "prompt 1.00"
        return decided.with_columns(pl.lit(alike).alias("detail"))


def apart(sides: Sequence[str], system: SystemPrompts) -> pl.Expr:
    """A text that two rows share where each of these sides is equal, over TEXTS; empty where all of them are.

    The record separator between them is no white space, so that nothing moves from one side to another.

    Args:
        sides: columns of TEXTS.
        system: whether the system prompts must be equal too.
    """
    texts = [
        normalise(pl.col(side).fill_null("")) for side in ([*sides, "system"] if system == "distinguish" else sides)
    ]
    is_empty = pl.all_horizontal(text == "" for text in texts[: len(sides)])
    return pl.when(is_empty).then(pl.lit("")).otherwise(pl.concat_str(texts, separator=_SEPARATOR))


def text_hashes(texts: Iterable[pl.Series]) -> RowFeatures:
    """Two 64-bit hashes with independent seeds of each text, and whether it is `empty` (null is).

    Args:
        texts: batches of n texts in all, normalised by `siftune.curation.text.words.normalise`.
    """
    hashed = [
        batch.fill_null("")
        .to_frame("key")
        .select(first=pl.col("key").hash(11), second=pl.col("key").hash(29), empty=pl.col("key") == "")
        for batch in texts
    ]
    none = pl.DataFrame(schema={"first": pl.UInt64, "second": pl.UInt64, "empty": pl.Boolean})
    frame = pl.concat([none, *hashed])
    return RowFeatures.of_rows(**{name: frame[name].to_numpy() for name in frame.columns})


def first_equal_row(texts: Iterable[pl.Series]) -> NDArray[np.int64]:
    """For each row the position of the first row with the same text (itself if there is none before).

    Batches are read once and only 17 bytes a row are kept. For 10 million rows the chance that any two different texts
    share both hashes is below 1e-24. Empty and null texts are equal to none.

    Args:
        texts: as `text_hashes` takes them; positions count through all batches.

    Returns:
        int64 [n].
    """
    return _first_equal(text_hashes(texts))


def _first_equal(hashes: RowFeatures) -> NDArray[np.int64]:
    row = pl.int_range(pl.len(), dtype=pl.Int64)
    keyed = pl.DataFrame(hashes.by_row).with_columns(row=row, alone=pl.when("empty").then(row).otherwise(-1))
    return keyed.select(pl.col("row").min().over("first", "second", "alone"))["row"].to_numpy()


def equal_text_pairs(
    corpus: Corpus,
    alive: pl.DataFrame,
    *,
    text: pl.Expr,
    measure: str,
    sides: tuple[str, ...] = ("prompt_score",),
    compared: dict[str, Any] | None = None,
) -> pl.DataFrame:
    """PAIRS of each row with the first row of the same text: a star for each family of rows, not a clique.

    Args:
        corpus: the texts.
        alive: INDEX of the rows to compare.
        text: the compared text, normalised, as an expression over TEXTS.
        measure: the name of the stage.
        sides: the columns of PAIRS for the sides that the text holds.
        compared: what `text` depends on besides the rows, where its hashes are to be stored for later runs.
    """

    def hash_rows(some: NDArray[np.uint32]) -> RowFeatures:
        frames = corpus.frames(TEXT_COLUMNS, some)
        return text_hashes(frame.select(text.alias("text"))["text"] for frame in frames)

    rows = alive["row"].to_numpy()
    if corpus.cluster is not None:
        first, later = corpus.cluster.equal_texts(rows, text)
    else:
        if compared is None:
            hashes = hash_rows(rows)
        else:
            hashes = row_features(corpus, rows, name=f"{measure}-hashes", settings=compared, compute=hash_rows)
        first = _first_equal(hashes)
        later = np.flatnonzero(first != np.arange(alive.height))
        first = first[later]
    star = Pairs(first.astype(np.uint32), later.astype(np.uint32), np.ones(len(later)))
    return pairs_frame(alive, star, measure=measure, sides=sides)


def later_rows(alive: pl.DataFrame, stars: pl.DataFrame) -> pl.DataFrame:
    """The rows of every family but its first one in keep order.

    Args:
        alive: INDEX.
        stars: what `equal_text_pairs` returned for these rows or more.

    Returns:
        The columns of INDEX, `witness` (the first row of the family that is alive) and `score` (1).
    """
    members = pl.concat(
        [
            stars.select(pl.col("a").alias("id"), pl.col("a").alias("family")),
            stars.select(pl.col("b").alias("id"), pl.col("a").alias("family")),
        ]
    ).unique()
    ordered = members.join(alive, on="id", how="inner").sort("rank")
    witness = pl.col("id").first().over("family").alias("witness")
    return ordered.with_columns(witness, score=pl.lit(1.0)).filter(pl.col("id") != pl.col("witness")).sort("row")
