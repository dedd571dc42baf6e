"""The search index and the catalogue against brute force."""

from __future__ import annotations

import itertools
import re
import sqlite3
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from siftune.curation.review.catalogue import Catalogue, Query, dossier
from siftune.curation.review.nearest_rows import nearest_rows
from siftune.curation.review.search import TextIndex, to_match
from siftune.curation.run.folder import RunFolder


@pytest.fixture(scope="module")
def catalogue(plain_world: Path) -> Catalogue:
    return Catalogue.load(RunFolder.open(plain_world))


@pytest.fixture(scope="module")
def index(catalogue: Catalogue) -> TextIndex:
    return TextIndex.build(catalogue)


@pytest.fixture(scope="module")
def words(catalogue: Catalogue) -> list[list[str]]:
    """The words of every row, in order; none for rows without text."""
    rows: list[list[str]] = [[] for _ in range(len(catalogue))]
    for position, row in catalogue.texts(range(len(catalogue))).items():
        rows[position] = re.findall(r"[^\W_]+", f"{row['prompt']} \u0001 {row['answer']}".lower())
    return rows


@pytest.mark.parametrize("text", ["mo1", "ka0 ti1", "Explain", "mo0 -ka0", "lu10*", "nothingofthekind", "attack scri*"])
def test_search_finds_what_a_scan_finds(index: TextIndex, words: list[list[str]], text: str) -> None:
    def holds(row: list[str]) -> bool:
        for term in text.lower().split():
            bare = term.lstrip("-").rstrip("*")
            present = any(word.startswith(bare) if term.endswith("*") else word == bare for word in row)
            if present == term.startswith("-"):
                return False
        return True

    expected = [position for position, row in enumerate(words) if row and holds(row)]
    assert index.search(text).tolist() == expected


def test_a_phrase_is_searched_in_order(index: TextIndex, words: list[list[str]]) -> None:
    row = next(position for position, row in enumerate(words) if position > 100 and len(row) > 8)
    first, second = words[row][4:6]
    expected = [position for position, row in enumerate(words) if (first, second) in itertools.pairwise(row)]
    assert row in expected
    assert index.search(f'"{first} {second}"').tolist() == expected


@given(st.text(alphabet=st.sampled_from('ab "*-()^:{}+ANDORNT\x00é_漢'), max_size=30))
def test_whatever_is_typed_is_a_valid_search(text: str) -> None:
    expression = to_match(text)
    if expression is not None:
        db = sqlite3.connect(":memory:")
        db.execute("CREATE VIRTUAL TABLE t USING fts5(prompt, answer, prefix='3')")
        db.execute("SELECT rowid FROM t WHERE t MATCH ?", (expression,)).fetchall()
        db.close()


def test_an_index_of_other_texts_is_not_used(plain_run: Path) -> None:
    run = RunFolder.open(plain_run)
    (run.path / "search.sqlite").unlink(missing_ok=True)
    assert TextIndex.open(run) is None
    TextIndex.build(Catalogue.load(run))
    assert TextIndex.open(run) is not None
    pl.read_parquet(run.texts).with_columns(answer=pl.lit("other")).write_parquet(run.texts)
    assert TextIndex.open(run) is None


names = st.sets(st.sampled_from(["kept", "dropped", "quarantined"]))
ranges = st.none() | st.tuples(st.integers(0, 30), st.integers(0, 200))


@given(
    fate=names,
    source=st.sets(st.sampled_from(["alpha", "beta", "gamma"])),
    stage=st.sets(st.sampled_from(["exact", "near", "no such stage"])),
    arm=st.sets(st.sampled_from(["raw", "curated", "no such arm"])),
    span=ranges,
    order=st.sampled_from(["row", "prompt_words", "answer_words", "turns"]),
    descending=st.booleans(),
    hits=st.none() | st.sets(st.integers(0, 599)),
)
def test_filters_and_orders_as_a_plain_scan_does(
    catalogue: Catalogue,
    fate: set[str],
    source: set[str],
    stage: set[str],
    arm: set[str],
    span,
    order,
    descending,
    hits,
) -> None:
    named = {"fate": tuple(fate), "source": tuple(source), "stage": tuple(stage), "arm": tuple(arm)}
    query = Query(**named, answer_words=span, order=order, descending=descending)
    rows = catalogue.run.rows().with_row_index("at").to_dicts()
    kept = [
        row
        for row in rows
        if (not fate or row["fate"] in fate)
        and (not source or row["source"] in source)
        and (not stage or row["stage"] in stage)
        and (not arm or arm & set(row["arms"]))
        and (span is None or span[0] <= row["answer_words"] <= span[1])
        and (hits is None or row["at"] in hits)
    ]
    if order == "row":
        expected = [row["at"] for row in (reversed(kept) if descending else kept)]
    else:
        expected = [row["at"] for row in sorted(kept, key=lambda row: row[order] * (-1 if descending else 1))]
    positions = catalogue.find(query, None if hits is None else np.array(sorted(hits), dtype=np.uint32))
    assert positions.tolist() == expected


def test_texts_belong_to_their_rows_although_some_rows_have_none(catalogue: Catalogue) -> None:
    lost = catalogue.find(Query(fate=("quarantined",)))
    assert len(lost) > 0
    assert catalogue.examples(lost) == {}
    examples = catalogue.examples(range(len(catalogue)))
    assert len(examples) == len(catalogue) - len(lost)
    assert all(row["id"] == catalogue.frame["id"][position] for position, row in examples.items())


def test_a_dropped_row_knows_its_witness_and_its_neighbour(catalogue: Catalogue) -> None:
    position = int(catalogue.find(Query(stage=("near",)))[0])
    details = dossier(catalogue, position)
    witness = details.decisions["witness"][0]
    assert witness in details.neighbours["id"].to_list()
    other = catalogue.position(witness)
    assert other is not None
    assert details.row["id"] in dossier(catalogue, other).witnessed["id"].to_list()


def test_an_answer_is_traced_to_the_row_it_repeats(catalogue: Catalogue, index: TextIndex) -> None:
    position = int(catalogue.find(Query(fate=("kept",)))[50])
    answer = catalogue.texts([position])[position]["answer"]
    best = nearest_rows(catalogue, index, answer)[0]
    assert best.position == position
    assert best.share == 1.0
    assert nearest_rows(catalogue, index, "nothing of this stands anywhere") == []
