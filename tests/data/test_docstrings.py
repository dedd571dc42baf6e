"""Docstrings of the three styles come apart into the same parts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from siftune.data.docstrings import parse, plain

NUMPY = """
Scale a signal.

It is multiplied
by a number.

Parameters
----------
signal : ndarray of shape (n,)
    What is scaled,
    in volts.
factor : float, optional
    By how much.

Returns
-------
scaled : ndarray
    The scaled signal.

Raises
------
ValueError
    If `factor` is zero.

See Also
--------
shift : Add a number instead.

Notes
-----
Uses :func:`numpy.multiply`.

Examples
--------
>>> scale([1], 2)
array([2])
""".strip()

GOOGLE = """
Scale a signal.

It is multiplied
by a number.

Args:
    signal (ndarray of shape (n,)): What is scaled,
        in volts.
    factor (float, optional): By how much.

Returns:
    ndarray: The scaled signal.

Raises:
    ValueError: If `factor` is zero.

Note:
    Uses :func:`~numpy.multiply`.

Example::

    >>> scale([1], 2)
    array([2])
""".strip()

REST = """
Scale a signal.

It is multiplied
by a number.

:param signal: What is scaled,
    in volts.
:type signal: ndarray
:param float factor: By how much.
:returns: The scaled signal.
:raises ValueError: If `factor` is zero.

>>> scale([1], 2)
array([2])
""".strip()


@pytest.mark.parametrize("doc", [NUMPY, GOOGLE, REST], ids=["numpy", "google", "rest"])
def test_the_same_documentation_in_three_styles(doc: str) -> None:
    parts = parse(doc)
    assert parts.summary == "Scale a signal."
    assert parts.description == "Scale a signal.\n\nIt is multiplied by a number."
    described = [(name, text.replace("\n", " ")) for name, _, text in parts.parameters]
    assert described == [("signal", "What is scaled, in volts."), ("factor", "By how much.")]
    assert parts.returns.endswith("The scaled signal.")
    assert parts.raises == "- `ValueError`: If `factor` is zero."
    assert parts.example == ">>> scale([1], 2)\narray([2])"


def test_types_notes_and_related_objects_are_kept() -> None:
    numpy, google = parse(NUMPY), parse(GOOGLE)
    assert [kind for _, kind, _ in numpy.parameters] == ["ndarray of shape (n,)", "float, optional"]
    assert [kind for _, kind, _ in google.parameters] == ["ndarray of shape (n,)", "float, optional"]
    assert numpy.notes == google.notes == "Uses `numpy.multiply`."
    assert numpy.see_also == "- `shift`: Add a number instead."


def test_a_call_above_the_prose_is_a_signature() -> None:
    parts = parse("cat(tensors, dim=0) -> Tensor\n\nJoins tensors.")
    assert (parts.signature, parts.description) == ("cat(tensors, dim=0) -> Tensor", "Joins tensors.")


def test_a_sentence_with_parentheses_is_no_signature() -> None:
    assert parse("Returns f(x).\n\nMore.").description == "Returns f(x).\n\nMore."


@pytest.mark.parametrize(
    ("markup", "text"),
    [
        (":class:`~a.b.C` and ``x``", "`a.b.C` and `x`"),
        (":ref:`the guide <guide>`", "`the guide`"),
        ("[`~utils.Output`] is", "`utils.Output` is"),
        (".. versionadded:: 1.2", "New in version 1.2:"),
        (".. math:: x^2", "x^2"),
        ("As follows::\n\n    code()", "As follows:\n\n    code()"),
        ("one\ntwo\n\n- a\n- b", "one two\n\n- a\n- b"),
    ],
)
def test_markup_becomes_plain_text(markup: str, text: str) -> None:
    assert plain(markup) == text


def test_prose_between_examples_does_not_end_them() -> None:
    parts = parse("Move it.\n\nExamples\n--------\nMake a file:\n\n>>> make()\n\nMove the file:\n\n>>> move()\n")
    assert parts.example == "Make a file:\n\n>>> make()\n\nMove the file:\n\n>>> move()"


@given(st.text(alphabet="ab:.-=>`\n *()[]", max_size=120) | st.text(max_size=80))
def test_no_docstring_breaks_the_parser(doc: str) -> None:
    parts = parse(doc)
    assert all(name and text for name, _, text in parts.parameters)
