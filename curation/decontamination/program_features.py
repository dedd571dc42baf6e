"""Do two programs do the same? What they call and compute, and the example values that they share.

A rewriting of a program keeps much of what it does, in another language too, and often keeps an example; another
task that sounds alike keeps neither.
"""

from __future__ import annotations

import polars as pl

COMMENT = r"""(?s:\x22{3}.*?\x22{3}|'{3}.*?'{3}|/\*.*?\*/)|//[^\n]*|#[^i\n][^\n]*"""
_DEFINED = r"\b(?:def|function)\s+\w+"
_ACT = "|".join(
    [
        r"""\x22[^\x22\n]*\x22|'[^'\n]*'""",
        r"\.\s*[a-z_]+|\b[a-z_]+\(",
        r"\b(?:for|while|if|elif|else|return|in|not|and|or|lambda)\b",
        r"\d+|\[::?-?\d|[=!<>]=|//|\*\*|<<|>>|[-+*/%<>&|^]",
    ]
)
#: What nearly every program does says less about it.
_COMMON = (
    *("return", "if", "for", "in", "else", "elif", "while", "not", "and", "or"),
    *("0", "1", "+", "-", "<", "len(", "int(", "str(", "list(", "range("),
)
_COMMON_WEIGHT = 0.3
#: Where one of two texts holds no program: between the medians of the same task (0.45) and of another one (0.28).
_UNKNOWN = 0.35

#: What examples are made of: lists, tuples that hold a digit, strings.
_VALUE = r"""\[[^\[\]\n]{3,}\]|\([^()\n]*\d[^()\n]*\)|\x22[^\x22\n]{4,}\x22|'[^'\n]{4,}'"""
_LEAST_VALUE = 4  # characters, without brackets, quotes and spaces
_MOST_VALUES = 2
_RARE = 2  # items: a value of more of them says nothing


def acts(pairs: pl.DataFrame) -> pl.DataFrame:
    """`acts`: how alike two programs are in what they do, 0 to 1, over the columns pair, code, row and item.

    The cosine of how often each call, key word, operator and constant occurs (1 + ln), comments and the names of the
    functions aside; 0 where `code` is false.
    """
    wanted = pairs.filter("code")
    row, item = (_counted(wanted.select("pair", text=side)) for side in ("row", "item"))
    shared = row.join(item, on=["pair", "act"], how="inner", suffix="_item")
    totals = {
        "both": shared.select("pair", total=pl.col("weight") * pl.col("weight_item")),
        "of_row": row.select("pair", total=pl.col("weight") ** 2),
        "of_item": item.select("pair", total=pl.col("weight") ** 2),
    }
    told = pairs.select("pair", "code")
    for name, total in totals.items():
        sums = total.group_by("pair").agg(pl.col("total").sum().alias(name))
        told = told.join(sums, on="pair", how="left", maintain_order="left")
    alike = pl.col("both").fill_null(0.0) / (pl.col("of_row") * pl.col("of_item")).sqrt()
    return told.select(acts=pl.when("code").then(alike.fill_null(_UNKNOWN)).otherwise(0.0))


def _counted(texts: pl.DataFrame) -> pl.DataFrame:
    """`pair`, `act`, `weight` of the acts in a text."""
    bare = pl.col("text").str.replace_all(COMMENT, " ").str.replace_all(_DEFINED, " ")
    snake = bare.str.replace_all(r"([a-z])([A-Z])", "${1}_${2}").str.to_lowercase()
    found = texts.select("pair", act=snake.str.extract_all(_ACT).list.eval(pl.element().str.replace_all(r"\s", "")))
    counts = found.explode("act").drop_nulls("act").group_by("pair", "act").len()
    common = pl.when(pl.col("act").is_in(_COMMON)).then(_COMMON_WEIGHT).otherwise(1.0)
    # Whole multiples of 2**-10: sums of their products are the same in any order, so threads cannot change them.
    return counts.select("pair", "act", weight=((1 + pl.col("len").log()) * common * 2.0**10).round() / 2.0**10)


def values(pairs: pl.DataFrame) -> pl.DataFrame:
    """`values`: how many example values both texts hold that few items hold, at most 2; columns as for `acts`."""
    wanted = pairs.filter("code").select("pair", "item", of_row=_values(pl.col("row")), of_item=_values(pl.col("item")))
    held = wanted.unique("item").select(value="of_item").explode("value").drop_nulls("value")
    common = held.group_by("value").len().filter(pl.col("len") > _RARE)["value"].sort().to_list()
    shared = pl.col("of_row").list.set_intersection("of_item")
    rare = shared.list.set_difference(pl.lit(common, dtype=pl.List(pl.String)))
    counts = wanted.select("pair", values=rare.list.len().clip(upper_bound=_MOST_VALUES).cast(pl.Float64))
    joined = pairs.select("pair").join(counts, on="pair", how="left", maintain_order="left")
    return joined.select(pl.col("values").fill_null(0.0))


def _values(text: pl.Expr) -> pl.Expr:
    bare = pl.element().str.replace_all(r"[\s()\[\]\x22']", "").str.to_lowercase()
    return (
        text.str.extract_all(_VALUE)
        .list.eval(bare)
        .list.eval(pl.element().filter(pl.element().str.len_chars() >= _LEAST_VALUE))
        .list.unique()
    )
