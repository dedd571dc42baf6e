"""Is it the same task in other words, or another task of the same kind? What can be counted in a pair of texts.

A cosine alone cannot tell: two word problems about apples are as close as a problem and its rephrasing. These counts
look at what a rephrasing keeps: the rare words; outside of code the numbers and the names, and no word turned into its
opposite; in code what the program does.
"""

from __future__ import annotations

import polars as pl

from siftune.curation.decontamination.program_features import COMMENT, acts, values
from siftune.curation.text.words import guard_tokens, word_count

_STEM = 5  # first letters of a word, without a common ending: joins `sum`, `sums`; `elected`, `election`
_ENDING = r"^(\p{L}{3,}?)(?:ing|ed|es|s)$"
_CODE = (
    r"(?m)^\s*(?:def |class \w+[:(]|import \w|from \w+ import|#include|function\b.*\(|(?:public|static|const|let) \w)"
    r"|^\s*var \w|\breturn\b.*;|>>> |```"
)
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

#: Words that turn a question into another one.
_OPPOSITES = (
    *(("most", "least"), ("more", "less"), ("more", "fewer"), ("first", "last"), ("before", "after")),
    *(("highest", "lowest"), ("largest", "smallest"), ("longest", "shortest"), ("oldest", "youngest")),
    *(("maximum", "minimum"), ("upper", "lower"), ("above", "below"), ("left", "right"), ("odd", "even")),
    *(("increase", "decrease"), ("increases", "decreases"), ("increased", "decreased"), ("ascending", "descending")),
    *(("north", "south"), ("northern", "southern"), ("east", "west"), ("eastern", "western")),
    *(("positive", "negative"), ("true", "false"), ("internal", "external"), ("male", "female"), ("men", "women")),
    *(("advantage", "disadvantage"), ("advantages", "disadvantages")),
)
_MOST_CONTRARY = 2

#: Numbers that say little: one is an article, zero and minus are everywhere.
_ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")
_ORDINAL = rf"\b(?:{'|'.join(_ORDINALS)})\b"
_PLAIN_NUMBERS = ("-", "0", "1")

SIGNS = ("words", "same_numbers", "other_numbers", "other_names", "contrary", "acts", "values")


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
    spoken = text.str.extract_all(COMMENT).list.join("\n").str.replace_all(_EXAMPLE, "")
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


def signs(pairs: pl.DataFrame, weights: pl.DataFrame) -> pl.DataFrame:
    """What each pair of a row's text and an item's text has in common, float64 [m, 7], columns `SIGNS`.

    words: the share of the item's stems, by weight, that the row has too. same_numbers: how many numbers both have, at
    most 4; other_numbers: how many of the one are missing in the other, the larger way round, at most 4. other_names:
    how many capitalised words inside sentences of either text are missing in the other, at most 4. contrary: how many
    words or ordinals of the one stand against one of the other (most and least, first and second), at most 2. These
    four are 0 where `code` says that a program is involved: its numbers change freely. acts and values, which are 0
    elsewhere: see `siftune.curation.decontamination.program_features`.

    Args:
        pairs: `row` and `item`, the texts that are close; `whole_row` and `whole_item`, all that belongs to them: a
            rephrased question often holds a name or number of the item's answer; `code`.
        weights: as `Weights.table` gives them.
    """
    every = pairs.with_row_index("pair")
    programs = every.select("pair", "code", row="whole_row", item="whole_item")
    told = [_words(every, weights), _numbers(every), _names(every), _contrary(every), acts(programs), values(programs)]
    return pl.concat(told, how="horizontal").select(SIGNS)


def _words(pairs: pl.DataFrame, weights: pl.DataFrame) -> pl.DataFrame:
    of_row = pairs.select("pair", stem=stems(pl.col("row"))).explode("stem").drop_nulls("stem")
    of_item = _weighed(pairs.select("pair", stem=stems(pl.col("item"))), weights)
    shared = of_item.join(of_row, on=["pair", "stem"], how="semi")
    joined = pairs.select("pair")
    for name, total in (("both", shared), ("of_item", of_item)):
        sums = total.group_by("pair").agg(pl.col("weight").sum().alias(name))
        joined = joined.join(sums, on="pair", how="left", maintain_order="left")
    return joined.select(words=pl.col("both").fill_null(0.0) / pl.col("of_item").fill_null(0.0).clip(lower_bound=1e-9))


def _weighed(lists: pl.DataFrame, weights: pl.DataFrame) -> pl.DataFrame:
    most = pl.lit(weights["weight"].max() or 0.0)
    exploded = lists.explode("stem").drop_nulls("stem")
    return exploded.join(weights, on="stem", how="left").with_columns(pl.col("weight").fill_null(most))


def _numbers(pairs: pl.DataFrame) -> pl.DataFrame:
    of_row, of_item, of_whole = (numbers(pl.col(name)) for name in ("row", "item", "whole_item"))
    found = pairs.select("code", row=of_row, item=of_item, whole=of_whole)
    both = pl.col("row").list.set_intersection("item").list.len()
    missing = pl.max_horizontal(pl.col("row").list.set_difference("whole").list.len(), pl.col("item").list.len() - both)
    counts = {"same_numbers": both, "other_numbers": missing}
    return found.select(_of_prose(count, _MOST_NUMBERS).alias(name) for name, count in counts.items())


def _of_prose(count: pl.Expr, most: int) -> pl.Expr:
    return pl.when("code").then(0.0).otherwise(count.clip(upper_bound=most).cast(pl.Float64))


def names(text: pl.Expr) -> pl.Expr:
    """The distinct stems of capitalised words that do not begin a sentence."""
    inside = text.str.replace_all(_BEGINNING, " ")
    capital = inside.str.extract_all(r"\b\p{Lu}\p{L}{2,}").list.eval(pl.element().str.to_lowercase())
    return capital.list.eval(pl.element().str.replace(_ENDING, "$1").str.slice(0, _STEM)).list.unique()


def _names(pairs: pl.DataFrame) -> pl.DataFrame:
    told = pairs.select(
        "code",
        of_row=names(pl.col("row")).list.set_difference(stems(pl.col("whole_item"))).list.len(),
        of_item=names(pl.col("item")).list.set_difference(stems(pl.col("row"))).list.len(),
    )
    return told.select(other_names=_of_prose(pl.col("of_row") + pl.col("of_item"), _MOST_NUMBERS))


def _contrary(pairs: pl.DataFrame) -> pl.DataFrame:
    found = pairs.select(
        "code", *(pl.col(side).str.to_lowercase().str.extract_all(r"\p{L}+").list.unique() for side in ("row", "item"))
    )
    only_row, only_item = pl.col("row").list.set_difference("item"), pl.col("item").list.set_difference("row")
    against = [only_row.list.contains(a) & only_item.list.contains(b) for a, b in _OPPOSITES]
    against += [only_row.list.contains(b) & only_item.list.contains(a) for a, b in _OPPOSITES]
    ordinals = [side.list.set_intersection(pl.lit(list(_ORDINALS))).list.len() > 0 for side in (only_row, only_item)]
    count = pl.sum_horizontal(*against, ordinals[0] & ordinals[1])
    return found.select(contrary=_of_prose(count, _MOST_CONTRARY))
