"""Rows that ask the same as an item of a benchmark in other words: candidates by embedding, judged by a model.

What the model looks at is in `siftune.curation.decontamination.candidates` and `.pair_features`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields

import polars as pl

from siftune.curation import schema
from siftune.curation.decontamination.candidates import candidate_pairs
from siftune.curation.embeddings.knn import Embed
from siftune.curation.progress import Progress

#: Characters of a matched text that are kept.
SPAN_CHARACTERS = 300
#: An item stands out to a row only if it is this much closer than the crowd, the rows ranked 10 to 20 by closeness to
#: the item. A reference of few items gives hardly any background of its own: without this, 4.9 % of 20,021 questions
#: about Python packages matched one of 16 quiz questions about them, with it 0.2 %, and no English rephrasing of the
#: labelled sets was lost.
MIN_CROWD_MARGIN = 0.1


@dataclass(frozen=True)
class SameTaskModel:
    """A logistic model of "the same task": the constant, and the weight of each column of `candidate_pairs`.

    A pair is accepted when the log-odds are not negative. Fitted by penalised maximum likelihood, the weights held to
    the sign that they must have, on one half of the labelled pairs (by item): rephrased MMLU questions, MBPP prompts
    and GSM8K problems against neighbours from GSM8K, MATH and MMLU for prose; rephrased HumanEval against neighbours
    from HumanEval, MBPP and CodeAlpaca for code. Two things are not fitted: the constants, the largest in steps of
    0.25 with which at most 0.5 % of the honest neighbours of that half pass, and the weight of `opposites`, which
    these sets hardly hold. `tests/benchmarks/contamination.py` reports on the other half; its `--fit` fits again and
    prints the operating curve of the fitted half. The other half was looked at for earlier forms of the features, and
    once more, 0.25 below, before the constants were settled.
    """

    constant: float
    cosine: float = 0.0
    row_margin: float = 0.0
    item_margin: float = 0.0
    shared_stems: float = 0.0
    shared_numbers: float = 0.0
    different_numbers: float = 0.0
    different_names: float = 0.0
    opposites: float = 0.0
    operations: float = 0.0
    example_values: float = 0.0

    def log_odds(self) -> pl.Expr:
        """The log-odds of "the same task", over the columns of `candidate_pairs`."""
        log_odds = pl.lit(self.constant)
        for feature in fields(self)[1:]:
            log_odds = log_odds + getattr(self, feature.name) * pl.col(feature.name)
        return log_odds


PROSE = SameTaskModel(
    -7.35,
    cosine=11.47,
    row_margin=3.62,
    shared_numbers=0.55,
    different_numbers=-1.67,
    different_names=-1.26,
    opposites=-2.0,
)
CODE = SameTaskModel(
    -8.25, cosine=4.03, row_margin=2.13, item_margin=5.24, shared_stems=6.82, operations=2.65, example_values=2.65
)


def log_odds() -> pl.Expr:
    """The log-odds that a candidate pair is the same task: `CODE` where a program is involved, else `PROSE`."""
    return pl.when("code").then(CODE.log_odds()).otherwise(PROSE.log_odds())


def find_paraphrases(
    batches: Callable[[], Iterable[pl.DataFrame]],
    references: pl.DataFrame,
    *,
    embed: Embed,
    progress: Progress | None = None,
    bias: float = 0.0,
) -> pl.DataFrame:
    """Rows that ask the same as an item in other words.

    Args:
        batches: gives the rows (prompt, core, answer) in batches, anew at each call; they are read twice.
        references: `prompt`, `answer` (null where there is none).
        embed: texts to vectors.
        progress: passed on to `embed`.
        bias: is added to the log-odds: the greater, the more pairs are accepted.

    Returns:
        `row` and `item` (positions), `rule`, `part`, `score` (the estimated chance of the same task), `span`.
    """
    candidates = candidate_pairs(batches, references, embed=embed, progress=progress)
    judged = candidates.with_columns(log_odds=log_odds() + bias)
    accepted = judged.filter(pl.col("log_odds") >= 0, pl.col("crowd_margin") >= MIN_CROWD_MARGIN)
    descending = [False, False, True, False, False]
    best = accepted.sort("row", "item", "log_odds", "row_view", "item_view", descending=descending).unique(
        ["row", "item", "part"], keep="first", maintain_order=True
    )
    return best.select(
        "row",
        "item",
        "part",
        rule=pl.lit(schema.PARAPHRASE),
        score=1 / (1 + (-pl.col("log_odds")).exp()),
        span=pl.col("text").str.slice(0, SPAN_CHARACTERS),
    )
