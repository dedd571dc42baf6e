"""Rows that resemble examples of a task: every example in turn takes the row closest to it.

RDS+ (Ivison et al., Large-Scale Data Selection for Instruction Tuning, arXiv 2503.01807, algorithm 1): the examples
take turns, and each adds the row of the pool that it is most similar to among those that no example has taken yet. So
every example gets the same number of rows, and none can fill the choice with its own neighbourhood.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from siftune.curation.embeddings.cosine import lattice


def take_turns(
    pool: np.ndarray, examples: np.ndarray, count: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Choose `count` rows of the pool, the examples taking turns in their order.

    Similarities are compared on the lattice of `siftune.curation.embeddings.cosine`, so that ties (they go to the lower
    position) are the same on every machine. Memory: 4 bytes for each row and example.

    Args:
        pool: embeddings [n, d] of the rows.
        examples: embeddings [m, d] of the examples, at least one.
        count: how many rows, at most n.

    Returns:
        In the order in which they are taken, the positions of the rows and of the examples that take them, int64
        [count] each; and for every row of the pool the example that it is most similar to, int64 [n].
    """
    similar = lattice(examples) @ lattice(pool).T
    closest_example = similar.argmax(axis=0)
    chosen = np.empty(count, np.int64)
    for number in range(count):
        row = similar[number % len(similar)].argmax()
        similar[:, row] = -np.inf
        chosen[number] = row
    return chosen, np.arange(count) % len(similar), closest_example
