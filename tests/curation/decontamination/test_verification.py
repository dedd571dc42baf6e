"""Whether the answers of a row and an item agree."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import numpy as np
import polars as pl
import pytest

from siftune.curation.decontamination.content_words import WordWeights
from siftune.curation.decontamination.paraphrases import compare
from siftune.curation.decontamination.verification import (
    Candidate,
    compare_answers,
    final_number,
    formulas_differ,
    has_negation,
    is_another_item,
    verify,
)


def compared(answer: str, item_answer: str, *wrong: str, code: bool = False) -> tuple[float, float]:
    return compare_answers(Candidate("", "25 degrees", answer, "", "", item_answer, wrong, "bench", code=code))


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("3 + 4 = 7, times 6.\n#### 42", 42.0),
        ("So the answer is 1,250.", 1250.0),
        (r"We find $\boxed{12}$.", 12.0),
        ("7", 7.0),
        ("The pH is 7.", 7.0),
        ("6x + 2.", None),
        (r"\boxed{12x}", None),
        ("It has 3 sides and 4 corners.", None),
        ("none", None),
    ],
)
def test_the_final_number_of_an_answer(text: str, number: float | None) -> None:
    assert final_number(text) == number


@pytest.mark.parametrize(
    ("answer", "item_answer", "wrong", "expected"),
    [
        ("After all that the answer is 42.", "21 * 2\n#### 42", (), (1.0, 0.0)),
        ("After all that the answer is 43.", "21 * 2\n#### 42", (), (0.0, 1.0)),
        ("Paris, of course.", "Paris", ("London", "Rome"), (1.0, 0.0)),
        ("London, of course.", "Paris", ("London", "Rome"), (0.0, 1.0)),
        ("Paris or London, I forget.", "Paris", ("London", "Rome"), (0.0, 0.0)),
        ("Something else.", "Paris", (), (0.0, 1.0)),
        ("At 25 degrees the pH is 7.", "7", (), (1.0, 0.0)),
        ("At 25 degrees the pH is 8.", "7", (), (0.0, 1.0)),
        ("At 25 degrees, 7 or 8.", "7", (), (0.0, 0.0)),
        ("", "Paris", ("London",), (0.0, 0.0)),
        ("Paris", "", (), (0.0, 0.0)),
    ],
)
def test_the_right_choice_must_be_held_more_than_the_wrong_ones(
    answer: str, item_answer: str, wrong: tuple[str, ...], expected: tuple[float, float]
) -> None:
    assert compared(answer, item_answer, *wrong) == expected


def test_programs_are_not_compared_as_answers() -> None:
    assert compared("return 1", "return 2", code=True) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("row", "item", "differ"),
    [
        ("Simplify 2(x + 3) + 4(x - 1).", "Expand $(x+3)(2x-4)(x-6) = 0$.", True),
        (r"Where is $x^2 + 3x = 0$?", "Find where x^2+3x=0 holds.", False),
        ("Find the maximum of f(x)+g(x).", "Where is f(x) + g(x) = 5?", False),
        ("In S_5, what is the index of <p>?", "Find the index of <p> in S_5.", False),
        ("No formula at all.", "Expand $(x+3)(2x-4)(x-6) = 0$.", False),
    ],
)
def test_formulas_are_compared_as_names(row: str, item: str, differ: bool) -> None:
    assert formulas_differ(row, item) == differ


def test_what_differs_is_said_in_words() -> None:
    one = Candidate(
        "How far is 12 miles?",
        "How far is 12 miles?",
        "19",
        "How far is 15 miles?",
        "How far is 15 miles?",
        "24",
        (),
        "bench",
        code=False,
    )
    verified = verify(
        [one], weights=WordWeights(), embed=lambda texts, progress=None: np.ones((len(next(iter(texts))), 4))
    )
    line = verified.row(0, named=True)
    assert line["numbers_replaced"] == 1
    assert line["detail"] == "shared: far, miles; other numbers; another answer"
    negated = verify(
        [dataclasses.replace(one, item_gist="How far is it not?", item_answer="")],
        weights=WordWeights(),
        embed=lambda texts, progress=None: np.ones((len(next(iter(texts))), 4)),
    )
    assert "only one asks for what is not so" in negated["detail"].item()


@pytest.mark.parametrize(
    ("row", "replaced"),
    [
        ("Two fifths of the 4000 gallons were sour. How much is the refund at 3.5 a gallon?", 0),
        ("2/5 of 4000 gallons at 3.5 were sour on day 7. What is the refund?", 0),
        ("2/5 of 5000 gallons at 3.5 were sour. What is the refund?", 1),
        ("Of 4000 gallons at 3.5, 2/5 were sour in the fourth week. What is the refund?", 0),
        ("3/5 of 5000 gallons at 3.5 were sour. What is the refund?", 2),
    ],
)
def test_a_number_is_replaced_where_each_side_has_one_of_its_own(row: str, replaced: int) -> None:
    item = "A store bought 4000 gallons at 3.5. Later 2/5 of the milk was sour. Calculate the refund."
    one = Candidate(row, row, "", item, item, "", (), "bench", code=False)
    line = verify([one], weights=WordWeights(), embed=lambda texts, progress=None: np.ones((len(next(iter(texts))), 4)))
    assert line["numbers_replaced"].item() == replaced


def pairs(*lines: tuple[str, str, str, str]) -> pl.DataFrame:
    """Pairs of (prompt, answer, item, its answer), held side by side by an encoder to which all words are strangers."""

    def embed(texts: Iterable[pl.Series], *, progress: object = None) -> np.ndarray:
        return np.eye(1000, dtype=np.float16)[: sum(map(len, texts))]

    names = ["prompt", "answer", "item_prompt", "item_answer"]
    frame = pl.DataFrame(lines, schema=names, orient="row").with_columns(
        question_gist="prompt", item_gist="item_prompt", reference=pl.lit("bench"), screen=pl.lit(9.0)
    )
    return compare(
        frame.with_columns(distractors=pl.lit(None, dtype=pl.List(pl.String))), weights=WordWeights(), embed=embed
    )


def certainly_another(*line: str) -> bool:
    return pairs(line).select(is_another_item()).item()


PROGRAM = "def count_char(string, char):\n    return string.count(char)"


@pytest.mark.parametrize(
    ("prompt", "answer", "item", "item_answer", "another"),
    [
        # A program in the row's answer alone makes no program of a question about a name.
        ("What is `a.Counter.update` for?", "```python\nupdate(x)\n```", "What is `a.Counter` for?", "Counting.", True),
        # The same words and more, answered otherwise; answered alike; no more words.
        (
            "Which grammar rules define yield statements?",
            "a ::= b",
            "Explain yield statements.",
            "A generator pauses.",
            True,
        ),
        (
            "Which grammar rules define yield statements?",
            "A generator pauses.",
            "Explain yield statements.",
            "A generator pauses.",
            False,
        ),
        ("Yield statements?", "a ::= b", "Explain yield statements.", "A generator pauses.", False),
        # A programming task that is answered in prose.
        ("Count a character in a string.", "Go through it.", "Count a character in a string.", PROGRAM, True),
        ("Count a character in a string.", PROGRAM, "Count a character in a string.", PROGRAM, False),
        # What says nothing without its choices.
        ("Which statement?", "", "Which statement?", "", True),
        ("Which statement of rings?", "", "Which statement of rings?", "", False),
    ],
)
def test_what_is_certainly_another_item(prompt: str, answer: str, item: str, item_answer: str, another: bool) -> None:
    assert certainly_another(prompt, answer, item, item_answer) == another


def test_a_program_to_explain_is_another_task_than_to_write_it() -> None:
    given = pairs((f"Explain this:\n{PROGRAM}", "It counts.", "Count a character.", PROGRAM))
    written = pairs(("Count a character.", PROGRAM, "Count a character.", PROGRAM))
    assert (given["code_given"].item(), written["code_given"].item()) == (1.0, 0.0)


@pytest.mark.parametrize(
    ("text", "negated"),
    [
        ("Which is not a spice?", True),
        ("Find the first non-repeated letter.", True),
        ("Why doesn't it freeze?", True),
        ("Is it prime or not?", False),
        ("Which is a note?", False),
    ],
)
def test_negations_of_questions(text: str, negated: bool) -> None:
    assert has_negation(text) == negated
