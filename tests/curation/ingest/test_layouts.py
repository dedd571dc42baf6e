"""Rows are found wherever a JSON file has them: under a wrapper's key, by column, in arrays, over several lines."""

from __future__ import annotations

import json

import pytest

from siftune.curation.errors import UserError
from siftune.curation.ingest.file_rows import read_rows

PAIRS = [{"question": f"How is {i} said?", "answer": f"It is said {i}."} for i in range(4)]
ALPACA = [{"instruction": f"Say {i}.", "input": "", "output": f"{i} it is."} for i in range(4)]
TURNS = [[{"role": "user", "content": f"Say {i}."}, {"role": "assistant", "content": f"{i}."}] for i in range(4)]
DIALOGUES = [{"messages": turns} for turns in TURNS]
SHAREGPT = [[{"from": "human", "value": f"Say {i}."}, {"from": "gpt", "value": f"{i}."}] for i in range(4)]


def read(folder, name, text):
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    warnings = []
    return list(read_rows(path, warn=warnings.append)), warnings


@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("rows", [PAIRS, PAIRS[:1], ALPACA, DIALOGUES])
@pytest.mark.parametrize("key", ["items", "data", "conversations", "rows", "faq", "examples", "records", "qa"])
def test_rows_under_a_wrapper_key(tmp_path, key, rows, indent, name):
    found, warnings = read(tmp_path, name, json.dumps({"version": "1", "total": 4, key: rows}, indent=indent))
    assert found == rows
    assert warnings == [f"the rows are the list under {key!r}; not read: 'version', 'total'"]
    assert read(tmp_path, name, json.dumps({key: rows}, indent=indent))[0] == rows


@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
def test_wrappers_in_wrappers_and_in_lists_of_one(tmp_path, name):
    for document in (
        {"result": {"data": {"items": PAIRS}}, "ok": True},
        [{"items": PAIRS}],
        {"schema": {"fields": [{"name": "index", "type": "integer"}]}, "data": PAIRS},
        {"features": [{"name": "question"}], "rows": [{"row_idx": i, "row": row} for i, row in enumerate(PAIRS)]},
        json.dumps(PAIRS),
        [json.dumps(row) for row in PAIRS],
    ):
        if isinstance(document, str) and name == "a.json":
            continue  # one text is no data set under this name
        assert read(tmp_path, name, json.dumps(document))[0] == PAIRS, document


def test_lines_that_are_wrappers_or_arrays(tmp_path):
    lines = [{"page": 1, "items": PAIRS[:2]}, {"page": 2, "items": PAIRS[2:]}]
    assert read(tmp_path, "a.jsonl", "\n".join(map(json.dumps, lines)))[0] == PAIRS
    assert read(tmp_path, "a.jsonl", "\n".join([json.dumps(PAIRS[:2]), json.dumps(PAIRS[2:])]))[0] == PAIRS
    assert read(tmp_path, "a.jsonl", "\n".join(json.dumps(json.dumps(row)) for row in PAIRS))[0] == PAIRS


@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
@pytest.mark.parametrize(
    "row",
    [
        {"messages": TURNS[0], "tools": [{"type": "function", "function": {"name": "f"}}]},
        {"conversations": SHAREGPT[0]},
        {"items": SHAREGPT[0], "id": 1},
        {"data": SHAREGPT[0]},
        {"prompt": TURNS[0][:1], "completion": TURNS[0][1:]},
        {"chosen": TURNS[0], "rejected": TURNS[1]},
        {"chosen": TURNS[0][1], "rejected": TURNS[1][1]},
        {"question": "q", "answer": "a", "examples": PAIRS},
        {"conversation": [{"human": "q", "assistant": "a"}], "id": 3},
        {"system": "Be brief.", "conversations": PAIRS},
        {"question": "q", "choices": ["a", "b"], "answer": 1},
        {"messages": ["q", "a"]},
    ],
)
def test_an_object_with_columns_of_a_row_is_a_row(tmp_path, row, name):
    assert read(tmp_path, name, json.dumps(row)) == ([row], [])
    assert read(tmp_path, name, json.dumps(row) + "\n" + json.dumps(row)) == ([row, row], [])
    assert read(tmp_path, name, json.dumps([row, row])) == ([row, row], [])


def test_pairs_as_turns_of_many_rows_stay_dialogues(tmp_path):
    rows = [{"source": "x", "conversation": [{"input": "q", "output": "a"}, {"input": "r", "output": "b"}]}] * 3
    assert read(tmp_path, "a.jsonl", "\n".join(map(json.dumps, rows))) == (rows, [])


@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
def test_bare_lists_of_turns(tmp_path, name):
    assert read(tmp_path, name, json.dumps(TURNS))[0] == DIALOGUES
    assert read(tmp_path, name, "\n".join(map(json.dumps, TURNS)))[0] == DIALOGUES
    assert read(tmp_path, name, json.dumps(TURNS[0], indent=1))[0] == DIALOGUES[:1]
    assert read(tmp_path, name, json.dumps({"data": TURNS, "n": 4}))[0] == DIALOGUES
    assert read(tmp_path, name, json.dumps(SHAREGPT))[0] == [{"conversations": turns} for turns in SHAREGPT]


BY_COLUMN = {name: [row[name] for row in ALPACA] for name in ALPACA[0]}
LAYOUTS = {
    "by column (lists)": BY_COLUMN,
    "by column (objects)": {name: {str(i): cell for i, cell in enumerate(cells)} for name, cells in BY_COLUMN.items()},
    "by index": {f"q{i}": row for i, row in enumerate(ALPACA)},
    "`split`": {"columns": list(BY_COLUMN), "index": [0, 1, 2, 3], "data": [list(row.values()) for row in ALPACA]},
}


@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_of_pandas(tmp_path, layout, indent, name):
    found, warnings = read(tmp_path, name, json.dumps(LAYOUTS[layout], indent=indent))
    assert found == ALPACA
    assert layout in warnings[0]


def test_layouts_by_column_of_dialogues_and_of_names_that_the_recipe_maps(tmp_path):
    assert read(tmp_path, "a.json", json.dumps({"messages": {str(i): turns for i, turns in enumerate(TURNS)}}))[0] == (
        DIALOGUES
    )
    odd = {"frage": {"0": "q", "1": "r"}, "antwort": {"0": "a", "1": "b"}}
    assert read(tmp_path, "a.json", json.dumps(odd))[0] == [
        {"frage": "q", "antwort": "a"},
        {"frage": "r", "antwort": "b"},
    ]
    named = {"x": {"frage": "q", "antwort": "a"}, "y": {"frage": "r", "antwort": "b"}}
    with pytest.raises(UserError, match=r"by column or by index.*'frage', 'antwort'"):
        read(tmp_path, "a.json", json.dumps(named))
    with pytest.raises(UserError, match="different lengths: question 2, answer 1"):
        read(tmp_path, "a.json", json.dumps({"question": ["q", "r"], "answer": ["a"]}))


def test_tables_of_splits_keep_their_splits(tmp_path):
    for tables in (
        {"train": PAIRS[:3], "test": PAIRS[3:]},
        {"train": {"data": PAIRS[:3]}, "test": {"question": [PAIRS[3]["question"]], "answer": [PAIRS[3]["answer"]]}},
    ):
        found, _ = read(tmp_path, "a.json", json.dumps(tables))
        assert found == [{"split": split, **row} for split, row in zip(["train"] * 3 + ["test"], PAIRS, strict=True)]
    assert read(tmp_path, "a.json", json.dumps({"test": PAIRS}))[0][0]["split"] == "test"


SEPARATED = {
    "array": json.dumps(PAIRS),
    "array of lines": "[" + ",\n".join(map(json.dumps, PAIRS)) + "]",
    "array of lines with brackets alone": "[\n" + ",\n".join(map(json.dumps, PAIRS)) + "\n]\n",
    "indented": "\n".join(json.dumps(row, indent=2) for row in PAIRS),
    "indented, with commas": ",\n".join(json.dumps(row, indent=2) for row in PAIRS),
    "indented, closed and opened on one line": ", ".join(json.dumps(row, indent=2) for row in PAIRS),
    "indented, with blank lines": "\n\n".join(json.dumps(row, indent="\t") for row in PAIRS) + "\n",
    "lines with commas": ",\n".join(map(json.dumps, PAIRS)) + ",\n",
    "on one line": " ".join(map(json.dumps, PAIRS)),
    "on one line without blanks": "".join(map(json.dumps, PAIRS)),
    "two a line": "\n".join(json.dumps(a) + ", " + json.dumps(b) for a, b in zip(PAIRS[::2], PAIRS[1::2], strict=True)),
    "mixed": "\n".join([json.dumps(PAIRS[0]), json.dumps(PAIRS[1], indent=4), *map(json.dumps, PAIRS[2:])]),
    "Windows": "\r\n".join(json.dumps(row, indent=2).replace("\n", "\r\n") for row in PAIRS),
}


@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
@pytest.mark.parametrize("way", SEPARATED)
def test_objects_are_told_apart_by_content(tmp_path, way, name):
    assert read(tmp_path, name, SEPARATED[way])[0] == PAIRS


def test_a_broken_indented_object_costs_only_itself(tmp_path):
    objects = [json.dumps(row, indent=2) for row in PAIRS]
    objects[2] = objects[2].replace('"answer":', '"answer"')
    found, _ = read(tmp_path, "a.jsonl", "\n".join(objects))
    assert [row for row in found if isinstance(row, dict)] == [PAIRS[0], PAIRS[1], PAIRS[3]]
    assert [row.reason for row in found if not isinstance(row, dict)] == ["bad_json"]
    found, warnings = read(tmp_path, "a.jsonl", "\n".join(objects[:2]) + '\n{\n  "question": "q"')
    assert (found[:2], found[2].reason, len(found), len(warnings)) == (PAIRS[:2], "truncated", 3, 1)
