"""Each row is read by its own columns, and what the user should know of the rows is said."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from siftune.curation.formats.faults import Fault
from siftune.curation.ingest.row_conversion import Example, RowConverter, as_object
from siftune.curation.ingest.sources import SourceCounts, locate_sources, stream_rows
from siftune.curation.recipe.sections import Source

TALK = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]
CALL = {"type": "function", "function": {"name": "f", "arguments": {"x": 1}}}
OTHER_CALL = {"type": "function", "function": {"name": "g", "arguments": {"y": "z"}}}


def convert(rows, sample=None, **settings):
    """The texts of rows (or the reason why there are none), and the warnings of the file."""
    converter = RowConverter(rows[:sample], where="test", **settings)
    results = [converter.convert(row, split=None, own_split=True)[1] for row in rows]
    texts = [
        result.reason if isinstance(result, Fault) else [(turn.role[0], turn.content) for turn in result.turns]
        for result in results
    ]
    return texts, converter.warnings(), results


def read_file(folder, name, **settings):
    source = Source(path=name, **settings)
    (location,) = locate_sources([source], base=folder)
    counts = SourceCounts(name="s", path=name)
    rows = list(stream_rows(source, location, counts))
    return rows, counts.report()


PLAIN = [("u", "q"), ("a", "a")]


def test_columns_that_change_after_the_sample_are_read():
    rows = [
        {"instruction": "q", "output": "a"},
        {"instruction": "q", "input": "x", "output": "a"},
        {"instruction": "q", "response": "a"},
        {"conversations": TALK},
        {"prompt": "q", "completion": "a"},
        {"text": "### Human: q### Assistant: a"},
        {"question": "q", "A": "x", "B": "y", "answer": "B"},
        {"instruction": "q"},
        {"note": "nothing"},
    ]
    texts, _, results = convert(rows, sample=1)
    with_input = [("u", "q\n\nx"), ("a", "a")]
    with_options = [("u", "q\n\nA. x\nB. y"), ("a", "B. y")]
    assert texts[:6] == [PLAIN, with_input, PLAIN, PLAIN, PLAIN, PLAIN]
    assert texts[6:] == [with_options, "missing_answer", "missing_prompt"]
    assert all(result.meta == "{}" for result in results[:7])


def test_columns_of_nulls_do_not_decide_the_format():
    union = {"prompt": None, "completion": None, "conversations": None, "instruction": float("nan")}
    rows = [{**union, "prompt": "q", "completion": "a"}, {**union, "conversations": TALK}]
    assert convert(rows)[0] == convert(rows[::-1])[0] == [PLAIN, PLAIN]


def test_a_null_in_a_column_that_the_recipe_names_is_not_replaced_by_another_column():
    rows = [{"Frage": "q", "Antwort": "a", "answer": "b"}, {"Frage": "q", "Antwort": None, "answer": "b"}]
    assert convert(rows, given={"question": "Frage", "answer": "Antwort"})[0] == [PLAIN, "missing_answer"]


def test_candidates_are_counted_and_kept():
    rows = [{"prompt": "q", "completions": ["a", "b"]}] * 3 + [{"prompt": "q", "completions": ["a"]}]
    texts, (warning,), results = convert(rows)
    assert texts == [PLAIN] * 4
    assert "3 rows have several answers in 'completions'" in warning
    assert json.loads(results[0].meta) == {"completions": ["a", "b"]}


@pytest.mark.parametrize(
    "cell",
    ['["a", "b"]', "['a', 'b']", "{'text': ['a', 'b'], 'answer_start': [1, 2]}",
     "{'text': array(['a', 'b'], dtype=object), 'answer_start': array([1, 2], dtype=int32)}"],
)  # fmt: skip
def test_answers_that_a_table_holds_as_the_text_of_a_list(cell):
    texts, (warning,), results = convert([{"question": "q", "answers": cell}])
    assert texts == [PLAIN]
    assert "1 row has several answers" in warning
    assert '"b"' in results[0].meta
    assert convert([{"question": "q", "answer": cell}])[0] == [[("u", "q"), ("a", cell)]]


@pytest.mark.parametrize("first", [0, 1])
def test_numbers_of_options_count_from_where_the_answers_do(first):
    rows = [{"question": "q", "opa": "x", "opb": "y", "cop": number + first} for number in (0, 1)]
    named = {"question": "q", "choice1": "x", "choice2": "y"}
    for data in (rows, [{**named, "answer": number + first} for number in (0, 1)]):
        assert [turns[1] for turns in convert(data)[0]] == [("a", "A. x"), ("a", "B. y")]


def test_texts_that_are_in_no_message_are_named():
    rows = [{"question": "q", "answer": "a", "hint": "look at the old mill", "id": "17", "n": 3}]
    _, (warning,), _ = convert(rows)
    assert "'hint'" in warning
    assert "'id'" not in warning
    assert convert([{"instruction": "q", "input": "two or three words", "output": "a"}])[1] == []
    assert convert([{"chosen": TALK, "rejected": "another answer of words"}])[1] == []
    assert convert([{"messages": TALK, "tools": "a list of tools"}])[1] == []


def test_labels_of_zero_are_said_and_false_ones_left_out():
    votes = [{"prompt": "q", "completion": "a", "label": label} for label in (True, False, True)]
    assert convert(votes)[0] == [PLAIN, "rejected_answer", PLAIN]
    texts, (warning,), _ = convert([{**vote, "label": int(vote["label"])} for vote in votes])
    assert texts == [PLAIN] * 3
    assert "'label' is 0 in 1 rows" in warning
    assert convert([{**vote, "label": number} for number, vote in enumerate(votes)])[1] == []


def test_unknown_roles_are_named_and_may_be_mapped():
    rows = [{"conversations": [{"from": "Customer", "value": "q"}, {"from": "clerk", "value": "a"}]}]
    (reason,), _, (fault,) = convert(rows)
    assert reason == "bad_roles"
    assert "unknown roles: Customer, clerk" in fault.detail
    assert "roles: {Customer: user, clerk: assistant}" in fault.detail
    assert convert(rows, roles={"customer": "user", "clerk": "assistant"})[0] == [PLAIN]
    _, (warning,), _ = convert([{"conversations": [*TALK, {"from": "narrator", "value": "n"}, *TALK]}])
    assert "narrator (1 turn)" in warning


@pytest.mark.parametrize(
    "mark",
    [{"weight": 0}, {"weight": 0.0}, {"train": False}, {"loss": False}, {"masked": True}, {"trainable": "false"}],
)
def test_marks_of_turns_stay_with_their_turn(mark):
    draft = {"role": "assistant", "content": "draft", **mark}
    asked = {"role": "user", "content": "q"}
    rows = [
        {"messages": [asked, draft, asked, {"role": "assistant", "content": "a"}]},
        {"messages": [asked, {**asked, **mark}, draft, {"role": "assistant", "content": "a"}]},
        {"messages": [asked, draft]},
    ]
    texts, _, results = convert(rows)
    assert texts[0] == [("u", "q"), ("a", "draft"), *PLAIN]
    assert json.loads(results[0].meta)["_turns"] == {"1": mark}
    assert texts[1] == [("u", "q\n\nq"), ("a", "draft"), ("a", "a")]
    assert json.loads(results[1].meta)["_turns"] == {"1": mark}
    assert texts[2] == "missing_answer"


def test_rows_of_other_shapes_become_objects():
    row = {"question": "q", "answer": "a"}
    assert as_object(json.dumps(row)) == as_object({"row": json.dumps(row)}) == as_object(row) == row
    assert as_object(TALK) == as_object(json.dumps(TALK)) == {"conversations": TALK}
    for value in ("text", ["q", "a"], [1], 3, None, {"text": "{no json"}, "[1, 2]"):
        assert as_object(value) == value


def test_the_same_rows_give_the_same_text_from_parquet(tmp_path):
    rows = [
        {
            "messages": [
                {"role": "user", "content": "q"},
                {"role": "assistant", "content": None, "tool_calls": [call]},
                {"role": "tool", "content": "done", "name": "f"},
                {"role": "assistant", "content": "a", "reasoning_content": "t"},
            ],
            "tools": [tool],
        }
        for call, tool in [(CALL, {"name": "f", "parameters": {"x": {"type": "int"}}}),
                           (OTHER_CALL, {"name": "g", "parameters": {"y": {"type": "text"}}})]
    ]  # fmt: skip
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    lines, table = (read_file(tmp_path, name)[0] for name in ("rows.jsonl", "rows.parquet"))
    assert all(isinstance(row.result, Example) for row in lines)
    assert [row.result for row in lines] == [row.result for row in table]


def test_a_source_says_what_its_files_hold(tmp_path):
    rows = [{"prompt": "q", "outputs": ["a", "b"], "remark": "nobody reads this text"}, {"conversations": TALK}]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    _, report = read_file(tmp_path, "rows.jsonl")
    assert (report.rows, report.examples, set(report.format.split(", "))) == (2, 2, {"prompt_completion", "sharegpt"})
    assert len(report.warnings) == 2
    assert all(warning.startswith("rows.jsonl: ") for warning in report.warnings)
