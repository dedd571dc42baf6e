"""RDS+ against algorithm 1 of its paper, written with lists."""

from __future__ import annotations

import hypothesis
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from siftune.curation.embeddings.cosine import lattice
from siftune.curation.selection.round_robin import take_turns

vectors = st.lists(st.tuples(*[st.integers(-2, 2)] * 3), min_size=1, max_size=18)


@hypothesis.settings(max_examples=60)
@given(vectors, vectors, st.data())
def test_every_example_takes_its_closest_row_in_turn(pool, examples, data):
    count = data.draw(st.integers(1, len(pool)))
    rows, asked = (lattice(np.asarray(one, np.float16)).astype(int).tolist() for one in (pool, examples))
    similar = [[sum(x * y for x, y in zip(a, b, strict=True)) for b in rows] for a in asked]
    taken: list[tuple[int, int]] = []
    while len(taken) < count:
        for example in range(len(asked)):
            free = [row for row in range(len(rows)) if row not in [one for one, _ in taken]]
            if free and len(taken) < count:
                taken.append((max(free, key=lambda row: (similar[example][row], -row)), example))

    chosen, for_example, closest = take_turns(np.asarray(pool, np.float16), np.asarray(examples, np.float16), count)
    assert list(zip(chosen.tolist(), for_example.tolist(), strict=True)) == taken
    for row, example in enumerate(closest.tolist()):
        assert similar[example][row] == max(of_example[row] for of_example in similar)
