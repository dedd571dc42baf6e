"""Cosines that do not depend on block sizes or threads.

Floating-point sums change with their order, and a matrix product may sum in any. So vectors are either put on a lattice
on which float32 products are exact, or pairs that matter are computed again, one by one, in float64.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from siftune.curation.errors import UserError

#: Lattice points per unit. By Cauchy-Schwarz every partial sum of a product of two lattice vectors is below
#: (SCALE + sqrt(d) / 2)**2, which is below 2**24 for d <= 8,000: float32 holds it exactly, whatever the order.
SCALE = 4000
_MOST_DIMENSIONS = 8000
_CHUNK_PAIRS = 100_000


def unit(vectors: np.ndarray) -> NDArray[np.float32]:
    """Vectors (float [n, d]) scaled to length 1: float32 [n, d]; a zero vector stays zero."""
    full: NDArray[np.float32] = vectors.astype(np.float32)
    norms = np.sqrt((full * full).sum(axis=1, keepdims=True))
    norms[norms == 0] = np.inf
    return full / norms


def lattice(vectors: np.ndarray) -> NDArray[np.float32]:
    """Vectors (float [n, d]) at length 1, rounded to multiples of 1 / SCALE and scaled up: float32 [n, d] of integers.

    A dot product of two of them is their cosine times SCALE squared, to within 0.001 or so, and exactly the same on
    every machine.

    Raises:
        UserError: vectors have more dimensions than can be summed exactly.
    """
    if vectors.shape[1] > _MOST_DIMENSIONS:
        raise UserError(
            f"These embeddings have {vectors.shape[1]:,} dimensions; at most {_MOST_DIMENSIONS:,} can be compared "
            "exactly. Set `encoder:` to a model with fewer."
        )
    return np.rint(unit(vectors) * np.float32(SCALE))


def cosines(left: np.ndarray, right: np.ndarray, a: np.ndarray, b: np.ndarray) -> NDArray[np.float64]:
    """The cosine of left[a[i]] and right[b[i]] for each i, in float64; 0 where a vector is zero.

    Args:
        left: float [n, d].
        right: float [m, d].
        a: rows of `left`, integers [p].
        b: rows of `right`, integers [p].

    Returns:
        float64 [p]. Each is computed by itself, so no other pair of the call can change it.
    """
    scores = np.zeros(len(a))
    for start in range(0, len(a), _CHUNK_PAIRS):
        part = slice(start, start + _CHUNK_PAIRS)
        one, two = left[a[part]].astype(np.float64), right[b[part]].astype(np.float64)
        norms = np.sqrt((one * one).sum(axis=1) * (two * two).sum(axis=1))
        scores[part] = (one * two).sum(axis=1) / np.where(norms > 0, norms, np.inf)
    return scores
