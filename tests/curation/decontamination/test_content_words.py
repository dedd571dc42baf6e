"""Which words two texts share: names by name, templates for nothing, other words by their vectors."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import polars as pl
import pytest

from siftune.curation.decontamination.content_words import (
    Alignment,
    Side,
    WordVectors,
    WordWeights,
    align,
    content_words,
    said_words,
)

#: Words of one line are alike; all others are strangers.
SYNONYMS = [["buy", "purchase"], ["kid", "child"]]


class Dictionary:
    """An encoder of single words that knows some synonyms."""

    def __call__(self, texts: Iterable[pl.Series], *, progress: object = None) -> np.ndarray:
        known = {word: number for number, line in enumerate(SYNONYMS) for word in line}
        words = [word for series in texts for word in series]
        vectors = np.zeros((len(words), 1000), np.float16)
        for position, word in enumerate(words):
            vectors[position, known.get(word, len(SYNONYMS) + position)] = 1
        return vectors


def aligned(
    row: str, item: str, *, answer: str = "", code: bool = False, weights: WordWeights | None = None
) -> Alignment:
    sides = Side(row, f"{row}\n{answer}", code), Side(item, item, code)
    vectors = WordVectors([word for side in sides for word in said_words(side)], Dictionary())
    return align(*sides, reference="bench", weights=weights or WordWeights(), vectors=vectors)


def test_the_same_words_in_any_form_and_order_miss_nothing() -> None:
    found = aligned("Triangles with equal sides: their area?", "What is the area of a triangle whose sides are equal?")
    assert found[:4] == (0.0, 0.0, 0.0, 0.0)
    assert found.shared == ("area", "equal", "sides", "triangle")


def test_one_other_word_is_named_on_both_sides() -> None:
    found = aligned("What is the area of a pentagon?", "What is the area of a triangle?")
    assert found.of_item == ("triangle",)
    assert found.of_row == ("pentagon",)
    assert found.item_weakest == found.row_weakest == 1.0
    assert found.item_missing == pytest.approx(0.5)


def test_synonyms_go_together() -> None:
    assert aligned("Which toy does the child purchase?", "Which toy does the kid buy?")[:2] == (0.0, 0.0)


@pytest.mark.parametrize(
    ("row", "item", "same"),
    [
        ("Explain `numpy.linalg.eigh`.", "Explain `numpy.linalg.norm`.", False),
        ("Explain `np.linalg.norm`.", "Explain `numpy.linalg.norm`.", True),
        ("Explain `scipy.optimize.OptimizeResult`.", "Explain `scipy.optimize.minimize`.", False),
        ("Explain `norm`.", "Explain `numpy.linalg.norm`.", True),
        ("Explain `lru_cache`.", "Explain `lru_store`.", False),
    ],
)
def test_names_are_compared_as_names(row: str, item: str, same: bool) -> None:
    assert (aligned(row, item).item_missing == 0) == same


@pytest.mark.parametrize(
    ("row", "item", "differ"),
    [
        ("What is the `dim` of `torch.Tensor.size`?", "What is the `dim` of `torch.cat`?", True),
        ("What is `itertools.chain.from_iterable`?", "What is `itertools.chain`?", True),
        ("What is `chain`?", "What is `itertools.chain`?", False),
        ("What is `errors.of.chained`?", "Errors: what is `errors.chain`?", True),
        ("What is the order of Z mod 3?", "What is the order of Z_3?", False),
        ("What is the `dim` of `torch.cat`?", "What is a dimension?", False),
    ],
)
def test_another_name_is_another_item(row: str, item: str, differ: bool) -> None:
    assert aligned(row, item).names_differ == differ


def test_programs_take_their_names_apart() -> None:
    assert aligned("hasCloseElements", "has_close_elements", code=True).item_missing == 0


def test_a_word_that_only_the_answer_of_the_row_holds_counts_for_little() -> None:
    assert aligned("Which shape?", "Which triangle?", answer="A triangle.").item_missing == 0.75


def test_a_shared_name_says_what_two_are_about_and_not_what_they_ask() -> None:
    assert aligned("What does `os.remove` do?", "Which errors does `os.remove` raise?").item_missing == 1.0
    assert aligned("`os.remove`, please.", "What does `os.remove` do?").item_missing == 0.0


def test_a_quoted_word_is_a_name() -> None:
    assert aligned("Explain the `with` statement.", "Explain the `yield` statement.").of_item == ("yield",)
    assert aligned("Explain the `buy` order.", "Explain the `purchase` order.").of_item == ("purchase",)
    assert aligned("Explain yields.", "Explain `yields`.").of_item == ()


def test_words_of_many_rows_are_how_rows_ask() -> None:
    weights = WordWeights()
    weights.count(["Beginner, please: sums"] * 21)
    assert aligned("Sums for a beginner of rings?", "Sums?", weights=weights).of_row == ("rings",)


def test_an_item_without_rare_words_says_little() -> None:
    weights = WordWeights()
    weights.count(["true statement"] * 20 + ["greenhouse gases"])
    generic, own = (
        aligned("x", text, weights=weights).item_content
        for text in ("Which statement is true?", "Which statement of greenhouse gases is true?")
    )
    assert generic == pytest.approx(0.7)
    assert own > 2


def test_the_template_of_a_reference_says_nothing() -> None:
    weights = WordWeights()
    verbs = ["rotate", "reverse", "merge", "split", "count", "sum", "sort", "filter", "zip", "hash"]
    weights.count_items("bench", [f"Write a python function to {verb} lists." for verb in verbs])
    found = aligned(
        "Write a python function to rotate tuples.", "Write a python function to count tuples.", weights=weights
    )
    assert found.of_item == ("count",)
    assert found.shared == ("tuples",)


def test_a_program_without_a_prompt_asks_for_nothing_more() -> None:
    row, item = (
        Side("long explanation of steps", "long explanation of steps", True, asks=False),
        Side("steps", "steps", True),
    )
    vectors = WordVectors(said_words(row) + said_words(item), Dictionary())
    found = align(row, item, reference="bench", weights=WordWeights(), vectors=vectors)
    assert found[:4] == (0.0, 0.0, 0.0, 0.0)


def test_of_a_text_without_content_words_it_is_unknown_what_is_missing() -> None:
    assert aligned("What is the area?", "1 + 1 = x").item_missing == 0.5


def test_words_that_say_nothing_are_no_content() -> None:
    assert content_words("What is the best of these, and why?", code=False) == content_words("best", code=False)
