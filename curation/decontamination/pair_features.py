"""Is it the same task in other words, or another task of the same kind? What can be counted in a pair of texts.

A cosine alone cannot tell: two word problems about apples are as close as a problem and its rephrasing. These features
look at what a rephrasing keeps: the rare words; outside of code the numbers and the names, and no word turned into its
opposite; in code what the program does.
"""

from __future__ import annotations

import polars as pl

from siftune.curation.decontamination.program_features import COMMENT, operation_similarity, shared_values
from siftune.curation.text.guard_tokens import guard_tokens
from siftune.curation.text.words import word_count

#: Letters of a word, without a common ending, that make its stem: joins `sum`, `sums`; `elected`, `election`.
_STEM_LETTERS = 5
_ENDING = r"^(\p{L}{3,}?)(?:ing|ed|es|s)$"
_CODE_LINE = (
    r"(?m)^\s*(?:def |class \w+[:(]|import \w|from \w+ import|#include|function\b.*\(|(?:public|static|const|let) \w)"
    r"|^\s*var \w|\breturn\b.*;|>>> |```"
)
_FUNCTION_NAME = r"(?m)\b(?:def|function|fn|func)\s+\w+\s*\(|^(?:\w+[\s*]+)+\w+\s*\("
#: Lines of examples in a comment: they are made anew by every rephrasing.
_EXAMPLE_LINE = "|".join(
    [
        r"(?m)^\s*>>>.*\n.*$",
        r"^.*(?:==|=>|➞|->).*$",
        r"""^.*\b\w+\([^\n]*[\d\[\x22'][^\n]*\).*$""",
        r"^\W*(?i:example|input|output)s?\b.*:.*$",
    ]
)
_MIN_GIST_WORDS = 8
_MAX_COUNT = 4  # of numbers and of names
_SENTENCE_START = r"""(?:^|[.?!:;|\n\x22“—-]\s*)[\s'‘(]*\p{Lu}[\p{L}'’]*"""

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
_MAX_OPPOSITES = 2

ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")
_ORDINAL = rf"\b(?:{'|'.join(ORDINALS)})\b"
#: Numbers that say little: one is an article, zero and minus are everywhere.
_COMMON_NUMBERS = ("-", "0", "1")

#: The columns of `pair_features`.
FEATURES = (
    *("shared_stems", "shared_numbers", "different_numbers", "different_names", "opposites"),
    *("operations", "example_values"),
)


def is_code(text: pl.Expr) -> pl.Expr:
    """Whether a text holds lines of a program."""
    return text.str.contains(_CODE_LINE)


def gist(text: pl.Expr) -> pl.Expr:
    """What a text says in words: of code the comments and the names of its functions, without examples; else itself.

    Translations and rewritings of a program share this more than anything else in it. Code that says fewer than 8
    words is left as it is.
    """
    names = (
        text.str.extract_all(_FUNCTION_NAME)
        .list.eval(pl.element().str.extract(r"(\w+)\s*\(?$"))
        .list.unique(maintain_order=True)
    )
    comments = text.str.extract_all(COMMENT).list.join("\n").str.replace_all(_EXAMPLE_LINE, "")
    joined = pl.concat_str([_name_words(names.list.join(" ")), comments], separator="\n")
    tidy = joined.str.replace_all(r"[#*/\x22']+", " ").str.replace_all(r"\s+", " ").str.strip_chars()
    return pl.when(is_code(text) & (word_count(tidy) >= _MIN_GIST_WORDS)).then(tidy).otherwise(text)


def _name_words(text: pl.Expr) -> pl.Expr:
    """Names as words: has_close_elements, hasCloseElements."""
    return text.str.replace_all(r"([a-z])([A-Z])", "$1 $2").str.replace_all("_", " ")


def _stem(word: pl.Expr) -> pl.Expr:
    return word.str.replace(_ENDING, "$1").str.slice(0, _STEM_LETTERS)


def stems(text: pl.Expr) -> pl.Expr:
    """The distinct stems of a text, a list: its letters in runs, names in code taken apart, cut to five letters."""
    words = _name_words(text).str.to_lowercase().str.extract_all(r"\p{L}+")
    return words.list.eval(_stem(pl.element())).list.unique()


def names(text: pl.Expr) -> pl.Expr:
    """The distinct stems of capitalised words that do not begin a sentence, a list."""
    inside = text.str.replace_all(_SENTENCE_START, " ")
    capitalised = inside.str.extract_all(r"\b\p{Lu}\p{L}{2,}").list.eval(pl.element().str.to_lowercase())
    return capitalised.list.eval(_stem(pl.element())).list.unique()


def numbers(text: pl.Expr) -> pl.Expr:
    """The distinct numbers of a text, digits, words or ordinals (second, third), but for 0 and 1; `first` counts."""
    cardinals = guard_tokens(text.str.replace_all("_", " "), ["numbers"]).list.unique()
    ordinals = text.str.to_lowercase().str.extract_all(_ORDINAL)
    return cardinals.list.set_union(ordinals).list.set_difference(pl.lit(list(_COMMON_NUMBERS)))


class StemWeights:
    """How rare each stem is: inverse document frequency, smoothed, over the texts that were counted."""

    def __init__(self) -> None:
        self._texts = 0
        self._counts: list[pl.DataFrame] = []

    def count(self, texts: pl.Series) -> None:
        """Count the stems of a batch of texts."""
        self._texts += len(texts)
        lists = texts.to_frame("text").select(stem=stems(pl.col("text")))["stem"]
        self._counts.append(lists.explode().drop_nulls().to_frame("stem").group_by("stem").len())

    def table(self) -> pl.DataFrame:
        """`stem`, `weight` (float64): ln((n + 1) / (count + 1)) over n texts, in no order."""
        total = pl.concat(self._counts).group_by("stem").agg(pl.col("len").sum())
        weight = ((self._texts + 1) / (pl.col("len") + 1)).log()
        # Whole multiples of 2**-20: their sums are the same in any order, so threads cannot change them.
        return total.select("stem", weight=(weight * 2.0**20).round() / 2.0**20)


def pair_features(pairs: pl.DataFrame, weights: pl.DataFrame) -> pl.DataFrame:
    """What each pair of a row's text and an item's text has in common: float64 [m, 7], columns `FEATURES`.

    shared_stems: the share of the item's stems, by weight, that the row has too. shared_numbers: how many numbers both
    have, at most 4. different_numbers: how many of the one are missing in the other, the larger way round, at most 4.
    different_names: how many capitalised words inside sentences of either text are missing in the other, at most 4.
    opposites: how many words or ordinals of the one stand against one of the other (most and least, first and second),
    at most 2. These four are 0 where `code` says that a program is involved: its numbers change freely. operations and
    example_values, which are 0 elsewhere: see `siftune.curation.decontamination.program_features`.

    Args:
        pairs: `row` and `item`, the texts that are close; `whole_row` and `whole_item`, all that belongs to them: a
            rephrased question often holds a name or number of the item's answer; `code` (bool).
        weights: as `StemWeights.table` gives them.
    """
    numbered = pairs.with_row_index("pair")
    programs = numbered.select("pair", "code", row="whole_row", item="whole_item")
    features = [
        _shared_stems(numbered, weights),
        _number_counts(numbered),
        _different_names(numbered),
        _opposites(numbered),
        operation_similarity(programs),
        shared_values(programs),
    ]
    return pl.concat(features, how="horizontal").select(FEATURES)


def _shared_stems(pairs: pl.DataFrame, weights: pl.DataFrame) -> pl.DataFrame:
    of_row = pairs.select("pair", stem=stems(pl.col("row"))).explode("stem").drop_nulls("stem")
    of_item = pairs.select("pair", stem=stems(pl.col("item"))).explode("stem").drop_nulls("stem")
    # A stem that was never counted is as rare as the rarest.
    greatest = pl.lit(weights["weight"].max() or 0.0)
    of_item = of_item.join(weights, on="stem", how="left").with_columns(pl.col("weight").fill_null(greatest))
    shared = of_item.join(of_row, on=["pair", "stem"], how="semi")
    sums = pairs.select("pair")
    for name, stem_weights in (("both", shared), ("of_item", of_item)):
        total = stem_weights.group_by("pair").agg(pl.col("weight").sum().alias(name))
        sums = sums.join(total, on="pair", how="left", maintain_order="left")
    item_weight = pl.col("of_item").fill_null(0.0).clip(lower_bound=1e-9)
    return sums.select(shared_stems=pl.col("both").fill_null(0.0) / item_weight)


def _number_counts(pairs: pl.DataFrame) -> pl.DataFrame:
    of_row, of_item, of_full_text = (numbers(pl.col(name)) for name in ("row", "item", "whole_item"))
    lists = pairs.select("code", row=of_row, item=of_item, full_text=of_full_text)
    shared = pl.col("row").list.set_intersection("item").list.len()
    missing = pl.max_horizontal(
        pl.col("row").list.set_difference("full_text").list.len(), pl.col("item").list.len() - shared
    )
    return lists.select(
        shared_numbers=_in_prose(shared, maximum=_MAX_COUNT), different_numbers=_in_prose(missing, maximum=_MAX_COUNT)
    )


def _in_prose(count: pl.Expr, *, maximum: int) -> pl.Expr:
    """A count up to `maximum`, 0 where a program is involved."""
    return pl.when("code").then(0.0).otherwise(count.clip(upper_bound=maximum).cast(pl.Float64))


def _different_names(pairs: pl.DataFrame) -> pl.DataFrame:
    counts = pairs.select(
        "code",
        of_row=names(pl.col("row")).list.set_difference(stems(pl.col("whole_item"))).list.len(),
        of_item=names(pl.col("item")).list.set_difference(stems(pl.col("row"))).list.len(),
    )
    return counts.select(different_names=_in_prose(pl.col("of_row") + pl.col("of_item"), maximum=_MAX_COUNT))


def _opposites(pairs: pl.DataFrame) -> pl.DataFrame:
    words = (pl.col(side).str.to_lowercase().str.extract_all(r"\p{L}+").list.unique() for side in ("row", "item"))
    lists = pairs.select("code", *words)
    only_row, only_item = pl.col("row").list.set_difference("item"), pl.col("item").list.set_difference("row")
    against = [only_row.list.contains(a) & only_item.list.contains(b) for a, b in _OPPOSITES]
    against += [only_row.list.contains(b) & only_item.list.contains(a) for a, b in _OPPOSITES]
    ordinals = [side.list.set_intersection(pl.lit(list(ORDINALS))).list.len() > 0 for side in (only_row, only_item)]
    count = pl.sum_horizontal(*against, ordinals[0] & ordinals[1])
    return lists.select(opposites=_in_prose(count, maximum=_MAX_OPPOSITES))
