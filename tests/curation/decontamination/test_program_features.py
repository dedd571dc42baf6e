"""Whether two programs have the same signature."""

from __future__ import annotations

import polars as pl
import pytest

from siftune.curation.decontamination.program_features import signature_similarity

ITEM = "def count_char(string, char):\n    return string.count(char)"


def likeness(row: str, item: str = ITEM, *, item_prompt: str = "", code: bool = True) -> float:
    pair = {"pair": [0], "code": [code], "row": [row], "item_prompt": [item_prompt], "item": [f"{item_prompt}\n{item}"]}
    return signature_similarity(pl.DataFrame(pair))["signature"].item()


@pytest.mark.parametrize(
    "row",
    [
        "def count_char(string, char):\n    n = 0\n    return n",
        "function countChar(string, char) {\n  return 0;\n}",
        "const countChar = (string, char) => 0;",
        "int count_char(const char *string, char char) {\n  return 0;\n}",
        "def countCharacter(str, chars): pass\ndef helper(): pass",
        "fn count_char(string: &str, char: char) -> usize { 0 }",
    ],
)
def test_a_rewriting_keeps_the_signature(row: str) -> None:
    assert likeness(row) == 1.0


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ("def count_char(a, b): pass", 0.75),  # the name alone
        ("def count_words(string, char): pass", 0.75 / 3 + 0.25),
        ("def longest(words): pass", 0.0),
        ("Go through the string.", 0.4),  # unknown
    ],
)
def test_another_name_or_other_parameters_are_less_alike(row: str, expected: float) -> None:
    assert likeness(row) == pytest.approx(expected)


def test_a_negation_is_another_function() -> None:
    assert likeness("def is_prime(n): pass", "def is_not_prime(m): pass") == 0.0


def test_the_functions_of_the_prompt_are_the_task() -> None:
    helper = "def is_prime(n):\n    return n > 1"
    assert likeness(helper, helper, item_prompt="def is_multiply_prime(a):") == pytest.approx(0.5)
    assert likeness(helper, helper) == 1.0


def test_without_programs_there_is_no_signature() -> None:
    assert likeness(ITEM, code=False) == 0.0
