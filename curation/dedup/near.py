"""Near duplicates: pairs of rows by the Jaccard similarity of their word shingles, found by MinHash LSH and verified.

The rule for short texts: a text with fewer words than a shingle has one shingle, all of its words, so two such texts
are the same or have nothing in common. A text without any word has one, its normal form. An empty text is similar to
nothing.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import polars as pl
from numpy.typing import NDArray

from siftune.curation.dedup.leaders import Pairs
from siftune.curation.dedup.minhash import bands, similar_pairs, sketch
from siftune.curation.progress import Progress

__all__ = ["Pairs", "bands", "pairs"]


def pairs(
    texts: Iterable[pl.Series],
    *,
    shingle: int,
    permutations: int,
    floor: float,
    guard: NDArray[np.uint64] | None = None,
    seed: int = 1,
    progress: Progress | None = None,
) -> Pairs:
    """All pairs of rows whose Jaccard similarity is at least `floor`; expected recall >= 0.99 at the floor itself.

    Scores are exact. Memory: 8 bytes for each shingle, 4 bytes for each row and band, and the pairs.

    Args:
        texts: batches of the compared texts; positions count through all of them.
        shingle: words in a shingle.
        permutations: MinHash permutations.
        floor: the least similarity that is returned.
        guard: a hash of the protected tokens of each row. Pairs whose hashes differ may then be missing where more
            than a thousand rows share a bucket: they cannot decide anything.
        seed: of the permutations, as in datasketch.
        progress: called with ("sketching", rows, 0), then ("comparing", bands done, bands).

    Raises:
        UserError: more comparisons would be needed than are affordable.
    """
    sketches = sketch(texts, shingle=shingle, permutations=permutations, floor=floor, seed=seed, progress=progress)
    return similar_pairs(sketches, floor=floor, guard=guard, progress=progress)
