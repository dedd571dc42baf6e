"""Do two programs do the same? What they call and compute, and the example values that they share.

A rewriting of a program keeps much of what it does, in another language too, and often keeps an example; another
task that sounds alike keeps neither.
"""

from __future__ import annotations

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
