"""System prompts: a row with another one is another example, whatever else is alike."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
from numpy.typing import NDArray

from siftune.curation.corpus import Corpus
from siftune.curation.dedup.leaders import Pairs
from siftune.curation.row_features import RowFeatures, row_features
from siftune.curation.text.words import normalise


def system_hash() -> pl.Expr:
    """A hash of the system prompts of a row, over TEXTS."""
    return normalise(pl.col("system").fill_null("")).hash(0)


def same_system(corpus: Corpus, rows: NDArray[np.uint32], pairs: Pairs) -> Pairs:
    """The pairs of rows with the same system prompts, or without any.

    Args:
        corpus: the texts.
        rows: ascending positions in EXAMPLES, [n].
        pairs: positions in `rows`.
    """

    def hash_rows(some: NDArray[np.uint32]) -> RowFeatures:
        frames = corpus.frames(["system"], some)
        hashed = [frame.select(system_hash())["system"] for frame in frames]
        return RowFeatures.of_rows(hash=pl.concat([pl.Series("system", [], pl.UInt64), *hashed]).to_numpy())

    hashes = row_features(corpus, rows, name="system-hashes", settings={}, compute=hash_rows).by_row["hash"]
    same = hashes[pairs.a] == hashes[pairs.b]
    sides = None if pairs.sides is None else pairs.sides[same]
    return replace(pairs, a=pairs.a[same], b=pairs.b[same], score=pairs.score[same], sides=sides)
