"""Decoys are other tasks of the same kind, always the same ones."""

from __future__ import annotations

import numpy as np
import polars as pl

from siftune.curation.decontamination.decoys import make_decoys

ITEMS = pl.DataFrame(
    {
        "reference": ["bench:0", "bench:1", "bench:4"],
        "prompt": [
            "A bakery sells 48 rolls in the morning. How much is earned?",
            "A gardener plants 6 rows of tulips with 14 bulbs. How many grow?",
            "Say something.",
        ],
        "answer": ["144", "59", None],
    }
)


def test_numbers_and_words_come_from_the_donor() -> None:
    decoys = make_decoys(ITEMS, np.array([1, 0, 2]))
    first, second = decoys["prompt"]
    assert decoys["item"].to_list() == [0, 1]
    assert decoys["answer"].to_list() == ["59", "144"]
    assert "48" not in first
    assert "6" in first
    assert first.endswith("?")
    donor = set(ITEMS["prompt"][1].lower().replace("?", "").replace(".", "").split())
    own = set(ITEMS["prompt"][0].lower().replace("?", "").replace(".", "").split())
    new = set(first.lower().replace("?", "").replace(".", "").split()) - own
    assert new
    assert new <= donor
    assert "48" in second


def test_an_item_without_a_donor_has_no_decoy() -> None:
    assert make_decoys(ITEMS, np.array([0, 1, 2])).height == 0


def test_decoys_do_not_depend_on_the_order_of_the_items() -> None:
    backward = make_decoys(ITEMS.reverse(), np.array([0, 2, 1]))
    forward = make_decoys(ITEMS, np.array([1, 0, 2]))
    assert dict(backward.select("reference", "prompt").rows()) == dict(forward.select("reference", "prompt").rows())


def test_what_comes_out_as_another_item_is_no_decoy() -> None:
    prompts = ["Explain the `with` statement.", "Explain the `yield` statement."]
    items = pl.DataFrame({"reference": ["quiz:0", "quiz:1"], "prompt": prompts, "answer": ["A", "B"]})
    assert not set(make_decoys(items, np.array([1, 0]))["prompt"]) & set(prompts)
