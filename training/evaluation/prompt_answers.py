"""The answers of the arms to the prompt suite, as run/prompts/answers.parquet holds them."""

from __future__ import annotations

import polars as pl

from siftune.curation import schema
from siftune.curation.atomic_files import write_parquet
from siftune.curation.checksums import whole
from siftune.curation.run.folder import RunFolder

#: One row per prompt and arm, prompts in the order of the suite. `key` is a hash of prompt, sampling, engine and
#: weights. `added` prompts were added by hand and stay. `seconds` count from the request; `first_token_seconds` is null
#: for an answer without tokens. A check that a prompt does not ask for is null. `repeated_words` is the longest run of
#: words shared with the arm's own training answers, `repeated_share` its share of the answer's words; null for the
#: base.
ANSWERS = pl.Schema(
    {
        "prompt": pl.String,
        "text": pl.String,
        "arm": pl.String,
        "answer": pl.String,
        "seconds": pl.Float64,
        "tokens": pl.Int64,
        "tokens_per_second": pl.Float64,
        "first_token_seconds": pl.Float64,
        "prompt_tokens": pl.Int64,
        "stopped": pl.String,
        "weights": pl.String,
        "logits": pl.String,
        "engine": pl.String,
        "sentences": pl.Int64,
        "sentences_kept": pl.Boolean,
        "expected_found": pl.Boolean,
        "forbidden_found": pl.Boolean,
        "notes": pl.String,
        "repeated_words": pl.Int64,
        "repeated_share": pl.Float64,
        "repeated_text": pl.String,
        "added": pl.Boolean,
        "key": pl.String,
    }
)


def read_answers(run: RunFolder) -> pl.DataFrame:
    """ANSWERS of a run; empty when the suite was not answered. Raises `UserError` when they are damaged."""
    path = run.answers_path
    return pl.read_parquet(whole(path), glob=False) if path.is_file() else schema.empty(ANSWERS)


def write_answers(answers: pl.DataFrame, run: RunFolder) -> None:
    """Write ANSWERS."""
    write_parquet(schema.conform(answers, ANSWERS), run.answers_path, checked=True)
