"""Small programs give what Python gives; hostile ones give nothing, and end."""

import ast
import inspect
import textwrap

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from siftune.curation.decontamination.interpreter.program import Program
from siftune.curation.decontamination.interpreter.values import NoValueError
from siftune.curation.decontamination.program_behaviour import PROBES
from tests.real_data import DATA, json_rows


def loops(values):
    total, seen, last = 0, [], None
    for position, value in enumerate(values):
        if value in seen:
            continue
        if position > 5:
            break
        seen.append(value)
        last = value
        total += value if isinstance(value, int) else len(value)
    else:
        total -= 1
    while total > 10:
        total //= 2
    return total, seen[::-1], last


def sorts(values):
    ordered = sorted(values, key=lambda value: (-len(str(value)), str(value)), reverse=True)
    ordered.sort(key=str)
    return ordered, min(values, key=str, default=None), max(map(str, values), default="")


def comprehends(values):
    table = {str(value): [part for part in str(value) if part.isalnum()] for value in values if value}
    first, *rest = [*table.items(), ("", [])]
    return first, len(rest), {len(parts) for parts in table.values()}, sum(1 for _ in table)


def handles(values):
    found = []
    for value in values:
        try:
            found.append(10 // value)
        except ZeroDivisionError:
            found.append("zero")
        except (TypeError, ValueError):
            found.append(f"{value!s} of {type_of(value)}")
    return found


def type_of(value):
    return "text" if isinstance(value, str) else "other"


def counts(values):
    from collections import Counter, defaultdict

    groups = defaultdict(list)
    for value in values:
        groups[len(str(value))].append(value)
    groups[-1] += [1]
    counter = Counter(str(value) for value in values)
    return counter.most_common(2), counter["absent"], dict(groups), sorted(groups)


def walks(values):
    import heapq
    import math
    from functools import reduce
    from itertools import combinations

    heap = [len(str(value)) for value in values]
    heapq.heapify(heap)
    smallest = [heapq.heappop(heap) for _ in range(min(2, len(heap)))]
    pairs = list(combinations(range(4), 2))
    return smallest, pairs, reduce(lambda left, right: left * right, [1, 2, 3], 1), math.gcd(12, 18), math.sqrt(2)


def yields(values):
    def pairs(items):
        for item in items:
            yield item
            yield from [item, item]

    return list(pairs(values)), [*pairs(values)][:2]


def nests(values):
    count = 0

    def step(depth, *more, by=1):
        nonlocal count
        count += by
        return depth if depth <= 0 else step(depth - 1, *more, by=by + len(more))

    return step(len(values), 1, 2), count, [value for row in [values, values] for value in row if value]


def prints(values):
    for value in values:
        print("value", value, sep=": ", end=";")  # noqa: T201 - what is tested
    del values[:1]
    values[1:2] = ["x"]


PROGRAMS = (loops, sorts, comprehends, handles, counts, walks, yields, nests, prints)
LISTS = [arguments for kind in (2, 3, 4) for arguments in PROBES[kind]] + [([],), ([0, 1, "a"],)]


def source(function) -> str:
    return "\n".join(textwrap.dedent(inspect.getsource(one)) for one in (type_of, function))


def plain(value):
    if isinstance(value, list | tuple):
        return [plain(element) for element in value]
    return {key: plain(one) for key, one in value.items()} if isinstance(value, dict) else value


@pytest.mark.parametrize("function", PROGRAMS, ids=lambda function: function.__name__)
def test_programs_give_what_python_gives(function, capsys):
    program = Program(source(function))
    for arguments in LISTS:
        given = [list(argument) for argument in arguments]
        try:
            wanted = plain(function(*given))
        except (TypeError, IndexError) as error:
            with pytest.raises(NoValueError, match=type(error).__name__):
                program.call(function.__name__, arguments)
            continue
        result = program.call(function.__name__, arguments)
        assert result.value == wanted
        assert result.printed == capsys.readouterr().out
        assert list(result.arguments) == given


NUMBERS = st.integers(-20, 20).map(str)
OPERATORS = st.sampled_from(["+", "-", "*", "//", "%", "<", "==", "and", "or", "&", "|", ">="])
EXPRESSIONS = st.recursive(
    st.one_of(NUMBERS, st.sampled_from(["a", "b", "True"])),
    lambda parts: st.one_of(
        st.tuples(parts, OPERATORS, parts).map(lambda three: f"({' '.join(three)})"),
        st.tuples(parts, parts, parts).map(lambda three: f"({three[0]} if {three[1]} else {three[2]})"),
        st.lists(parts, max_size=3).map(lambda many: f"sum([{', '.join(many)}])"),
        parts.map(lambda part: f"abs({part})"),
        st.tuples(parts, parts).map(lambda two: f"max([{two[0]}, {two[1]}], key=lambda x: -x)"),
    ),
    max_leaves=8,
)


@settings(max_examples=60)
@given(EXPRESSIONS, st.integers(-5, 5), st.integers(0, 5))
def test_expressions_give_what_python_gives(expression, a, b):
    program = Program(f"def f(a, b):\n    return {expression}")
    try:
        wanted = eval(expression, {}, {"a": a, "b": b})
    except ZeroDivisionError:
        with pytest.raises(NoValueError, match="ZeroDivisionError"):
            program.call("f", (a, b))
    else:
        assert program.call("f", (a, b)).value == wanted


HOSTILE = {
    "endless loop": "while True:\n        pass",
    "endless recursion": "return f(x)",
    "endless growth": "y = [1]\n    for z in y: y.append(z)",
    "long text": "return 'a' * 10**9",
    "long list": "return [0] * 10**9",
    "doubling": "y = 'ab'\n    for _ in range(100): y += y\n    return y",
    "large power": "return 10 ** 10 ** 8",
    "large shift": "return 1 << 10 ** 9",
    "large product": "y = 3\n    for _ in range(100): y *= y\n    return y",
    "large factorial": "import math\n    return math.factorial(10 ** 6)",
    "large rounding": "return round(5, -10 ** 9)",
    "large range": "return list(range(10 ** 12))",
    "large range as a value": "return [range(10 ** 9)]",
    "sum of a large range": "return sum(range(10 ** 12))",
    "shared lists": "y = [1]\n    for _ in range(40): y = [y, y]\n    return y == y",
    "shared keys": "y = (1,)\n    for _ in range(40): y = (y, y)\n    return {y: 1}",
    "shared keys of a sort": "y = [1]\n    for _ in range(40): y = [y, y]\n    return sorted([1, 2], key=lambda z: y)",
    "list in itself": "y = []\n    y.append(y)\n    return y == y",
    "deep list": "y = []\n    for _ in range(1000): y = [y]\n    return y",
    "wide text": "return 'a'.center(10 ** 9)",
    "wide format": "return f'{x:1000000000}'",
    "format method": "return '{0.__class__}'.format(x)",
    "percent": "return '%1000000000d' % x",
    "many permutations": "from itertools import permutations\n    return list(permutations(range(20)))",
    "large permutations": "from itertools import permutations\n    return list(permutations([1], 10 ** 9))",
    "large combinations": "from itertools import combinations\n    return list(combinations([1], 10 ** 9))",
    "large products": "from itertools import product\n    return list(product([1], repeat=10 ** 9))",
    "many elements": "from collections import Counter\n    return list(Counter({'a': 10 ** 9}).elements())",
    "class of a value": "return x.__class__",
    "names of Python": "return __import__('os')",
    "built-in modules": "return __builtins__",
    "import": "import os\n    return os.getcwd()",
    "import from": "from os import getcwd\n    return getcwd()",
    "module in a module": "import heapq\n    return heapq.sys",
    "file": "return open('/etc/passwd')",
    "evaluation": "return eval('1')",
    "attribute by name": "return getattr(x, 'real')",
    "function as a value": "return f",
    "built-in as a value": "return len",
    "overwritten built-in": "global len\n    len = 3\n    return len",
    "class": "class A: pass\n    return A()",
    "decorator": "@len\n    def g(): pass\n    return g()",
    "raised": "raise ValueError('no')",
    "caught everything": "while True:\n        try:\n            while True: pass\n        except: pass",
    "unknown error": "raise SystemExit",
    "break outside of a loop": "return [break_ for break_ in x]",
    "text of a function": "return str(f)",
    "deep expression": f"return {'(' * 30}x{')' * 30} + {'-' * 500}1",
}


@pytest.mark.parametrize("body", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_programs_give_nothing(body):
    with pytest.raises(NoValueError):
        Program(f"def f(x):\n    {body}").call("f", (1,))


@pytest.mark.parametrize(
    "text", ["", "not a program", "def f(:", "x" * 9000, "(" * 60 + ")" * 60, "def f():\0 pass", "\ud800"]
)
def test_what_is_no_program_is_refused_or_empty(text):
    try:
        assert not Program(text).functions
    except NoValueError:
        assert text


def test_a_set_has_the_order_of_its_values():
    program = Program("def f(x):\n    return list(set(x)), ''.join({'c', 'a', 'b'})")
    assert program.call("f", ([30, -1, 1000, 2],)).value == [[-1, 2, 30, 1000], "abc"]


def test_a_number_that_is_not_whole_is_not_looked_for_in_a_range():
    program = Program("def f(x):\n    return x in range(10 ** 15), 7 in range(10)")
    assert program.call("f", (0.5,)).value == [False, True]


def test_a_call_leaves_nothing_behind():
    program = Program("count = []\ndef f(x):\n    count.append(x)\n    x.append(1)\n    return len(count)")
    argument = [5]
    assert program.call("f", (argument,)).value == program.call("f", (argument,)).value == 1
    assert argument == [5]


@pytest.mark.skipif(not DATA.is_dir(), reason="the real data sets are not on this machine")
def test_programs_of_a_benchmark_pass_its_own_tests():
    agree = differ = 0
    for row in json_rows(DATA / "benchmarks" / "mbpp.jsonl")[::8]:
        for line in row["test_list"][:1]:
            test = ast.parse(line).body[0].test
            try:
                arguments = tuple(ast.literal_eval(argument) for argument in test.left.args)
                wanted = ast.literal_eval(test.comparators[0])
                result = Program(row["code"].replace("\r\n", "\n")).call(test.left.func.id, arguments)
            except (AttributeError, ValueError, NoValueError):
                continue  # another form of test, or a program that is not understood
            agree += result.value == plain(wanted)
            differ += result.value != plain(wanted)
    assert differ <= agree / 50  # the order of a set is no result
    assert agree > 70
