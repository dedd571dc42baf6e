"""What a pair of texts has in common, on small cases that each break a careless count."""

from __future__ import annotations

import polars as pl
import pytest

from siftune.curation.decontamination.pair_features import StemWeights, gist, pair_features

WEIGHTS = pl.DataFrame({"stem": ["law"], "weight": [1.0]})


def test_the_gist_of_code_is_what_it_says_and_of_prose_itself() -> None:
    python = (
        'def has_close_elements(numbers):\n    """Check if any two numbers are closer than a threshold.\n'
        '    >>> has_close_elements([1, 2], 0.5)\n    False\n    """\n    return x'
    )
    script = (
        "```js\n// Check if any two of the numbers are closer than a limit.\n"
        "function hasCloseElements(a) {\n  return a;\n}\n```"
    )
    prose = "Just prose (really): 1 == 1."
    gists = pl.DataFrame({"t": [python, script, prose]}).select(gist(pl.col("t")))["t"].to_list()
    assert gists == [
        "has close elements Check if any two numbers are closer than a threshold.",
        "has Close Elements Check if any two of the numbers are closer than a limit.",
        "Just prose (really): 1 == 1.",
    ]


def test_features_count_rare_words_and_numbers() -> None:
    weights = StemWeights()
    weights.count(pl.Series(["the cat", "the dog", "the bird and 5 cats", "the"]))
    features = pair_features(
        pairs(("the cat has 12 lives and 7 toys", "twelve cats, 7 dogs, 3 mice", False), ("the dog", "the fish", True)),
        weights.table(),
    )
    assert features["shared_numbers"].to_list() == [2.0, 0.0]
    assert features["different_numbers"].to_list() == [1.0, 0.0]
    assert 0 < features["shared_stems"][0] < 1
    assert features["shared_stems"][1] < 0.1  # `the` weighs next to nothing


def pairs(*texts: tuple[str, str, bool], answer: str = "") -> pl.DataFrame:
    table = [(row, item, row, f"{item}\n{answer}", code) for row, item, code in texts]
    return pl.DataFrame(table, schema=["row", "item", "whole_row", "whole_item", "code"], orient="row")


def test_features_see_names_and_numbers_of_the_answer_too() -> None:
    texts = ("Which law of 1964, the Civil Rights Act, did it pass?", "Which law did it pass?", False)
    without, within = (
        pair_features(pairs(texts, answer=answer), WEIGHTS) for answer in ("", "The Civil Rights Act of 1964")
    )
    assert without.select("different_numbers", "different_names").row(0) == (1.0, 3.0)
    assert within.select("different_numbers", "different_names").row(0) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("row", "item", "count"),
    [
        ("the first law", "the second law", 1),
        ("the first law", "the law", 0),
        ("the first and the second law", "the second law", 0),
        ("Which has the most rain?", "which has the LEAST rain", 1),
        ("more or less rain", "less rain", 0),
        ("the highest peak in the North", "the lowest peak in the south", 2),
    ],
)
def test_a_word_against_its_opposite_counts_as_opposite(row: str, item: str, count: int) -> None:
    features = pair_features(pairs((row, item, False), (row, item, True), (item, row, False)), WEIGHTS)
    assert features["opposites"].to_list() == [count, 0, count]


SORT_THIRD = (
    "def sort_third(l: list):\n    l = list(l)\n    l[::3] = sorted(l[::3])\n    return l\n"
    "# >>> sort_third([5, 6, 3, 4])"
)


def test_programs_are_alike_by_what_they_do_not_by_their_names_and_comments() -> None:
    again = (
        'def arrange(values):\n    """For one in three."""\n    copy = list(values)\n    copy[::3] = sorted(copy[::3])'
        "\n    return copy  # [5,6,3,4]"
    )
    other = 'def sort_third(l: list):\n    """sort_third"""\n    while l:\n        l.pop()\n    return len(l) // 3'
    features = pair_features(
        pairs((again, SORT_THIRD, True), (other, SORT_THIRD, True), ("Sort a list.", SORT_THIRD, True)), WEIGHTS
    )
    same, another, unknown = features["operations"]
    assert same > 0.95
    assert another < unknown < same
    assert features["example_values"].to_list() == [1.0, 0.0, 0.0]


def test_values_of_many_items_say_nothing() -> None:
    items = [f"def f{number}(a):\n    return f([1, 2, 3])" for number in range(3)]
    assert pair_features(pairs(*((item, item, True) for item in items[:2])), WEIGHTS)["example_values"].to_list() == [
        1.0,
        1.0,
    ]
    assert (
        pair_features(pairs(*((item, item, True) for item in items)), WEIGHTS)["example_values"].to_list() == [0.0] * 3
    )
