"""Addresses of Browse: whatever it shows can be linked to, and whatever somebody writes is checked."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from siftune.app.web import links
from siftune.curation.review.catalogue import Catalogue, Query
from siftune.curation.run.folder import RunFolder


@pytest.fixture(scope="module")
def catalogue(plain_world: Path) -> Catalogue:
    return Catalogue.load(RunFolder.open(plain_world))


def some(*values: str) -> st.SearchStrategy[tuple[str, ...]]:
    return st.lists(st.sampled_from(values), unique=True, max_size=2).map(tuple)


ends = st.none() | st.tuples(st.integers(0, 99), st.integers(0, 999))
queries = st.builds(
    Query,
    text=st.text(max_size=20),
    source=some("alpha", "beta", "gamma"),
    fate=some("kept", "dropped", "quarantined"),
    stage=some("exact", "near", "ingest"),
    arm=some("raw", "curated"),
    group=st.none() | st.integers(0, 500),
    answer_words=ends,
    turns=ends,
    order=st.sampled_from(["row", "prompt_words", "answer_words", "turns"]),
    descending=st.booleans(),
    tag=some("check again", "é:1"),
    by_hand=some("restore", "drop", "note"),
)


@given(query=queries, row=st.sampled_from([None, "alpha:3", "gamma:0"]))
def test_a_link_says_what_the_page_shows(catalogue: Catalogue, query: Query, row: str | None) -> None:
    link = links.parse(links.parameters(query, row), catalogue)
    assert (link.query, link.row, link.faults) == (query, row, [])


def test_a_page_without_a_filter_has_a_plain_address() -> None:
    assert links.parameters(Query()) == {}


@pytest.mark.parametrize(
    ("params", "fault"),
    [
        ({"fate": ["lost"]}, "this run has dropped, kept, quarantined"),
        ({"source": ["<script>"]}, "this run has alpha, beta, gamma"),
        ({"answer_words": ["5"]}, "a range is written 5-40"),
        ({"answer_words": ["5-²"]}, "a number is written in digits"),
        ({"group": ["99999999999999999999"]}, "a number is written in digits"),
        ({"order": ["fate"]}, "this run has row, prompt_words"),
        ({"by_hand": ["eaten"]}, "this run has restore, drop, note"),
        ({"row": ["alpha:99999"]}, "has no row 'alpha:99999'"),
        ({"colour": ["red"]}, "'colour' that Browse does not know"),
        ({"_text": ["x"]}, "'_text' that Browse does not know"),
    ],
)
def test_what_an_address_may_not_ask_for_is_named_and_left_out(
    catalogue: Catalogue, params: dict[str, list[str]], fault: str
) -> None:
    link = links.parse({**params, "stage": ["near"]}, catalogue)
    assert link.query == Query(stage=("near",))
    assert link.row is None
    (sentence,) = link.faults
    assert fault in sentence


@given(st.dictionaries(st.text(max_size=12), st.lists(st.text(max_size=12), max_size=3), max_size=4))
def test_any_address_is_understood_or_answered(catalogue: Catalogue, params: dict[str, list[str]]) -> None:
    links.parse(params, catalogue)
