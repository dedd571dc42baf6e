"""Benchmarks are read as prompts and answers, each item under the number of its row."""

from __future__ import annotations

import json

import polars as pl
import pytest

from siftune.curation.errors import UserError
from siftune.curation.ingest.references import REFERENCE, read_reference


def read(folder, file, data, **options):
    (folder / file).write_bytes(data.encode() if isinstance(data, str) else data)
    frame = read_reference(file, base=folder, **options)
    assert frame.schema == REFERENCE
    return frame.drop("distractors").rows()


def lines(*rows):
    return "\n".join(json.dumps(row) for row in rows)


@pytest.mark.parametrize(
    ("row", "prompt", "answer"),
    [
        ({"question": "q", "choices": ["x", "y"], "answer": "B"}, "q", "y"),
        ({"question": "q", "choices": ["x", "y"], "answer": 0}, "q", "x"),
        ({"Body": "b", "Question": "q", "Answer": 51.0}, "b\n\nq", "51.0"),
        ({"prompt": "q", "canonical_solution": "a", "test": "t"}, "q", "a"),
        ({"text": "q", "code": "a"}, "q", "a"),
        ({"problem": "q", "solution": "a"}, "q", "a"),
        ({"turns": ["q", "r"]}, "q\n\nr", None),
        ({"turns": [{"content": "q"}]}, "q", None),
        ({"instruction": "q", "input": "x", "output": "a"}, "q\n\nx", "a"),
        ({"question": "q", "answer": ""}, "q", None),
        ({"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}]}, "q", None),
        ({"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]}, "q", "a"),
        ({"chosen": "\n\nHuman: q\n\nAssistant: a", "rejected": "b"}, "q", "a"),
        ({"question": "q", "answer": {"value": "a", "aliases": ["A"]}}, "q", "a"),
        ({"question": "q", "answer": [{"text": "a", "answer_start": 3}]}, "q", "a"),
        ({"question": "q", "answer": {"unanswerable": True, "votes": 3}}, "q", None),
        ({"question": "q", "A": "x", "B": "y", "answer": "B"}, "q", "y"),
        ({"question": "q", "choices": {"text": ["x", "y"], "label": ["1", "2"]}, "answer": "2"}, "q", "y"),
    ],
)
def test_shapes_of_benchmarks(tmp_path, row, prompt, answer):
    assert read(tmp_path, "b.jsonl", lines(row)) == [("b:0", prompt, answer)]


@pytest.mark.parametrize(
    ("row", "distractors"),
    [
        ({"question": "q", "choices": ["x", "y", "z"], "answer": "B"}, ["x", "z"]),
        ({"question": "q", "A": "x", "B": "y", "answer": "A"}, ["y"]),
        ({"question": "q", "choices": ["x", "y"], "answer": "none of them"}, None),
        ({"question": "q", "answer": "a"}, None),
    ],
)
def test_the_wrong_choices_are_kept_beside_the_right_one(tmp_path, row, distractors):
    (tmp_path / "b.jsonl").write_text(lines(row))
    assert read_reference("b.jsonl", base=tmp_path)["distractors"].to_list() == [distractors]


def test_rows_without_text_are_left_out_and_the_others_keep_their_number(tmp_path):
    data = lines({"text": "q0"}, {"text": " "}, {"text": "q2"})
    assert read(tmp_path, "b.jsonl", data, name="bench/test") == [
        ("bench/test:0", "q0", None),
        ("bench/test:2", "q2", None),
    ]


def test_items_with_other_columns_are_no_holes(tmp_path):
    items = [{"question": "q0", "text": None}, {"text": "q1"}, {"prompt": "q2"}, {"messages": [
        {"role": "user", "content": "q3"}]}]  # fmt: skip
    assert [prompt for _, prompt, _ in read(tmp_path, "b.jsonl", lines(*items))] == ["q0", "q1", "q2", "q3"]


def test_a_reference_with_holes_is_refused(tmp_path):
    with pytest.raises(UserError, match="row 1 cannot be read: bad_json"):
        read(tmp_path, "b.jsonl", lines({"text": "q0"}) + "\n{broken\n" + lines({"text": "q2"}))
    with pytest.raises(UserError, match=r"truncated.*its last row is incomplete"):
        read(tmp_path, "b.jsonl", lines({"text": "q0"}) + '\n{"text": "q')
    with pytest.raises(UserError, match="no prompts"):
        read(tmp_path, "b.jsonl", "")
    with pytest.raises(UserError, match=r"no reference at c.jsonl.*Did you mean 'b.jsonl'"):
        read_reference("c.jsonl", base=tmp_path)


def test_columns_by_name_and_by_position(tmp_path):
    assert read(tmp_path, "b.jsonl", lines({"test": "q"}), columns={"prompt": "test"}) == [("b:0", "q", None)]
    assert read(tmp_path, "b.csv", "q0,a0\nq1,a1", columns={"prompt": "0", "answer": "1"})[1] == ("b:1", "q1", "a1")
    assert read(tmp_path, "m.csv", '"q, 0",w,x,y,z,C\nq1,w,x,y,z,A\n') == [("m:0", "q, 0", "y"), ("m:1", "q1", "w")]
    with pytest.raises(UserError, match="Columns found: nothing_known"):
        read(tmp_path, "b.jsonl", lines({"nothing_known": 1}))


ITEMS = {
    "benchmarks/gsm8k_test.jsonl": (1_319, 1_319),
    "benchmarks/math_test.json.gz": (5_000, 5_000),
    "benchmarks/svamp.json": (1_000, 1_000),
    "benchmarks/humaneval.jsonl": (164, 164),
    "benchmarks/mbpp.jsonl": (974, 974),
    "benchmarks/mmlu_test.jsonl.gz": (14_042, 14_042),
    "benchmarks/ifeval.jsonl": (541, 0),
    "benchmarks/mt_bench_question.jsonl": (80, 0),
    "benchmarks/arena_hard.jsonl": (500, 0),
    "pairs/abstract_algebra_test.csv": (100, 100),
    "pairs/high_school_us_history_test.csv": (204, 204),
    "pairs/sociology_test.csv": (201, 201),
    "pairs/humaneval_python.jsonl": (147, 0),
    "pairs/mbpp_semantic_duplicates.csv": (927, 927),
}


@pytest.mark.parametrize("name", ITEMS)
def test_the_real_benchmarks_as_they_lie_on_disk(shared_data, name):
    frame = read_reference(name, base=shared_data)
    assert (frame.height, frame["answer"].count()) == ITEMS[name]


def test_real_files_that_need_a_word(shared_data):
    for name, columns in (
        ("CodeAlpacaDB.jsonl", {"prompt": "test"}),
        ("clinc150.json.gz", {"prompt": "0", "answer": "1"}),
    ):
        with pytest.raises(UserError, match="Columns found"):
            read_reference(name, base=shared_data / "pairs")
        frame = read_reference(name, base=shared_data / "pairs", columns=columns)
        assert frame.height == {"CodeAlpacaDB.jsonl": 164, "clinc150.json.gz": 23_700}[name]
        assert isinstance(frame, pl.DataFrame)
