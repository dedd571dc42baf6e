from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from siftune.curation.text.own_sentences import own_sentences


@pytest.mark.parametrize(
    ("one", "other", "own"),
    [
        ("It rained. Who came?", "It rained. Why?", ("Who came?", "Why?")),
        ("It rained.\nWho came?", "it rained! Who came?\n\nAnswer briefly.", ("", "Answer briefly.")),
        ("Yes. Yes. No.", "No. Yes.", ("Yes.", "")),
        ("雨が降った。誰が来た？", "雨が降った。なぜ？", ("誰が来た？", "なぜ？")),
        ("3.5 is a number. So?", "3.6 is a number. So?", ("3.5 is a number.", "3.6 is a number.")),
        ("a.", "--- ...", ("a.", "")),
        ("", "", ("", "")),
    ],
)
def test_shared_sentences_are_left_out(one: str, other: str, own: tuple[str, str]) -> None:
    assert own_sentences(one, other) == own
    assert own_sentences(other, one) == own[::-1]


SENTENCES = st.lists(st.sampled_from(["Who came?", "It rained.", "a b c.", "Nobody knows!", "river"]), max_size=8)


@given(SENTENCES, SENTENCES)
def test_what_is_left_is_the_difference_of_the_lists(one: list[str], other: list[str]) -> None:
    left, right = (text.split("\n") if text else [] for text in own_sentences("\n".join(one), "\n".join(other)))
    for sentence in {*one, *other}:
        difference = one.count(sentence) - other.count(sentence)
        assert (left.count(sentence), right.count(sentence)) == (max(difference, 0), max(-difference, 0))
