"""Files of the kinds that people have: each is read as what it holds, or refused with the true reason."""

from __future__ import annotations

import csv
import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from siftune.curation.errors import UserError
from siftune.curation.formats.faults import Fault
from siftune.curation.formats.turns import is_trained
from siftune.curation.ingest.sources import SourceCounts, locate_sources, stream_rows
from siftune.curation.recipe.sections import Source

QUESTIONS = [f"What is the name of bridge {number}?" for number in range(6)]
ANSWERS = [f"It is called the {number} arch bridge." for number in range(6)]
PAIRS = [[question, answer] for question, answer in zip(QUESTIONS, ANSWERS, strict=True)]
ROWS = [{"question": question, "answer": answer} for question, answer in PAIRS]
TURNS = [[{"role": "user", "content": q}, {"role": "assistant", "content": a}] for q, a in PAIRS]
OPTIONS = ["an arch", "a beam", "a cable", "a tunnel"]
LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 12\n"


def lines(rows):
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def rows_of(make):
    """JSON Lines of `make(question, answer)`."""
    return lines(make(question, answer) for question, answer in PAIRS)


def table(rows, separator=","):
    stream = io.StringIO()
    csv.writer(stream, delimiter=separator).writerows([["question", "answer"], *rows])
    return stream.getvalue()


def parquet(rows, schema=None):
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), sink)
    return sink.getvalue().to_pybytes()


def read(folder, name, content, **settings):
    """The rows of a file as `Example` or `Fault`, and the report on it."""
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    source = Source(path=name, **settings)
    counts = SourceCounts(name="s", path=name)
    (location,) = locate_sources([source], base=folder)
    return [row.result for row in stream_rows(source, location, counts)], counts.report()


LAYOUTS = {
    "squad.json": json.dumps(
        {
            "version": "1",
            "data": [
                {
                    "title": "Bridges",
                    "paragraphs": [
                        {
                            "context": "",
                            "qas": [{"id": q, "question": q, "answers": [{"text": a, "answer_start": 0}]}],
                        }
                        for q, a in PAIRS
                    ],
                }
            ],
        }
    ),
    "topics.json": json.dumps({"topics": [{"name": "x", "qa": ROWS[:3]}, {"name": "y", "qa": ROWS[3:]}]}),
    "columns-and-rows.json": json.dumps({"columns": ["question", "answer"], "rows": PAIRS}),
    "header-and-values.json": json.dumps({"header": ["question", "answer"], "values": PAIRS}),
    "names-first.json": json.dumps([["question", "answer"], *PAIRS]),
    "names-first.jsonl": lines([["question", "answer"], *PAIRS]),
    "row-in-a-key.jsonl": lines({"id": number, "data": row} for number, row in enumerate(ROWS)),
    "row-of-the-hub.jsonl": lines({"row_idx": 0, "row": row, "truncated_cells": []} for row in ROWS),
    "body-of-a-request.jsonl": lines({"custom_id": "1", "body": {"model": "m", "messages": turns}} for turns in TURNS),
    "dialogues-by-name.json": json.dumps({f"talk {number}": turns for number, turns in enumerate(TURNS)}),
    "arrays-one-after-the-other.jsonl": json.dumps(ROWS[:2], indent=1) + "\n" + json.dumps(ROWS[2:], indent=1),
    "arrays-of-lines.jsonl": "["
    + ",\n".join(map(json.dumps, ROWS[:3]))
    + "]\n["
    + ",\n".join(map(json.dumps, ROWS[3:]))
    + "]\n",
    "python-literals.jsonl": "\n".join(map(repr, ROWS)),
    "encoded-twice.json": json.dumps(json.dumps(ROWS)),
    "instances.jsonl": lines({"instruction": q, "instances": [{"input": "", "output": a}]} for q, a in PAIRS),
    "blanks-around.csv": "question , answer\n" + "".join(f"{q} , {a}\n" for q, a in PAIRS),
    "markdown.csv": "| question | answer |\n|:--|---|\n" + "".join(f"| {q} | {a} |\n" for q, a in PAIRS),
    "quotes-after-blanks.csv": "question, answer\n" + "".join(f'"{q}", "{a}"\n' for q, a in PAIRS),
    "title.csv": "Bridges, 2024\n\n" + table(PAIRS),
    "union.csv": "question,answer,prompt,completion\n"
    + "".join(f"{q},{a},,\n" for q, a in PAIRS[:3])
    + "".join(f",,{q},{a}\n" for q, a in PAIRS[3:]),
    "blank-union.jsonl": lines(
        [{"messages": [], "prompt": q, "completion": a} for q, a in PAIRS[:3]]
        + [{"messages": turns, "prompt": "", "completion": ""} for turns in TURNS[3:]]
    ),
    "second-answer-column.jsonl": lines(
        [*ROWS[:3], *({"question": q, "answer": "", "response": a} for q, a in PAIRS[3:])]
    ),
    "maps.parquet": parquet(
        [{"messages": [list(turn.items()) for turn in turns]} for turns in TURNS],
        pa.schema([("messages", pa.list_(pa.map_(pa.string(), pa.string())))]),
    ),
}
DIALOGUES = {
    "role as key": lambda q, a: {"messages": [{"user": q}, {"assistant": a}]},
    "pairs of role and text": lambda q, a: {"messages": [["user", q], ["assistant", a]]},
    "sender and text": lambda q, a: {"messages": [{"sender": "user", "text": q}, {"sender": "bot", "text": a}]},
    "Chatbot": lambda q, a: {"messages": [{"role": "User", "content": q}, {"role": "Chatbot", "content": a}]},
    "chosen as text of a turn": lambda q, a: {
        "prompt": q,
        "chosen": json.dumps({"role": "assistant", "content": a}),
        "rejected": "",
    },
    "chosen as messages": lambda q, a: {
        "prompt": q,
        "chosen": {"messages": [{"role": "user", "content": q}, {"role": "assistant", "content": a}]},
    },
    "chosen without role": lambda q, a: {"prompt": q, "chosen": {"content": a}, "rejected": {"content": "no"}},
    "blank candidates": lambda q, a: {"question": q, "answer": [None, "", a]},
    "candidates as objects": lambda q, a: {"prompt": q, "completions": [{"text": a, "score": 1}, {"text": "x"}]},
    "system as blocks": lambda q, a: {
        "messages": [{"role": "user", "content": [{"text": q}]}, {"role": "assistant", "content": [{"text": a}]}]
    },
    "User: and Assistant:": lambda q, a: {"text": f"User: {q}\nAssistant: {a}"},
    "Human: and Assistant:": lambda q, a: {"text": f"Human: {q}\nAssistant: {a}"},
    "Question: and Answer:": lambda q, a: {"text": f"Question: {q}\nAnswer: {a}"},
    "<human> and <bot>": lambda q, a: {"text": f"<human>: {q}\n<bot>: {a}"},
    "DeepSeek": lambda q, a: {"text": f"<｜User｜>{q}<｜Assistant｜>{a}<｜end▁of▁sentence｜>"},
    "OpenAssistant": lambda q, a: {"text": f"<|prompter|>{q}<|endoftext|><|assistant|>{a}<|endoftext|>"},
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_layouts(tmp_path, name):
    found, _ = read(tmp_path, name, LAYOUTS[name])
    assert [[turn.content for turn in example.turns] for example in found] == PAIRS


@pytest.mark.parametrize("way", DIALOGUES)
def test_dialogues_and_answers(tmp_path, way):
    found, _ = read(tmp_path, "a.jsonl", rows_of(DIALOGUES[way]))
    assert [[turn.content for turn in example.turns] for example in found] == PAIRS


def test_splits_of_lists_in_a_list_are_kept(tmp_path):
    found, _ = read(tmp_path, "a.json", json.dumps([{"train": ROWS[:4]}, {"test": ROWS[4:]}]))
    assert [example.split for example in found] == ["train"] * 4 + ["test"] * 2


def drafts(**mark):
    return lambda q, a: {
        "messages": [
            {"role": "user", "content": q},
            {"role": "assistant", "content": "A draft.", **mark},
            {"role": "user", "content": "Again."},
            {"role": "assistant", "content": a},
        ]
    }


MARKS = {
    **{
        f"{name}: {value!r}": drafts(**{name: value})
        for name, value in [
            ("weight", 0), ("weight", "0"), ("loss_weight", 0.0), ("train", False), ("train", "no"), ("loss", False),
            ("train_on_turn", False), ("training", False), ("loss_mask", 0), ("masked", True), ("mask", 1),
            ("ignore", True), ("skip", True),
        ]
    },
    "weights beside": lambda q, a: drafts()(q, a) | {"weights": [0, 0, 0, 1]},
    "weights of answers": lambda q, a: drafts()(q, a) | {"weights": [0, 1]},
    "pairs": lambda q, a: {
        "conversation": [{"human": q, "assistant": "A draft.", "train": False}, {"human": "Again.", "assistant": a}]
    },
    "ShareGPT": lambda q, a: {
        "conversations": [
            {"from": "human", "value": q},
            {"from": "gpt", "value": "A draft.", "weight": 0},
            {"from": "human", "value": "Again."},
            {"from": "gpt", "value": a},
        ],
        "system": "Be brief.",
    },
    "blocks": lambda q, a: {
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": q}]},
            {"role": "assistant", "content": [{"type": "text", "text": "A draft."}], "weight": 0},
            {"role": "user", "content": [{"type": "text", "text": "Again."}]},
            {"role": "assistant", "content": [{"type": "text", "text": a}]},
        ]
    },
    "prompt": lambda q, a: {"prompt": drafts(weight=0)(q, a)["messages"][:3], "completion": a},
    "chosen": lambda q, a: {"chosen": drafts(weight=0)(q, a)["messages"], "rejected": []},
    "text of JSON": lambda q, a: {"messages": json.dumps(drafts(weight=0)(q, a)["messages"])},
}  # fmt: skip


@pytest.mark.parametrize("way", MARKS)
def test_marked_turns_stay_marked(tmp_path, way):
    found, _ = read(tmp_path, "a.jsonl", rows_of(MARKS[way]))
    for example in found:
        stored = json.loads(example.meta)["_turns"]
        answers = [position for position, turn in enumerate(example.turns) if turn.role == "assistant"]
        assert [is_trained(stored.get(str(position))) for position in answers] == [False, True]


def named(number, *, columns=("A", "B", "C", "D"), answer="answer"):
    return {"question": QUESTIONS[number % 6], **dict(zip(columns, OPTIONS, strict=False)), answer: number}


CHOICES = {
    "letters, from 0": ([named(number) for number in (0, 1, 3)], [0, 1, 3]),
    "letters, from 1": ([named(number) for number in (1, 2, 4)], [0, 1, 3]),
    "names that count": ([named(n, columns=("option1", "option2", "option3")) for n in (1, 2)], [0, 1]),
    "COPA": (
        [
            {"premise": "It fell.", "choice1": OPTIONS[0], "choice2": OPTIONS[1], "question": "cause", "label": label}
            for label in (0, 1)
        ],
        [0, 1],
    ),
    "HellaSwag": ([{"ctx": "A man", "endings": OPTIONS, "label": label} for label in "3120"], [3, 1, 2, 0]),
    "PIQA": (
        [{"goal": "Build it", "sol1": OPTIONS[0], "sol2": OPTIONS[1], "label": label} for label in (1, 0)],
        [1, 0],
    ),
    "a list, from 0": ([{"question": "Which?", "choices": OPTIONS, "answer": n} for n in (2, 3)], [2, 3]),
    "a list, from 1": ([{"question": "Which?", "choices": OPTIONS, "answer": n} for n in (2, 4)], [1, 3]),
    "names of columns": (
        [{"question": "Which?", "optionA": OPTIONS[0], "optionB": OPTIONS[1], "answer": "optionB"}],
        [1],
    ),
}


@pytest.mark.parametrize("way", CHOICES)
def test_numbers_name_options(tmp_path, way):
    rows, right = CHOICES[way]
    found, _ = read(tmp_path, "a.jsonl", lines(rows))
    assert [example.turns[-1].content for example in found] == [f"{'ABCD'[index]}. {OPTIONS[index]}" for index in right]
    assert all(f"\nB. {OPTIONS[1]}" in example.turns[0].content for example in found)


def test_a_number_that_may_count_from_0_or_from_1_is_refused(tmp_path):
    found, _ = read(tmp_path, "a.jsonl", lines(named(number) for number in (1, 2, 3)))
    assert {(fault.reason, "from 0 or from 1" in fault.detail) for fault in found} == {("wrong_type", True)}
    texts = [{"question": "How many?", "A": "3", "B": "5", "C": "7", "D": "2", "answer": n} for n in (3, 5, 7, 2)]
    found, _ = read(tmp_path, "b.jsonl", lines(texts))
    assert [example.turns[-1].content for example in found] == ["3", "5", "7", "2"]


@pytest.mark.parametrize(
    ("row", "reason", "detail"),
    [
        ({"prompt": "q", "completion": "a", "label": False}, "rejected_answer", "label: false"),
        ({"prompt": "q", "completion": "a", "label": "False"}, "rejected_answer", 'label: "False"'),
        ({"prompt": "q", "completion": "a", "is_correct": False}, "rejected_answer", "is_correct: false"),
        ({"prompt": "q", "completion": "a", "thumbs": "down"}, "rejected_answer", 'thumbs: "down"'),
        ({"messages": TURNS[0], "label": False}, "rejected_answer", "label: false"),
        ({"prompt": "q", "responses": ["b", "a"], "chosen": 1}, "wrong_type", "which of the answers in 'responses'"),
        ({"question": "q", "answers": {"text": [], "answer_start": []}}, "missing_answer", "no answer"),
        ({"messages": TURNS[0], "weights": [1, 0, 1]}, "wrong_type", "weights: 3 marks for 2 turns"),
        ({"messages": [{"role": "Guest", "content": "q"}, {"role": "Host", "content": "a"}]}, "bad_roles", "Guest"),
        ({"questions": ["q", "r"], "answers": ["a", "b"], "id": 1}, "wrong_type", "questions: a list"),
    ],
)  # fmt: skip
def test_rows_that_are_left_out_say_why(tmp_path, row, reason, detail):
    found, _ = read(tmp_path, "a.jsonl", lines([row, row]))
    assert all(isinstance(fault, Fault) for fault in found)
    assert (found[0].reason, detail in found[0].detail) == (reason, True)


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.jsonl", LFS, "git lfs pull"),
        ("a.csv", LFS, "git lfs pull"),
        ("a.parquet", LFS, "git lfs pull"),
        ("a.jsonl", parquet(ROWS), "is a Parquet file. Rename it"),
        ("a.csv", b"PK\x03\x04 sheet", "a spreadsheet of Excel"),
        ("a.json", "<!DOCTYPE html>\n<html>404, not found</html>", "is a page of HTML"),
        ("a.csv", "\n<html>404, not found</html>", "is a page of HTML"),
        ("a.csv", table(PAIRS).encode("utf-16"), "iconv -f UTF-16"),
        ("a.jsonl", lines([{"messages": "a text"}]), "usually holds a dialogue.*here it holds a text"),
        ("a.jsonl", lines([{"prompt": "q", "answer_a": "x", "answer_b": "y"}]), "Columns found: prompt, answer_a"),
        ("a.jsonl", lines([{"text": "<|im_start|>user\nq<|im_end|>\nlost<|im_start|>assistant\na"}]), "no format fits"),
        ("a.jsonl", lines([{"premise": "p", "hypothesis": "h", "label": 1}]), "no format fits"),
    ],
)
def test_files_that_are_refused_say_why(tmp_path, name, content, sentence):
    with pytest.raises(UserError, match=f"(?s){sentence}"):
        read(tmp_path, name, content)


@pytest.mark.parametrize(
    ("name", "content", "warning"),
    [
        ("a.jsonl", rows_of(lambda q, a: {"question": q, "answer": a, "evidence": "An old book."}), "'evidence'"),
        ("a.jsonl", rows_of(lambda q, a: {"question": q, "answer": a, "sources": ["An old book."]}), "'sources'"),
        ("a.jsonl", lines([*ROWS * 40, {**ROWS[0], "note": "after many rows"}]), "'note'"),
        ("a.jsonl", rows_of(lambda q, a: {"prompt": q, "completion": [a, "b"]}), "6 rows have several answers"),
        ("a.csv", "prompt,completion,label\n" + "".join(f"q{n},a,{n % 2}\n" for n in range(6)), "'label' is 0 in 3"),
        ("a.jsonl", lines({"prompt": f"q{n}", "completion": "a", "label": n} for n in (1, -1)), "'label' is -1 in 1"),
        ("a.csv", "question,answer\n" + "".join(f"{q},\"['{a}']\"\n" for q, a in PAIRS), "are texts of lists"),
    ],
)
def test_what_is_not_trained_is_named(tmp_path, name, content, warning):
    _, report = read(tmp_path, name, content)
    assert report.examples == report.rows
    assert any(warning in text for text in report.warnings), report.warnings
