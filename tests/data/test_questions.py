"""Questions are varied and honest: their answers come from the docstring and say more than the question."""

from __future__ import annotations

import dataclasses

from siftune.data.python_objects import DocumentedObject
from siftune.data.questions import questions, topic_questions

DOC = """
Scale a signal by a constant number of your choice.

The signal is multiplied element by element, and the result has the shape of the signal.

Parameters
----------
signal : ndarray
    What is scaled, as an array of voltages.
factor : float
    By how much everything is multiplied.

Returns
-------
scaled : ndarray
    The voltages after multiplication with the constant.

Examples
--------
>>> scale([1], 2)
array([2])
""".strip()
ITEM = DocumentedObject(
    package="tool", path="tool.scale", kind="function", doc=DOC, signature="(signal, factor=1.0, out=None)"
)


def item(**changed: str) -> DocumentedObject:
    return dataclasses.replace(ITEM, **changed)


def test_each_section_is_asked_for_and_is_the_answer() -> None:
    rows = {row.kind: row for row in questions(ITEM)}
    assert {"does", "brief", "parameters", "parameter", "returns", "example"} <= set(rows)
    assert rows["brief"].output == "Scale a signal by a constant number of your choice."
    assert rows["parameters"].output.startswith("- `signal` (ndarray): What is scaled")
    assert rows["returns"].output.endswith("The voltages after multiplication with the constant.")
    assert rows["example"].output == "```python\n>>> scale([1], 2)\narray([2])\n```"
    assert all(row.package == "tool" and row.object == "tool.scale" for row in rows.values())


def test_every_question_names_the_object_or_shows_it() -> None:
    for number in range(60):
        path = f"tool.scale{number}"
        for row in questions(item(path=path)):
            shown = row.instruction + row.input
            assert path.split(".")[1] in shown or row.kind in ("find", "session")
            assert "{" not in row.instruction


def test_an_answer_that_only_repeats_the_question_is_not_asked_for() -> None:
    assert questions(item(doc="Scale the tool.", signature="")) == []
    assert questions(item(doc="Return scale.", signature="")) == []


def test_wordings_and_contexts_vary_with_the_name_and_not_with_the_call() -> None:
    asked = [questions(item(path=f"tool.f{number}")) for number in range(80)]
    does = [row for rows in asked for row in rows if row.kind == "does"]
    wordings = {row.instruction.replace(row.object, "x").replace(row.object.split(".")[1], "x") for row in does}
    assert len(wordings) >= 8
    assert {bool(row.input) for row in does} == {True, False}
    assert asked == [questions(item(path=f"tool.f{number}")) for number in range(80)]


def test_the_name_is_not_given_away_when_it_is_asked_for() -> None:
    rows = [row for number in range(80) for row in questions(item(path=f"tool.g{number}")) if row.kind == "find"]
    assert rows
    for row in rows:
        assert row.object.split(".")[1] not in row.instruction + row.input
        assert row.object in row.output


def test_a_session_ends_with_its_first_output() -> None:
    doc = "Add numbers, one after another, to a total.\n\n>>> add(1)\n1\n>>> add(2)\n3"
    rows = [row for number in range(20) for row in questions(item(path=f"tool.h{number}", doc=doc))]
    sessions = {(row.input, row.output) for row in rows if row.kind == "session"}
    assert sessions == {(">>> add(1)", "1")}


def test_a_help_topic_gives_its_lead_its_text_and_its_grammar() -> None:
    text = (
        'The "yield" statement\n*********************\n\n   yield_stmt ::= yield_expression\n\n'
        "A first paragraph.\n\nA second.\n\nA third.\n\nA fourth.\n"
    )
    rows = {row.kind: row for row in topic_questions("yield", text)}
    assert rows["topic"].output == "A first paragraph.\n\nA second.\n\nA third.\n\nA fourth."
    assert rows["topic_brief"].output == "A first paragraph.\n\nA second."
    assert rows["grammar"].output == "yield_stmt ::= yield_expression"
    assert "`yield`" in rows["topic"].instruction
