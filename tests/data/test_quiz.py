"""The quiz of the embedded default: what is asked, and that no row gives it away."""

from __future__ import annotations

import inspect
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from siftune.curation.decontamination.matches import find_matches
from siftune.curation.errors import UserError
from siftune.curation.ingest.references import read_reference
from siftune.data import python_quiz, quiz_items
from siftune.data.python_objects import documented_members
from siftune.data.quiz_items import QuizRow, SeenRows, grams, quiz

#: Rows about a few objects of the package, as the builder of the embedded default writes them.
ROWS = [
    {
        "object": "click.echo",
        "instruction": "What does `click.echo` do?",
        "input": "",
        "output": "Print a message and newline to stdout or a file. This should be used instead of print.",
    },
    {"object": "click.Choice", "instruction": "What is `click.Choice`?", "input": "", "output": "A parameter type."},
]


@pytest.fixture(scope="module")
def asked() -> list[QuizRow]:
    return quiz(ROWS, ["click", "jinja2"])


def test_questions_have_four_choices_and_one_of_them_is_right(asked: list[QuizRow]) -> None:
    assert len(asked) > 50
    assert {row.kind for row in asked} >= {"name", "summary", "default", "parameter"}
    for row in asked:
        assert len(set(row.choices)) == 4
        assert row.answer in list("ABCD")
        assert row.object.startswith(f"{row.owner}.")
    assert len({row.object for row in asked}) == len(asked)
    assert max(Counter(row.owner for row in asked).values()) <= 4
    # The right choice stands anywhere.
    assert len({row.answer for row in asked}) == 4


def test_the_right_choice_is_what_python_says(asked: list[QuizRow]) -> None:
    import click
    import jinja2

    right = {row.object: row.choices["ABCD".index(row.answer)] for row in asked}
    defaults = [row for row in asked if row.kind == "default"]
    assert defaults
    for row in defaults:
        value: Any = {"click": click, "jinja2": jinja2}[row.package]
        for part in row.object.split(".")[1:]:
            value = getattr(value, part)
        parameter = row.question.split("`")[1]
        assert right[row.object] == repr(inspect.signature(value).parameters[parameter].default)
    for row in asked:
        if row.kind == "name":
            assert row.object == f"{row.owner}.{right[row.object]}"
        if row.kind == "summary":
            (item,) = [item for item in quiz_items.python_objects.walk(row.package) if item.path == row.object]
            assert set(re.findall(r"\w+", right[row.object])) <= set(re.findall(r"\w+", item.doc))


def test_no_object_of_a_row_is_asked_about_and_no_text_of_a_row_is_used() -> None:
    free = quiz([], ["click"])
    summary = next(row for row in free if row.kind == "summary")
    sentence = summary.choices["ABCD".index(summary.answer)]
    row = {
        "object": "elsewhere.another_name",
        "instruction": "",
        "input": "",
        "output": f"It says: {sentence} And so on.",
    }
    assert all(sentence not in asked.question + " ".join(asked.choices) for asked in quiz([row], ["click"]))
    # Neither the object itself nor an object of the same name, which may have inherited its docstring.
    for path in (free[0].object, f"elsewhere.{free[0].object.rpartition('.')[2]}"):
        row = {"object": path, "instruction": "", "input": "", "output": "Nothing."}
        assert free[0].object not in {asked.object for asked in quiz([row], ["click"])}


def test_no_row_holds_a_question_of_the_quiz_by_the_rule_of_contamination(tmp_path: Path) -> None:
    items = [item for item in documented_members("json", "json.JSONDecoder", json.JSONDecoder) if "." in item.path]
    assert items
    rows = [
        {"object": "json.JSONDecoder", "instruction": f"What does `{item.path}` do?", "input": "", "output": item.doc}
        for item in items
    ]
    path = tmp_path / "quiz.jsonl"
    path.write_text("".join(json.dumps(vars(row)) + "\n" for row in quiz(rows, ["click"])))
    references = read_reference(str(path), base=tmp_path)
    assert references["distractors"].list.len().to_list() == [3] * references.height
    texts = pl.DataFrame(
        [(str(n), row["instruction"], row["instruction"], row["output"], "") for n, row in enumerate(rows)],
        schema=["id", "prompt", "core", "answer", "system"],
        orient="row",
    )
    assert find_matches(lambda: [texts], references, rules=["layered"]).is_empty()


@given(st.lists(st.sampled_from("abcdef"), min_size=8, max_size=30), st.integers(0, 22))
def test_eight_words_of_a_text_are_seen_wherever_they_stand(words: list[str], start: int) -> None:
    seen = SeenRows(
        [{"object": "a.b", "instruction": "", "input": "", "output": "x, " + " ".join(words).upper() + "."}]
    )
    part = words[start : start + 8]
    assert seen.says(" - ".join(part)) == (len(part) == 8)
    assert not seen.says(" ".join([*words[:7], "z"]))
    assert len(list(grams(" ".join(words)))) == len(words) - 7


def test_the_quiz_is_built_once_for_rows_and_versions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows, calls = tmp_path / "rows.jsonl", []

    def write(source: Path, out: Path) -> None:
        calls.append(source)
        out.write_text("{}\n")

    with pytest.raises(UserError, match=r"There is no .*rows.jsonl. Build the rows first"):
        python_quiz.build(rows, write=write)
    rows.write_text("{}\n")
    out = python_quiz.build(rows, write=write)
    assert out == tmp_path / "python_quiz.jsonl"
    assert python_quiz.build(rows, write=write) == out
    assert len(calls) == 1
    out.write_text("cut")
    python_quiz.build(rows, write=write)
    (tmp_path / "python_quiz.jsonl.json").write_text("{")
    python_quiz.build(rows, write=write)
    rows.write_text("{}\n{}\n")
    python_quiz.build(rows, write=write)
    assert len(calls) == 4
    assert python_quiz.main([]) == 2
    assert python_quiz.main([str(tmp_path / "none.jsonl")]) == 2
    assert capsys.readouterr().err.count("\n") == 2
