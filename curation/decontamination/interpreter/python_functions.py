"""What programs may call in `Program`: Python's functions and methods on plain data, and nothing else.

The sizes of arguments are bounded before a call and that of the result after it; a function whose work can be more than
its arguments are large bounds that itself. `OfCall` marks those that are given the call that they are part of, to look
at elements one by one or to call a function of the program.
"""

from __future__ import annotations

import bisect
import functools
import heapq
import itertools
import math
import string
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

#: Elements of a value and bits of a whole number.
MOST_SIZE = 2000
MOST_BITS = 4096
_MOST_FACTORIAL = 300  # its factorial has 2,042 bits
_MOST_DIGITS = 100  # that a number is rounded to
_MOST_IN_GROUP = 50  # elements of a combination
_MISSING = object()


class Call(Protocol):
    """What a function may ask of the call that it is part of."""

    printed: list[str]

    def weigh(self, *values: Any) -> None:
        """Bound the elements of values, counted through their nesting."""

    def items(self, values: Any) -> Iterator[Any]:
        """The elements of a value, each for a step."""

    def listed(self, values: Any) -> list[Any]:
        """The elements of a value as a list of bounded size."""

    def text(self, value: Any) -> str:
        """What `str` gives of plain data."""

    def apply(self, function: Any, arguments: list[Any], named: dict[str, Any]) -> Any:
        """Call a function of the program or of Python."""


@dataclass(frozen=True)
class OfCall:
    """A function that is given the call that it is part of, then its arguments."""

    function: Callable[..., Any]


class Default(dict[Any, Any]):
    """A defaultdict: `factory` is a function of the program or of Python."""

    factory: Any = None


def bound(size: Any, most: int) -> None:
    """Raise `OverflowError` where a size is more than it may be."""
    if size > most:
        raise OverflowError("too large")


def number(value: Any) -> Any:
    """The value; raises `TypeError` where it is no number."""
    if not isinstance(value, int | float):
        raise TypeError("no number")
    return value


def power(base: Any, exponent: Any, modulus: Any = None) -> Any:
    """`pow`, of whole numbers up to 4,096 bits."""
    if modulus is None and isinstance(base, int) and isinstance(exponent, int):
        bound(abs(exponent) * base.bit_length(), MOST_BITS)
    return pow(number(base), number(exponent), modulus)


def _keyed(call: Call, values: list[Any], key: Any) -> list[tuple[Any, int]]:
    keys = values if key is None else [call.apply(key, [value], {}) for value in values]
    call.weigh(*keys)
    return [(one, position) for position, one in enumerate(keys)]


def _sorted(call: Call, values: Any, *, key: Any = None, reverse: Any = False) -> list[Any]:
    listed = call.listed(values)
    order = sorted(_keyed(call, listed, key), key=lambda pair: pair[0], reverse=bool(reverse))
    return [listed[position] for _, position in order]


def _sort(call: Call, values: list[Any], **named: Any) -> None:
    values[:] = _sorted(call, values, **named)


def _extreme(pick: Callable[..., Any]) -> OfCall:
    def extreme(call: Call, *values: Any, key: Any = None, default: Any = _MISSING) -> Any:
        listed = call.listed(values[0]) if len(values) == 1 else list(values)
        if not listed and default is not _MISSING:
            return default
        return listed[pick(_keyed(call, listed, key), key=lambda pair: pair[0])[1]]

    return OfCall(extreme)


def _total(combine: Callable[[Any, Any], Any], start: int) -> OfCall:
    def total(call: Call, values: Any, start: Any = start) -> Any:
        result = number(start)
        for value in call.items(values):
            result = combine(result, number(value))
            call.weigh(result)
        return result

    return OfCall(total)


def _reduce(call: Call, function: Any, values: Any, *start: Any) -> Any:
    return functools.reduce(lambda left, right: call.apply(function, [left, right], {}), call.items(values), *start)


def _map(call: Call, function: Any, *values: Any) -> list[Any]:
    return [call.apply(function, list(group), {}) for group in zip(*map(call.listed, values), strict=False)]


def _filter(call: Call, function: Any, values: Any) -> list[Any]:
    return [one for one in call.items(values) if (one if function is None else call.apply(function, [one], {}))]


def _print(call: Call, *values: Any, sep: str = " ", end: str = "\n") -> None:
    call.printed.append(str(sep).join(call.text(value) for value in values) + str(end))


def _default(factory: Any = None) -> Default:
    made = Default()
    made.factory = factory
    return made


def _counter(call: Call, values: Any = ()) -> Counter[Any]:
    return Counter(values if isinstance(values, dict) else call.listed(values))


def _factorial(value: Any) -> int:
    bound(value, _MOST_FACTORIAL)
    return math.factorial(value)


def _comb(total: Any, chosen: Any) -> int:
    bound(total, _MOST_FACTORIAL)
    return math.comb(total, chosen)


def _round(value: Any, digits: Any = None) -> Any:
    bound(abs(digits or 0), _MOST_DIGITS)
    return round(value, digits)


def _int(value: Any = 0, base: Any = None) -> int:
    return int(value) if base is None else int(value, base)


def _is_instance(value: Any, kinds: Any) -> bool:
    functions = [getattr(kind, "function", None) for kind in (kinds if isinstance(kinds, tuple) else (kinds,))]
    if not all(function in _KINDS for function in functions):
        raise TypeError("kind")
    return isinstance(value, tuple(_KINDS[function] for function in functions))


def _groups(make: Callable[..., Any]) -> OfCall:
    """A function of `itertools`, whose values are listed within bounds."""

    def listed(call: Call, *values: Any, **named: Any) -> list[Any]:
        for size in (*values, named.get("repeat", 0)):  # memory is taken for a group before the first one is made
            bound(size if isinstance(size, int) else 0, _MOST_IN_GROUP)
        given = (value if isinstance(value, int | Counter) else call.listed(value) for value in values)
        return call.listed(list(itertools.islice(make(*given, **named), MOST_SIZE + 1)))

    return OfCall(listed)


def _padded(pad: Callable[..., str]) -> Callable[..., str]:
    def padded(text: str, width: int, *fill: str) -> str:
        bound(width, MOST_SIZE)
        return pad(text, width, *fill)

    return padded


def _in_place(change: Callable[..., Any]) -> Callable[..., Any]:
    """A function whose first argument is a list."""

    def changed(values: Any, *arguments: Any) -> Any:
        if not isinstance(values, list):
            raise TypeError("no list")
        return change(values, *arguments)

    return changed


def _of_elements(make: Callable[..., Any]) -> OfCall:
    return OfCall(lambda call, values=(): make(call.listed(values)))


def _of_sets(name: str) -> OfCall:
    method = getattr(set, name)
    return OfCall(lambda call, own, *values: method(own, *map(call.listed, values)))


#: Python's own functions.
FUNCTIONS: dict[str, Any] = {
    **{function.__name__: function for function in (abs, bin, bool, chr, divmod, float, hex, len, oct, ord, range)},
    "all": OfCall(lambda call, values: all(call.items(values))),
    "any": OfCall(lambda call, values: any(call.items(values))),
    "dict": lambda values=(), **named: dict(values, **named),
    "enumerate": OfCall(lambda call, values, start=0: list(enumerate(call.listed(values), start))),
    "filter": OfCall(_filter),
    "frozenset": _of_elements(frozenset),
    "int": _int,
    "isinstance": _is_instance,
    "list": _of_elements(list),
    "map": OfCall(_map),
    "max": _extreme(max),
    "min": _extreme(min),
    "pow": power,
    "print": OfCall(_print),
    "reversed": OfCall(lambda call, values: call.listed(values)[::-1]),
    "round": _round,
    "set": _of_elements(set),
    "sorted": OfCall(_sorted),
    "str": OfCall(lambda call, value="": call.text(value)),
    "sum": _total(lambda left, right: left + right, 0),
    "tuple": _of_elements(tuple),
    "zip": OfCall(lambda call, *values: list(zip(*map(call.listed, values), strict=False))),
}
#: What `isinstance` may ask for, by the function that bears the name.
_KINDS = {FUNCTIONS[kind.__name__]: kind for kind in (bool, dict, float, frozenset, int, list, set, str, tuple)}
_MATH = """
    acos asin atan atan2 ceil copysign cos degrees exp fabs floor fmod gcd hypot isclose isinf isnan isqrt log log10
    log2 radians sin sqrt tan trunc e inf pi tau pow
""".split()  # noqa: SIM905 - a list of so many words would take as many lines
_STRING = ("ascii_letters", "ascii_lowercase", "ascii_uppercase", "digits", "punctuation", "whitespace")
#: The members of the modules that a program may import.
MODULES: dict[str, dict[str, Any]] = {
    "math": {
        **{name: getattr(math, name) for name in _MATH},
        "comb": _comb,
        "factorial": _factorial,
        "prod": _total(lambda left, right: left * right, 1),
    },
    "collections": {
        "Counter": OfCall(_counter),
        "OrderedDict": FUNCTIONS["dict"],
        "defaultdict": _default,
    },
    "functools": {"reduce": OfCall(_reduce)},
    "itertools": {
        name: _groups(getattr(itertools, name))
        for name in ("chain", "combinations", "permutations", "product", "zip_longest")
    },
    "heapq": {
        **{name: _in_place(getattr(heapq, name)) for name in ("heapify", "heappop", "heappush")},
        "nlargest": OfCall(
            lambda call, count, values, key=None: _sorted(call, values, key=key, reverse=True)[: max(count, 0)]
        ),
        "nsmallest": OfCall(lambda call, count, values, key=None: _sorted(call, values, key=key)[: max(count, 0)]),
    },
    "bisect": {name: _in_place(getattr(bisect, name)) for name in ("bisect", "bisect_left", "bisect_right", "insort")},
    "string": {name: getattr(string, name) for name in _STRING},
    "sys": {"maxsize": 2**63 - 1},
}
_TEXT = """
    capitalize casefold count endswith find index isalnum isalpha isdecimal isdigit isidentifier islower isnumeric
    isspace istitle isupper lower lstrip partition removeprefix removesuffix replace rfind rindex rpartition rsplit
    rstrip split splitlines startswith strip swapcase title upper
""".split()  # noqa: SIM905 - as above
_SETS = (
    "difference",
    "intersection",
    "isdisjoint",
    "issubset",
    "issuperset",
    "symmetric_difference",
    "union",
    "update",
)


def _listed_view(name: str) -> Callable[[dict[Any, Any]], list[Any]]:
    return lambda own: list(getattr(own, name)())


def _methods(kind: type, names: Iterable[str]) -> dict[str, Any]:
    return {name: getattr(kind, name) for name in names}


#: The methods of each kind of value; the first kind that has a name counts.
METHODS: tuple[tuple[type, dict[str, Any]], ...] = (
    (
        str,
        {
            **_methods(str, _TEXT),
            **{name: _padded(getattr(str, name)) for name in ("center", "ljust", "rjust", "zfill")},
            "join": OfCall(lambda call, text, values: text.join(call.listed(values))),
        },
    ),
    (
        list,
        {
            **_methods(list, ("append", "clear", "copy", "count", "index", "insert", "pop", "remove", "reverse")),
            "extend": OfCall(lambda call, own, values: own.extend(call.listed(values))),
            "sort": OfCall(_sort),
        },
    ),
    (tuple, _methods(tuple, ("count", "index"))),
    (Counter, {"most_common": Counter.most_common, "elements": _groups(Counter.elements)}),
    (
        dict,
        {
            **_methods(dict, ("clear", "get", "pop", "setdefault", "update")),
            **{name: _listed_view(name) for name in ("items", "keys", "values")},
            "copy": dict,
        },
    ),
    (set, {**_methods(set, ("add", "clear", "copy", "discard", "remove")), **{name: _of_sets(name) for name in _SETS}}),
    (float, _methods(float, ("is_integer",))),
    (int, _methods(int, ("bit_length",))),
)
