"""Runs small Python functions of strangers on small inputs, without ever handing them to Python.

The syntax tree is walked here. There is no import, no attribute but the methods that `python_functions` names, no file,
clock or chance; every step, every size and the depth are bounded, so that any program ends soon with a value or without
one. Only plain data goes in and comes out. What is not known here (classes, regular expressions, decorators) ends the
call without a value.

Time is linear in the steps, at most `MOST_STEPS` for a call of `Program.call`; no value has more than `MOST_SIZE`
elements, counted through its nesting.
"""

from __future__ import annotations

import ast
import warnings
from collections.abc import Callable, Set
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from siftune.curation.decontamination.interpreter.expressions import MOST_DEPTH, YIELDED, Expressions, unknown
from siftune.curation.decontamination.interpreter.python_functions import FUNCTIONS, MODULES, OfCall
from siftune.curation.decontamination.interpreter.values import (
    ERROR_NAMES,
    ERRORS,
    Builtin,
    Function,
    Module,
    NoValueError,
    Scope,
    copied,
    plain,
)

#: Texts that are longer, or nested deeper, are not parsed.
_MOST_CHARACTERS = 8000
_MOST_BRACKETS = 40


class _Flow(Exception):  # noqa: N818 - no error
    """Leaves a block: return, break or continue."""


class _Return(_Flow):
    def __init__(self, value: object) -> None:
        self.value = value


class _Break(_Flow):
    pass


class _Continue(_Flow):
    pass


@dataclass(frozen=True)
class Result:
    """What a call gave: its value (plain data), what it printed, and its arguments as it left them."""

    value: Any
    printed: str
    arguments: tuple[Any, ...]


class Program:
    """The functions of a Python text.

    Args:
        text: the text.

    Raises:
        NoValueError: it is no Python, or longer than 8,000 characters.
    """

    def __init__(self, text: str) -> None:
        tree = parse(text)
        self._body = tree.body
        self._generators = {node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and _yields(node)}
        defined = [node for node in self._body if isinstance(node, ast.FunctionDef)]
        self.functions = {node.name: node for node in defined}

    def takes(self, name: str) -> range:
        """The numbers of positional arguments that a function takes."""
        arguments = self.functions[name].args
        positional = len(arguments.posonlyargs) + len(arguments.args)
        return range(positional - len(arguments.defaults), positional + 1)

    def calls(self, name: str) -> set[str]:
        """The names of the text's functions that a function mentions."""
        mentioned = {node.id for node in ast.walk(self.functions[name]) if isinstance(node, ast.Name)}
        return mentioned & set(self.functions)

    def call(self, name: str, arguments: tuple[Any, ...]) -> Result:
        """Call a function; every call begins anew, with the text's constants and functions.

        Args:
            name: of `functions`.
            arguments: plain data, which is copied.

        Raises:
            NoValueError: an error, something unknown, or more than `MOST_STEPS` steps.
        """
        call = _ProgramCall(self._generators)
        given = [copied(value) for value in arguments]
        try:
            for node in self._body:
                call.define(node)
            value = call.apply(call.globals.names[name], list(given), {})
            call.weigh(value, *given)
            return Result(plain(value), "".join(call.printed), tuple(given))
        except (*ERRORS, _Flow, RuntimeError, MemoryError) as error:
            raise NoValueError(type(error).__name__) from error


def _yields(function: ast.FunctionDef) -> bool:
    """Whether a function yields; functions within it yield for themselves."""
    waiting: list[ast.AST] = list(function.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Yield | ast.YieldFrom):
            return True
        if not isinstance(node, ast.FunctionDef | ast.Lambda):
            waiting.extend(ast.iter_child_nodes(node))
    return False


def parse(text: str) -> ast.Module:
    """The syntax tree of a text. Raises `NoValueError` where it has none, is too long or nested too deeply."""
    depth = deepest = 0
    for character in text if len(text) <= _MOST_CHARACTERS else "":
        depth += (character in "([{") - (character in ")]}")
        deepest = max(deepest, depth)
    if len(text) > _MOST_CHARACTERS or deepest > _MOST_BRACKETS or "\0" in text:
        raise NoValueError("too long or too deep")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise NoValueError("no program") from error


class _ProgramCall(Expressions):
    """One call of a program: what its statements do."""

    def __init__(self, generators: Set[ast.FunctionDef]) -> None:
        super().__init__(Scope({}, Scope(_BUILTINS)))
        self._generators = generators

    def call_function(self, function: Function, arguments: list[Any], named: dict[str, Any]) -> Any:
        takes = function.node.args
        names = [argument.arg for argument in (*takes.posonlyargs, *takes.args)]
        only_named = [argument.arg for argument in takes.kwonlyargs]
        if takes.kwarg or (len(arguments) > len(names) and not takes.vararg):
            raise TypeError("arguments")
        values = {**function.defaults, **dict(zip(names, arguments, strict=False)), **named}
        if set(values) != {*names, *only_named}:
            raise TypeError("arguments")
        if takes.vararg:
            values[takes.vararg.arg] = tuple(arguments[len(names) :])
        scope = Scope(values, function.scope)
        if isinstance(function.node, ast.Lambda):
            return self.value(function.node.body, scope)
        if function.gives:
            scope.names[YIELDED] = []
        try:
            self.block(function.node.body, scope)
        except _Return as result:
            return scope.names[YIELDED] if function.gives else result.value
        return scope.names[YIELDED] if function.gives else None

    def define(self, node: ast.stmt) -> None:
        """A function, import or constant of the text; those that fail are missing where they are used."""
        if isinstance(node, ast.FunctionDef | ast.Import | ast.ImportFrom | ast.Assign | ast.AnnAssign):
            try:
                self.execute(node, self.globals)
            except ERRORS:
                return

    def block(self, body: list[ast.stmt], scope: Scope) -> None:
        for node in body:
            self.execute(node, scope)

    def execute(self, node: ast.stmt, scope: Scope) -> None:
        self.spend(1)
        self.depth += 1
        if self.depth > MOST_DEPTH:
            raise NoValueError("too deep")
        execute: Callable[..., None] = _STATEMENTS.get(type(node), unknown)
        try:
            execute(self, node, scope)
        finally:
            self.depth -= 1

    def function_def(self, node: ast.FunctionDef, scope: Scope) -> None:
        if node.decorator_list:
            raise NoValueError("decorator")
        gives = node in self._generators
        scope.names[node.name] = Function(node, scope, self.defaults(node.args, scope), gives)

    def imports(self, node: ast.Import | ast.ImportFrom, scope: Scope) -> None:
        for alias in node.names:
            if isinstance(node, ast.Import):
                scope.names[alias.asname or alias.name] = _module(alias.name)
            else:
                members = _module(node.module or "").members
                names = list(members) if alias.name == "*" else [alias.name]
                scope.names.update({alias.asname or name: members[name] for name in names if name in members})

    def assign(self, node: ast.Assign, scope: Scope) -> None:
        value = self.value(node.value, scope)
        for target in node.targets:
            self.bind(target, value, scope)

    def annotated(self, node: ast.AnnAssign, scope: Scope) -> None:
        if node.value is not None:
            self.bind(node.target, self.value(node.value, scope), scope)

    def augmented(self, node: ast.AugAssign, scope: Scope) -> None:
        before, value = self.value(node.target, scope), self.value(node.value, scope)
        if isinstance(before, list) and isinstance(node.op, ast.Add):
            before.extend(self.listed(value))  # in place, as Python does
            self.weigh(before)
        else:
            self.bind(node.target, self.binary(node.op, before, value), scope)

    def loop(self, node: ast.For, scope: Scope) -> None:
        for value in self.items(self.value(node.iter, scope)):
            self.bind(node.target, value, scope)
            if not self._once(node.body, scope):
                return
        self.block(node.orelse, scope)

    def while_loop(self, node: ast.While, scope: Scope) -> None:
        while self.value(node.test, scope):
            if not self._once(node.body, scope):
                return
        self.block(node.orelse, scope)

    def _once(self, body: list[ast.stmt], scope: Scope) -> bool:
        """Run the body of a loop; false where it breaks."""
        try:
            self.block(body, scope)
        except _Break:
            return False
        except _Continue:
            pass
        return True

    def branch(self, node: ast.If, scope: Scope) -> None:
        self.block(node.body if self.value(node.test, scope) else node.orelse, scope)

    def returns(self, node: ast.Return, scope: Scope) -> None:
        raise _Return(None if node.value is None else self.value(node.value, scope))

    def tries(self, node: ast.Try, scope: Scope) -> None:
        try:
            self.block(node.body, scope)
        except ERRORS as error:
            for handler in node.handlers:
                if self._catches(handler, error):
                    self.block(handler.body, scope)
                    break
            else:
                raise
        else:
            self.block(node.orelse, scope)
        self.block(node.finalbody, scope)

    def _catches(self, handler: ast.ExceptHandler, error: BaseException) -> bool:
        named = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
        return any(
            one is None or (isinstance(one, ast.Name) and isinstance(error, ERROR_NAMES.get(one.id, ())))
            for one in named
        )

    def raises(self, node: ast.Raise, scope: Scope) -> None:
        named = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
        raise ERROR_NAMES.get(getattr(named, "id", ""), ValueError)("raised")

    def asserts(self, node: ast.Assert, scope: Scope) -> None:
        if not self.value(node.test, scope):
            raise AssertionError

    def hands_out(self, node: ast.Global | ast.Nonlocal, scope: Scope) -> None:
        scope.outer.update(node.names)

    def expression(self, node: ast.Expr, scope: Scope) -> None:
        self.value(node.value, scope)

    def nothing(self, node: ast.stmt, scope: Scope) -> None:
        """`pass`."""

    def breaks(self, node: ast.stmt, scope: Scope) -> None:
        raise _Break

    def continues(self, node: ast.stmt, scope: Scope) -> None:
        raise _Continue

    def deletes(self, node: ast.Delete, scope: Scope) -> None:
        for target in node.targets:
            if not isinstance(target, ast.Subscript):
                raise NoValueError("del")
            container = self.value(target.value, scope)
            if not isinstance(container, list | dict):
                raise TypeError("no item deletion")
            del container[self._key(target.slice, scope)]


def _module(name: str) -> Module:
    """The members of a module that are known here; of others none, so that they are missing where they are used."""
    members = MODULES.get(name, {})
    is_function = {name: callable(value) or isinstance(value, OfCall) for name, value in members.items()}
    return Module({name: Builtin(value) if is_function[name] else value for name, value in members.items()})


_BUILTINS = MappingProxyType({name: Builtin(function) for name, function in FUNCTIONS.items()})
_STATEMENTS: dict[type[ast.AST], Callable[..., Any]] = {
    ast.FunctionDef: _ProgramCall.function_def,
    ast.Import: _ProgramCall.imports,
    ast.ImportFrom: _ProgramCall.imports,
    ast.Assign: _ProgramCall.assign,
    ast.AnnAssign: _ProgramCall.annotated,
    ast.AugAssign: _ProgramCall.augmented,
    ast.For: _ProgramCall.loop,
    ast.While: _ProgramCall.while_loop,
    ast.If: _ProgramCall.branch,
    ast.Return: _ProgramCall.returns,
    ast.Try: _ProgramCall.tries,
    ast.Raise: _ProgramCall.raises,
    ast.Assert: _ProgramCall.asserts,
    ast.Global: _ProgramCall.hands_out,
    ast.Nonlocal: _ProgramCall.hands_out,
    ast.Delete: _ProgramCall.deletes,
    ast.Expr: _ProgramCall.expression,
    ast.Pass: _ProgramCall.nothing,
    ast.Break: _ProgramCall.breaks,
    ast.Continue: _ProgramCall.continues,
}
