"""One number for the diversity of a set of rows: the Vendi score of the embeddings of their prompts."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from siftune.curation.embeddings.cosine import SCALE, lattice

_BLOCK_ROWS = 16_384


def second_moment(vectors: np.ndarray) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sums over rows of the outer product of each unit vector with itself, float64 [d, d], and of the vectors [d].

    `vectors` are embeddings [n, d] of any float type. They are rounded to the lattice of
    `siftune.curation.embeddings.cosine`: sums of its whole numbers are exact in float64 (below 2**53 for 5e8 rows), so
    they depend on no order and no number of threads.
    """
    d = vectors.shape[1]
    moment, total = np.zeros((d, d)), np.zeros(d)
    for start in range(0, len(vectors), _BLOCK_ROWS):
        block = lattice(vectors[start : start + _BLOCK_ROWS]).astype(np.float64)
        moment += block.T @ block
        total += block.sum(axis=0)
    return moment / SCALE**2, total / SCALE


def vendi_score(moment: np.ndarray) -> float:
    """The Vendi score of n rows from their second moment [d, d]: between 1 (all rows alike) and min(n, d).

    exp(−Σ λ log λ) over the eigenvalues λ of K / n, with K the cosines of all pairs of rows (Friedman and Dieng 2023,
    arXiv 2210.02410, definition 3.1: the effective number of different rows). K = X Xᵀ has the same eigenvalues above 0
    as Xᵀ X (their section 3.3), which is the second moment. It is divided by its trace, so rows with a zero vector (no
    text) do not count. 0 without rows.
    """
    trace = float(np.trace(moment))
    if trace <= 0:
        return 0.0
    eigenvalues = np.linalg.eigvalsh(moment / trace)
    positive = eigenvalues[eigenvalues > 1e-12]
    return float(np.exp(-(positive * np.log(positive)).sum()))
