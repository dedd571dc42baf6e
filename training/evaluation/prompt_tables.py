"""The answers to the prompt suite as tables: prompts × arms with times and averages, as Markdown and CSV."""

from __future__ import annotations

import polars as pl

from siftune.curation.atomic_files import write_text
from siftune.curation.markdown import code, escape, fenced, table
from siftune.curation.run.folder import RunFolder

_FORMULA_SIGNS = ("=", "+", "-", "@", "\t", "\r")


def averages(answers: pl.DataFrame) -> pl.DataFrame:
    """Means by arm of seconds, tokens, tokens per second and time to first token, and the checks that were passed.

    Tokens per second are all tokens over all seconds, not a mean of ratios.
    """
    passed = [pl.col("sentences_kept"), pl.col("expected_found"), ~pl.col("forbidden_found")]
    return answers.group_by("arm", maintain_order=True).agg(
        pl.len().alias("answers"),
        pl.col("seconds").mean(),
        pl.col("tokens").mean(),
        (pl.col("tokens").sum() / pl.col("seconds").sum()).alias("tokens_per_second"),
        pl.col("first_token_seconds").mean(),
        pl.sum_horizontal(check.sum() for check in passed).alias("checks_passed"),
        pl.sum_horizontal(check.count() for check in passed).alias("checks"),
        pl.col("repeated_words").mean(),
    )


def write_tables(answers: pl.DataFrame, run: RunFolder) -> None:
    """Write prompts.md and prompts.csv."""
    write_text(markdown(answers), run.prompts_markdown)
    safe = answers.with_columns(_as_text(name) for name, dtype in answers.schema.items() if dtype == pl.String)
    write_text(safe.write_csv(), run.prompts_csv)


def _as_text(name: str) -> pl.Expr:
    """A spreadsheet runs a cell that begins like a formula; an apostrophe makes it text."""
    column = pl.col(name)
    begins = pl.any_horizontal(column.str.starts_with(sign) for sign in _FORMULA_SIGNS)
    return pl.when(begins).then(pl.concat_str(pl.lit("'"), column)).otherwise(column).alias(name)


def markdown(answers: pl.DataFrame) -> str:
    """The page: averages by arm, then every prompt with its answers as plain text."""
    lines = ["# Prompt suite", ""]
    if answers.is_empty():
        return "\n".join([*lines, "The suite holds no prompts.", ""])
    lines += ["## Averages", "", *_averages_table(answers)]
    lines += ["All arms answer each prompt at the same time, so they share the machine equally.", ""]
    head = ["arm", "seconds", "tokens", "tokens/s", "first token (s)", "stopped", "notes", "weights/logits"]
    for (name,), part in answers.group_by(["prompt"], maintain_order=True):
        rows = part.to_dicts()
        lines += [f"## {escape(str(name))}", "", *fenced(rows[0]["text"]), ""]
        lines += table(
            head,
            [
                [
                    row["arm"],
                    *_costs(row),
                    row["stopped"],
                    row["notes"],
                    code(f"{row['weights'][:12]}/{row['logits'][:12]}"),
                ]
                for row in rows
            ],
        )
        for row in rows:
            lines += [f"**{escape(row['arm'])}**", "", *fenced(row["answer"]), ""]
    return "\n".join(lines)


def _averages_table(answers: pl.DataFrame) -> list[str]:
    head = ["arm", "answers", "seconds", "tokens", "tokens/s", "first token (s)", "checks passed", "repeated words"]
    rows = []
    for row in averages(answers).to_dicts():
        repeated = "—" if row["repeated_words"] is None else f"{row['repeated_words']:.1f}"
        checks = f"{row['checks_passed']} of {row['checks']}"
        rows.append([row["arm"], str(row["answers"]), *_costs(row), checks, repeated])
    return table(head, rows)


def _costs(row: dict[str, float | None]) -> list[str]:
    """The cells seconds, tokens, tokens/s and first token; a mean of tokens has one decimal, a count none."""
    cells = []
    for name, digits in (("seconds", 2), ("tokens", 1), ("tokens_per_second", 1), ("first_token_seconds", 2)):
        value = row[name]
        cells.append("—" if value is None else str(value) if isinstance(value, int) else f"{value:.{digits}f}")
    return cells
