"""Rows that ask the same as an item of a benchmark in other words: nearest by embedding, then verified.

A bare cosine flags honest neighbours: rows of the same kind are close to every item of that kind. So a candidate is
judged by how far it stands out from the other items around the row and around the item (the margin of Artetxe and
Schwenk 2019, arXiv 1811.01136, as a difference), and by what the two share: see `siftune.curation.decontamination.pair_features`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from siftune.curation import schema
from siftune.curation.decontamination.pair_features import Weights, gist, is_code, signs
from siftune.curation.embeddings.cosine import cosines
from siftune.curation.embeddings.knn import Embed, nearest
from siftune.curation.progress import Progress
from siftune.curation.text.words import word_count

Rows = Callable[[], Iterable[pl.DataFrame]]

#: A prompt of fewer words is read together with its answer: "Complete this function:" asks nothing by itself.
SHORT_PROMPT = 13
SPAN = 300  # characters of a matched text that are kept
#: The last line of a prompt is an item of its own behind a passage of at least so many words.
_PASSAGE = 60
_TAIL = 6
_CHOICES = 2  # items that are judged for each view of a row
_VIEWS = 12  # nearest views of items that are looked at for a row
_AROUND = 4  # items in a background
_TWINS = 0.9  # items this close are variants of one another and no background
_FLOOR = 0.45  # no rephrasing in the labelled sets lies below
#: An item stands out to a row only if it is this much closer than the rows ranked 10 to 20 by closeness to the item.
#: A reference of few items gives hardly any background of its own: without this, 4.9 % of 20,021 questions about
#: Python packages matched one of 16 quiz questions about them, with it 0.2 %, and no English rephrasing of the
#: labelled sets was lost. From rank 10 on, so that a few true rephrasings of one item do not hide one another.
_STANDS_OUT = 0.1
_CROWD = (10, 20)
_OF_VIEWS = ("cosine", "over_row", "over_item", "over_rows", "words")
_NO_BACKGROUND = 0.4  # the least background: a reference of few, unlike items would make any neighbour stand out


@dataclass(frozen=True)
class Criterion:
    """A logistic model of "the same task": the weight of each sign. A pair is accepted when the sum is not negative.

    Fitted by penalised maximum likelihood, signs held to their meaning, on one half of the labelled pairs (by item):
    rephrased MMLU questions, MBPP prompts and GSM8K problems against neighbours from GSM8K, MATH and MMLU for prose;
    rephrased HumanEval against neighbours from HumanEval, MBPP and CodeAlpaca for code. Two things are not fitted: the
    constants, the largest in steps of 0.25 with which at most 0.5 % of the honest neighbours of that half pass, and
    the weight of `contrary`, which these sets hardly hold. `tests/benchmarks/contamination.py` reports on the other
    half; its `--fit` fits again and prints the operating curve of the fitted half. The other half was looked at for
    earlier forms of the signs, and once more, 0.25 below, before the constants were settled.
    """

    constant: float
    cosine: float = 0.0
    over_row: float = 0.0  # cosine less that of the row to other items nearby
    over_item: float = 0.0  # cosine less that of the item to other items nearby
    words: float = 0.0
    same_numbers: float = 0.0
    other_numbers: float = 0.0
    other_names: float = 0.0
    contrary: float = 0.0
    acts: float = 0.0
    values: float = 0.0

    def judge(self) -> pl.Expr:
        """The log-odds, over the columns of `candidates`."""
        return (
            self.constant
            + self.cosine * pl.col("cosine")
            + self.over_row * pl.col("over_row")
            + self.over_item * pl.col("over_item")
            + self.words * pl.col("words")
            + self.same_numbers * pl.col("same_numbers")
            + self.other_numbers * pl.col("other_numbers")
            + self.other_names * pl.col("other_names")
            + self.contrary * pl.col("contrary")
            + self.acts * pl.col("acts")
            + self.values * pl.col("values")
        )


PROSE = Criterion(
    -7.35, cosine=11.47, over_row=3.62, same_numbers=0.55, other_numbers=-1.67, other_names=-1.26, contrary=-2.0
)
CODE = Criterion(-8.25, cosine=4.03, over_row=2.13, over_item=5.24, words=6.82, acts=2.65, values=2.65)


def rephrased(
    rows: Rows, references: pl.DataFrame, *, embed: Embed, progress: Progress | None = None, slack: float = 0.0
) -> pl.DataFrame:
    """Rows that ask the same as an item: `row`, `item`, `rule`, `part`, `score` (the estimated chance), `span`.

    `slack` moves the criterion, in log-odds: more of it accepts more. See `candidates` for the other arguments.
    """
    found = candidates(rows, references, embed=embed, progress=progress)
    odds = pl.when("code").then(CODE.judge()).otherwise(PROSE.judge()) + slack
    accepted = found.with_columns(odds=odds).filter(pl.col("odds") >= 0, pl.col("over_rows") >= _STANDS_OUT)
    best = accepted.sort("row", "item", "odds", "view", "base", descending=[False, False, True, False, False]).unique(
        ["row", "item", "part"], keep="first", maintain_order=True
    )
    return best.select(
        "row",
        "item",
        "part",
        rule=pl.lit(schema.REPHRASED),
        score=1 / (1 + (-pl.col("odds")).exp()),
        span=pl.col("text").str.slice(0, SPAN),
    )


def row_views(frame: pl.DataFrame) -> pl.DataFrame:
    """The texts by which rows are compared: `row` (place in the frame), `part`, `text`, `code`."""
    core, answer = pl.col("core").fill_null(""), pl.col("answer").fill_null("")
    asks = word_count(core)
    short = (asks < SHORT_PROMPT) & (word_count(answer) > 0)
    part = pl.when(asks > 0).then(pl.lit("both")).otherwise(pl.lit("answer"))
    indexed = frame.with_row_index("row").with_columns(pl.col("row").cast(pl.Int64))
    return _views(
        [
            indexed.filter(asks > 0).select("row", part=pl.lit("prompt"), ask=core, tell=pl.lit("")),
            indexed.filter(short).select("row", part=part, ask=core, tell=answer),
        ],
        by="row",
    )


def item_views(references: pl.DataFrame) -> pl.DataFrame:
    """The texts by which items are found: `item`, `text`, `code`: the prompt, and the last line of one that begins with
    a passage, each without and with the answer.
    """
    prompt, answer = pl.col("prompt").fill_null(""), pl.col("answer").fill_null("")
    tail = prompt.str.strip_chars().str.split("\n").list.last().str.strip_chars()
    behind = (word_count(prompt) - word_count(tail) >= _PASSAGE) & (word_count(tail) >= _TAIL) & ~is_code(prompt)
    indexed = references.with_row_index("item").with_columns(pl.col("item").cast(pl.Int64))
    return _views(
        [
            indexed.select("item", ask=prompt, tell=pl.lit("")),
            indexed.filter(word_count(answer) > 0).select("item", ask=prompt, tell=answer),
            indexed.filter(behind).select("item", ask=tail, tell=pl.lit("")),
            indexed.filter(behind & (word_count(answer) > 0)).select("item", ask=tail, tell=answer),
        ],
        by="item",
    )


def _views(asked: list[pl.DataFrame], *, by: str) -> pl.DataFrame:
    """Each text as it is and, where it holds code, by its gist too."""
    whole = pl.concat_str([pl.col("ask"), pl.col("tell")], separator="\n").str.strip_chars()
    spoken = pl.concat_str([gist(pl.col("ask")), gist(pl.col("tell"))], separator="\n").str.strip_chars()
    every = pl.concat(asked).with_columns(
        text=whole, gist=spoken, code=is_code(pl.col("ask")) | is_code(pl.col("tell"))
    )
    plain = every.drop("ask", "tell", "gist")
    gists = every.filter(pl.col("gist") != pl.col("text")).with_columns(text="gist").drop("ask", "tell", "gist")
    return pl.concat([plain, gists]).filter(word_count(pl.col("text")) > 0).sort(by, maintain_order=True)


def candidates(rows: Rows, references: pl.DataFrame, *, embed: Embed, progress: Progress | None = None) -> pl.DataFrame:
    """Pairs of a row and one of its nearest items, and all that speaks for and against their being the same task.

    Columns: `row`, `item`, `part`, `text` (of the row), `cosine`, `over_row` and `over_item` (the cosine less the mean
    of the row, and of the item, to the nearest other items), `over_rows` (less the mean of the item to the rows of
    middling closeness), and the columns of `siftune.curation.decontamination.pair_features.signs`. Where a program is involved, these
    are the best of all views of the two: what a program says and how it says it are judged together.
    """
    items = item_views(references)
    weights = Weights()
    weights.count(items["text"])
    places: list[pl.DataFrame] = []

    def texts() -> Iterator[pl.Series]:
        done = 0
        for frame in rows():
            views = row_views(frame)
            weights.count(views["text"])
            places.append(views.select(pl.col("row") + done, "part", "code"))
            done += frame.height
            yield views["text"]

    base = embed([items["text"]], progress=progress)
    queries = embed(texts(), progress=progress)
    near = _near(queries, base, items["item"].to_numpy())
    where = pl.concat([pl.DataFrame(schema={"row": pl.Int64, "part": pl.String, "code": pl.Boolean}), *places])
    crowd = _crowd(queries, base, where["row"].to_numpy())
    told = pl.concat([where[near["view"].to_numpy()], near], how="horizontal")
    told = told.with_columns(among_rows=pl.Series(crowd[near["base"].to_numpy()]))
    judged = _with_signs(told, rows, items, _whole(references, "prompt"), weights.table())
    over = {"over_row": "around_row", "over_item": "around_item", "over_rows": "among_rows"}
    judged = judged.with_columns(**{name: pl.col("cosine") - pl.col(around) for name, around in over.items()})
    best = [pl.when("code").then(pl.col(name).max().over("row", "item")).otherwise(name) for name in _OF_VIEWS]
    return judged.with_columns(each.alias(name) for each, name in zip(best, _OF_VIEWS, strict=True))


def _whole(frame: pl.DataFrame, asks: str) -> pl.Series:
    parts = (pl.col(asks).fill_null(""), pl.col("answer").fill_null(""))
    return frame.select(whole=pl.concat_str(parts, separator="\n")).to_series()


def _near(queries: np.ndarray, base: np.ndarray, item: NDArray[np.int64]) -> pl.DataFrame:
    """For each view of a row its nearest items, each by its closest view, and how close the other ones are."""
    place, cosine = nearest(queries, base, k=_VIEWS)
    view = np.repeat(np.arange(len(queries)), place.shape[1])
    every = pl.DataFrame({"view": view, "base": place.ravel(), "item": item[place.ravel()], "cosine": cosine.ravel()})
    best = every.unique(["view", "item"], keep="first", maintain_order=True)
    ranked = best.with_columns(rank=pl.int_range(pl.len()).over("view"))
    chosen = ranked.filter(pl.col("rank") < _CHOICES, pl.col("cosine") >= _FLOOR).with_row_index("pair")
    others = chosen.select("pair", "view", "item", "base").join(ranked, on="view", how="inner", suffix="_other")
    others = others.filter(pl.col("item") != pl.col("item_other"))
    alike = cosines(base, base, others["base"].to_numpy(), others["base_other"].to_numpy())
    apart = others.filter(pl.Series(alike < _TWINS)).sort("pair", "rank").group_by("pair").head(_AROUND)
    around = chosen.select("pair").join(_mean(apart, "pair"), on="pair", how="left", maintain_order="left")["mean"]
    return chosen.drop("pair").with_columns(
        around_row=around.fill_null(_NO_BACKGROUND).clip(lower_bound=_NO_BACKGROUND),
        around_item=pl.Series(_around(base, item)[chosen["base"].to_numpy()]),
    )


def _mean(nearby: pl.DataFrame, key: str) -> pl.DataFrame:
    """`mean` cosine of each key's few nearest others; places that are not taken count as unrelated texts."""
    # Whole multiples of 2**-30: their sum is the same in any order, so threads cannot change it.
    sums = nearby.group_by(key).agg((pl.col("cosine") * 2.0**30).round().sum() / 2.0**30, n=pl.len())
    return sums.select(key, mean=(pl.col("cosine") + (_AROUND - pl.col("n")) * _NO_BACKGROUND) / _AROUND)


def _around(base: np.ndarray, item: NDArray[np.int64]) -> NDArray[np.float64]:
    """The mean cosine of each view of an item to the nearest other items that are not its variants."""
    place, cosine = nearest(base, base, k=3 * _VIEWS)
    view = np.repeat(np.arange(len(base)), place.shape[1])
    every = pl.DataFrame({"view": view, "item": item[place.ravel()], "own": item[view], "cosine": cosine.ravel()})
    others = every.filter(pl.col("item") != pl.col("own"), pl.col("cosine") < _TWINS)
    nearby = others.unique(["view", "item"], keep="first", maintain_order=True).group_by("view").head(_AROUND)
    every_view = pl.DataFrame({"view": np.arange(len(base))})
    told = every_view.join(_mean(nearby, "view"), on="view", how="left", maintain_order="left")
    return told["mean"].fill_null(_NO_BACKGROUND).clip(lower_bound=_NO_BACKGROUND).to_numpy()


def _crowd(queries: np.ndarray, base: np.ndarray, row: NDArray[np.int64]) -> NDArray[np.float64]:
    """For each view of an item the mean cosine of the rows that rank `_CROWD` by closeness to it, float64 [m]."""
    low, high = _CROWD
    place, cosine = nearest(base, queries, k=4 * (high + 1))  # a row has at most four views
    view = np.repeat(np.arange(len(base)), place.shape[1])
    every = pl.DataFrame({"view": view, "row": row[place.ravel()], "cosine": cosine.ravel()})
    ranked = every.unique(["view", "row"], keep="first", maintain_order=True)
    ranked = ranked.with_columns(rank=pl.int_range(pl.len()).over("view"))
    middling = ranked.filter(pl.col("rank").is_between(low, high)).group_by("view").agg(mean=pl.col("cosine").mean())
    told = pl.DataFrame({"view": np.arange(len(base))}).join(middling, on="view", how="left", maintain_order="left")
    return told["mean"].fill_null(_NO_BACKGROUND).to_numpy()


def _with_signs(
    told: pl.DataFrame, rows: Rows, items: pl.DataFrame, whole_items: pl.Series, weights: pl.DataFrame
) -> pl.DataFrame:
    """The texts of the candidates, read once more from the rows, and what they have in common."""
    views, wholes = (told.select(name).unique() for name in ("view", "row"))
    parts = [pl.DataFrame(schema={"view": pl.Int64, "text": pl.String})]
    rest = [pl.DataFrame(schema={"row": pl.Int64, "whole": pl.String})]
    done = seen = 0
    for frame in rows():
        texts = row_views(frame).select(view=pl.int_range(pl.len(), dtype=pl.Int64) + done, text="text")
        parts.append(texts.join(views, on="view", how="semi"))
        here = pl.DataFrame({"row": np.arange(frame.height) + seen, "whole": _whole(frame, "core")})
        rest.append(here.join(wholes, on="row", how="semi"))
        done, seen = done + texts.height, seen + frame.height
    read = told.join(pl.concat(parts), on="view", how="left", maintain_order="left")
    read = read.join(pl.concat(rest), on="row", how="left", maintain_order="left")
    of_item = items[told["base"].to_numpy()]
    pairs = read.select(
        row="text",
        item=of_item["text"],
        whole_row="whole",
        whole_item=whole_items.gather(of_item["item"]),
        code=pl.col("code") | of_item["code"],
    )
    texts_told = told.with_columns(text=pairs["row"], code=pairs["code"])
    return pl.concat([texts_told, signs(pairs, weights)], how="horizontal")
