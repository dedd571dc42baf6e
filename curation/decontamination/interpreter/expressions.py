"""Expressions of programs: each kind of node has a method, and what has none ends the call without a value."""

from __future__ import annotations

import ast
import operator
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from siftune.curation.decontamination.interpreter.python_functions import (
    METHODS,
    MOST_BITS,
    MOST_SIZE,
    Default,
    OfCall,
    power,
)
from siftune.curation.decontamination.interpreter.values import (
    ERROR_NAMES,
    SCALARS,
    Bounds,
    Builtin,
    Function,
    Module,
    NoValueError,
    Scope,
)

#: Levels of nested evaluation in one call.
MOST_DEPTH = 150
#: Where the values that a function yields are gathered.
YIELDED = "<yielded>"


class Expressions(Bounds, ABC):
    """What expressions give within one call."""

    def __init__(self, outermost: Scope) -> None:
        super().__init__()
        self.globals = outermost
        self.depth = 0

    @abstractmethod
    def call_function(self, function: Function, arguments: list[Any], named: dict[str, Any]) -> Any:
        """Call a function of the program."""

    def apply(self, function: Any, arguments: list[Any], named: dict[str, Any]) -> Any:
        if isinstance(function, Function):
            return self.call_function(function, arguments, named)
        if isinstance(function, Builtin):
            self.weigh(*arguments, *named.values())
            known = function.function
            given = (*function.own, *arguments)
            result = known.function(self, *given, **named) if isinstance(known, OfCall) else known(*given, **named)
            self.weigh(result)
            return result
        raise TypeError("not callable")

    def value(self, node: ast.expr, scope: Scope) -> Any:
        self.spend(1)
        self.depth += 1
        if self.depth > MOST_DEPTH:
            raise NoValueError("too deep")
        evaluate: Callable[..., Any] = _EXPRESSIONS.get(type(node), unknown)
        try:
            return evaluate(self, node, scope)
        finally:
            self.depth -= 1

    def constant(self, node: ast.Constant, scope: Scope) -> Any:
        if not isinstance(node.value, SCALARS):
            raise NoValueError("constant")
        self.bound_scalars(node.value)
        return node.value

    def name(self, node: ast.Name, scope: Scope) -> Any:
        holder = scope.holder(node.id)
        if holder is None:
            if node.id in ERROR_NAMES:
                raise NoValueError("error class")
            raise NameError(node.id)
        return holder.names[node.id]

    def sequence(self, node: ast.List | ast.Tuple | ast.Set, scope: Scope) -> Any:
        values: list[Any] = []
        for element in node.elts:
            if isinstance(element, ast.Starred):
                values.extend(self.listed(self.value(element.value, scope)))
            else:
                values.append(self.value(element, scope))
        if isinstance(node, ast.Set):
            self.weigh(values)
            return set(values)
        return tuple(values) if isinstance(node, ast.Tuple) else values

    def mapping(self, node: ast.Dict, scope: Scope) -> Any:
        made: dict[Any, Any] = {}
        for key, value in zip(node.keys, node.values, strict=True):
            if key is None:
                made.update(self.value(value, scope))
            else:
                made[self._hashable(self.value(key, scope))] = self.value(value, scope)
        return made

    def _hashable(self, key: Any) -> Any:
        self.weigh(key)
        return key

    def binary_operation(self, node: ast.BinOp, scope: Scope) -> Any:
        return self.binary(node.op, self.value(node.left, scope), self.value(node.right, scope))

    def binary(self, symbol: ast.operator, left: Any, right: Any) -> Any:
        operation = _OPERATIONS.get(type(symbol))
        if operation is None or (isinstance(symbol, ast.Mod) and isinstance(left, str)):
            raise NoValueError("operator")
        if isinstance(symbol, ast.LShift) and isinstance(right, int) and right > MOST_BITS:
            raise NoValueError("too large")
        for one, other in ((left, right), (right, left)):
            is_repeated = isinstance(symbol, ast.Mult) and isinstance(one, str | list | tuple)
            if is_repeated and isinstance(other, int) and len(one) * other > MOST_SIZE:
                raise NoValueError("too large")
        self.weigh(left, right)
        result = operation(left, right)
        self.weigh(result)
        return result

    def unary(self, node: ast.UnaryOp, scope: Scope) -> Any:
        return _UNARY[type(node.op)](self.value(node.operand, scope))

    def junction(self, node: ast.BoolOp, scope: Scope) -> Any:
        result = None
        for part in node.values:
            result = self.value(part, scope)
            if bool(result) == isinstance(node.op, ast.Or):
                return result
        return result

    def compare(self, node: ast.Compare, scope: Scope) -> Any:
        left = self.value(node.left, scope)
        for symbol, part in zip(node.ops, node.comparators, strict=True):
            right = self.value(part, scope)
            self.weigh(left, right)
            if not _COMPARISONS[type(symbol)](left, right):
                return False
            left = right
        return True

    def choice(self, node: ast.IfExp, scope: Scope) -> Any:
        return self.value(node.body if self.value(node.test, scope) else node.orelse, scope)

    def comprehension(self, node: ast.ListComp | ast.SetComp | ast.GeneratorExp, scope: Scope) -> Any:
        values = [self.value(node.elt, inner) for inner in self._generate(node.generators, Scope({}, scope))]
        self.weigh(values)
        return set(values) if isinstance(node, ast.SetComp) else values

    def dict_comprehension(self, node: ast.DictComp, scope: Scope) -> Any:
        inner_scopes = self._generate(node.generators, Scope({}, scope))
        return {self._hashable(self.value(node.key, inner)): self.value(node.value, inner) for inner in inner_scopes}

    def _generate(self, generators: list[ast.comprehension], scope: Scope) -> Iterator[Scope]:
        if not generators:
            yield scope
            return
        first, *rest = generators
        for value in self.items(self.value(first.iter, scope)):
            self.bind(first.target, value, scope)
            if all(self.value(test, scope) for test in first.ifs):
                yield from self._generate(rest, scope)

    def anonymous(self, node: ast.Lambda, scope: Scope) -> Any:
        return Function(node, scope, self.defaults(node.args, scope), gives=False)

    def defaults(self, takes: ast.arguments, scope: Scope) -> dict[str, Any]:
        names = [argument.arg for argument in (*takes.posonlyargs, *takes.args)]
        given = [*zip(names[len(names) - len(takes.defaults) :], takes.defaults, strict=True)]
        named = [(argument.arg, one) for argument, one in zip(takes.kwonlyargs, takes.kw_defaults, strict=True) if one]
        return {name: self.value(default, scope) for name, default in (*given, *named)}

    def subscript(self, node: ast.Subscript, scope: Scope) -> Any:
        container, key = self.value(node.value, scope), self._key(node.slice, scope)
        self.weigh(key)
        if isinstance(container, Default) and key not in container and container.factory is not None:
            container[key] = self.apply(container.factory, [], {})
        if isinstance(container, Counter) and key not in container:
            return 0
        if not isinstance(container, str | list | tuple | dict | range):
            raise TypeError("not subscriptable")
        return container[key]

    def _key(self, node: ast.expr, scope: Scope) -> Any:
        if isinstance(node, ast.Slice):
            parts = (node.lower, node.upper, node.step)
            return slice(*(None if part is None else self.value(part, scope) for part in parts))
        return self.value(node, scope)

    def attribute(self, node: ast.Attribute, scope: Scope) -> Any:
        owner = self.value(node.value, scope)
        if isinstance(owner, Module):
            if node.attr not in owner.members:
                raise NoValueError("member")
            return owner.members[node.attr]
        of_kind = [methods for kind, methods in METHODS if isinstance(owner, kind) and node.attr in methods]
        if not of_kind:
            raise NoValueError("attribute")
        return Builtin(of_kind[0][node.attr], (owner,))

    def calling(self, node: ast.Call, scope: Scope) -> Any:
        function = self.value(node.func, scope)
        arguments: list[Any] = []
        for argument in node.args:
            if isinstance(argument, ast.Starred):
                arguments.extend(self.listed(self.value(argument.value, scope)))
            else:
                arguments.append(self.value(argument, scope))
        if any(keyword.arg is None for keyword in node.keywords):
            raise NoValueError("**")
        return self.apply(function, arguments, {str(one.arg): self.value(one.value, scope) for one in node.keywords})

    def joined(self, node: ast.JoinedStr, scope: Scope) -> Any:
        parts = []
        for part in node.values:
            if isinstance(part, ast.FormattedValue):
                if part.format_spec is not None or part.conversion == ord("r"):
                    raise NoValueError("format")
                parts.append(self.text(self.value(part.value, scope)))
            else:
                parts.append(self.value(part, scope))
            self.bound_scalars("".join(parts))
        return "".join(parts)

    def named(self, node: ast.NamedExpr, scope: Scope) -> Any:
        value = self.value(node.value, scope)
        self.bind(node.target, value, scope)
        return value

    def yields(self, node: ast.Yield | ast.YieldFrom, scope: Scope) -> Any:
        value = None if node.value is None else self.value(node.value, scope)
        holder = scope.holder(YIELDED)
        if holder is None:
            raise NoValueError("yield")
        values = self.listed(value) if isinstance(node, ast.YieldFrom) else [value]
        holder.names[YIELDED].extend(values)
        if len(holder.names[YIELDED]) > MOST_SIZE:
            raise NoValueError("too large")
        return None

    def bind(self, target: ast.expr, value: Any, scope: Scope) -> None:
        if isinstance(target, ast.Name):
            holder = scope.parent.holder(target.id) if target.id in scope.outer and scope.parent else scope
            (holder or self.globals).names[target.id] = value
        elif isinstance(target, ast.Tuple | ast.List):
            self._unpack(target.elts, self.listed(value), scope)
        elif isinstance(target, ast.Subscript):
            container = self.value(target.value, scope)
            key = self._key(target.slice, scope)
            if not isinstance(container, list | dict):
                raise TypeError("no item assignment")
            self.weigh(key, value)
            container[key] = self.listed(value) if isinstance(key, slice) else value
            self.weigh(container)
        else:
            raise NoValueError(type(target).__name__)

    def _unpack(self, targets: list[ast.expr], values: list[Any], scope: Scope) -> None:
        starred = [position for position, one in enumerate(targets) if isinstance(one, ast.Starred)]
        if starred:
            rest = len(values) - len(targets) + 1
            if rest < 0:
                raise ValueError("unpack")
            at = starred[0]
            values = [*values[:at], values[at : at + rest], *values[at + rest :]]
        if len(values) != len(targets):
            raise ValueError("unpack")
        for target, value in zip(targets, values, strict=True):
            self.bind(target.value if isinstance(target, ast.Starred) else target, value, scope)


def unknown(call: Bounds, node: ast.AST, scope: Scope) -> Any:  # noqa: ARG001 - as the methods take them
    """Ends the call at a node that is not known here."""
    raise NoValueError(type(node).__name__)


def _contains(left: Any, right: Any) -> bool:
    if isinstance(right, range):  # Python would look at each element for what is no whole number
        return isinstance(left, int) and left in right
    if not isinstance(right, str | list | tuple | set | frozenset | dict):
        raise TypeError("no container")
    return left in right


_OPERATIONS: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: power,
    ast.LShift: operator.lshift,
    ast.RShift: operator.rshift,
    ast.BitAnd: operator.and_,
    ast.BitOr: operator.or_,
    ast.BitXor: operator.xor,
}
_UNARY: dict[type, Callable[[Any], Any]] = {
    ast.Not: operator.not_,
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
    ast.Invert: operator.invert,
}
_COMPARISONS: dict[type, Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Is: lambda left, right: left is right if left is None or right is None else left == right,
    ast.IsNot: lambda left, right: left is not right if left is None or right is None else left != right,
    ast.In: _contains,
    ast.NotIn: lambda left, right: not _contains(left, right),
}
_EXPRESSIONS: dict[type[ast.AST], Callable[..., Any]] = {
    ast.Constant: Expressions.constant,
    ast.Name: Expressions.name,
    ast.List: Expressions.sequence,
    ast.Tuple: Expressions.sequence,
    ast.Set: Expressions.sequence,
    ast.Dict: Expressions.mapping,
    ast.BinOp: Expressions.binary_operation,
    ast.UnaryOp: Expressions.unary,
    ast.BoolOp: Expressions.junction,
    ast.Compare: Expressions.compare,
    ast.IfExp: Expressions.choice,
    ast.ListComp: Expressions.comprehension,
    ast.SetComp: Expressions.comprehension,
    ast.GeneratorExp: Expressions.comprehension,
    ast.DictComp: Expressions.dict_comprehension,
    ast.Lambda: Expressions.anonymous,
    ast.Subscript: Expressions.subscript,
    ast.Attribute: Expressions.attribute,
    ast.Call: Expressions.calling,
    ast.JoinedStr: Expressions.joined,
    ast.NamedExpr: Expressions.named,
    ast.Yield: Expressions.yields,
    ast.YieldFrom: Expressions.yields,
}
