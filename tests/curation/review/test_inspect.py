"""`inspect` says what a source is, with numbers that can be counted by hand."""

from __future__ import annotations

import json

import polars as pl
import pytest
import yaml

from siftune.curation.errors import UserError
from siftune.curation.formats.faults import REASONS
from siftune.curation.pipeline import curate
from siftune.curation.recipe.sections import Source
from siftune.curation.review.inspect import ADVICE, inspect

DOCTOR = "If you are a doctor, please answer the medical questions based on the description."
TOPICS = ["liver", "knee", "throat", "eye", "heart", "skin", "ear", "lung", "wrist", "spine"]


def inspect_rows(folder, rows, name="data.jsonl", **options):
    (folder / name).write_text("\n".join(json.dumps(row) if not isinstance(row, str) else row for row in rows))
    return inspect(Source(path=name, **options), base=folder)


def doctor(count, blank=0):
    rows = [
        {
            "instruction": DOCTOR,
            "input": f"My {topic} hurts since {i} days, case {i * 7}",
            "output": f"See a {topic} expert " * 2,
        }
        for i in range(count // 10)
        for topic in TOPICS
    ]
    return [*rows, *({"instruction": f"Tell {i}", "input": "", "output": f"told {i}"} for i in range(blank))]


def test_numbers_are_those_that_can_be_counted(tmp_path):
    rows = [
        {"question": "one two three", "answer": "four five", "split": "val"},
        {"question": "one two three", "answer": "four five"},
        {"question": "one two three", "answer": "something else"},
        {
            "question": "alpha beta gamma delta epsilon zeta eta theta iota kappa",
            "answer": "lambda mu nu xi omicron pi rho",
        },
        {
            "question": "alpha beta gamma delta epsilon zeta eta theta iota kappa",
            "answer": "lambda mu nu xi omicron pi sigma",
        },
        {"question": "no answer"},
        "{broken",
    ]
    inspection = inspect_rows(tmp_path, rows)
    assert (inspection.source.format, inspection.source.rows, inspection.source.examples) == ("question_answer", 7, 5)
    assert inspection.source.quarantined == {"missing_answer": 1, "truncated": 1}
    assert inspection.splits == {"": 4, "validation": 1}
    assert inspection.roles == {"assistant": 5, "user": 5}
    assert inspection.turns == {2: 5}
    assert inspection.lengths["prompt_words"]["min"] == 3
    assert inspection.lengths["prompt_words"]["max"] == 10
    assert inspection.lengths["answer_characters"]["min"] == len("four five")
    assert inspection.duplicates is not None
    assert (inspection.duplicates.exact, inspection.duplicates.near, inspection.duplicates.conflicts) == (1, 0, 2)
    assert [sample["id"] for sample in inspection.samples] == ["data:0", "data:2", "data:4"]
    assert any("truncated" in warning for warning in inspection.warnings)
    assert any("28.6 % of the rows cannot be used" in warning for warning in inspection.warnings)
    assert json.loads(json.dumps(inspection.to_dict()))["turns"] == {"2": 5}


def test_one_instruction_for_all_is_warned_of_and_its_questions_are_not_duplicates(tmp_path):
    inspection = inspect_rows(tmp_path, doctor(300, blank=1))
    assert any(
        warning.startswith("one instruction covers 99.7 % of this source: 'If you are")
        for warning in inspection.warnings
    )
    assert inspection.duplicates is not None
    assert (inspection.duplicates.exact, inspection.duplicates.near) == (0, 0)


def test_texts_that_differ_in_a_number_are_not_near_duplicates(tmp_path):
    words = " ".join(f"word{i} so" for i in range(20))
    rows = [
        {"question": f"{words} is the threshold of pair production {energy} MeV", "answer": f"{words} it is"}
        for energy in (1.022, 1.032)
    ]
    inspection = inspect_rows(tmp_path, rows)
    assert inspection.duplicates is not None
    assert (inspection.duplicates.exact, inspection.duplicates.near) == (0, 0)


FIRST = "Below is an instruction that describes a task for you to do well. Instruction:"
SECOND = "You are an assistant who writes what is asked for in plain words. Task:"
LONG = " ".join(f"word{i} so" for i in range(30))
WORLDS = {
    "rows that differ only in a template": [
        {
            "question": f"{template} describe the {topic} of {TOPICS[i]}{i // 10}",
            "answer": f"the {topic} {i} is {topic}",
        }
        for template in (FIRST, SECOND)
        for topic in TOPICS[:6]
        for i in range(10)
    ],
    "one long prompt with two short answers": [{"question": LONG, "answer": answer} for answer in ("yes", "maybe")],
    "an empty answer is dropped before it can be a duplicate": [{"question": LONG, "answer": "..."}] * 2,
    "one answer under many prompts": [
        {"question": f"{topic} {LONG[:40]}", "answer": f"{LONG} {LONG}"} for topic in TOPICS
    ],
    "copies": [{"question": f"{LONG} {word}", "answer": LONG} for word in ("one", "one", "and so on", "tail")],
}


@pytest.mark.parametrize("world", WORLDS)
def test_duplicates_are_those_that_a_run_finds(tmp_path, world):
    duplicates = inspect_rows(tmp_path, WORLDS[world]).duplicates
    (tmp_path / "r.yaml").write_text(yaml.safe_dump({"sources": [{"path": "data.jsonl"}], "encoder": None}))
    ledger = curate(tmp_path / "r.yaml").ledger().filter(pl.col("action").is_in(["drop", "report"]))
    counts = dict(ledger.group_by("stage").agg(pl.col("id").n_unique()).iter_rows())
    assert duplicates is not None
    assert (duplicates.exact, duplicates.near, duplicates.answers, duplicates.conflicts) == tuple(
        counts.get(stage, 0) for stage in ("exact", "near", "answers", "conflicts")
    )


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            [{"instruction": f"tell {i}", "input": "", "output": f"answer {i} is this"} for i in range(20)],
            "`input` is blank in 100.0 %",
        ),
        (
            [{"question": f"tell {i % 4}", "answer": f"it is {i}"} for i in range(20)],
            "80.0 % of the rows repeat a prompt with a different answer",
        ),
        ([{"question": f"tell {i}", "answer": "yes"} for i in range(20)], "labels rather than answers"),
        (
            [{"question": f"tell {i}", "answer": "five words in an answer"} for i in range(20)],
            "all answers have the same length",
        ),
        ([{"question": "tell me this", "answer": "this and that"}] * 20, "more than half of the rows are duplicates"),
    ],
)
def test_warnings(tmp_path, rows, message):
    assert any(message in warning for warning in inspect_rows(tmp_path, rows).warnings)


def test_dialogues_show_roles_and_turns(tmp_path):
    turns = [
        {"from": name, "value": f"said {name} {i}"}
        for i, name in enumerate(("human", "gpt", "narrator", "gpt", "human"))
    ]
    inspection = inspect_rows(tmp_path, [{"conversations": turns}, {"conversations": turns[:2]}])
    assert inspection.roles == {"assistant": 3, "user": 2, "narrator": 1}
    assert inspection.turns == {2: 1, 4: 1}
    assert any("1 dialogues were repaired" in warning for warning in inspection.warnings)


def test_a_source_of_nothing_and_a_source_that_is_not_there(tmp_path):
    inspection = inspect_rows(tmp_path, [])
    assert (inspection.source.rows, inspection.duplicates, inspection.samples) == (0, None, ())
    assert inspection.warnings
    assert inspect_rows(tmp_path, ["[]", "7"]).source.quarantined == {"not_an_object": 2}
    with pytest.raises(UserError, match=r"Did you mean 'data.jsonl'"):
        inspect(Source(path="dat.jsonl"), base=tmp_path)


def test_every_reason_has_advice_and_a_row_of_any_kind_is_shown(tmp_path):
    assert set(ADVICE) == set(REASONS)
    deep = "[" * 300 + "]" * 300
    rows = [
        '{"prompt": "q", "completion": "a", "label": false}',
        '{"prompt": "q", "completion": {"x": ' + deep + "}}",
        '{"prompt": "\\ud800", "completion": "a"}',
    ]
    found = {entry.reason: entry for entry in inspect_rows(tmp_path, rows).quarantined}
    assert set(found) == {"rejected_answer", "wrong_type", "lone_surrogate"}
    assert found["rejected_answer"].detail == "label: false"
    assert all(entry.text and entry.advice for entry in found.values())
