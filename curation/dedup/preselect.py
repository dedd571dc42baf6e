"""Which texts are likely to have a near neighbour, by their words: cheap vectors before expensive ones.

Each text is a bag of words weighed by TF-IDF and projected at random onto 128 axes (Johnson and Lindenstrauss), so that
cosines of bags are kept to within some 0.09. The fewer rare words a text shares with its closest neighbour, the less
likely it has a paraphrase among the others. How much less differs from set to set, so there is no threshold here: the
caller goes down the order and measures when to stop.
"""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from siftune.curation.embeddings.cosine import SCALE, lattice
from siftune.curation.text import ngrams

_AXES = 128
_SEED = 11
#: Tuning: rows on each side of a block. No result depends on it.
BLOCK_ROWS = 1024


def overlaps(texts: pl.Series) -> NDArray[np.float32]:
    """The cosine of each text's word bag with the closest other one: float32 [n], the same with any block or thread.

    0 for a text without words that are rare or shared, -1 for a text that is the only one.
    """
    vectors = lattice(bags(ngrams.split_words(texts)))
    best = np.full(len(vectors), -(SCALE**2), dtype=np.float32)
    for top in range(0, len(vectors), BLOCK_ROWS):
        for left in range(top, len(vectors), BLOCK_ROWS):
            rows, columns = slice(top, top + BLOCK_ROWS), slice(left, left + BLOCK_ROWS)
            product = vectors[rows] @ vectors[columns].T
            if top == left:
                np.fill_diagonal(product, -(SCALE**2))
            best[rows] = np.maximum(best[rows], product.max(axis=1))
            best[columns] = np.maximum(best[columns], product.max(axis=0))
    return best / np.float32(SCALE**2)


def bags(words: ngrams.TokenLists) -> NDArray[np.float32]:
    """Word bags weighed by (1 + ln count) * ln((n + 1) / (texts with the word + 1)) and projected: float32 [n, 128]."""
    from scipy.sparse import csr_matrix

    hashes = pl.Series("hash", words.hashes)
    vocabulary = hashes.unique().sort().to_frame().with_row_index("column")
    column = hashes.to_frame().join(vocabulary, on="hash", how="left", maintain_order="left")["column"].to_numpy()
    shape = (len(words.counts), len(vocabulary))
    counts = csr_matrix((np.ones(len(column), np.float32), column, words.offsets), shape=shape)
    counts.sum_duplicates()
    rarity = np.log((shape[0] + 1) / (np.bincount(counts.indices, minlength=shape[1]) + 1))
    counts.data = (1 + np.log(counts.data)) * rarity[counts.indices].astype(np.float32)
    axes = np.random.default_rng(_SEED).standard_normal((shape[1], _AXES), dtype=np.float32)
    projected: NDArray[np.float32] = np.asarray(counts @ axes, dtype=np.float32)
    return projected
