"""Do two Python programs give the same results? Both are called with the same small values.

Two tasks that share their words ("the sum of the squares of the first numbers", "... of the first even numbers") give
other results; two programs for one task give the same, however they are written. Nothing is executed: see
`siftune.curation.decontamination.interpreter.program`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any

import polars as pl

from siftune.curation.decontamination.interpreter.program import Program
from siftune.curation.decontamination.interpreter.values import NoValueError

_NUMBERS = (
    [1],
    [1, 2, 3],
    [3, 1, 2],
    [5, 3, 5, 2, 2, 1],
    [10, -4, 7, 0, -1],
    [4, 4, 4],
    [1, 3, 5, 7, 8],
    [2, 4, 6, 9, 12],
)
_WORDS = (
    ["b", "a", "c"],
    ["apple", "Banana", "cherry", "fig"],
    ["x", "x", "y"],
    ["hello", "hi"],
    ["aa", "bbb", "c", "dd"],
)
_TEXTS = ("", "a", "hello world", "Level", "aabbc", "Python 3", "abcabc", "racecar", "The quick brown fox", "12321")
_TABLES = ([[1, 2], [3, 4]], [[3], [1, 2], [2, 5, 1]], [[1, 2, 3], [4, 5, 6], [7, 8, 9]], [[5, 1], [2, 2], [0, 9]])
_PAIRS = ([("a", 3), ("b", 1), ("c", 2)], [(1, 2), (3, 1), (2, 2)], [(4, 5), (0, 1)], [(9, 1), (1, 9), (5, 5)])
_COUNTS = ({"a": 1, "b": 5, "c": 2}, {"x": 3}, {"k": 2, "j": 2, "i": 1}, {1: 2, 3: 4})
#: Arguments by kind: a program is judged by the kind of which it understands most. They are small, so that slow
#: programs end, and unlike, so that other tasks give other results.
PROBES: tuple[tuple[tuple[Any, ...], ...], ...] = (
    tuple((value,) for value in (0, 1, 2, 3, 4, 5, 6, 7, 9, 10, 12, 16, 17, 25, 28, 30, 100, 121, -3)),
    tuple((value,) for value in _TEXTS),
    tuple((value,) for value in _NUMBERS),
    tuple((value,) for value in _WORDS),
    tuple((value,) for value in _TABLES),
    tuple((value,) for value in _PAIRS),
    tuple((value,) for value in _COUNTS),
    (
        *((1, 2), (3, 2), (2, 5), (10, 3), (12, 18), (7, 7), (0, 4), (5, 0), (20, 6), (9, 4), (48, 36), (2, 10)),
        *((17, 5), (100, 7)),
    ),
    tuple(zip(_NUMBERS * 2, (0, 1, 2, 3, 2, 1, 2, 2, 1, 3, 5, 4, 3, 2, 1, 6), strict=True)),
    tuple((value, len(value)) for value in _NUMBERS),
    (
        *(([1, 2, 3], [2, 3, 4]), ([1, 2], [3]), ([5, 5, 1], [5, 1]), ([1, 2, 3], [1, 2, 3]), ([4, 6, 8], [1, 6, 9])),
        *(([0], [0, 1]), ([7, 3, 9], [2, 1, 4])),
    ),
    (
        *(("hello world", "o"), ("abc", "bc"), ("listen", "silent"), ("aabbc", "b"), ("Python", "P"), ("race", "care")),
        *(("abcabc", "abc"), ("kitten", "sitting"), ("a b c", " ")),
    ),
    (("hello world", 3), ("abc", 1), ("aabbc", 2), ("Python", 4), ("the quick brown", 2)),
    ((["b", "a", "c"], "a"), (["apple", "banana"], "a"), (["x", "x", "y"], "x"), (["hello", "hi"], "h")),
    ((3, 4, 5), (1, 2, 3), (10, 2, 3), (5, 5, 5), (2, 7, 4), (1, 1, 2), (6, 8, 10), (9, 3, 1)),
    (
        *(([1, 2, 3, 4], 1, 2), ([5, 3, 5, 2], 0, 2), ([3, 1, 2], 1, 1), ([2, 4, 6, 9, 12], 1, 3)),
        ([10, -4, 7, 0], 0, 3),
    ),
    (([1, 2], [3, 4], [5, 6]), ([1], [1], [1]), ([1, 5, 9], [2, 5, 9], [5, 9, 3]), ([7, 8], [8, 7], [1, 8])),
    (("hello", "l", "x"), ("abcabc", "a", "z"), ("the cat", "cat", "dog"), ("aabb", "b", "c")),
)
#: Of one kind so many results are compared at least, of which so many are unlike; where all are one of two (yes and
#: no), more.
_LEAST_RESULTS = 4
_LEAST_OF_TWO = 8
#: Two programs for one task differ in corner cases (an empty list, zero); two tasks agree in them.
_ALIKE = 0.95
_OTHERWISE = 0.7
_DIGITS = 9  # of a number that are compared
_FENCED = re.compile(r"```(?:\w+)?\n(.*?)```", re.DOTALL)
_BEGINNING = re.compile(r"^(?:def |from \w|import \w)", re.MULTILINE)
_MOST_FUNCTIONS = 8  # of a text that are called
_MOST_CUTS = 60  # lines that are left off the end of a text until it is a program

Results = dict[int, list[tuple[Any, ...]]]


def behaviour(pairs: pl.DataFrame) -> pl.DataFrame:
    """Whether the programs of each pair give the same results: float64 [m, 2].

    behaves_alike: 1 where both hold a Python function, and two of them with as many arguments give the same results.
    behaves_otherwise: 1 where they take other arguments or give other results. Both are 0 where that cannot be told.

    Args:
        pairs: `prompt` and `answer` of the row, `item_prompt` and `item_answer`. A program is the answer, or begins in
            the prompt and ends in the answer.
    """
    columns = pairs.select("prompt", "answer", "item_prompt", "item_answer").iter_rows()
    values = [compare_results(_results_of(*texts[:2]), _results_of(*texts[2:])) for texts in columns]
    return pl.DataFrame(values, schema={"behaves_alike": pl.Float64, "behaves_otherwise": pl.Float64}, orient="row")


def compare_results(of_row: Results, of_item: Results) -> tuple[float, float]:
    """(1, 0) where functions of both give the same results, (0, 1) where they give others, (0, 0) where none can tell.

    Args:
        of_row, of_item: as `results` gives them.
    """
    if not of_row or not of_item:
        return 0.0, 0.0
    shares = [
        share
        for kind in of_row.keys() & of_item.keys()
        for own in of_row[kind]
        for other in of_item[kind]
        if (share := _agreement(own, other)) is not None
    ]
    if not shares:
        return 0.0, float(not of_row.keys() & of_item.keys())
    return float(max(shares) >= _ALIKE), float(max(shares) < _OTHERWISE)


def _agreement(own: tuple[Any, ...], other: tuple[Any, ...]) -> float | None:
    """The share of equal results among those that both have; None where they are too few to tell."""
    both = [(left, right) for left, right in zip(own, other, strict=True) if left is not None and right is not None]
    known = sum(result is not None for result in other)
    unlike = len({right for _, right in both})
    least = _LEAST_RESULTS if unlike > 2 else _LEAST_OF_TWO
    if unlike < 2 or len(both) < max(least, known / 2):
        return None
    return sum(left == right for left, right in both) / len(both)


def _results_of(prompt: str, answer: str) -> Results:
    own = results(answer)
    # The space before the answer's first line may have been lost.
    return own or results(f"{prompt}\n    {answer.lstrip()}", whole=True)


@lru_cache(maxsize=4096)
def results(text: str, *, whole: bool = False) -> Results:
    """What the functions of a text that no other of them calls give for `PROBES`, by the kind of the arguments.

    Of each function a tuple with a result for each probe, None where there is none; kinds of which it understands
    none are left out. Empty where the text holds no program that can be followed.

    Args:
        text: a program, perhaps in a fence or with prose around it.
        whole: whether it has to be a program from its beginning to its end.
    """
    program = _program([text] if whole else _parts(text))
    if program is None:
        return {}
    called = {other for name in program.functions for other in program.calls(name) - {name}}
    names = [name for name in program.functions if name not in called] or list(program.functions)
    by_kind: Results = {}
    for name in names[:_MOST_FUNCTIONS]:
        for kind, probes in enumerate(PROBES):
            if len(probes[0]) in program.takes(name):
                given = tuple(_result(program, name, arguments) for arguments in probes)
                if any(result is not None for result in given):
                    by_kind.setdefault(kind, []).append(given)
    return by_kind


def _program(parts: Iterable[str]) -> Program | None:
    """The first part that is a program and defines a function."""
    for part in parts:
        try:
            program = Program(part)
        except NoValueError:
            continue
        if program.functions:
            return program
    return None


def _parts(text: str) -> Iterator[str]:
    """What may be the program of a text: what stands in a fence, all of it, or what follows its first Python line."""
    yield from _FENCED.findall(text)
    yield text
    beginning = _BEGINNING.search(text)
    if beginning:
        lines = text[beginning.start() :].splitlines()
        for cut in range(min(len(lines), _MOST_CUTS)):
            yield "\n".join(lines[: len(lines) - cut])


def _result(program: Program, name: str, arguments: Sequence[Any]) -> Any:
    """What a call gives: its value, else what it printed, else its first list as the call left it; None without any."""
    try:
        result = program.call(name, tuple(arguments))
    except NoValueError:
        return None
    if result.value is not None:
        return _comparable(result.value)
    if result.printed.strip():
        return _comparable(_read(result.printed.strip()))
    return _comparable(result.arguments[0]) if isinstance(result.arguments[0], list) else None


def _read(printed: str) -> Any:
    """A printed number as a number."""
    try:
        return float(printed)
    except ValueError:
        return printed


def _comparable(value: Any) -> Any:
    """A value by which results are compared: hashable, numbers to nine digits, lists as tuples, sets in order."""
    if isinstance(value, int | float):
        return float(f"{float(value):.{_DIGITS}g}") if abs(value) < 2**1000 else str(value)
    if isinstance(value, list | tuple):
        return tuple(_comparable(element) for element in value)
    if isinstance(value, set):
        return ("a set", *sorted(repr(_comparable(element)) for element in value))
    if isinstance(value, dict):
        return ("a dict", *sorted(repr((_comparable(key), _comparable(one))) for key, one in value.items()))
    return value
