"""Markdown tables and fences: what stands in them is shown letter for letter."""

from __future__ import annotations

import doctest

from hypothesis import given
from hypothesis import strategies as st

from siftune.curation import markdown


def test_the_examples_hold() -> None:
    results = doctest.testmod(markdown)
    assert (results.failed, results.attempted) == (0, 2)


def test_cells_are_escaped_unless_they_are_raw() -> None:
    lines = markdown.table(["a|b", "n"], [["x\ny", markdown.Raw("[1, 2]")], ["<b>", markdown.code("f")]], numbers=[1])
    assert lines == ["| a\\|b | n |", "|---|---:|", "| x y | [1, 2] |", "| \\<b\\> | `f` |", ""]


@given(st.text(alphabet="`a\n ", max_size=30))
def test_a_text_cannot_close_its_fence(text: str) -> None:
    opening, body, closing = markdown.fenced(text)
    assert body == text
    assert opening == f"{closing}text"
    assert closing not in text
