"""Which texts can have a near neighbour at all, told from their words: cheap vectors before expensive ones.

Each text is a bag of words weighed by TF-IDF and projected at random onto 256 axes (Johnson and Lindenstrauss), so that
cosines of bags are kept to within some 0.06. A text whose closest neighbour shares next to no rare words with it has no
paraphrase among the others, as a rule; how often the rule fails is for the caller to measure.
"""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from curation.similarity import ngrams
from curation.similarity.neighbours import nearest

_AXES = 256
_SEED = 11
#: A paraphrase of cosine 0.9 by MiniLM shares at least this much. On 20,000 mixed instruction rows it leaves out a
#: third of the rows and 0.01 % of the pairs; on MBPP prompts paraphrased on purpose it leaves out some 4 % of them.
LEAST = 0.35


def partnered(texts: pl.Series, *, least: float = LEAST) -> NDArray[np.bool_]:
    """Whether each text has another with a cosine of word bags of at least `least`."""
    vectors = bags(ngrams.split(texts))
    places, cosines = nearest(vectors, vectors, k=2)
    others = places != np.arange(len(vectors))[:, None]
    return np.where(others, cosines, -1.0).max(axis=1, initial=-1.0) >= least


def bags(words: ngrams.Words) -> NDArray[np.float32]:
    """Word bags weighed by (1 + ln count) * ln((n + 1) / (texts with the word + 1)) and projected: float32 [n, 256]."""
    from scipy.sparse import csr_matrix

    vocabulary, column = np.unique(words.hashes, return_inverse=True)
    shape = (len(words.counts), len(vocabulary))
    counts = csr_matrix((np.ones(len(column), np.float32), column, words.offsets), shape=shape)
    counts.sum_duplicates()
    rarity = np.log((shape[0] + 1) / (np.bincount(counts.indices, minlength=shape[1]) + 1))
    counts.data = (1 + np.log(counts.data)) * rarity[counts.indices].astype(np.float32)
    axes = np.random.default_rng(_SEED).standard_normal((shape[1], _AXES), dtype=np.float32)
    projected: NDArray[np.float32] = np.asarray(counts @ axes, dtype=np.float32)
    return projected
