"""Each published rule against its plain form on generated texts, and on cases at the edges of its definition."""

from __future__ import annotations

import random

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from siftune.curation.decontamination.published_rules import PUBLISHED_RULES, PublishedRules
from siftune.curation.errors import UserError
from tests.curation.decontamination import plain_rules
from tests.curation.decontamination.plain_rules import Item, Matches, Row

RATIOS = {"b0": 0.5}
ORACLES = {
    "gpt3-13gram": plain_rules.gpt3,
    "palm-8gram": plain_rules.palm,
    "llama2-skipgram": plain_rules.llama2,
    "llama3-token-ratio": lambda rows, items: plain_rules.llama3(rows, items, RATIOS),
    "tulu3-8gram": plain_rules.tulu3,
    "qwen2-lcs": plain_rules.qwen2,
    "decon": plain_rules.decon,
}


def search(rows: list[Row], items: list[Item], rule: str, *, batch: int = 100) -> tuple[Matches, pl.DataFrame, str]:
    """{(row, item): score}, the matches themselves and the note of one rule."""
    references = pl.DataFrame(
        [(f"{benchmark}:{number}", prompt, answer or None) for number, (benchmark, prompt, answer) in enumerate(items)],
        schema=dict.fromkeys(("reference", "prompt", "answer"), pl.String),
        orient="row",
    )
    frame = pl.DataFrame(rows, schema=dict.fromkeys(("prompt", "answer"), pl.String), orient="row")
    frame = frame.select(pl.format("set:{}", pl.int_range(pl.len())).alias("id"), "prompt", "answer")
    ratios = {benchmark: RATIOS[benchmark] for benchmark, _, _ in items if benchmark in RATIOS}
    rules = PublishedRules(references, {rule}, ratios)
    for start in range(0, frame.height, batch):
        rules.read(frame[start : start + batch])
    matches = rules.matches(frame["id"])
    best = matches.group_by("row", "item").agg(pl.col("score").max())
    return {(row, item): score for row, item, score in best.iter_rows()}, matches, rules.notes[rule]


def drawn_texts(seed: int) -> tuple[list[Row], list[Item]]:
    """Items of words from a small vocabulary, and rows that copy pieces of them, with words changed and put in."""
    draw = random.Random(seed)
    vocabulary = [f"w{number}" for number in range(draw.choice([3, 8, 40, 400]))]

    def text(least: int, most: int) -> list[str]:
        return draw.choices(vocabulary, k=draw.randint(least, most))

    def written(words: list[str]) -> str:
        return "".join(word + draw.choice([" ", " ", " ", ", ", ".\n"]) for word in words)

    items = [(f"b{draw.randint(0, 1)}", text(0, 45), text(0, draw.choice([3, 30]))) for _ in range(draw.randint(1, 6))]
    rows: list[Row] = []
    for _ in range(draw.randint(1, 16)):
        parts = []
        for _ in range(2):
            words = text(0, 12)
            for _ in range(draw.randint(0, 2)):
                _, prompt, answer = draw.choice(items)
                source = draw.choice([prompt, answer, prompt + answer])
                start = draw.choice([0, draw.randint(0, len(source))])
                piece = source[start : draw.choice([len(source), draw.randint(start, len(source))])]
                changes = draw.choice([0.0, 0.05, 0.2])
                words += [draw.choice(vocabulary) if draw.random() < changes else word for word in piece]
                words += text(0, draw.choice([0, 12]))
            parts.append(written(words))
        rows.append((parts[0], parts[1]))
    return rows, [(benchmark, written(prompt), written(answer)) for benchmark, prompt, answer in items]


def test_every_rule_has_an_oracle() -> None:
    assert set(ORACLES) == PUBLISHED_RULES


@pytest.mark.parametrize("rule", sorted(ORACLES))
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32), batch=st.integers(1, 20))
def test_a_rule_is_its_plain_form(rule: str, seed: int, batch: int) -> None:
    rows, items = drawn_texts(seed)
    found, matches, _ = search(rows, items, rule, batch=batch)
    assert found == pytest.approx(ORACLES[rule](rows, items))
    assert matches["score"].is_between(0, 1).all()
    assert not matches["span"].str.strip_chars().eq("").any()


def test_the_drawn_texts_reach_both_sides_of_every_rule() -> None:
    for rule, oracle in ORACLES.items():
        sizes = [(len(oracle(rows, items)), len(rows) * len(items)) for rows, items in map(drawn_texts, range(15))]
        assert sum(matches > 0 for matches, _ in sizes) >= 2, rule
        assert sum(matches < pairs for matches, pairs in sizes) >= 5, rule


def numbered(count: int, prefix: str = "w") -> list[str]:
    return [f"{prefix}{number}" for number in range(count)]


def joined(words: list[str]) -> str:
    return " ".join(words)


def rows_found(rows: list[Row], items: list[Item], rule: str) -> list[int]:
    return sorted({row for row, _ in search(rows, items, rule)[0]})


def test_gpt3_counts_words_between_white_space() -> None:
    item = "Don't mis-count well-known words: they're nine, not 14!"  # eight words
    rows = [("DONT MISCOUNT WELLKNOWN WORDS THEYRE NINE NOT 14", ""), ("don t mis count well known words they re", "")]
    assert rows_found(rows, [("b", item, "")], "gpt3-13gram") == [0]


def test_gpt3_ignores_what_more_than_ten_rows_have() -> None:
    item = joined(numbered(13))
    rows = [(f"{item} {number}", "") for number in range(10)]
    assert len(rows_found(rows, [("b", item, "")], "gpt3-13gram")) == 10
    # Eleven rows, whatever the batch; twice in one row is one row.
    assert rows_found([*rows, ("other", item)], [("b", item, "")], "gpt3-13gram") == []
    assert search([*rows, ("other", item)], [("b", item, "")], "gpt3-13gram", batch=3)[0] == {}
    assert len(rows_found([*rows[:9], (item, item)], [("b", item, "")], "gpt3-13gram")) == 10


def test_gpt3_ignores_items_of_fewer_than_eight_words() -> None:
    items = [("b", joined(numbered(7)), ""), ("b", "Why", ""), ("b", joined(numbered(8, "x")), "")]
    rows = [(items[0][1], ""), ("Why", "Why"), (items[2][1], "")]
    assert rows_found(rows, items, "gpt3-13gram") == [2]


def test_gpt3_takes_n_from_the_short_examples_of_a_benchmark() -> None:
    long = numbered(40)
    eight = [(joined(long[5:13]), "")]
    # Of 20 examples the shortest is the 5th percentile, of 21 the second shortest.
    short = ("b", joined(numbered(8, "s")), "")
    others = [("b", joined(numbered(20, f"o{number}_")), "") for number in range(18)]
    assert rows_found(eight, [("b", joined(long), ""), short, *others], "gpt3-13gram") == [0]
    assert rows_found(eight, [("b", joined(long), ""), short, *others, others[0]], "gpt3-13gram") == []
    assert rows_found(eight, [("b", joined(long), ""), ("c", short[1], "")], "gpt3-13gram") == []


def test_palm_needs_seventy_percent_of_the_eight_grams_of_all_rows() -> None:
    item = numbered(17)  # ten 8-grams
    six, seven = joined(item[:13]), joined(item[:14])
    assert rows_found([(six, "")], [("b", joined(item), "")], "palm-8gram") == []
    assert rows_found([(seven, ""), (joined(item[3:12]), ""), ("x", "")], [("b", joined(item), "")], "palm-8gram") == [
        0,
        1,
    ]


def test_llama3_takes_the_ratio_of_the_benchmark() -> None:
    item = numbered(20)
    half = [(joined(item[:10]), "")]
    assert rows_found(half, [("b0", joined(item), "")], "llama3-token-ratio") == [0]
    assert rows_found(half, [("b1", joined(item), "")], "llama3-token-ratio") == []
    assert rows_found([(joined(item[:16]), "")], [("b1", joined(item), "")], "llama3-token-ratio") == [0]


def test_a_ratio_of_no_reference_is_an_error() -> None:
    references = pl.DataFrame({"reference": ["gsm8k:0"], "prompt": ["a"], "answer": ["b"]})
    with pytest.raises(UserError, match=r"'gms8k', which is no reference\. Did you mean 'gsm8k'"):
        PublishedRules(references, {"llama3-token-ratio"}, {"gms8k": 0.5})


def test_tulu_compares_prompts_alone() -> None:
    item = numbered(20)
    rows = [(joined(item[:10]), ""), (joined(item[:11]), ""), ("x", joined(item)), (joined(item), "")]
    assert rows_found(rows, [("b", joined(item), ""), ("b", "other", joined(item))], "tulu3-8gram") == [1, 3]


def test_tulu_says_which_set_overlaps_with_more_than_two_percent() -> None:
    items = [("b", joined(numbered(10, f"i{number}_")), "") for number in range(50)]
    one = search([(items[0][1], "")], items, "tulu3-8gram")[2]
    two = search([(items[0][1], ""), (items[1][1], "")], items, "tulu3-8gram")[2]
    assert one.endswith("set with b 1 of 50 (2.0 %)")
    assert two.endswith("set with b 2 of 50 (4.0 %), contaminated")
    assert search([("x", "")], items, "tulu3-8gram")[2].endswith("no source overlaps with any item")


@pytest.mark.parametrize(
    ("changed", "found"),
    [
        ([10, 11, 12, 13], True),  # four positions after the first ten
        ([10, 11, 12, 13, 14], False),  # five
        ([9, 12], False),  # among the first ten: no seed before the change, and one of 13 words after it
        ([18, 19], True),  # the end is cut off: 18 of 20 words
        ([16, 17, 18, 19], True),  # 16 of 20
        ([15, 16, 17, 18, 19], False),  # 15 of 20
    ],
)
def test_llama2_allows_four_differences_inside_a_span(changed: list[int], found: bool) -> None:
    item = numbered(20)
    row = [f"x{position}" if position in changed else word for position, word in enumerate(item)]
    assert bool(rows_found([(joined(row), "")], [("b", joined(item), "")], "llama2-skipgram")) == found


def test_llama2_needs_more_than_ten_tokens() -> None:
    ten, eleven = joined(numbered(10)), joined(numbered(11))
    assert rows_found([(ten, "")], [("b", ten, "")], "llama2-skipgram") == []
    assert rows_found([(eleven, "")], [("b", eleven, "")], "llama2-skipgram") == [0]


def test_llama2_reports_dirty_and_unclean_items() -> None:
    items = [
        ("b", joined(numbered(20)), ""),
        ("b", joined(numbered(40, "x")), ""),
        ("b", joined(numbered(60, "y")), ""),
    ]
    rows = [(items[0][1], ""), (joined(numbered(12, "x")), ""), (joined(numbered(11, "y")), "")]
    found, _, note = search(rows, items, "llama2-skipgram")
    assert found == {(0, 0): 1.0}
    assert "dirty items (from 80% of their tokens on): b 1 of 3" in note
    assert "not clean (from 20% on): b 2 of 3" in note


def test_qwen2_finds_a_copy_with_gaps_that_shares_no_long_run() -> None:
    item = numbered(30)
    fifth_changed = [f"x{position}" if position % 5 == 4 else word for position, word in enumerate(item)]
    rows = [
        (joined(fifth_changed), ""),
        (joined(item[:12]), ""),
        (joined(item[:13]), ""),
        (joined(item[:17]) + " y" * 40, ""),
    ]
    assert search(rows, [("b", joined(item), "")], "qwen2-lcs")[0] == {(0, 0): 0.8, (2, 0): 1.0}


def test_decon_needs_the_answer_where_the_question_is_short() -> None:
    others = [("b", joined(numbered(30, f"o{number}_")), "") for number in range(5)]
    items = [("b", joined(numbered(20)), "forty two"), *others]
    rows = [(items[0][1], "It is forty two."), (items[0][1], "It is forty."), (items[0][1], "x " * 60 + "forty two")]
    found = search(rows, items, "decon")[0]
    assert found == {(0, 0): pytest.approx(1.0)}


def test_the_part_of_a_row_is_named() -> None:
    item = joined(numbered(30))
    rows = [(item, "x"), ("x", item), (item, item)]
    others = [("b", joined(numbered(30, f"o{number}_")), "") for number in range(5)]
    for rule in PUBLISHED_RULES - {"tulu3-8gram"}:
        _, matches, _ = search(rows, [("b", item, ""), *others], rule)
        parts = matches.sort("row", "part").select("row", "part").unique(maintain_order=True).rows()
        assert parts[:2] == [(0, "prompt"), (1, "answer")], rule
        assert {row for row, _ in parts} == {0, 1, 2}, rule


def test_no_references_and_no_rows_give_no_matches() -> None:
    for rule in PUBLISHED_RULES:
        assert search([], [], rule)[0] == {}
        assert search([("a b c", "d")], [("b", "", "")], rule)[0] == {}
        assert search([], [("b", "a b c", "d")], rule)[0] == {}
