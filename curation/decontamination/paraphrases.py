"""Rows that ask the same as an item of a benchmark in other words: candidates by embedding, judged by a model.

What the model looks at is in `siftune.curation.decontamination.candidates` and `.pair_features`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import polars as pl

from siftune.curation import schema
from siftune.curation.contamination_outcomes import benchmark
from siftune.curation.decontamination.candidates import candidate_pairs
from siftune.curation.decontamination.content_words import WordWeights
from siftune.curation.decontamination.logistic_model import LogisticModel
from siftune.curation.decontamination.pair_features import is_code
from siftune.curation.decontamination.program_behaviour import behaviour
from siftune.curation.decontamination.program_features import program_features
from siftune.curation.decontamination.verification import (
    LEAST_OF_PROGRAM,
    Candidate,
    is_another_item,
    is_related,
    same_item_log_odds,
    verify,
)
from siftune.curation.decontamination.views import whole_text
from siftune.curation.embeddings.knn import Embed
from siftune.curation.progress import Progress

#: Characters of a matched text that are kept.
SPAN_CHARACTERS = 300
#: An item stands out to a row only if it is this much closer than the crowd, the rows ranked 10 to 20 by closeness to
#: the item. A reference of few items gives hardly any background of its own: without this, 4.9 % of 20,021 questions
#: about Python packages matched one of 16 quiz questions about them, with it 0.2 %, and no English rephrasing of the
#: labelled sets was lost.
MIN_CROWD_MARGIN = 0.1
#: Candidates with lower log-odds of the screen are not compared word by word. Items with a program may be further away
#: and need not stand out: short programming tasks resemble many others, and their programs are compared too.
MIN_SCREEN = -2.0
MIN_SCREEN_OF_PROGRAM = -4.0


@dataclass(frozen=True)
class SameTaskModel(LogisticModel):
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


def judged_candidates(
    batches: Callable[[], Iterable[pl.DataFrame]],
    references: pl.DataFrame,
    *,
    embed: Embed,
    progress: Progress | None = None,
) -> pl.DataFrame:
    """The candidates that pass the screen, items and decoys, held side by side with their rows.

    Args:
        batches: gives the rows (prompt, core, answer) in batches, anew at each call; they are read several times.
        references: `reference`, `prompt`, `answer` (null where there is none), perhaps `distractors`.
        embed: texts to vectors.
        progress: passed on to `embed`.

    Returns:
        The columns of `candidate_pairs`, `screen` (the log-odds by which a candidate is let in) and VERIFIED.
    """
    candidates = candidate_pairs(batches, references, embed=embed, progress=progress)
    stands_out = (pl.col("screen") >= MIN_SCREEN) & (pl.col("crowd_margin") >= MIN_CROWD_MARGIN)
    screened = candidates.with_columns(screen=log_odds()).filter(
        pl.when(is_code(pl.col("item_prompt")) | is_code(pl.col("item_answer")))
        .then(pl.col("screen") >= MIN_SCREEN_OF_PROGRAM)
        .otherwise(stands_out)
    )
    of_item = references.select(benchmark())["reference"]
    named = screened.drop("operations", "example_values").with_columns(reference=of_item.gather(screened["item"]))
    return compare(named, weights=_word_weights(batches, references), embed=embed)


def _word_weights(batches: Callable[[], Iterable[pl.DataFrame]], references: pl.DataFrame) -> WordWeights:
    """What a word says: over all rows and items, and over the items of each benchmark."""
    weights = WordWeights()
    for batch in batches():
        weights.count(batch["core"].fill_null("").to_list())
    for (name,), items in references.with_columns(of=benchmark()).group_by("of", maintain_order=True):
        weights.count_items(str(name), items["prompt"].fill_null("").to_list())
    return weights


def compare(pairs: pl.DataFrame, *, weights: WordWeights, embed: Embed) -> pl.DataFrame:
    """Pairs of a row and an item held side by side: `pairs`, what programs are involved, their features, and VERIFIED.

    `program`: the item or what the row asks holds a program, or a row without a prompt is one (`alone`): a row that
    answers a question in prose with a program does not make the question one about programs. `code_given`, 0 or 1: the
    row gives a program to explain, correct or translate, the item does not. `without_program`: the item's answer is a
    program and the row answers without one.

    Args:
        pairs: `prompt`, `answer`, `item_prompt`, `item_answer`, `distractors` (list, may be null), `question_gist` and
            `item_gist` (what of the two is close), `reference` (the benchmark of the item).
        weights: what a word says.
        embed: texts to vectors.
    """
    row, item = (whole_text(pairs, side) for side in (("prompt", "answer"), ("item_prompt", "item_answer")))
    wholes = pairs.select("prompt", "answer", "item_prompt", row=row, item=item).with_row_index("pair")
    without_prompt = pl.col("prompt").str.strip_chars() == ""
    wholes = wholes.with_columns(
        alone=without_prompt & (is_code(pl.col("row")) | is_code(pl.col("item"))),
        code=is_code(pl.col("item")) | is_code(pl.col("prompt")) | (without_prompt & is_code(pl.col("row"))),
        code_given=(is_code(pl.col("prompt")) & ~is_code(pl.col("item_prompt"))).cast(pl.Float64),
        without_program=is_code(pl.col("item")) & ~is_code(pl.col("row")) & (pl.col("answer").str.strip_chars() != ""),
    )
    compared = [
        Candidate(
            question=pair["question_gist"] or "",
            prompt=pair["prompt"],
            answer=pair["answer"],
            item_gist=pair["item_gist"] or "",
            item_prompt=pair["item_prompt"],
            item_answer=pair["item_answer"],
            distractors=pair["distractors"] or (),
            reference=pair["reference"],
            code=code,
        )
        for pair, code in zip(pairs.iter_rows(named=True), wholes["code"], strict=True)
    ]
    features = [
        wholes.select("alone", "code_given", "without_program", program="code"),
        program_features(wholes.select("pair", "code", "row", "item_prompt", "item")),
        verify(compared, weights=weights, embed=embed),
    ]
    return _with_behaviour(pl.concat([pairs, *features], how="horizontal"))


def _with_behaviour(compared: pl.DataFrame) -> pl.DataFrame:
    """`compared` with the columns of `behaviour`, 0 where they could not decide, and with what they say in `detail`."""
    unknown = compared.with_columns(behaves_alike=pl.lit(0.0), behaves_otherwise=pl.lit(0.0))
    is_close = pl.col("program") & ~is_another_item() & (same_item_log_odds() >= LEAST_OF_PROGRAM)
    numbered = unknown.with_row_index("pair")
    close = numbered.filter(is_close)
    called = numbered.update(close.select("pair").hstack(behaviour(close)), on="pair").drop("pair")
    results = (
        pl.when(pl.col("behaves_alike") > 0)
        .then(pl.lit("; same results when called"))
        .when(pl.col("behaves_otherwise") > 0)
        .then(pl.lit("; other results when called"))
        .otherwise(pl.lit(""))
    )
    return called.with_columns(detail=pl.col("detail") + results)


def find_paraphrases(
    batches: Callable[[], Iterable[pl.DataFrame]],
    references: pl.DataFrame,
    *,
    embed: Embed,
    progress: Progress | None = None,
) -> pl.DataFrame:
    """Rows that ask the same as an item in other words, and rows that ask something related.

    Args:
        batches: gives the rows (prompt, core, answer, perhaps system) in batches, anew at each call.
        references: `reference`, `prompt`, `answer` (null where there is none), perhaps `distractors`.
        embed: texts to vectors.
        progress: passed on to `embed`.

    Returns:
        `row` and `item` (positions), `rule`, `part`, `outcome` (`same`, `related`, or `decoy` for what would be `same`
        with a decoy of the item), `score`, `span`, `detail`. `same` and `decoy` score at least
        `schema.LOWEST_SCORE`.
    """
    judged = judged_candidates(batches, references, embed=embed, progress=progress)
    scored = judged.with_columns(score=1 / (1 + (-same_item_log_odds()).exp()))
    is_same = pl.col("score") >= schema.LOWEST_SCORE
    outcome = (
        pl.when(is_same & pl.col("decoy"))
        .then(pl.lit("decoy"))
        .when(is_same)
        .then(pl.lit("same"))
        .when(~pl.col("decoy") & is_related())
        .then(pl.lit("related"))
    )
    judged_pairs = scored.with_columns(outcome=outcome).drop_nulls("outcome")
    descending = [False, False, False, True, False, False]
    best = judged_pairs.sort("row", "item", "decoy", "score", "row_view", "item_view", descending=descending).unique(
        ["row", "item", "part", "decoy"], keep="first", maintain_order=True
    )
    return best.select(
        "row",
        "item",
        "part",
        "outcome",
        "score",
        "detail",
        rule=pl.lit(schema.PARAPHRASE),
        span=pl.col("text").str.slice(0, SPAN_CHARACTERS),
    )
