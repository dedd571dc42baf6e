"""Do two programs do the same? What they call and compute, and the example values that they share.

A rewriting of a program keeps much of what it does, in another language too, and often keeps an example; another
task that sounds alike keeps neither.
"""

from __future__ import annotations

import re

import polars as pl

#: Comments and doc strings of Python, JavaScript and C; `#i` is left for `#include`.
COMMENT = r"""(?s:\x22{3}.*?\x22{3}|'{3}.*?'{3}|/\*.*?\*/)|//[^\n]*|#[^i\n][^\n]*"""
_DEFINED_NAME = r"\b(?:def|function)\s+\w+"
#: What a program does: strings, calls and attributes, key words, numbers and operators.
_OPERATION = "|".join(
    [
        r"""\x22[^\x22\n]*\x22|'[^'\n]*'""",
        r"\.\s*[a-z_]+|\b[a-z_]+\(",
        r"\b(?:for|while|if|elif|else|return|in|not|and|or|lambda)\b",
        r"\d+|\[::?-?\d|[=!<>]=|//|\*\*|<<|>>|[-+*/%<>&|^]",
    ]
)
#: What nearly every program does says less about it.
_COMMON_OPERATIONS = (
    *("return", "if", "for", "in", "else", "elif", "while", "not", "and", "or"),
    *("0", "1", "+", "-", "<", "len(", "int(", "str(", "list(", "range("),
)
_COMMON_WEIGHT = 0.3
#: Where one of two texts holds no program: between the medians of the same task (0.45) and of another one (0.28).
_UNKNOWN_SIMILARITY = 0.35

#: What examples are made of: lists, tuples that hold a digit, strings.
_VALUE = r"""\[[^\[\]\n]{3,}\]|\([^()\n]*\d[^()\n]*\)|\x22[^\x22\n]{4,}\x22|'[^'\n]{4,}'"""
_MIN_VALUE_LENGTH = 4  # characters, without brackets, quotes and spaces
_MAX_SHARED_VALUES = 2
_MAX_ITEMS_OF_VALUE = 2  # a value of more items says nothing

#: A function's name and what stands between its parentheses: Python, JavaScript, Go, Rust; the arrow functions of
#: JavaScript; the typed functions of C, C++ and Java.
_SIGNATURE = re.compile(
    r"\b(?:def|function|fn|func)\s+(\w+)\s*\(([^()]*)\)"
    r"|\b(?:const|let|var)\s+(\w+)\s*=\s*(?:function\s*)?\(([^()]*)\)\s*(?:=>|\{)"
    r"|^[ \t]*(?:\w+[\s*&<>\[\]]+)+(\w+)\s*\(([^()]*)\)\s*\{",
    re.MULTILINE,
)
_NOT_A_NAME = frozenset(("if", "for", "while", "switch", "main", "solution", "function", "func", "solve"))
_NAME_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+")
_PARAMETER = re.compile(r"(\w+)\s*(?:[:=\[].*)?$")
_NEGATIONS = frozenset(("not", "non", "no", "un"))
_MIN_PREFIX = 3  # letters by which a word may be abbreviated: num, number
#: How much of the likeness of two signatures lies in the names of their parameters.
_PARAMETER_SHARE = 0.25
#: Where one of two texts defines no function.
_UNKNOWN_SIGNATURE = 0.4


def program_features(pairs: pl.DataFrame) -> pl.DataFrame:
    """`operations`, `example_values` and `signature` of `pairs` (pair, code, row, item_prompt, item): see below."""
    features = (operation_similarity(pairs), shared_values(pairs), signature_similarity(pairs))
    return pl.concat(features, how="horizontal")


def signature_similarity(pairs: pl.DataFrame) -> pl.DataFrame:
    """`signature`, float64 [m]: how alike the signatures of two programs are, 0 to 1.

    Whatever solves a benchmark's task is called by its tests, so copies and rewritings keep its name and parameters.
    Of each pair of functions: the Jaccard index of the words of their names (`num` is `number`), and with a quarter
    that of the names of their parameters; of all pairs the greatest. 0 where `code` is false.

    `pairs` has the columns of `operation_similarity` and `item_prompt`: functions that a prompt begins are the task,
    and those of the answer only help.
    """
    columns = pairs.select("code", "row", "item_prompt", "item").iter_rows()
    values = [
        _signature_likeness(_signatures(row), _signatures(prompt) or _signatures(item)) if code else 0.0
        for code, row, prompt, item in columns
    ]
    return pl.DataFrame({"signature": pl.Series(values, dtype=pl.Float64)})


Signature = tuple[tuple[str, ...], tuple[str, ...]]


def _signature_likeness(of_row: list[Signature], of_item: list[Signature]) -> float:
    if not of_row or not of_item:
        return _UNKNOWN_SIGNATURE
    return max(
        (1 - _PARAMETER_SHARE) * _jaccard(own_name, name) + _PARAMETER_SHARE * _jaccard(own_parameters, parameters)
        for own_name, own_parameters in of_row
        for name, parameters in of_item
    )


def _signatures(text: str) -> list[Signature]:
    """The distinct functions that a text defines: the words of the name, and the parameters, in lower case."""
    parameters_of: dict[tuple[str, ...], tuple[str, ...]] = {}
    for match in _SIGNATURE.findall(text):
        name, parameters = next((match[at], match[at + 1]) for at in (0, 2, 4) if match[at])
        words = tuple(dict.fromkeys(word.lower() for word in _NAME_WORD.findall(name)))
        if words and name.lower() not in _NOT_A_NAME:
            named = (_PARAMETER.search(parameter.strip()) for parameter in parameters.split(","))
            parameters_of[words] = tuple(dict.fromkeys(parameter[1].lower() for parameter in named if parameter))
    return list(parameters_of.items())


def _jaccard(words: tuple[str, ...], others: tuple[str, ...]) -> float:
    """The Jaccard index of two lists of distinct words; an abbreviation is the word. 1 where both are empty.

    It is 0 where one alone has a negation: `is_prime`, `is_not_prime`.
    """
    if _NEGATIONS.isdisjoint(words) != _NEGATIONS.isdisjoint(others):
        return 0.0
    left = list(others)
    shared = 0
    for word in words:
        match = next((other for other in left if _abbreviates(word, other)), None)
        if match is not None:
            left.remove(match)
            shared += 1
    union = len(words) + len(others) - shared
    return shared / union if union else 1.0


def _abbreviates(word: str, other: str) -> bool:
    short, long = sorted((word, other), key=len)
    return short == long or (len(short) >= _MIN_PREFIX and long.startswith(short))


def operation_similarity(pairs: pl.DataFrame) -> pl.DataFrame:
    """`operations`, float64 [m]: how alike two programs are in what they do, 0 to 1.

    The cosine of how often each call, key word, operator and constant occurs (1 + ln of the count, as in tf-idf),
    comments and the names of the functions aside; 0 where `code` is false.

    `pairs` has the columns pair (0 to m - 1), code, row and item (texts).
    """
    programs = pairs.filter("code")
    row, item = (_operation_weights(programs.select("pair", text=side)) for side in ("row", "item"))
    shared = row.join(item, on=["pair", "operation"], how="inner", suffix="_item")
    products = {
        "both": shared.select("pair", product=pl.col("weight") * pl.col("weight_item")),
        "of_row": row.select("pair", product=pl.col("weight") ** 2),
        "of_item": item.select("pair", product=pl.col("weight") ** 2),
    }
    sums = pairs.select("pair", "code")
    for name, product in products.items():
        total = product.group_by("pair").agg(pl.col("product").sum().alias(name))
        sums = sums.join(total, on="pair", how="left", maintain_order="left")
    cosine = pl.col("both").fill_null(0.0) / (pl.col("of_row") * pl.col("of_item")).sqrt()
    return sums.select(operations=pl.when("code").then(cosine.fill_null(_UNKNOWN_SIMILARITY)).otherwise(0.0))


def _operation_weights(texts: pl.DataFrame) -> pl.DataFrame:
    """`pair`, `operation`, `weight` of the operations in each text; `texts` has the columns pair and text."""
    bare = pl.col("text").str.replace_all(COMMENT, " ").str.replace_all(_DEFINED_NAME, " ")
    snake = bare.str.replace_all(r"([a-z])([A-Z])", "${1}_${2}").str.to_lowercase()
    operations = snake.str.extract_all(_OPERATION).list.eval(pl.element().str.replace_all(r"\s", ""))
    lists = texts.select("pair", operation=operations)
    counts = lists.explode("operation").drop_nulls("operation").group_by("pair", "operation").len()
    common = pl.when(pl.col("operation").is_in(_COMMON_OPERATIONS)).then(_COMMON_WEIGHT).otherwise(1.0)
    # Whole multiples of 2**-10: sums of their products are the same in any order, so threads cannot change them.
    weight = ((1 + pl.col("len").log()) * common * 2.0**10).round() / 2.0**10
    return counts.select("pair", "operation", weight=weight)


def shared_values(pairs: pl.DataFrame) -> pl.DataFrame:
    """`example_values`, float64 [m]: how many example values both texts hold that few items hold, at most 2.

    `pairs` has the columns of `operation_similarity`; 0 where `code` is false.
    """
    programs = pairs.filter("code").select(
        "pair", "item", of_row=_example_values(pl.col("row")), of_item=_example_values(pl.col("item"))
    )
    of_items = programs.unique("item").select(value="of_item").explode("value").drop_nulls("value")
    counts = of_items.group_by("value").len()
    common = counts.filter(pl.col("len") > _MAX_ITEMS_OF_VALUE)["value"].sort().to_list()
    shared = pl.col("of_row").list.set_intersection("of_item")
    rare = shared.list.set_difference(pl.lit(common, dtype=pl.List(pl.String)))
    number = rare.list.len().clip(upper_bound=_MAX_SHARED_VALUES).cast(pl.Float64)
    joined = pairs.select("pair").join(
        programs.select("pair", example_values=number), on="pair", how="left", maintain_order="left"
    )
    return joined.select(pl.col("example_values").fill_null(0.0))


def _example_values(text: pl.Expr) -> pl.Expr:
    """The distinct example values of a text, a list of strings."""
    bare = pl.element().str.replace_all(r"[\s()\[\]\x22']", "").str.to_lowercase()
    return (
        text.str.extract_all(_VALUE)
        .list.eval(bare)
        .list.eval(pl.element().filter(pl.element().str.len_chars() >= _MIN_VALUE_LENGTH))
        .list.unique()
    )
