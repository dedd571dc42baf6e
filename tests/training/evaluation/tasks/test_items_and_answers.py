"""Items of tasks as files hold them, and answers that a program checks."""

from __future__ import annotations

import doctest
import importlib.util
import json
import re
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from siftune.curation.errors import UserError
from siftune.curation.recipe.training_sections import Compare, Task
from siftune.training.evaluation.tasks import answers
from siftune.training.evaluation.tasks.answers import is_right, last_number
from siftune.training.evaluation.tasks.items import MMLU_15, items_hash, read_items
from tests.real_data import DATA, json_rows

ROOT = Path(__file__).parents[4]
QUESTIONS = [
    {"subject": "colours", "question": "Which is a colour?", "choices": ["seven", "red", "loud"], "answer": "B"},
    {"subject": "numbers", "question": "Which is a number?", "choices": ["seven", "red", "loud"], "answer": "A"},
    {"subject": "colours", "question": "Which is blue?", "choices": ["the sky", "grass", "grass"], "answer": "A"},
]


def write(folder: Path, rows: list[dict[str, Any]], name: str = "quiz.jsonl") -> Path:
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def task(**settings: Any) -> Task:
    return Task.model_validate({"path": "quiz.jsonl", **settings})


def test_choices_are_texts_with_the_right_one_first(tmp_path: Path) -> None:
    write(tmp_path, QUESTIONS)
    items = read_items(task(), base=tmp_path, seed=0)
    assert items["choices"].to_list() == [["red", "seven", "loud"], ["seven", "red", "loud"], ["the sky", "grass"]]
    assert items["cluster"].to_list() == ["colours", "numbers", "colours"]
    assert items["item"].to_list() == ["quiz:0", "quiz:1", "quiz:2"]
    assert items["prompt"].to_list() == [row["question"] for row in QUESTIONS]


def test_subjects_clusters_and_draws(tmp_path: Path) -> None:
    write(tmp_path, QUESTIONS)
    assert read_items(task(subjects=["colours"]), base=tmp_path, seed=0)["item"].to_list() == ["quiz:0", "quiz:2"]
    by_answer = read_items(task(cluster="answer"), base=tmp_path, seed=0)
    assert by_answer["cluster"].to_list() == ["B", "A", "A"]
    drawn = {tuple(read_items(task(max_items=2), base=tmp_path, seed=seed)["item"]) for seed in range(20)}
    assert len(drawn) == 3
    assert all(len(items) == 2 for items in drawn)


def test_items_without_a_cluster_stand_by_themselves(tmp_path: Path) -> None:
    write(
        tmp_path,
        [{"question": "2 + 2?", "answer": "4"}, {"question": "", "answer": ""}, {"question": "3?", "answer": "3"}],
    )
    items = read_items(task(kind="number"), base=tmp_path, seed=0)
    assert items["cluster"].to_list() == items["item"].to_list() == ["quiz:0", "quiz:2"]
    assert items["choices"].null_count() == 2


@pytest.mark.parametrize(
    ("settings", "rows", "says"),
    [
        ({}, [{"question": "Why?", "answer": "So."}], "does not name a right choice among two or more"),
        ({}, [{"question": "Why?", "choices": ["a", " "], "answer": "A"}], "has an empty choice"),
        ({"kind": "exact"}, [{"question": "Why?"}], "has no expected answer"),
        ({"kind": "number"}, [{"question": "Why?", "answer": "So."}], "expects an answer without a number"),
        ({"kind": "regex"}, [{"question": "Why?", "answer": "(so"}], "no regular expression"),
        ({"subjects": ["colour"]}, QUESTIONS, "has no subject 'colour'. Did you mean 'colours'?"),
        ({"cluster": "topic"}, QUESTIONS, "no row of quiz.jsonl has the column 'topic'"),
    ],
)
def test_what_a_kind_needs_is_said(tmp_path: Path, settings: dict[str, Any], rows: list[Any], says: str) -> None:
    write(tmp_path, rows)
    with pytest.raises(UserError, match="Task quiz:") as fault:
        read_items(task(**settings), base=tmp_path, seed=0)
    assert says in str(fault.value)


def test_the_hash_follows_what_is_asked_and_not_the_clusters(tmp_path: Path) -> None:
    write(tmp_path, QUESTIONS)
    items = read_items(task(), base=tmp_path, seed=0)
    assert items_hash(items) == items_hash(read_items(task(cluster="answer"), base=tmp_path, seed=0))
    write(tmp_path, [*QUESTIONS[:2], {**QUESTIONS[2], "question": "Which is green?"}])
    assert items_hash(items) != items_hash(read_items(task(), base=tmp_path, seed=0))


@pytest.mark.skipif(not DATA.is_dir(), reason="needs the benchmarks")
def test_the_15_subjects_of_mmlu() -> None:
    path = DATA / "benchmarks" / "mmlu_test.jsonl.gz"
    items = read_items(Task(path=str(path), subjects="mmlu-15"), base=Path(), seed=0)
    assert set(items["cluster"]) == set(MMLU_15)
    rows = [row for row in json_rows(path) if row["subject"] in MMLU_15]
    assert items["prompt"].to_list() == [row["question"].strip() for row in rows]
    assert items["answer"].to_list() == [row["choices"]["ABCD".index(row["answer"])].strip() for row in rows]
    assert items["choices"].list.len().min() >= 2
    assert items["item"][0].startswith("mmlu_test:")


def test_tasks_of_a_recipe_have_names_of_their_own_and_one_is_primary_at_most() -> None:
    assert task(path="a b/my quiz.v2.jsonl").label == "my-quiz"
    with pytest.raises(ValidationError, match="two tasks have the name 'quiz'"):
        Compare(tasks=[task(), task(kind="exact")])
    with pytest.raises(ValidationError, match="more than one task is `primary`"):
        Compare(tasks=[task(primary=True), task(name="other", primary=True)])
    with pytest.raises(ValidationError, match="string_pattern_mismatch"):
        task(name="../elsewhere")


def test_the_recipes_of_the_documentation_are_accepted() -> None:
    text = (ROOT / "docs" / "tasks.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```yaml\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    tasks = [task for block in blocks for task in Compare.model_validate(yaml.safe_load(block)["compare"]).tasks]
    assert [task.label for task in tasks] == ["mmlu", "gsm8k_test", "ifeval", "arc_easy", "mine", "python_quiz"]
    for kind in get_args(Task.model_fields["kind"].annotation):
        assert f"| `{kind}` |" in text
    assert all(subject in text for subject in MMLU_15)
    for module in re.findall(r"python -m (\S+)", text):
        assert importlib.util.find_spec(module)


@pytest.mark.parametrize(
    ("kind", "answer", "expected", "right"),
    [
        ("exact", ' "None".\n', "None", True),
        ("exact", "`itertools.chain`", "itertools.chain", True),
        ("exact", "none", "None", False),
        ("exact", "It is None", "None", False),
        ("exact", "two  words", "two words", True),
        ("regex", "I would say ValueError, I think", r"\bValueError\b", True),
        ("regex", "UnicodeValueErrors", r"\bValueError\b", False),
        ("number", "3 + 4 = 7, so she has $1,207.50.", "1207.5", True),
        ("number", "She has 7 apples and 3 pears", "7", False),
        ("number", "no idea", "7", False),
        ("number", "It is 18 #### 18", "... <<2*9=18>> #### 18", True),
    ],
)
def test_an_answer_is_right_or_not(kind: Any, answer: str, expected: str, right: bool) -> None:
    assert is_right(kind, answer, expected) is right


@given(st.one_of(st.integers(-(10**9), 10**9), st.floats(-1e6, 1e6).map(lambda value: round(value, 3))))
def test_a_written_number_is_read_again(number: float) -> None:
    for text in (f"The result is {number}.", f"{number:,} in all", f"1 of 2: {number}"):
        assert last_number(text) == pytest.approx(number, rel=1e-6)
        assert is_right("number", text, str(number))


@given(st.text(), st.text())
def test_exact_answers_agree_in_both_orders(one: str, other: str) -> None:
    assert is_right("exact", one, one)
    assert is_right("exact", one, other) == is_right("exact", other, one)


def test_doctests_hold() -> None:
    assert doctest.testmod(answers).failed == 0
