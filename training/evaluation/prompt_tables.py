"""The lab's table: prompts × arms with times and averages, as Markdown and CSV."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from siftune.curation.atomic_files import write_text

_FENCE = "````"
_TIMES = ("seconds", "tokens", "tokens_per_second", "first_token_seconds")
_DANGEROUS = ("=", "+", "-", "@", "\t", "\r")


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
        pl.sum_horizontal(each.sum() for each in passed).alias("checks_passed"),
        pl.sum_horizontal(each.count() for each in passed).alias("checks"),
        pl.col("repeated_words").mean(),
    )


def write_tables(answers: pl.DataFrame, folder: Path) -> None:
    """Write prompts.md and prompts.csv."""
    write_text(markdown(answers), folder / "prompts.md")
    safe = answers.with_columns(_as_text(name) for name, kind in answers.schema.items() if kind == pl.String)
    write_text(safe.write_csv(), folder / "prompts.csv")


def _as_text(name: str) -> pl.Expr:
    """A spreadsheet runs a cell that begins like a formula; an apostrophe makes it text."""
    column = pl.col(name)
    begins = pl.any_horizontal(column.str.starts_with(sign) for sign in _DANGEROUS)
    return pl.when(begins).then(pl.concat_str(pl.lit("'"), column)).otherwise(column).alias(name)


def markdown(answers: pl.DataFrame) -> str:
    """The page: averages by arm, then every prompt with its answers as plain text."""
    lines = ["# Prompt suite", ""]
    if answers.is_empty():
        return "\n".join([*lines, "No prompt was asked.", ""])
    lines += ["## Averages", "", *_averages(answers), "Arms are asked together and share the machine alike.", ""]
    for (name,), part in answers.group_by(["prompt"], maintain_order=True):
        lines += [f"## {_plain(str(name))}", "", *_quoted(part["text"][0]), ""]
        head = ["arm", "seconds", "tokens", "tokens/s", "first token (s)", "stopped", "notes", "weights/logits"]
        rows = [
            [_plain(row["arm"]), *_times(row), row["stopped"], row["notes"], _print(row)] for row in part.to_dicts()
        ]
        lines += _table(head, rows)
        for row in part.to_dicts():
            lines += [f"**{_plain(row['arm'])}**", "", *_quoted(row["answer"]), ""]
    return "\n".join(lines)


def _averages(answers: pl.DataFrame) -> list[str]:
    head = ["arm", "answers", "seconds", "tokens", "tokens/s", "first token (s)", "checks passed", "repeated words"]
    rows = []
    for row in averages(answers).to_dicts():
        again = "—" if row["repeated_words"] is None else f"{row['repeated_words']:.1f}"
        rows.append(
            [_plain(row["arm"]), str(row["answers"]), *_times(row), f"{row['checks_passed']} of {row['checks']}", again]
        )
    return _table(head, rows)


def _times(row: dict[str, float | None]) -> list[str]:
    shown = []
    for name in _TIMES:
        value = row[name]
        digits = 1 if name == "tokens_per_second" or (isinstance(value, float) and name == "tokens") else 2
        shown.append("—" if value is None else str(value) if isinstance(value, int) else f"{value:.{digits}f}")
    return shown


def _print(row: dict[str, str]) -> str:
    return f"`{row['weights'][:12]}/{row['logits'][:12]}`"


def _quoted(text: str) -> list[str]:
    """A text in a fence that it cannot close: whatever a model says is shown and not rendered."""
    fence = _FENCE
    while fence in text:
        fence += "`"
    return [f"{fence}text", text, fence]


def _plain(text: str) -> str:
    return "".join("\\" + sign if sign in "\\`*_[]<>|#!" else sign for sign in " ".join(text.split()))


def _table(head: list[str], rows: list[list[str]]) -> list[str]:
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    return [*lines, *(f"| {' | '.join(row)} |" for row in rows), ""]
