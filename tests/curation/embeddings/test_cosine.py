"""The lattice on which dot products are exact."""

from __future__ import annotations

import numpy as np

from siftune.curation.embeddings.cosine import lattice


def test_lattice_products_are_whole_numbers_that_float32_holds():
    points_ = lattice(np.random.default_rng(0).normal(size=(400, 384)).astype(np.float16))
    exact = points_.astype(np.int64) @ points_.astype(np.int64).T
    assert (points_ @ points_.T == exact).all()
    assert exact.max() < 2**24
    assert np.abs(exact / exact.diagonal().mean() - np.eye(400)).max() < 1.01
