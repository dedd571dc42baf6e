"""Contamination: rows that hold an item of a benchmark, word for word or in other words.

`layered`, the default rule, asks four questions and takes the first answer: is the item's prompt the row's whole text
(`layered/exact`), does a short item stand in it as whole sentences (`layered/short`), do 8-grams that both have cover
80 % of an item of 13 words or more or of its answer, or half of the item with a run of 13 words (`layered/ngram`), and
is the item among the row's nearest by embedding and verified as the same task rather than another of its kind
(`layered/semantic`)? The published rules are described in `siftune.curation.decontamination.overlap_rules`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import polars as pl

from siftune.curation import schema
from siftune.curation.decontamination.overlap_rules import LLAMA_SHARE, LONG_GRAM, TULU_SHARE, SharedRuns, WholeItems
from siftune.curation.decontamination.paraphrases import SPAN, rephrased
from siftune.curation.embeddings.knn import Embed
from siftune.curation.progress import Progress
from siftune.curation.recipe.sections import Rule
from siftune.curation.text import ngrams

__all__ = ["matches"]

Rows = Callable[[], Iterable[pl.DataFrame]]

_MOST = 0.8  # of an item or its answer
_ORDER = ("layered/exact", "layered/short", "layered/ngram", schema.REPHRASED)

#: One match of a part of a row (`row` counts through all batches) and an item.
_FOUND = pl.Schema(
    {"row": pl.Int64, "item": pl.Int64, "rule": pl.String, "part": pl.String, "score": pl.Float64, "span": pl.String}
)


def matches(
    rows: Rows,
    references: pl.DataFrame,
    *,
    rules: Sequence[Rule],
    embed: Embed | None = None,
    progress: Progress | None = None,
) -> pl.DataFrame:
    """Every row that matches an item of `references` by one of the `rules`.

    Args:
        rows: gives the batches of rows (id, prompt, core, answer), each time anew; they are read two or three times.
        references: `reference`, `prompt`, `answer` (null where there is none).
        rules: the rules that are applied; each reports its own matches.
        embed: texts to vectors, for `layered`; without it rephrased items are not sought.
        progress: called with ("searching runs", rows, 0) and the like.

    Returns:
        MATCHES in the order of the rows; of one row the surest first. `field` is the part of the row that matched.
        `score` is the share of the item's words that were found, or for `layered/semantic` the estimated chance that
        the two are the same task.
    """
    found, ids = _by_words(rows, references, set(rules), progress)
    if "layered" in rules and embed is not None and references.height and len(ids):
        alike = rephrased(rows, references, embed=embed, progress=progress)
        known = found.filter(pl.col("rule").str.starts_with("layered")).select("row", "item")
        fresh = alike.join(known, on=["row", "item"], how="anti", maintain_order="left")
        found = pl.concat([found, schema.conform(fresh, _FOUND)])
    return _told(found, ids, references)


def _by_words(
    rows: Rows, references: pl.DataFrame, rules: set[str], progress: Progress | None
) -> tuple[pl.DataFrame, pl.Series]:
    """Matches by shared words, as _FOUND, and the ids of all rows."""
    search = _WordSearch(references, rules)
    found, ids, done = [pl.DataFrame(schema=_FOUND)], [pl.Series("id", [], pl.String)], 0
    for frame in rows():
        for part in ("prompt", "answer"):
            found += [each.with_columns(row=pl.col("row") + done) for each in search.find(frame, part)]
        ids.append(frame["id"])
        done += frame.height
        if progress is not None:
            progress("searching runs", done, 0)
    every = search.settle(pl.concat(found))
    return every, pl.concat(ids)


class _WordSearch:
    """All rules that look at words, over one part of a batch of rows at a time."""

    def __init__(self, references: pl.DataFrame, rules: set[str]) -> None:
        self._rules = rules
        self._count = references.height
        prompts = references["prompt"].fill_null("")
        answers = references["answer"].fill_null("")
        long = ngrams.split(answers).counts >= LONG_GRAM  # shorter answers are labels and numbers
        # Items are numbered through prompts first, then answers.
        items = ngrams.split(pl.concat([prompts, answers.zip_with(pl.Series(long), pl.Series([""]))]))
        self._runs = SharedRuns(items, rules)
        self._long = pl.Series(items.counts >= LONG_GRAM)
        self._whole = WholeItems(prompts) if "layered" in rules else None

    def find(self, frame: pl.DataFrame, part: str) -> list[pl.DataFrame]:
        """_FOUND of one part of a batch, with rows counted from its start."""
        words = ngrams.split(frame[part])
        found = self._runs.find(words)
        told = [self._shaped(words, found[rule], rule, part) for rule in self._rules if rule in found]
        if "layered" in self._rules:
            eight, of_prompt = found["eight"], pl.col("item") < self._count
            # Benchmarks of short items begin alike ("Write a python function to find the ..."): half of such an item
            # is not the item, unless the half is a long run of its own.
            mostly = pl.col("share") >= _MOST
            half = of_prompt & (pl.col("share") > TULU_SHARE) & (pl.col("longest") >= LONG_GRAM)
            known = eight.filter(self._long.gather(eight["item"]), mostly | half)
            told.append(self._shaped(words, known, "layered/ngram", part))
            told += self._sentences(frame, part)
        return told

    def settle(self, found: pl.DataFrame) -> pl.DataFrame:
        """What can be said only when all rows are seen: which items reach Llama 3's ratio; one layer for each match."""
        shares = self._runs.contaminated()
        dirty = pl.DataFrame({"item": np.arange(len(shares)), "total": shares}).filter(pl.col("total") >= LLAMA_SHARE)
        by_ratio = found.filter(pl.col("rule") == "llama3-token-ratio").join(
            dirty, on="item", how="inner", maintain_order="left"
        )
        others = found.filter(pl.col("rule") != "llama3-token-ratio")
        every = pl.concat([others, by_ratio.with_columns(score="total").drop("total")])
        every = every.with_columns(pl.col("item") % self._count)
        layer = pl.col("rule").replace_strict(dict(zip(_ORDER, range(4), strict=True)), default=-1)
        layered, rest = every.filter(layer >= 0), every.filter(layer < 0)
        first = layered.filter(layer == layer.min().over("row", "item"))
        return pl.concat([first, rest])

    def _sentences(self, frame: pl.DataFrame, part: str) -> list[pl.DataFrame]:
        assert self._whole is not None
        columns = ("prompt", "core") if part == "prompt" else ("answer",)
        equal = pl.concat([self._whole.equal(frame[column]) for column in columns]).unique(maintain_order=True)
        told = [(equal, "layered/exact"), (self._whole.inside(frame[part]), "layered/short")]
        return [
            _found(pairs["text"], pairs["item"], rule, part, pl.repeat(1.0, len(pairs), eager=True), frame[part])
            for pairs, rule in told
        ]

    def _shaped(self, words: ngrams.Words, overlaps: pl.DataFrame, rule: str, part: str) -> pl.DataFrame:
        text, start, length = (overlaps[name].to_numpy() for name in ("text", "start", "longest"))
        shaped = _found(overlaps["text"], overlaps["item"], rule, part, overlaps["share"], None)
        return shaped.with_columns(span=words.spans(text, start, length).str.slice(0, SPAN))


def _found(
    row: pl.Series, item: pl.Series, rule: str, part: str, score: pl.Series, texts: pl.Series | None
) -> pl.DataFrame:
    span = pl.repeat("", len(row), eager=True) if texts is None else texts.gather(row).str.slice(0, SPAN)
    frame = pl.DataFrame({"row": row, "item": item, "score": score, "span": span})
    return frame.with_columns(rule=pl.lit(rule), part=pl.lit(part)).select(
        pl.col(name).cast(kind) for name, kind in _FOUND.items()
    )


def _told(found: pl.DataFrame, ids: pl.Series, references: pl.DataFrame) -> pl.DataFrame:
    """MATCHES: parts of one row that match one item by one rule become one match."""
    joined = (
        found.sort("row", "item", "rule", "score", "part", "span", descending=[False, False, False, True, True, False])
        .group_by("row", "item", "rule", maintain_order=True)
        .agg(pl.col("part").unique().sort(), pl.col("score").first(), pl.col("span").first())
    )
    both = pl.when(pl.col("part").list.len() > 1).then(pl.lit("both")).otherwise(pl.col("part").list.first())
    layer = pl.col("rule").replace_strict(dict(zip(_ORDER, range(4), strict=True)), default=len(_ORDER))
    ordered = joined.with_columns(field=both, layer=layer).sort(
        "row", "layer", "score", "item", descending=[False, False, True, False]
    )
    told = ordered.with_columns(
        id=ids.gather(ordered["row"]), reference=references["reference"].gather(ordered["item"])
    )
    return schema.conform(told, schema.MATCHES)
