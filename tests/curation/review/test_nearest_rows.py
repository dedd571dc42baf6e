"""Where an answer comes from: nearest rows by cosine over the stored embeddings, against brute force."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

from siftune.curation.pipeline import curate
from siftune.curation.review.catalogue import Catalogue
from siftune.curation.review.nearest_rows import RowEmbeddings, nearest_rows
from siftune.curation.review.search import TextIndex
from tests.worlds import bag_encoder, cosine, write_recipe, write_source

TEXT = "photon meets nucleus field heavy pairs energy makes light lamp river boat sail wind harbour cook bread oven"
WORDS = TEXT.split()
DATA = [
    {
        "instruction": f"say {WORDS[n]} {n}",
        "output": " ".join(WORDS[(n + k * (n % 5 + 1)) % len(WORDS)] for k in range(6)),
    }
    for n in range(18)
]
COPY = {"instruction": DATA[3]["instruction"], "output": DATA[3]["output"]}  # dropped before anything is encoded
ANSWER = DATA[3]["output"]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Catalogue, TextIndex]]:
    here = tmp_path_factory.mktemp("origin")
    write_source([*DATA, {"instruction": "broken", "output": None}, COPY], here / "s.jsonl")
    sections = {"encoder": "bag", "duplicates": {"semantic": {"threshold": 0.99, "floor": 0.5, "preselect": False}}}
    with bag_encoder(here / "cache"):
        found = Catalogue.load(curate(write_recipe(here, "s.jsonl", **sections)))
        yield found, TextIndex.build(found)


def test_rows_are_ranked_by_the_cosine_of_every_stored_vector(world: tuple[Catalogue, TextIndex]) -> None:
    catalogue, index = world
    embeddings = RowEmbeddings.open(catalogue)
    assert embeddings is not None
    found = nearest_rows(catalogue, index, ANSWER, embeddings=embeddings, most=30)
    texts = [f"{row['instruction']}\n{row['output']}" for row in [*DATA, COPY]]
    expected = sorted((cosine(ANSWER, text) for text in texts), reverse=True)
    assert [each.cosine for each in found] == pytest.approx(expected, abs=2e-3)
    for each in found:
        assert each.cosine == pytest.approx(cosine(ANSWER, f"{each.prompt}\n{each.text}"), abs=2e-3)
        assert catalogue.texts([each.position])[each.position]["answer"] == each.text
    best = {catalogue.frame["fate"][each.position] for each in found[:2]}
    assert best == {"kept", "dropped"}
    assert found[0].share == found[1].share == 1.0


def test_a_paraphrase_that_shares_no_run_of_words_is_found(world: tuple[Catalogue, TextIndex]) -> None:
    catalogue, index = world
    backwards = " ".join(reversed(ANSWER.split()))
    assert nearest_rows(catalogue, index, backwards) == []
    found = nearest_rows(catalogue, index, backwards, embeddings=RowEmbeddings.open(catalogue))
    assert found[0].text == ANSWER
    assert found[0].share == 0.0


def test_without_an_encoder_there_are_no_embeddings(tmp_path: Path) -> None:
    write_source(DATA, tmp_path / "s.jsonl")
    found = Catalogue.load(curate(write_recipe(tmp_path, "s.jsonl")))
    assert RowEmbeddings.open(found) is None
    assert nearest_rows(found, TextIndex.build(found), ANSWER)[0].cosine is None


def test_an_empty_store_falls_back_to_words(world: tuple[Catalogue, TextIndex], tmp_path: Path) -> None:
    catalogue, _ = world
    with bag_encoder(tmp_path / "empty"):
        assert RowEmbeddings.open(catalogue) is None
    assert pl.read_parquet(catalogue.run.texts).height == len(DATA) + 1
