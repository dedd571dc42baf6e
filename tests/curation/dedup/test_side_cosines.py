"""Semantic pairs side by side: what the encoder would not have read, what many prompts share, and a plain oracle."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from siftune.curation.dedup.leaders import Pairs
from siftune.curation.dedup.side_cosines import least_best_match, side_scores, with_sides


class EightWords:
    """Counts words, of the first eight only; reads longer texts in windows of eight."""

    def __init__(self) -> None:
        self.encoded: list[str] = []

    def windows(self, texts: Sequence[str]) -> list[list[str]]:
        return [[" ".join(text.split()[at : at + 8]) for at in range(0, len(text.split()), 8)] for text in texts]

    def embed(self, texts: Sequence[str], *, progress: object = None) -> np.ndarray:
        self.encoded += texts
        vectors = np.zeros((len(texts), 96), np.float16)
        for row, text in enumerate(texts):
            for word in text.lower().split()[:8]:
                vectors[row, zlib.crc32(word.encode()) % 96] += 1
        return vectors


PLACES = ("garden", "river", "castle", "forest")
STORY = " ".join(f"In the {name} there was a stone that nobody knew." for name in PLACES)


@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [
        ("the silver river", "the silver river", True),
        ("a stone in the river", "In the river, a stone", False),  # a comma is a word of this encoder
        ("a stone in the river", "in the river a stone", True),
        # One question about a story against another; the story is longer than a window, and the same.
        (f"{STORY}\nWho came home?", f"{STORY}\nWhat broke there?", False),
        (f"{STORY}\nWho came home?", f"{STORY}\n\nwho came home?", True),
        # A last paragraph that only one of the texts has.
        (STORY, STORY + " " + " ".join(f"word{n}" for n in range(16)), False),
        ("", "", True),
        ("", "the river", False),
    ],
)
def test_a_side_is_alike_where_all_of_it_is(one: str, other: str, alike: bool) -> None:
    assert (side_scores([(one, other)], EightWords())[0] >= 0.95) == alike
    assert (side_scores([(other, one)], EightWords())[0] >= 0.95) == alike


def test_only_what_distinguishes_is_encoded_and_answers_only_where_prompts_are_alike() -> None:
    reader = EightWords()
    rows = pl.DataFrame(
        {
            "core": [f"{STORY} Who came?", f"{STORY} What broke?", f"{STORY} came? who"],
            "answer": ["river stone", "river stone", "stone river"],
        }
    )
    pairs = Pairs(np.array([0, 0], np.uint32), np.array([1, 2], np.uint32), np.array([0.99, 0.99]))
    result = with_sides(pairs, [rows[:1], rows[1:]], reader, floor=0.9)
    assert (result.a.tolist(), result.b.tolist()) == ([0], [2])
    assert result.sides is not None
    assert result.sides.tolist() == pytest.approx(np.ones((1, 2)), abs=1e-3)
    assert set(reader.encoded) == {"Who came?", "What broke?", "came? who", "river stone", "stone river"}


VECTORS = st.integers(1, 5).flatmap(
    lambda rows: st.lists(
        st.lists(st.integers(-3, 3), min_size=3, max_size=3).filter(any), min_size=rows, max_size=rows
    )
)


@given(VECTORS, VECTORS)
def test_the_least_best_match_is_that_of_two_loops(one: list[list[int]], other: list[list[int]]) -> None:
    left, right = (np.array(side, float) / np.linalg.norm(side, axis=1, keepdims=True) for side in (one, other))
    cosines = [[float(sum(x * y for x, y in zip(a, b, strict=True))) for b in right] for a in left]
    least = min(*(max(row) for row in cosines), *(max(column) for column in zip(*cosines, strict=True)))
    assert least_best_match(left, right) == pytest.approx(min(max(least, 0.0), 1.0), abs=1e-9)
    assert least_best_match(left, right) == least_best_match(right, left)
