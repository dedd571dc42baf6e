"""The data contract: every frame that crosses a module boundary, its columns spelled once.

This module imports nothing of ours. Frames are polars; a similarity is always larger-is-closer, in [0, 1]
(cosines may be negative), verified and never estimated.
"""

from __future__ import annotations

from typing import Literal

import polars as pl

MESSAGE = pl.Struct({"role": pl.String, "content": pl.String})

#: One row of the user's data. `id` is `source:row` (position, not content); `meta` is JSON text with
#: everything else the row had. Roles are `system`, `user`, `assistant`, `tool` or whatever the data said.
EXAMPLES = pl.Schema(
    {"id": pl.String(), "source": pl.String(), "split": pl.String(), "messages": pl.List(MESSAGE), "meta": pl.String()}
)

#: The texts that measures compare, aligned row by row with EXAMPLES: everything that is asked (user, tool and other
#: turns; system prompts are left out), everything that is answered (assistant turns), and `core`: the prompt without
#: the template text that a large part of its source shares (the whole prompt where nothing else would be left).
#: `system` holds the system prompts, which are compared as a whole.
TEXTS = pl.Schema(
    {
        "id": pl.String,
        "source": pl.String,
        "prompt": pl.String,
        "core": pl.String,
        "answer": pl.String,
        "system": pl.String,
    }
)

#: The light frame that stages decide on: one row for each alive example, in the order of EXAMPLES.
#: `row` is the position in EXAMPLES, `rank` the position in keep order (0 is kept first), `pinned` says that the user
#: restored the row by hand, so that no stage may drop it.
INDEX = pl.Schema(
    {
        "row": pl.UInt32,
        "id": pl.String,
        "source": pl.String,
        "split": pl.String,
        "turns": pl.UInt32,
        "prompt_words": pl.UInt32,
        "answer_words": pl.UInt32,
        "rank": pl.UInt32,
        "pinned": pl.Boolean,
    }
)

#: A row of an earlier set that a run names, in the order of the sets: EXAMPLES with its id and split in the run, its
#: texts, and what INDEX says of its length.
EARLIER = pl.Schema(
    [
        *EXAMPLES.items(),
        ("prompt", pl.String()),
        ("answer", pl.String()),
        *[(name, pl.UInt32()) for name in ("turns", "prompt_words", "answer_words")],
    ]
)

#: Symmetric, verified similarities; `a` comes before `b` in EXAMPLES, rows of earlier sets after all others.
#: `prompt_score` and `answer_score` are those of the two sides, null for a side that the measure does not compare;
#: `score` is the least of them. `guarded`: the pair differs in numbers, operators, identifiers, negations or in what is
#: asked, so neither row may be called a duplicate of the other.
PAIRS = pl.Schema(
    {
        "a": pl.String,
        "b": pl.String,
        "measure": pl.String,
        "score": pl.Float64,
        "prompt_score": pl.Float64,
        "answer_score": pl.Float64,
        "guarded": pl.Boolean,
    }
)

#: An item of a reference: its answer is null where the reference gives none, its wrong choices where there are none.
ITEM = pl.Struct({"prompt": pl.String, "answer": pl.String, "distractors": pl.List(pl.String)})

#: A row that is similar to an item of a reference. `reference` is `name:row`; `field` says which part of the row
#: matched (`prompt`, `answer` or `both`); `outcome` is `same` (the item), `related` (another task of its kind) or
#: `decoy` (a match of a decoy of the item, which only the estimate of false matches counts); `span` is the matched
#: text; `detail` says what the two share and what they do not. `item` is the text of the item, so that it can be
#: shown beside the row when the reference is no longer there.
MATCHES = pl.Schema(
    {
        "id": pl.String(),
        "reference": pl.String(),
        "rule": pl.String(),
        "field": pl.String(),
        "outcome": pl.String(),
        "score": pl.Float64(),
        "span": pl.String(),
        "detail": pl.String(),
        "item": ITEM,
    }
)
#: The rule of MATCHES whose score is that of a logistic model (no calibrated probability), of the outcome `same` from
#: `LOWEST_SCORE` on; others score a share of words.
PARAPHRASE = "layered/semantic"
LOWEST_SCORE = 0.5


def counted(threshold: float) -> pl.Expr:
    """Which MATCHES count: paraphrases from `threshold` on, and every match of another rule."""
    return (pl.col("rule") != PARAPHRASE) | (pl.col("score") >= threshold)


#: What a row check found: `check` is its name in the recipe, `score` a number that explains it.
FINDINGS = pl.Schema({"id": pl.String, "check": pl.String, "score": pl.Float64, "detail": pl.String})

#: What a stage decided: one row for each example that it dropped, reported, repaired, guarded or quarantined.
DECISIONS = pl.Schema(
    {
        "id": pl.String,
        "action": pl.String,
        "reason": pl.String,
        "score": pl.Float64,
        "threshold": pl.Float64,
        "witness": pl.String,
        "detail": pl.String,
    }
)

#: DECISIONS of all stages in order.
LEDGER = pl.Schema([("id", pl.String()), ("step", pl.Int32()), ("stage", pl.String()), *list(DECISIONS.items())[1:]])

#: The final fate of every input row. `stage` and `reason` say who decided when it was not kept; `group` joins rows
#: that no split may separate; `arms` lists the training arms that hold the row; `topic` is null where the recipe asks
#: for no topics.
ROWS = pl.Schema(
    {
        "id": pl.String(),
        "source": pl.String(),
        "fate": pl.String(),
        "stage": pl.String(),
        "reason": pl.String(),
        "split": pl.String(),
        "group": pl.UInt32(),
        "turns": pl.UInt32(),
        "prompt_words": pl.UInt32(),
        "answer_words": pl.UInt32(),
        "arms": pl.List(pl.String()),
        "topic": pl.String(),
    }
)

#: The topic of every row that could be read, and its place on the map.
ROW_TOPICS = pl.Schema({"id": pl.String, "topic": pl.String, "x": pl.Float32, "y": pl.Float32})

#: Why a row of the pool is in a selected arm or not: `rank` counts the rows taken from 1 and is null for the others,
#: `score` is what a row was taken by, `gain` and `quality` are its parts where it has any. `witness` is the row or the
#: example that it was compared with, `similarity` the cosine of the two; `detail` says why, and ends in what the
#: witness is.
SELECTION = pl.Schema(
    {
        "id": pl.String,
        "rank": pl.UInt32,
        "score": pl.Float64,
        "gain": pl.Float64,
        "quality": pl.Float64,
        "witness": pl.String,
        "similarity": pl.Float64,
        "detail": pl.String,
    }
)

#: Instruction-following difficulty of the rows of an arm: `given` and `alone` are the mean negative log-likelihood
#: (nats per token) of the same `tokens` of the answer with and without the prompt before it, `ifd` is
#: exp(given − alone). `note` says what was cut off, or why a row has none.
IFD = pl.Schema(
    {
        "id": pl.String,
        "tokens": pl.Int64,
        "given": pl.Float64,
        "alone": pl.Float64,
        "ifd": pl.Float64,
        "note": pl.String,
    }
)

#: A curated set, an arm or a held-out set, ready to train on. `why` says why a row is there.
ARM = pl.Schema(
    {
        "id": pl.String(),
        "source": pl.String(),
        "messages": pl.List(MESSAGE),
        "meta": pl.String(),
        "why": pl.String(),
        "group": pl.UInt32(),
    }
)

#: A held-out set: ARM, and whether the raw data holds a similar row outside of its split (`leaked`).
HELDOUT = pl.Schema([*ARM.items(), ("split", pl.String()), ("leaked", pl.Boolean())])

Fate = Literal["kept", "dropped", "quarantined"]
Action = Literal["drop", "report", "repair", "mask", "guard", "quarantine", "truncate", "restore"]
Key = Literal["prompt", "dialogue", "answer"]


def empty(schema: pl.Schema) -> pl.DataFrame:
    """A frame of no rows with exactly these columns."""
    return pl.DataFrame(schema=schema)


def conform(frame: pl.DataFrame, schema: pl.Schema) -> pl.DataFrame:
    """`frame` with exactly the columns of `schema`, in its order; columns it lacks are null.

    Raises polars' `InvalidOperationError` where a value does not fit its type: a silent cast would lose it.
    """
    columns = [
        (pl.col(name) if name in frame.columns else pl.lit(None)).cast(dtype).alias(name)
        for name, dtype in schema.items()
    ]
    return frame.select(columns)
