"""System prompts: a row with another one is another example, whatever else is alike."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
from numpy.typing import NDArray

from siftune.curation.corpus import Corpus
from siftune.curation.dedup.leaders import Pairs
from siftune.curation.text.words import normalise


def same_system(corpus: Corpus, rows: NDArray[np.uint32], pairs: Pairs) -> Pairs:
    """The pairs of rows with the same system prompts, or without any.

    Args:
        corpus: the texts.
        rows: ascending positions in EXAMPLES, [n].
        pairs: positions in `rows`.
    """
    frames = corpus.frames(["system"], rows)
    hashes = pl.concat(
        [
            pl.Series("system", [], pl.UInt64),
            *(frame.select(normalise(pl.col("system").fill_null("")).hash(0))["system"] for frame in frames),
        ]
    ).to_numpy()
    same = hashes[pairs.a] == hashes[pairs.b]
    sides = None if pairs.sides is None else pairs.sides[same]
    return replace(pairs, a=pairs.a[same], b=pairs.b[same], score=pairs.score[same], sides=sides)
