"""Each format reads its rows; the choice among formats is right or says what it needs."""

from __future__ import annotations

import json

import pytest

from siftune.curation.errors import UserError
from siftune.curation.formats.detection import FORMATS, detect_format
from siftune.curation.formats.faults import REASONS, Fault
from siftune.curation.formats.turns import Turn, repair_turns
from siftune.curation.ingest.row_conversion import Example, convert_row
from siftune.curation.ingest.row_format import RowFormat
from siftune.curation.recipe.sections import FormatName

CALL = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}


def read(row, *, name="auto", given=None, split=None, own_split=True):
    detected, columns = detect_format([row], list(row), where="test", name=name, given=given)
    row_format = RowFormat.of(detected, columns, sample=[row], present=list(row))
    return detected.name, convert_row(row, row_format, split=split, own_split=own_split)


def turns_and_meta(row, **options):
    name, result = read(row, **options)
    assert isinstance(result, Example), result
    return name, [(turn.role, turn.content) for turn in result.turns], json.loads(result.meta)


U, A, S = "user", "assistant", "system"
PLAIN = [(U, "q"), (A, "a")]
TALK = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]

ROWS = [
    ("alpaca", {"instruction": "q", "input": "", "output": "a"}, PLAIN, {}),
    ("alpaca", {"instruction": "q", "input": "x", "output": "a"}, [(U, "q\n\nx"), (A, "a")], {}),
    ("alpaca", {"instruction": "q", "input": "<noinput>", "response": "a"}, PLAIN, {}),
    ("alpaca", {"instruction": "q", "context": "c", "response": "a", "k": 1}, [(U, "q\n\nc"), (A, "a")], {"k": 1}),
    ("alpaca", {"instruction": "be kind", "question": "q", "answer": "a"}, [(U, "be kind\n\nq"), (A, "a")], {}),
    ("alpaca", {"instruction": "q", "completion": 51.0, "system": "s"}, [(S, "s"), (U, "q"), (A, "51.0")], {}),
    ("alpaca", {"Instruction": "q", "Output": True}, [(U, "q"), (A, "true")], {}),
    (
        "alpaca",
        {"instruction": "q", "output": "a", "history": [["q0", "a0"]], "system": "s"},
        [(S, "s"), (U, "q0"), (A, "a0"), (U, "q"), (A, "a")],
        {},
    ),
    ("sharegpt", {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]}, PLAIN, {}),
    ("sharegpt", {"conversations": [{"role": "user", "content": "q"}, {"role": "bot", "content": "a"}]}, PLAIN, {}),
    ("sharegpt", {"conversation": [{"input": "q", "output": "a"}]}, PLAIN, {}),
    ("sharegpt", {"conversations": {"from": ["human", "gpt"], "value": ["q", "a"]}}, PLAIN, {}),
    ("sharegpt", {"data": ["q", "a"], "id": "7"}, PLAIN, {"id": "7"}),
    (
        "sharegpt",
        {
            "conversations": [
                {"from": "human", "value": "q"},
                {"from": "function_call", "value": "{}"},
                {"from": "observation", "value": "o"},
                {"from": "narrator", "value": "n"},
                {"from": "gpt", "value": "a"},
            ],
            "system": "s",
            "tools": "[1]",
        },
        [(S, "s"), (U, "q"), ("function_call", "{}"), ("tool", "o"), ("narrator", "n"), (A, "a")],
        {"tools": "[1]"},
    ),
    ("messages", {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}, PLAIN, {}),
    (
        "messages",
        {"messages": json.dumps([{"role": "user", "content": "q"}, {"role": "ai", "content": "a"}])},
        PLAIN,
        {},
    ),
    (
        "messages",
        {
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": "q"}, {"type": "text", "text": "r"}]},
                {"role": "assistant", "content": None, "tool_calls": [CALL]},
                {"role": "tool", "content": "o", "tool_call_id": "1"},
                {"role": "assistant", "content": "a", "name": "x", "weight": None},
            ]
        },
        [(U, "q\nr"), (A, json.dumps([CALL], sort_keys=True, separators=(",", ":"))), ("tool", "o"), (A, "a")],
        {"_turns": {"1": {"tool_calls": [CALL]}, "2": {"tool_call_id": "1"}, "3": {"name": "x"}}},
    ),
    ("prompt_completion", {"prompt": "q", "completion": "a", "template": "t"}, PLAIN, {"template": "t"}),
    (
        "prompt_completion",
        {"prompt": [{"role": "user", "content": "q"}], "completion": [{"role": "assistant", "content": "a"}]},
        PLAIN,
        {},
    ),
    ("prompt_completion", {"inputs": "q", "targets": "a"}, PLAIN, {}),
    ("question_answer", {"question": "q", "answer": "a"}, PLAIN, {}),
    ("question_answer", {"system_prompt": "s", "question": "q", "response": "a"}, [(S, "s"), *PLAIN], {}),
    ("question_answer", {"Body": "b", "Question": "q", "Answer": 3}, [(U, "b\n\nq"), (A, "3")], {}),
    (
        "question_answer",
        {"question": "q", "choices": ["x", "y"], "answer": "B"},
        [(U, "q\n\nA. x\nB. y"), (A, "B. y")],
        {"choices": ["x", "y"]},
    ),
    (
        "question_answer",
        {"question": "q", "choices": ["x", "y"], "answer": "Z"},
        [(U, "q\n\nA. x\nB. y"), (A, "Z")],
        {"choices": ["x", "y"]},
    ),
    (
        "question_answer",
        {"context": "c", "question": "q", "answers": {"text": ["a", "b"], "answer_start": [1, 2]}},
        [(U, "c\n\nq"), (A, "a")],
        {"answers": {"text": ["a", "b"], "answer_start": [1, 2]}},
    ),
    (
        "preference",
        {"chosen": "\n\nHuman: q\n\nAssistant: a", "rejected": "\n\nHuman: q\n\nAssistant: b"},
        PLAIN,
        {"rejected": "\n\nHuman: q\n\nAssistant: b"},
    ),
    ("preference", {"prompt": "q", "chosen": "a", "rejected": "b"}, PLAIN, {"prompt": "q", "rejected": "b"}),
    (
        "preference",
        {"prompt": "\n\nHuman: q\n\nAssistant:", "chosen": " a", "rejected": "b"},
        [(U, "q"), (A, " a")],
        {"prompt": "\n\nHuman: q\n\nAssistant:", "rejected": "b"},
    ),
    (
        "preference",
        {"chosen": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}], "rejected": []},
        PLAIN,
        {"rejected": []},
    ),
    # The chosen answer as one turn, after a prompt of one or several turns.
    (
        "preference",
        {"prompt": "q", "chosen": {"from": "gpt", "value": "a"}, "rejected": {"from": "gpt", "value": "b"}},
        PLAIN,
        {"prompt": "q", "rejected": {"from": "gpt", "value": "b"}},
    ),
    (
        "preference",
        {"conversations": [*TALK, {"from": "human", "value": "r"}], "chosen": {"from": "gpt", "value": "s"}},
        [*PLAIN, (U, "r"), (A, "s")],
        {"conversations": [*TALK, {"from": "human", "value": "r"}]},
    ),
    (
        "preference",
        {"messages": [{"role": "user", "content": "q"}], "chosen": {"role": "assistant", "content": "a"}},
        PLAIN,
        {"messages": [{"role": "user", "content": "q"}]},
    ),
    ("preference", {"conversations": TALK, "chosen": "b"}, [(U, "q"), (A, "b")], {"conversations": TALK}),
    ("preference", {"prompt": "q", "chosen": ["a", "b"]}, PLAIN, {"prompt": "q", "chosen": ["a", "b"]}),
    ("preference", {"chosen": "[{'from': 'human', 'value': 'q'}\n {'from': 'gpt', 'value': 'a'}]"}, PLAIN, {}),
    # Answers in a list: one is the answer, of several the first.
    ("prompt_completion", {"prompt": "q", "completion": ["a"]}, PLAIN, {"completion": ["a"]}),
    ("prompt_completion", {"prompt": "q", "completions": ["a", "b"]}, PLAIN, {"completions": ["a", "b"]}),
    ("prompt_completion", {"prompt": "q", "responses": ["", "a"]}, PLAIN, {"responses": ["", "a"]}),
    (
        "prompt_completion",
        {"prompt": "q", "outputs": [{"text": "a", "score": 1}]},
        PLAIN,
        {"outputs": [{"text": "a", "score": 1}]},
    ),
    (
        "prompt_completion",
        {"prompt": "q", "generations": [[{"role": "assistant", "content": "a"}], []]},
        PLAIN,
        {"generations": [[{"role": "assistant", "content": "a"}], []]},
    ),
    (
        "prompt_completion",
        {"prompt": "q", "completion": [{"from": "gpt", "value": "a"}, {"from": "gpt", "value": "b"}]},
        PLAIN,
        {"completion": [{"from": "gpt", "value": "a"}, {"from": "gpt", "value": "b"}]},
    ),
    (
        "prompt_completion",
        {"prompt": "q", "completion": '[{"role": "cook", "text": "soup"}]'},
        [(U, "q"), (A, '[{"role": "cook", "text": "soup"}]')],
        {},
    ),
    ("alpaca", {"instruction": "q", "input": "", "output": ["a", "b"]}, PLAIN, {"output": ["a", "b"]}),
    (
        "question_answer",
        {"question": "q", "answer": {"value": "a", "aliases": ["A"]}},
        PLAIN,
        {"answer": {"value": "a", "aliases": ["A"]}},
    ),
    # Words that tables write into empty cells.
    *[
        ("alpaca", {"instruction": "q", "input": blank, "output": "a"}, PLAIN, {})
        for blank in (
            "nan",
            "NaN",
            "None",
            "null",
            "N/A",
            "n/a",
            "No input",
            "<noinput>",
            "No input.",
            "<NA>",
            float("nan"),
        )
    ],
    ("alpaca", {"instruction": "q", "input": "none of them", "output": "a"}, [(U, "q\n\nnone of them"), (A, "a")], {}),
    ("alpaca", {"instruction": "q", "output": "None"}, [(U, "q"), (A, "None")], {}),
    # Options and passages.
    *[
        (
            "question_answer",
            {"question": "q", first: "x", second: "y", "answer": answer},
            [(U, "q\n\nA. x\nB. y"), (A, "B. y")],
            {},
        )
        for first, second, answer in [
            ("A", "B", "B"),
            ("option_a", "option_b", "b"),
            ("opa", "opb", "2"),
            ("choice1", "choice2", "choice2"),
            ("option1", "option2", "2"),
            ("ending0", "ending1", 1),
            ("a", "b", "B"),
            ("Option A", "Option B", "(B)"),
        ]
    ],
    (
        "question_answer",
        {"question": "q", "A": "x", "B": "y", "C": "", "answerKey": "A"},
        [(U, "q\n\nA. x\nB. y"), (A, "A. x")],
        {},
    ),
    (
        "question_answer",
        {"question": "q", "choices": {"text": ["x", "y"], "label": ["1", "2"]}, "answerKey": "2"},
        [(U, "q\n\nA. x\nB. y"), (A, "B. y")],
        {"choices": {"text": ["x", "y"], "label": ["1", "2"]}},
    ),
    (
        "question_answer",
        {"question": "q", "options": {"A": "x", "B": "y", "C": None}, "answer": "B"},
        [(U, "q\n\nA. x\nB. y"), (A, "B. y")],
        {"options": {"A": "x", "B": "y", "C": None}},
    ),
    (
        "question_answer",
        {"question": "q", "options": "['x', 'y']", "answer": "A"},
        [(U, "q\n\nA. x\nB. y"), (A, "A. x")],
        {"options": "['x', 'y']"},
    ),
    (
        "question_answer",
        {"question": "q", "options": "a) x, b) y", "answer": "a"},
        [(U, "q\n\na) x, b) y"), (A, "a")],
        {"options": "a) x, b) y"},
    ),
    (
        "alpaca",
        {"instruction": "q\nA. x\nB. y", "choices": ["x", "y"], "output": "B"},
        [(U, "q\nA. x\nB. y"), (A, "B")],
        {"choices": ["x", "y"]},
    ),
    (
        "alpaca",
        {"instruction": "q", "choices": ["x", "y"], "output": "B"},
        [(U, "q\n\nA. x\nB. y"), (A, "B. y")],
        {"choices": ["x", "y"]},
    ),
    *[
        ("question_answer", {name: "c", "question": "q", "answer": "a"}, [(U, "c\n\nq"), (A, "a")], {})
        for name in ("article", "document", "context", "passage", "story", "paragraph")
    ],
    ("question_answer", {"context": ["c", "d"], "question": "q", "answer": "a"}, [(U, "c\nd\n\nq"), (A, "a")], {}),
    ("prompt_completion", {"document": "c", "prompt": "q", "completion": "a"}, [(U, "c\n\nq"), (A, "a")], {}),
    (
        "prompt_completion",
        {"document": "d" * 50, "prompt": "d" * 50 + "?", "completion": "a"},
        [(U, "d" * 50 + "?"), (A, "a")],
        {},
    ),
    # Blocks, parts, thoughts, nulls.
    (
        "messages",
        {
            "contents": [{"role": "user", "parts": [{"text": "q"}]}, {"role": "model", "parts": [{"text": "a"}]}],
            "system_instruction": {"parts": [{"text": "s"}]},
        },
        [(S, "s"), *PLAIN],
        {},
    ),
    (
        "messages",
        {
            "messages": [
                {"role": "user", "content": {"type": "text", "text": "q"}},
                {
                    "role": "assistant",
                    "content": [{"type": "thinking", "thinking": "t"}, {"type": "text", "text": "a"}],
                },
            ],
            "system": [{"type": "text", "text": "s"}],
        },
        [(S, "s"), *PLAIN],
        {"_turns": {"2": {"reasoning_content": "t"}}},
    ),
    (
        "messages",
        {
            "messages": [
                {"role": "user", "content": "q", "from": None, "value": None},
                {"role": None, "content": None, "from": "gpt", "value": "a"},
            ]
        },
        PLAIN,
        {},
    ),
    ("messages", {"messages": "[{'role': 'user', 'content': 'q'}, {'role': 'assistant', 'content': 'a'}]"}, PLAIN, {}),
    (
        "messages",
        {
            "messages": "array([{'role': 'user', 'content': 'q'},\n       {'role': 'assistant', 'content': 'a'}], "
            "dtype=object)"
        },
        PLAIN,
        {},
    ),
    (
        "messages",
        {"messages": [[("role", "user"), ("content", "q")], [("role", "assistant"), ("content", "a")]]},
        PLAIN,
        {},
    ),
    # One text with marks.
    *[
        ("marked_text", {"text": text}, turns, {})
        for text, turns in [
            ("### Human: q### Assistant: a", PLAIN),
            ("### Human: q\n### Assistant: a\n### Human: r\n### Assistant: s", [*PLAIN, (U, "r"), (A, "s")]),
            (
                "Be brief.\n\n### Instruction:\nq\n\n### Input:\nx\n\n### Response:\na",
                [(S, "Be brief."), (U, "q\n\nx"), (A, "a")],
            ),
            (
                "<|im_start|>system\ns<|im_end|>\n<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\na<|im_end|>\n",
                [(S, "s"), *PLAIN],
            ),
            (
                "<s>[INST] <<SYS>>\ns\n<</SYS>>\n\nq [/INST] a </s><s>[INST] r [/INST] t </s>",
                [(S, "s"), *PLAIN, (U, "r"), (A, "t")],
            ),
            ("<s>[INST] q [/INST] a</s>", PLAIN),
            (
                "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nq<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\na<|eot_id|>",
                PLAIN,
            ),
            ("<bos><start_of_turn>user\nq<end_of_turn>\n<start_of_turn>model\na<end_of_turn>\n", PLAIN),
            ("<|user|>\nq<|end|>\n<|assistant|>\na<|end|>\n", PLAIN),
            ("USER: q ASSISTANT: a</s>", PLAIN),
            ("\n\nHuman: q\n\nAssistant: a", PLAIN),
        ]
    ],
]


@pytest.mark.parametrize(("name", "row", "turns", "meta"), ROWS)
def test_rows_are_read_and_nothing_is_lost(name, row, turns, meta):
    assert turns_and_meta(row) == (name, turns, meta)


def test_every_format_of_the_recipe_is_there_and_tried_above():
    assert set(FormatName.__args__) == {"auto", "text", *FORMATS}
    assert {name for name, *_ in ROWS} == set(FORMATS)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"instruction": "q", "output": None}, "missing_answer"),
        ({"instruction": "q", "output": float("nan")}, "missing_answer"),
        ({"instruction": "q", "output": " \n"}, "empty_answer"),
        ({"instruction": " ", "output": "a"}, "missing_prompt"),
        ({"instruction": "q", "output": {"a": 1}}, "wrong_type"),
        ({"instruction": ["q"], "output": "a"}, "wrong_type"),
        ({"question": "q", "answer": []}, "missing_answer"),
        ({"prompt": "q", "completion": []}, "missing_answer"),
        ({"prompt": "q", "completion": "a", "label": False}, "rejected_answer"),
        ({"prompt": "q", "completion": "a", "label": "False"}, "rejected_answer"),
        (
            {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}], "kto_tag": False},
            "rejected_answer",
        ),
        (
            {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a", "weight": 0}]},
            "missing_answer",
        ),
        ({"question": "N/A", "answer": "a"}, "missing_prompt"),
        ({"chosen": "a", "rejected": "b"}, "missing_prompt"),
        ({"instruction": "q", "output": "a\0"}, "nul_byte"),
        ({"instruction": "q", "output": "a", "note": {"deep": ["\0"]}}, "nul_byte"),
        ({"instruction": "q\ud800", "output": "a"}, "lone_surrogate"),
        ({"instruction": "q", "output": "a", "note": {"\udc00": 1}}, "lone_surrogate"),
        ({"instruction": "q", "output": "a" * 10_000_000}, "oversized_cell"),
        ({"instruction": "q", "output": "a", "blob": "ä" * 5_000_000}, "oversized_cell"),
        ({"instruction": "", "output": "a\0"}, "nul_byte"),
    ],
)
def test_malformed_rows_are_faults(row, reason):
    result = read(row)[1]
    assert isinstance(result, Fault)
    assert result.reason == reason
    assert reason in REASONS


def test_what_only_looks_like_damage_is_kept():
    row = {
        "instruction": r"what is \u0000?",
        "output": "a",
        "note": r"\u0000",
        "long": ["x" * 6_000_000, "y" * 6_000_000],
    }
    assert isinstance(read(row)[1], Example)


@pytest.mark.parametrize(
    ("roles", "expected"),
    [
        ("ua", "ua"),
        ("uua", "ua+"),
        ("uaa", "ua+"),
        ("suua", "sua+"),
        ("aua", "aua"),
        ("uau", "ua-"),
        ("uaut", "ua-"),
        ("uata", "uata"),
        ("uf", "ua!"),
        ("ufta", "ufta"),
        ("a", "bad_roles"),
        ("sa", "bad_roles"),
        ("u", "missing_answer"),
        ("su", "missing_answer"),
        ("uu", "missing_answer"),
    ],
)
def test_dialogues_are_repaired_or_refused(roles, expected):
    called = {"u": "human", "a": "gpt", "s": "system", "t": "tool", "f": "function_call"}
    row = {"conversations": [{"from": called[role], "value": f"{role}{i}"} for i, role in enumerate(roles)]}
    row_format = RowFormat.of(FORMATS["sharegpt"], {"conversations": "conversations"})
    result = convert_row(row, row_format, split=None, own_split=True)
    if isinstance(result, Fault):
        assert result.reason == expected
        return
    short = {"user": "u", "assistant": "a", "system": "s", "tool": "t", "function_call": "f"}
    assert "".join(short[turn.role] for turn in result.turns) == expected.rstrip("+-!")
    assert ("_repairs" in json.loads(result.meta)) == (expected[-1] in "+-!")
    content = " ".join(turn.content for turn in result.turns)
    assert all(f"{role}{i}" in content for i, role in enumerate(roles)) == (expected[-1] != "-")


def test_user_turns_that_carry_more_than_text_cannot_be_merged():
    users = [{"role": "user", "content": "q", "name": name} for name in ("ann", "bob")]
    _, result = read({"messages": [*users, {"role": "assistant", "content": "a"}]})
    assert isinstance(result, Fault)
    assert result.reason == "bad_roles"


@pytest.mark.parametrize(
    ("turn", "reason"),
    [
        ({"content": "x"}, "bad_roles"),
        ({"role": 3, "content": "x"}, "bad_roles"),
        ("x", "missing_answer"),
        (5, "wrong_type"),
        ({"role": "user", "content": {"a": 1}}, "wrong_type"),
        ({"role": "user", "content": [{"type": "image_url", "image_url": "u"}]}, "wrong_type"),
    ],
)
def test_turns_that_are_none(turn, reason):
    row_format = RowFormat.of(FORMATS["messages"], {"messages": "messages"})
    result = convert_row({"messages": [turn]}, row_format, split=None, own_split=True)
    assert isinstance(result, Fault)
    assert result.reason == reason


def test_a_blank_answer_in_the_middle_is_a_fault():
    contents = [("user", "q"), ("assistant", " "), ("user", "r"), ("assistant", "a")]
    fault = repair_turns([Turn(role, content) for role, content in contents])
    assert isinstance(fault, Fault)
    assert fault.reason == "empty_answer"


@pytest.mark.parametrize(
    ("given", "fixed", "split", "kept"),
    [
        ("val", None, "validation", "val"),
        ("test", None, "test", None),
        ("test", "train", "train", "test"),
        (7, None, None, 7),
    ],
)
def test_the_split_of_a_row(given, fixed, split, kept):
    _, result = read({"instruction": "q", "output": "a", "split": given}, split=fixed, own_split=fixed is None)
    assert result.split == split
    assert json.loads(result.meta).get("split") == kept


def test_meta_has_sorted_keys_and_any_number():
    _, result = read({"z": 2**70, "instruction": "q", "output": "a", "b": {"y": 1, "x": float("nan")}})
    assert result.meta.index('"b"') < result.meta.index('"z"')
    assert json.loads(result.meta)["z"] == 2**70


def test_columns_may_be_named():
    row = {"Frage": "q", "Antwort": "a", "answer": "b"}
    assert turns_and_meta(row, given={"question": "Frage", "answer": "Antwort"}) == (
        "question_answer",
        PLAIN,
        {"answer": "b"},
    )
    assert turns_and_meta(row, name="alpaca", given={"instruction": "Frage"})[1] == [(U, "q"), (A, "b")]


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (
            {},
            [
                "Columns found: instrcution, reply",
                "Did you mean 'instruction'?",
                "alpaca: instruction, output",
                "columns:",
            ],
        ),
        ({"name": "alpaca"}, ["Columns found: instrcution, reply", "format: alpaca"]),
        ({"name": "text"}, ["no answers to train on", "alpaca"]),
        ({"given": {"instrction": "reply"}}, ["unknown role 'instrction'", "Did you mean 'instruction'?"]),
        (
            {"given": {"instruction": "instruction"}},
            ["no column 'instruction'", "Did you mean 'instrcution'?", "reply"],
        ),
    ],
)
def test_when_it_cannot_be_told_the_message_says_what_to_write(options, parts):
    with pytest.raises(UserError) as fault:
        read({"instrcution": "q", "reply": "a"}, **options)
    assert all(part in str(fault.value) for part in parts)


def test_a_flag_called_chosen_is_no_answer():
    row = {"question": "q", "answer": "a", "chosen": 1}
    assert turns_and_meta(row) == ("question_answer", PLAIN, {"chosen": 1})


@pytest.mark.parametrize(
    ("value", "description"),
    [
        ("hello there", "a text ('hello there')"),
        (5, "a number (5)"),
        ([1, 2], "a list of numbers"),
        ([{"user": "q", "bot": "a"}], "a list of objects with the keys user, bot"),
        ({"id": 1}, "an object with the keys id"),
    ],
)
def test_what_a_column_holds_that_usually_holds_a_dialogue_is_said(value, description):
    with pytest.raises(UserError) as fault:
        read({"messages": value})
    assert f"here it holds {description}." in str(fault.value)


def test_a_text_column_called_messages_is_no_dialogue():
    assert turns_and_meta({"messages": "no", "question": "q", "answer": "a"})[0] == "question_answer"
