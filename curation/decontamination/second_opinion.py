"""A second opinion on rows that hold an item in other words: a model is asked whether the two are the same task.

It is asked twice, with the item first and with the row first, as the decontaminator of LMSYS does (Yang et al. 2023,
arXiv 2311.04850, section 4: the item counts as rephrased when both answers say so). Only where both say yes the match
stays the same item; one yes makes it a related one, none takes the match away. A model that cannot be understood
changes nothing. So a second opinion overrules matches, and never adds one.

Decoys are not asked about: the estimated share of false matches is that of `layered` alone, before the opinion.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import polars as pl

from siftune.curation import schema
from siftune.curation.progress import Progress

#: Characters of a text that a model is shown: about 2,000 tokens.
SHOWN_CHARACTERS = 8000


@dataclass(frozen=True)
class TextPair:
    """Two texts in the order in which a model is shown them."""

    first: str
    second: str


class Judge(Protocol):
    """A model that is asked whether two texts are the same task."""

    @property
    def name(self) -> str:
        """How the ledger calls it."""

    def compare(self, comparisons: Sequence[TextPair], progress: Progress | None) -> list[bool | None]:
        """Whether the two texts of each are the same task; None where the model does not say."""


def overrule(
    matches: pl.DataFrame,
    batches: Iterable[pl.DataFrame],
    *,
    judge: Judge,
    progress: Progress | None = None,
) -> tuple[pl.DataFrame, dict[str, str]]:
    """The matches after a second opinion on those that hold an item in other words.

    Args:
        matches: MATCHES.
        batches: the rows (id, prompt, core, answer).
        judge: the model.
        progress: called while it is asked.

    Returns:
        MATCHES with some of them related items or gone, and a note on how many.
    """
    asked = (pl.col("rule") == schema.PARAPHRASE) & (pl.col("outcome") == "same")
    numbered = matches.with_row_index("match")
    doubtful = numbered.filter(asked)
    texts = _row_texts(doubtful, batches)
    items = [_item_text(item) for item in doubtful["item"]]
    both_ways = [
        TextPair(*order) for row, item in zip(texts, items, strict=True) for order in ((item, row), (row, item))
    ]
    answers = judge.compare(both_ways, progress) if both_ways else []
    agreed = [None if a is None or b is None else a + b for a, b in zip(answers[::2], answers[1::2], strict=True)]
    opinions = doubtful.select("match", agreed=pl.Series(agreed, dtype=pl.Int64), asked=pl.lit(value=True))
    statement = (
        pl.when(pl.col("agreed").is_null())
        .then(pl.lit("does not say"))
        .otherwise(pl.format("says the same in {} of 2 orders", "agreed"))
    )
    judged = numbered.join(opinions, on="match", how="left", maintain_order="left").filter(
        pl.col("agreed").is_null() | (pl.col("agreed") > 0)
    )
    overruled = judged.with_columns(
        outcome=pl.when(pl.col("agreed") == 1).then(pl.lit("related")).otherwise("outcome"),
        detail=pl.when("asked")
        .then(pl.concat_str(pl.col("detail").fill_null(""), pl.lit("; " + judge.name + " "), statement))
        .otherwise("detail"),
    )
    counts = {value: agreed.count(value) for value in (2, 1, 0, None)}
    note = (
        f"{judge.name} was asked about {len(agreed):,} matches in other words: the same item {counts[2]:,}, related "
        f"{counts[1]:,}, neither {counts[0]:,}, not said {counts[None]:,}"
    )
    return schema.conform(overruled, schema.MATCHES), {"second opinion": note}


def _row_texts(matches: pl.DataFrame, batches: Iterable[pl.DataFrame]) -> list[str]:
    """The part of its row that each match is about."""
    wanted = matches.select("id").unique()
    rows = [batch.select("id", "prompt", "answer").join(wanted, on="id", how="semi") for batch in batches]
    empty = pl.DataFrame(schema=dict.fromkeys(("id", "prompt", "answer"), pl.String))
    texts = matches.join(pl.concat([empty, *rows]), on="id", how="left", maintain_order="left")
    both = pl.concat_str("prompt", "answer", separator="\n")
    part = pl.when(pl.col("field") == "prompt").then("prompt").when(pl.col("field") == "answer").then("answer")
    return texts.select(part.otherwise(both).fill_null("").str.slice(0, SHOWN_CHARACTERS)).to_series().to_list()


def _item_text(item: dict[str, object] | None) -> str:
    texts = [str(item[name]) for name in ("prompt", "answer") if item and item.get(name)]
    return texts[0][:SHOWN_CHARACTERS] if texts else ""
