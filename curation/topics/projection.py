"""Two coordinates for each row: principal components, or PaCMAP."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from siftune.curation.embeddings.cosine import unit
from siftune.curation.errors import UserError, missing_extra

#: Decimals of a coordinate. What differs beyond them between numbers of threads is cut.
_DECIMALS = 5
_BLOCK_ROWS = 16_384
_FEWEST_ROWS = 10  # PaCMAP looks for so many neighbours


def principal_components(
    vectors: np.ndarray, moment: np.ndarray, total: np.ndarray
) -> tuple[NDArray[np.float32], float]:
    """The first two principal components of unit vectors, float32 [n, 2], and the share of the variance they hold.

    Signs are a convention: of each axis the loading that is largest in absolute value is positive, the first of equally
    large ones (scikit-learn's `svd_flip` on the components).

    Args:
        vectors: embeddings [n, d], any float type and length.
        moment: their second moment [d, d], see `siftune.curation.topics.diversity.second_moment`.
        total: their sum [d].
    """
    if not len(vectors):
        return np.zeros((0, 2), np.float32), 0.0
    mean = total / len(vectors)
    covariance = moment / len(vectors) - np.outer(mean, mean)
    values, axes = np.linalg.eigh(covariance)
    axes = axes[:, ::-1][:, :2]
    axes = axes * np.sign(axes[np.abs(axes).round(9).argmax(axis=0), np.arange(axes.shape[1])])
    points = np.zeros((len(vectors), 2))
    for start in range(0, len(vectors), _BLOCK_ROWS):
        block = unit(vectors[start : start + _BLOCK_ROWS]).astype(np.float64) - mean
        points[start : start + _BLOCK_ROWS, : axes.shape[1]] = block @ axes
    variance = float(np.trace(covariance))
    return points.round(_DECIMALS).astype(np.float32), float(values[-2:].sum()) / variance if variance > 0 else 0.0


def pacmap(vectors: np.ndarray, *, seed: int) -> NDArray[np.float32]:
    """PaCMAP of unit vectors, float32 [n, 2] (Wang et al. 2021, arXiv 2012.04456): neighbourhoods before distances.

    Args:
        vectors: embeddings [n, d], any float type and length.
        seed: of the first positions and of the sampled pairs.

    Raises:
        UserError: the package is not installed, or there are too few rows.
    """
    try:
        import pacmap as library
    except ImportError:
        raise missing_extra("pacmap", "map") from None
    if len(vectors) <= _FEWEST_ROWS:
        raise UserError(
            f"PaCMAP needs more than {_FEWEST_ROWS} rows; there are {len(vectors)}. Set `topics.projection: pca`."
        )
    points = library.PaCMAP(n_components=2, random_state=seed).fit_transform(unit(vectors))
    return np.asarray(points, np.float32)
