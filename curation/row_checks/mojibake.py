"""Mojibake, text that was written in one encoding and read in another: found and repaired line by line, with ftfy.

ftfy is slow Python code, so only texts with a suspicious pair of characters are passed to it.
"""

from __future__ import annotations

import re

import ftfy
import polars as pl
from ftfy.badness import badness

from siftune.curation import schema
from siftune.curation.row_checks.turns import rewrite, turns_of

#: C1 control characters. No text has them; they are bytes of Windows-1252 that were read as Latin-1 (U+0092 is a right
#: quotation mark). ftfy decodes them as the Encoding Standard of the WHATWG does; five of them have no meaning there.
_C1_CONTROLS = r"[\x{80}-\x{9F}]"
#: Every sequence that `ftfy.badness` counts has two characters beyond ASCII in a row, a C1 control character, or one of
#: these letters, which stand for the lead bytes C2, C3 and for ligatures of other code pages. ftfy then decides.
SUSPICIOUS = rf"[^\x00-\x7F][^\x00-\x7F]|[ÂÃŒœ]|\x{{FFFD}}|{_C1_CONTROLS}"
_C1 = re.compile("[\x80-\x9f]")
#: The replacement character, which a decoder writes for bytes that are lost: it cannot be repaired, only reported.
_REPLACEMENT = "\ufffd"


def is_suspicious(text: pl.Expr) -> pl.Expr:
    """Whether a text may be damaged: cheap, and never false for a damaged text."""
    return text.str.contains(SUSPICIOUS)


def damage(text: str) -> int:
    """How many unlikely sequences a text has (`ftfy.badness`), lost characters included; 0 for sound text.

    A line with a single one that ftfy cannot decode counts as sound (phonetic script looks like that), unless it has a
    control character.
    """
    return sum(map(_line_damage, text.split("\n"))) + text.count(_REPLACEMENT)


def _line_damage(line: str) -> int:
    sequences = badness(line)
    return 0 if sequences == 1 and not _C1.search(line) and _repair_line(line) == line else sequences


def repair_text(text: str) -> str:
    """`text` with its damaged lines decoded as they were meant; unchanged where that is no improvement.

    Line by line, because one sound character elsewhere in a text keeps ftfy from decoding all of it (`Ã la carte`).
    """
    return "\n".join(_repair_line(line) if badness(line) else line for line in text.split("\n"))


def _repair_line(line: str) -> str:
    repaired = ftfy.fix_encoding(line)
    better = badness(repaired) < badness(line) and repaired.count(_REPLACEMENT) <= line.count(_REPLACEMENT)
    return repaired if better else line


def first_difference(before: str, after: str, *, width: int = 60) -> str:
    """Where two texts first differ, for a reader: `before → after`, at most `width` characters a side."""
    shorter = min(len(before), len(after))
    first = next((index for index in range(shorter) if before[index] != after[index]), shorter)
    start = max(0, first - 12)
    left, right = (" ".join(text[start : start + width].split()) for text in (before, after))
    return f"{left} → {right}"


def repair_batch(batch: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """EXAMPLES with mojibake repaired in every message, and the DECISIONS that record it, one for each repaired row.

    Rows, their order and everything but the content of messages stay as they are. `score` is the number of unlikely
    sequences before; `detail` shows the first difference.
    """
    turns = turns_of(batch)
    suspicious = turns.filter(is_suspicious(pl.col("content"))).select("position", "id", "turn", "content")
    repaired = suspicious.with_columns(
        pl.col("content").map_elements(repair_text, return_dtype=pl.String).alias("after"),
    ).filter(pl.col("after") != pl.col("content"))
    if repaired.is_empty():
        return batch, schema.empty(schema.DECISIONS)
    return rewrite(batch, turns, repaired), _repair_decisions(repaired)


def _repair_decisions(repaired: pl.DataFrame) -> pl.DataFrame:
    sequences = pl.col("content").map_elements(damage, return_dtype=pl.Int64)
    difference = pl.struct("content", "after").map_elements(
        lambda pair: first_difference(pair["content"], pair["after"]), return_dtype=pl.String
    )
    turns = repaired.with_columns(sequences.alias("damage"), difference.alias("difference"))
    decisions = turns.group_by("id", maintain_order=True).agg(
        pl.lit("repair").first().alias("action"),
        pl.lit("encoding").first().alias("reason"),
        pl.col("damage").sum().cast(pl.Float64).alias("score"),
        pl.col("difference").first().alias("detail"),
    )
    return schema.conform(decisions, schema.DECISIONS)
