"""Whether two programs give the same results."""

from __future__ import annotations

import polars as pl
import pytest

from siftune.curation.decontamination.interpreter.program import Program
from siftune.curation.decontamination.program_behaviour import PROBES, behaviour, compare_results, results

EVEN_SQUARES = "def total(n):\n    return sum((2 * i) ** 2 for i in range(1, n + 1))"
ALIKE, OTHERWISE, UNKNOWN = (1.0, 0.0), (0.0, 1.0), (0.0, 0.0)


def compared(row: str, item: str) -> tuple[float, float]:
    return compare_results(results(row), results(item))


@pytest.mark.parametrize(
    "row",
    [
        EVEN_SQUARES,
        "def f(n):\n  t = 0\n  while n > 0:\n    t += 4 * n ** 2\n    n -= 1\n  return t",
        "Look:\n```python\ndef f(n):\n    return sum([x * x for x in range(2, 2 * n + 1, 2)])\n```\nIt adds them.",
        "import re\ndef f(n): return 2 * n * (n + 1) * (2 * n + 1) // 3 if n > 0 else 0\nprint(f(int(input())))",
        "def step(i): return (2 * i) ** 2\ndef f(n):\n    return sum(map(step, range(1, n + 1)))",
        "def f(n):\n    print(sum((2 * i) ** 2 for i in range(1, n + 1)))",
        "The function:\ndef f(n, start=1):\n    return sum((2 * i) ** 2 for i in range(start, n + 1))\nThat is all.",
    ],
)
def test_other_programs_for_the_task_give_the_same_results(row: str) -> None:
    assert compared(row, EVEN_SQUARES) == ALIKE


@pytest.mark.parametrize(
    "row",
    [
        "def total(n):\n    return sum(i ** 2 for i in range(1, n + 1))",
        "def total(n):\n    return [(2 * i) ** 2 for i in range(1, n + 1)]",
        "def total(n, m, k):\n    return sum((2 * i) ** 2 for i in range(1, n + 1))",
        "def total(n):\n    return sum(i ** 2 for i in range(2, n + 1, 2))",
    ],
)
def test_another_task_gives_other_results(row: str) -> None:
    assert compared(row, EVEN_SQUARES) == OTHERWISE


@pytest.mark.parametrize(
    "row",
    [
        "",
        "Add the squares of the even numbers.",
        "function total(n) { return 4 * n; }",
        "def total(n):\n    return open(n).read()",
        "def total(n):\n    while True: pass",
        "class Total:\n    def of(self, n): return n",
        "total = sum((2 * i) ** 2 for i in range(1, 11))",
    ],
)
def test_what_cannot_be_called_says_nothing(row: str) -> None:
    assert compared(row, EVEN_SQUARES) == compared(EVEN_SQUARES, row) == UNKNOWN


def test_few_or_equal_results_say_nothing() -> None:
    assert compared("def f(x): return 5", "def g(x): return 5") == UNKNOWN
    assert compared("def f(x): return x == 5", "def g(x): return x == 5") == ALIKE  # yes and no, often enough


def test_corner_cases_may_differ() -> None:
    strict = "def mean(values):\n    if not values: raise ValueError\n    return sum(values) / len(values)"
    lenient = "def average(values):\n    if len(values) == 0:\n        return 0\n    return sum(values) / len(values)"
    assert compared(strict, lenient) == compared(lenient, strict) == ALIKE


def test_a_changed_list_is_a_result() -> None:
    in_place = "def f(values):\n    values.sort()"
    assert compared(in_place, "def g(values): return sorted(values)") == ALIKE
    assert compared(in_place, "def g(values): return values[::-1]") == OTHERWISE


def test_a_program_may_begin_in_the_prompt_and_end_in_the_answer() -> None:
    prompt = 'def total(n: int) -> int:\n    """Add the squares of the first n even numbers."""\n'
    body = "result = sum((2 * i) ** 2 for i in range(1, n + 1))\n    return result"  # the first line lost its space
    pairs = pl.DataFrame(
        {
            "prompt": ["Write it.", "What is wrong?\n" + EVEN_SQUARES],
            "answer": [EVEN_SQUARES, "Nothing."],
            "item_prompt": [prompt, prompt],
            "item_answer": [body, body],
        }
    )
    assert behaviour(pairs).rows() == [ALIKE, UNKNOWN]


def test_every_kind_of_probe_has_one_number_of_arguments() -> None:
    for probes in PROBES:
        assert len({len(arguments) for arguments in probes}) == 1
        assert len(set(map(repr, probes))) == len(probes)
    names = ", ".join(f"a{position}" for position in range(3))
    for probes in PROBES:
        taken = ", ".join(names.split(", ")[: len(probes[0])])
        program = Program(f"def f({taken}):\n    return [{taken}]")
        for arguments in probes:
            assert program.call("f", arguments).value is not None
