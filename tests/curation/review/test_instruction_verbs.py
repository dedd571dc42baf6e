"""What instructions ask for: verbs, nouns and their counts."""

from __future__ import annotations

from collections import Counter

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from siftune.app.web.components.verb_chart import verb_chart
from siftune.curation.review.catalogue import Catalogue
from siftune.curation.review.instruction_verbs import sampled_instructions, verb_and_noun, verb_tree
from siftune.curation.run.folder import RunFolder
from tests.worlds import many, write_recipe, write_source

pytest.importorskip("HanTa")


@pytest.mark.parametrize(
    ("text", "pair"),
    [
        ("Write a dialogue between two people.", ("write", "dialogue")),
        ("Can you recommend me a book on gardens?", ("recommend", "book")),
        ("Classify the moods of the users", ("classify", "mood")),
        ("Hello there! Design an algorithm.", ("design", "algorithm")),
        ("Is it a number?", None),
        ("", None),
        ("犬が好き", None),
    ],
)
def test_the_verb_of_an_instruction_and_its_noun(text, pair):
    assert verb_and_noun(text) == pair


@given(st.text(max_size=400))
@settings(max_examples=60, deadline=None)
def test_any_text_has_a_pair_of_words_or_none(text):
    pair = verb_and_noun(text)
    assert pair is None or all(word and word == word.lower() for word in pair)


def test_the_tree_counts_the_nouns_of_the_verbs_of_the_raw_rows():
    nouns = ["poem", "poem", "poem", "letter", "letter", "story", "song", "report"]
    raw = [f"Write a {noun}." for noun in nouns] + ["Explain the plan."] * 3 + ["nothing here"] * 9
    curated = ["Write a poem.", "Sort the list.", "Explain the plan."]
    tree = verb_tree(raw, curated)
    counted = {(line["set"], line["verb"], line["noun"]): line["rows"] for line in tree.to_dicts()}
    kept = Counter(nouns).most_common(2)
    assert counted == {
        **{("raw", "write", noun): rows for noun, rows in kept},
        ("raw", "write", "report"): 1,
        ("raw", "write", "song"): 1,
        ("raw", "explain", "plan"): 3,
        ("curated", "write", "poem"): 1,
        ("curated", "explain", "plan"): 1,
    }
    assert tree.filter(set="raw", verb="explain")["share"].to_list() == [3 / 20]
    assert tree["verb"].to_list()[0] == "write"
    for name in ("raw", "curated"):
        spec = verb_chart(tree, name).to_dict()
        arcs = [layer for layer in spec["layer"] if layer["mark"]["type"] == "arc"]
        for layer in arcs:
            ends = [row["end"] for row in spec["datasets"][layer["data"]["name"]]]
            assert max(ends) == pytest.approx(2 * np.pi)
    assert verb_tree([], []).is_empty()


def test_instructions_are_drawn_from_the_rows_of_each_set(tmp_path):
    from siftune.curation.pipeline import curate

    write_source([*many(30), {"instruction": "broken", "output": None}], tmp_path / "rows.jsonl")
    run = curate(write_recipe(tmp_path, "rows.jsonl"))
    catalogue = Catalogue.load(RunFolder.open(run.path))
    prompts = dict(pl.read_parquet(run.texts, columns=["id", "prompt"]).iter_rows())
    kept = run.rows().filter(pl.col("fate") == "kept")["id"].to_list()
    raw, curated = sampled_instructions(catalogue)
    assert sorted(raw) == sorted(prompts.values())
    assert sorted(curated) == sorted(prompts[row] for row in kept)
    few, _ = sampled_instructions(catalogue, most=7)
    assert len(few) == 7
    assert set(few) <= set(raw)
