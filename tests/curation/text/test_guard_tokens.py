"""Which tokens keep two texts from being duplicates of each other."""

from __future__ import annotations

import polars as pl
import pytest

from siftune.curation.recipe.sections import GuardClass
from siftune.curation.text.guard_tokens import guard_difference, guard_hash, guard_tokens, key_guard_hash

ALL: list[GuardClass] = ["numbers", "operators", "identifiers", "negations"]


def tokens(text: str, classes: list[GuardClass] = ALL) -> list[str]:
    return pl.DataFrame({"t": [text]}).select(guard_tokens(pl.col("t"), classes)).item().to_list()


def guarded(a: str, b: str, classes: list[GuardClass] = ALL) -> bool:
    hashes = pl.DataFrame({"t": [a, b]}).select(guard_hash(pl.col("t"), classes)).to_series()
    return hashes[0] != hashes[1]


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("an energy of 1.022 MeV", "an energy of 1.032 MeV"),
        ("This is safe to eat.", "This is not safe to eat."),
        ("Solve x + 3 = 7", "Solve x - 3 = 7"),
        ("compute 5 - 3", "compute 3 - 5"),
        ("call foo_bar first", "call foo_baz first"),
        ("the value is 50% of it", "the value is 50 of it"),
        ("three apples", "four apples"),
        ("if a == b then", "if a != b then"),
        ("use getName here", "use getTitle here"),
        ("use np.sum here", "use np.mean here"),
        ("He can swim.", "He can't swim."),
        ("see `ls -a` for it", "see `ls -l` for it"),
        ("drink it with milk", "drink it without milk"),
        ("it was -3 degrees", "it was 3 degrees"),
        ("H2O is wet", "H2S is wet"),
    ],
)
def test_protected_tokens_keep_texts_apart(a: str, b: str) -> None:
    assert guarded(a, b)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("- first\n- second", "* first\n* second"),
        ("1. first\n2. second", "first\nsecond"),
        ("## A heading\n**bold** word", "A heading\nbold word"),
        ("it costs 1,000 dollars", "it costs 1000 dollars"),
        ("five apples", "5 apples"),
        ("I can't, cannot, can not", "I cannot, can not, can't"),
        ("I don’t know", "I do not know"),
        ("a well-known fact", "a well known fact"),
        ("one thing; another", "one thing, another!"),
        ("x+3", "x + 3"),
        ("call f\u00adoo_bar() with f\u200bive", "call foo_b\u0430r() with 5"),
    ],
)
def test_layout_and_spelling_do_not_protect(a: str, b: str) -> None:
    assert not guarded(a, b)


def test_only_the_chosen_classes_protect() -> None:
    assert not guarded("1 apple", "2 apples", ["negations"])
    assert guarded("1 apple", "2 apples", ["numbers"])
    assert not guarded("1 apple", "2 apples", [])
    assert tokens("do not add 5 + foo_bar", ["identifiers"]) == ["foo_bar"]


def test_the_guard_keeps_order_and_repeats() -> None:
    assert tokens("5 - 3 and 3 - 5") == ["5", "-", "3", "3", "-", "5"]


@pytest.mark.parametrize(
    ("a", "b", "difference"),
    [
        (["1.022"], ["1.032"], "1.022 ≠ 1.032"),
        ([], ["not"], "(nothing) ≠ not"),
        (["5", "-", "3"], ["3", "-", "5"], "5 - 3 ≠ 3 - 5"),
        (["2", "7"], ["2", "8"], "7 ≠ 8"),
        (["2", "2"], ["2"], "2 ≠ (nothing)"),
        (["1", "2", "3", "4", "5"], [], "1 2 3 4 … ≠ (nothing)"),
    ],
)
def test_the_difference_is_readable(a: list[str], b: list[str], difference: str) -> None:
    assert guard_difference(a, b) == difference


def test_a_short_answer_is_protected_in_every_word_of_a_dialogue() -> None:
    long = "Well, this is a long answer that has a few more words than a label would have"
    rows = [("q", "Yes."), ("q", "yes"), ("q", "Surely"), ("q", long), ("q", f"{long} indeed"), ("q", "yes 5")]
    frame = pl.DataFrame({"core": [core for core, _ in rows], "answer": [answer for _, answer in rows]})

    def hashes(key: str, classes: list[GuardClass]) -> list[int]:
        return frame.select(key_guard_hash(key, classes).alias("h"))["h"].to_list()

    yes, yes_again, surely, one, other, five = hashes("dialogue", ALL)
    assert yes == yes_again
    assert len({yes, surely, one, five}) == 4
    assert one == other
    assert len(set(hashes("prompt", ALL))) == 1
    assert len(set(hashes("dialogue", []))) == 1
