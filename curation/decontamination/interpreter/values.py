"""The values of programs that `Program` follows, and the bounds of one call."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from siftune.curation.decontamination.interpreter.python_functions import MOST_BITS, MOST_SIZE

#: Bounds of one call: its steps, and levels of a value's nesting.
MOST_STEPS = 4000
_MOST_NESTING = 30
SCALARS = (int, float, str, bool, type(None))
#: What a program may raise and catch; all else ends it.
ERRORS = (ArithmeticError, LookupError, TypeError, ValueError, AssertionError, NameError)
ERROR_NAMES = {
    error.__name__: error for error in (*ERRORS, IndexError, KeyError, ZeroDivisionError, OverflowError, Exception)
}


class NoValueError(Exception):
    """A program that is not understood here, or that does not end within its bounds."""


@dataclass
class Scope:
    """Names and their values, and the scope around it."""

    names: Any  # a dictionary; of Python's own functions one that cannot be changed
    parent: Scope | None = None
    outer: set[str] = field(default_factory=set)  # names that `global` or `nonlocal` hand to the scope around

    def holder(self, name: str) -> Scope | None:
        """The scope, itself or one around it, that has a name."""
        scope: Scope | None = self
        while scope is not None and name not in scope.names:
            scope = scope.parent
        return scope


@dataclass(frozen=True)
class Function:
    """A function of the program."""

    node: ast.FunctionDef | ast.Lambda
    scope: Scope
    defaults: dict[str, Any]
    gives: bool  # whether it yields: its values are gathered in a list


@dataclass(frozen=True)
class Module:
    """A module of Python: its members that are known here."""

    members: dict[str, Any]


@dataclass(frozen=True)
class Builtin:
    """A function of Python that is known here; `own` is the value that it is a method of."""

    function: Any
    own: tuple[Any, ...] = ()


def copied(value: Any) -> Any:
    """Plain data, copied through its nesting."""
    if isinstance(value, list | tuple | set):
        return type(value)(copied(element) for element in value)
    return {key: copied(element) for key, element in value.items()} if isinstance(value, dict) else value


def plain(value: Any) -> Any:
    """A value as plain data; raises `NoValueError` for a function."""
    if isinstance(value, SCALARS):
        return value
    if isinstance(value, range) and len(value) > MOST_SIZE:
        raise NoValueError("too large")
    if isinstance(value, list | tuple | range):
        return [plain(element) for element in value]
    if isinstance(value, set | frozenset):
        return {plain(element) if not isinstance(element, tuple) else element for element in value}
    if isinstance(value, dict):
        return {key: plain(element) for key, element in value.items()}
    raise NoValueError("no data")


def ordered(values: set[Any] | frozenset[Any]) -> list[Any]:
    """The elements of a set in an order that does not depend on hashes: numbers by size, then others by their text."""

    def rank(value: Any) -> tuple[int, Any, str]:
        return (0, value, "") if isinstance(value, int | float) else (1, 0, repr(with_text(value)))

    return sorted(values, key=rank)


def with_text(value: Any) -> Any:
    """The value, where `str` gives the same of it anywhere; else `NoValueError`."""
    parts = [*value.keys(), *value.values()] if isinstance(value, dict) else value
    if isinstance(value, list | tuple | dict):
        for part in parts:
            with_text(part)
    elif not isinstance(value, SCALARS):
        raise NoValueError("no text")
    return value


class Bounds:
    """What is left of a call's steps, and what it printed."""

    def __init__(self) -> None:
        self.printed: list[str] = []
        self._steps = MOST_STEPS

    def spend(self, steps: int) -> None:
        """Take steps from what is left; raises `NoValueError` where nothing is."""
        self._steps -= steps
        if self._steps < 0:
            raise NoValueError("too many steps")

    def weigh(self, *values: Any) -> None:
        """Bound the elements of values, counted through their nesting: what looks at a value looks at all of it."""
        waiting = [(value, 0) for value in values if type(value) not in SCALARS]
        self.bound_scalars(*values)
        elements = 0
        while waiting:
            value, nesting = waiting.pop()
            if nesting > _MOST_NESTING:
                raise NoValueError("nested too deeply")
            parts = [*value.keys(), *value.values()] if isinstance(value, dict) else value
            if isinstance(value, list | tuple | set | frozenset | dict):
                elements += len(value)
                if elements > MOST_SIZE:
                    raise NoValueError("too large")
                self.bound_scalars(*parts)
                waiting.extend((part, nesting + 1) for part in parts if type(part) not in SCALARS)
        self.spend(elements // 8)

    def bound_scalars(self, *values: Any) -> None:
        """Bound the lengths of texts and the bits of whole numbers."""
        for value in values:
            if isinstance(value, str) and len(value) > MOST_SIZE:
                raise NoValueError("too long")
            if isinstance(value, int) and value.bit_length() > MOST_BITS:
                raise NoValueError("too large")

    def items(self, values: Any) -> Iterator[Any]:
        """The elements of a value, each for a step; of sets in an order that no hash seed changes."""
        if not isinstance(values, str | list | tuple | set | frozenset | dict | range):
            raise TypeError("not iterable")
        for value in ordered(values) if isinstance(values, set | frozenset) else values:
            self.spend(1)
            yield value

    def text(self, value: Any) -> str:
        """What `str` gives of plain data; sets have no order, so that two programs share no text of them."""
        self.weigh(value)
        return str(with_text(value))

    def listed(self, values: Any) -> list[Any]:
        """The elements of a value as a list of bounded size."""
        elements: list[Any] = []
        for value in self.items(values):
            elements.append(value)
            if len(elements) > MOST_SIZE:
                raise NoValueError("too large")
        return elements
