"""Containment against plain Python: string search for every passage in every row."""

from __future__ import annotations

import numpy as np
import polars as pl
from hypothesis import example, given
from hypothesis import strategies as st

from siftune.curation.splits.assignment import similarity_groups
from siftune.curation.splits.containment import PASSAGE_TEXTS, RowPassages, contained_across, measure_containment
from tests.curation.splits.brute_force import containments

Row = tuple[list[str], str | None, str]


def frames(rows: list[Row], *, batch: int = 3) -> list[pl.DataFrame]:
    return [pl.DataFrame(rows[at : at + batch], PASSAGE_TEXTS, orient="row") for at in range(0, len(rows), batch)]


def across_halves(left: list[Row], right: list[Row], *, common: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return contained_across(RowPassages(lambda: frames(left), common), RowPassages(lambda: frames(right), common))


def single(prompt: str, answer: str = "", core: str | None = None) -> Row:
    return [prompt], core, f"{prompt}\n{answer}"


words = st.lists(st.sampled_from(["a", "b", "B!", "c", "d"]), max_size=7).map(" ".join)


@st.composite
def worlds(draw: st.DrawFn) -> list[Row]:
    """Rows that often hold the turns of earlier ones, whole or in part."""
    rows: list[Row] = []
    for _ in range(draw(st.integers(1, 9))):
        turns, said = [], []
        for _ in range(draw(st.integers(1, 3))):
            earlier = draw(st.sampled_from(rows))[0] if rows and draw(st.booleans()) else []
            turn = " ".join([draw(words), *earlier[: draw(st.integers(0, 2))], draw(words)])
            turns.append(turn)
            said += [turn, draw(words)]
        core = draw(st.none() | st.just(" ".join(" ".join(turns).split()[1:])))
        rows.append((turns, core, "\n".join(said)))
    return rows


@given(worlds(), st.sampled_from([2, 3, 50]))
@example([single("a b c d"), single("x a b c d y"), single("A, b c (d)")], 50)
def test_rows_inside_one_another_are_those_that_string_search_finds(rows: list[Row], most: int) -> None:
    measured = measure_containment(lambda: frames(rows), most_prompts=most)
    inside, common = containments({str(at): row for at, row in enumerate(rows)}, most_prompts=most)
    edges = [(int(a), int(b)) for a, b in inside]
    pairs = set(zip(measured.pairs.a.tolist(), measured.pairs.b.tolist(), strict=True))
    assert pairs <= {(min(pair), max(pair)) for pair in edges} | _siblings(edges)
    expected = similarity_groups(len(rows), [tuple(zip(*edges, strict=True)) if edges else ((), ())])
    assert similarity_groups(len(rows), [(measured.pairs.a, measured.pairs.b)]).tolist() == expected.tolist()
    assert len(measured.common) == len(common)
    # Across two halves every pair is there, by the passages that identify a row in the whole.
    half = len(rows) // 2
    left, right = rows[:half], rows[half:]
    a, b = across_halves(left, right, common=measured.common)
    across = {(one, other - half) for one, other in edges if one < half <= other}
    across |= {(other, one - half) for one, other in edges if other < half <= one}
    assert list(zip(a.tolist(), b.tolist(), strict=True)) == sorted(across)


def _siblings(edges: list[tuple[int, int]]) -> set[tuple[int, int]]:
    """Rows that hold the same row's passage: the first row with a passage stands for all that have it."""
    return {(min(b, d), max(b, d)) for a, b in edges for c, d in edges if a == c and b != d}


def test_what_many_prompts_hold_joins_nothing() -> None:
    thanks = "Thank you very much."
    rows = [single(thanks)] + [single(f"Please explain topic number {n} to me. {thanks}") for n in range(5)]
    measured = measure_containment(lambda: frames(rows), most_prompts=50)
    assert len(measured.pairs) == 0
    assert measured.templates.tolist() == []
    # Four such prompts are few.
    assert len(measure_containment(lambda: frames(rows[:5]), most_prompts=50).pairs) == 4

    task = "Answer the question below in one short sentence of plain English."
    rows = [single(task)] + [single(f"{task} What is topic number {n}?") for n in range(6)]
    measured = measure_containment(lambda: frames(rows), most_prompts=6)
    assert len(measured.pairs) == 0
    assert measured.templates.tolist() == [0]
    assert measure_containment(lambda: frames(rows), most_prompts=7).pairs.a.tolist() == [0] * 6


def test_copies_of_one_prompt_do_not_make_it_common() -> None:
    rows = [single("How tall is the tower?")] + [single("How tall is the tower? In metres.")] * 9
    assert len(measure_containment(lambda: frames(rows), most_prompts=50).pairs) == 17


def test_a_passage_that_is_known_to_be_common_stays_so() -> None:
    rows = [single("How tall is the tower?"), single("How tall is the tower? In metres.")]
    common = measure_containment(lambda: frames(rows), most_prompts=1).common
    assert len(common) == 1
    assert len(measure_containment(lambda: frames(rows), most_prompts=50, common=common).pairs) == 0


def test_a_prompt_inside_an_answer_a_core_or_a_longer_dialogue_is_found() -> None:
    question = "Why do cats always land on their feet when they fall?"
    dialogue = [question, "And dogs?", "Do birds fall at all?"]
    rows: list[Row] = [
        single(question),
        single("List questions about animals.", f"1. {question} 2. How old do horses get?"),
        single(f"Question: {question} Context: none. Answer:", "Reflexes.", core=f"{question} none."),
        (dialogue, None, "\n".join([dialogue[0], "Reflexes.", dialogue[1], "No.", dialogue[2], "Hardly."])),
        (dialogue[:2], None, "\n".join([dialogue[0], "Reflexes.", dialogue[1], "They do not."])),
        (dialogue[1::-1], None, "\n".join([dialogue[1], "No.", dialogue[0], "Reflexes."])),
    ]
    a, b = across_halves(rows[:1], rows[1:], common=measure_common(rows))
    assert b.tolist() == [0, 1, 2, 3, 4]
    # A dialogue stands in its continuation, and not in one whose turns come in another order.
    a, b = across_halves([rows[4]], rows[2:4] + rows[5:], common=measure_common([]))
    assert (a.tolist(), b.tolist()) == ([0], [1])


def measure_common(rows: list[Row]):
    return measure_containment(lambda: frames(rows), most_prompts=50).common
