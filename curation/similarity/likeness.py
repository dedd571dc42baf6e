"""Is it the same task in other words, or another task of the same kind? What can be counted in a pair of texts.

A cosine alone cannot tell: two word problems about apples are as close as a problem and its rephrasing. These counts
look at what a rephrasing keeps: the rare words, and, outside of code, the numbers.
"""

from __future__ import annotations

import polars as pl

from curation.text.words import guard_tokens, word_count

_STEM = 5  # first letters of a word, without a common ending: joins `sum`, `sums`; `elected`, `election`
_ENDING = r"^(\p{L}{3,}?)(?:ing|ed|es|s)$"
_CODE = (
    r"(?m)^\s*(?:def |class \w+[:(]|import \w|from \w+ import|#include|function\b.*\(|(?:public|static|const|let) \w)"
    r"|^\s*var \w|\breturn\b.*;|>>> |```"
)
_COMMENT = r"""(?s:\x22{3}.*?\x22{3}|'{3}.*?'{3}|/\*.*?\*/)|//[^\n]*|#[^i\n][^\n]*"""
_NAME = r"(?m)\b(?:def|function|fn|func)\s+\w+\s*\(|^(?:\w+[\s*]+)+\w+\s*\("
#: Lines of examples in a comment: they are made anew by every rephrasing.
_EXAMPLE = "|".join(
    [
        r"(?m)^\s*>>>.*\n.*$",
        r"^.*(?:==|=>|➞|->).*$",
        r"""^.*\b\w+\([^\n]*[\d\[\x22'][^\n]*\).*$""",
        r"^\W*(?i:example|input|output)s?\b.*:.*$",
    ]
)
_LEAST_GIST = 8
_MOST_NUMBERS = 4
_BEGINNING = r"""(?:^|[.?!:;|\n\x22“—-]\s*)[\s'‘(]*\p{Lu}[\p{L}'’]*"""

#: Numbers that say little: one is an article, zero and minus are everywhere.
_ORDINAL = r"\b(?:first|second|third|fourth|fifth|sixth|seventh|eighth|ninth|tenth)\b"
_PLAIN_NUMBERS = ("-", "0", "1")

SIGNS = ("words", "row_words", "same_numbers", "other_numbers", "other_names")


def gist(text: pl.Expr) -> pl.Expr:
    """What a text says in words: of code the comments and the names of its functions, without examples; else itself.

    Translations and rewritings of a program share this more than anything else in it. Code that says fewer than 8
    words is left as it is.
    """
    names = (
        text.str.extract_all(_NAME)
        .list.eval(pl.element().str.extract(r"(\w+)\s*\(?$"))
        .list.unique(maintain_order=True)
    )
    spoken = text.str.extract_all(_COMMENT).list.join("\n").str.replace_all(_EXAMPLE, "")
    words = pl.concat_str([_apart(names.list.join(" ")), spoken], separator="\n").str.replace_all(r"[#*/\x22']+", " ")
    tidy = words.str.replace_all(r"\s+", " ").str.strip_chars()
    return pl.when(is_code(text) & (word_count(tidy) >= _LEAST_GIST)).then(tidy).otherwise(text)


def _apart(text: pl.Expr) -> pl.Expr:
    """Names as words: has_close_elements, hasCloseElements."""
    return text.str.replace_all(r"([a-z])([A-Z])", "$1 $2").str.replace_all("_", " ")


def stems(text: pl.Expr) -> pl.Expr:
    """The distinct stems of a text, a list: its letters in runs, names in code taken apart, cut to five letters."""
    return (
        _apart(text)
        .str.to_lowercase()
        .str.extract_all(r"\p{L}+")
        .list.eval(pl.element().str.replace(_ENDING, "$1").str.slice(0, _STEM))
        .list.unique()
    )


def numbers(text: pl.Expr) -> pl.Expr:
    """The distinct numbers of a text, digits, words or ordinals (second, third), but for 0 and 1; `first` counts."""
    found = guard_tokens(text.str.replace_all("_", " "), ["numbers"]).list.unique()
    ordinals = text.str.to_lowercase().str.extract_all(_ORDINAL)
    found = found.list.set_union(ordinals)
    return found.list.set_difference(pl.lit(list(_PLAIN_NUMBERS)))


class Weights:
    """How rare each stem is: inverse document frequency, smoothed, over the texts that were counted."""

    def __init__(self) -> None:
        self._texts = 0
        self._counts: list[pl.DataFrame] = []

    def count(self, texts: pl.Series) -> None:
        """Count the stems of a batch."""
        self._texts += len(texts)
        lists = texts.to_frame("text").select(stem=stems(pl.col("text")))["stem"]
        self._counts.append(lists.explode().drop_nulls().to_frame("stem").group_by("stem").len())

    def table(self) -> pl.DataFrame:
        """`stem`, `weight`: ln((n + 1) / (count + 1)), in no order."""
        total = pl.concat(self._counts).group_by("stem").agg(pl.col("len").sum())
        weight = ((self._texts + 1) / (pl.col("len") + 1)).log()
        # Whole multiples of 2**-20: their sums are the same in any order, so threads cannot change them.
        return total.select("stem", weight=(weight * 2.0**20).round() / 2.0**20)


def is_code(text: pl.Expr) -> pl.Expr:
    """Whether a text holds lines of a program."""
    return text.str.contains(_CODE)


def signs(rows: pl.Series, items: pl.Series, weights: pl.DataFrame, *, code: pl.Series) -> pl.DataFrame:
    """What each pair of a row's text and an item's text has in common, float64 [m, 5], columns `SIGNS`.

    words: the share of the item's stems, by weight, that the row has too; row_words: the same the other way round.
    same_numbers: how many numbers both have, at most 4; other_numbers: how many of the one are missing in the other,
    the larger way round, at most 4. other_names: how many capitalised words inside sentences of either text are
    missing in the other, at most 4. These three are 0 where `code` says that a program is involved: its numbers change
    freely.
    """
    pairs = pl.DataFrame({"row": rows, "item": items, "code": code}).with_row_index("pair")
    of_row = _weighed(pairs.select("pair", stem=stems(pl.col("row"))), weights)
    of_item = _weighed(pairs.select("pair", stem=stems(pl.col("item"))), weights)
    shared = of_row.join(of_item.select("pair", "stem"), on=["pair", "stem"], how="inner")
    totals = [frame.group_by("pair").agg(pl.col("weight").sum()) for frame in (shared, of_item, of_row)]
    joined = pairs.select("pair")
    for name, total in zip(("both", "of_item", "of_row"), totals, strict=True):
        joined = joined.join(total.rename({"weight": name}), on="pair", how="left", maintain_order="left")
    every = [joined.with_columns(pl.all().fill_null(0.0)), _numbers(pairs), _names(pairs)]
    return pl.concat(every, how="horizontal").select(
        words=pl.col("both") / pl.col("of_item").clip(lower_bound=1e-9),
        row_words=pl.col("both") / pl.col("of_row").clip(lower_bound=1e-9),
        same_numbers="same_numbers",
        other_numbers="other_numbers",
        other_names="other_names",
    )


def _weighed(lists: pl.DataFrame, weights: pl.DataFrame) -> pl.DataFrame:
    most = pl.lit(weights["weight"].max() or 0.0)
    exploded = lists.explode("stem").drop_nulls("stem")
    return exploded.join(weights, on="stem", how="left").with_columns(pl.col("weight").fill_null(most))


def _numbers(pairs: pl.DataFrame) -> pl.DataFrame:
    found = pairs.select("code", a=numbers(pl.col("row")), b=numbers(pl.col("item")))
    both = pl.col("a").list.set_intersection("b").list.len()
    missing = pl.max_horizontal(pl.col("a").list.len(), pl.col("b").list.len()) - both
    counts = {"same_numbers": both, "other_numbers": missing}
    return found.select(
        pl.when("code").then(0.0).otherwise(count.clip(upper_bound=_MOST_NUMBERS).cast(pl.Float64)).alias(name)
        for name, count in counts.items()
    )


def names(text: pl.Expr) -> pl.Expr:
    """The distinct stems of capitalised words that do not begin a sentence."""
    inside = text.str.replace_all(_BEGINNING, " ")
    capital = inside.str.extract_all(r"\b\p{Lu}\p{L}{2,}").list.eval(pl.element().str.to_lowercase())
    return capital.list.eval(pl.element().str.replace(_ENDING, "$1").str.slice(0, _STEM)).list.unique()


def _names(pairs: pl.DataFrame) -> pl.DataFrame:
    told = pairs.select(
        "code",
        a=names(pl.col("row")).list.set_difference(stems(pl.col("item"))).list.len(),
        b=names(pl.col("item")).list.set_difference(stems(pl.col("row"))).list.len(),
    )
    count = (pl.col("a") + pl.col("b")).clip(upper_bound=_MOST_NUMBERS).cast(pl.Float64)
    return told.select(other_names=pl.when("code").then(0.0).otherwise(count))
