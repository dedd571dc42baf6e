"""Text that was written in one encoding and read in another: found and mended line by line, with ftfy.

ftfy is Python and slow, so only texts that hold a suspicious pair of characters are shown to it.
"""

from __future__ import annotations

import ftfy
import polars as pl
from ftfy.badness import badness

#: Every sequence that `ftfy.badness` counts has two characters beyond ASCII in a row, or one of these letters, which
#: stand for the lead bytes C2, C3 and for ligatures of other code pages. (A superset: ftfy has the last word.)
_SUSPICIOUS = r"[^\x00-\x7F][^\x00-\x7F]|[ÂÃŒœ]|\x{FFFD}"
#: What a decoder leaves where bytes were already lost: it cannot be mended, only reported.
_LOST = "\ufffd"


def suspicious(text: pl.Expr) -> pl.Expr:
    """Whether a text may be broken: cheap, and never false for a text that is."""
    return text.str.contains(_SUSPICIOUS)


def damage(text: str) -> int:
    """How many unlikely sequences a text has (`ftfy.badness`), lost characters included; 0 for sound text.

    A line with a single one that ftfy cannot decode counts as sound: phonetic script looks like that.
    """
    return sum(map(_line_damage, text.split("\n"))) + text.count(_LOST)


def _line_damage(line: str) -> int:
    bad = badness(line)
    return 0 if bad == 1 and _mend_line(line) == line else bad


def mend(text: str) -> str:
    """`text` with its broken lines decoded as they were meant; as it was where that is not an improvement.

    Line by line, because one sound character elsewhere in a text keeps ftfy from decoding all of it (`Ã la carte`).
    """
    return "\n".join(_mend_line(line) if badness(line) else line for line in text.split("\n"))


def _mend_line(line: str) -> str:
    fixed = ftfy.fix_encoding(line)
    better = badness(fixed) < badness(line) and fixed.count(_LOST) <= line.count(_LOST)
    return fixed if better else line


def first_difference(before: str, after: str, *, width: int = 60) -> str:
    """Where two texts first differ, for a reader: `before → after`, at most `width` characters a side."""
    shorter = min(len(before), len(after))
    at = next((place for place in range(shorter) if before[place] != after[place]), shorter)
    start = max(0, at - 12)
    left, right = (" ".join(text[start : start + width].split()) for text in (before, after))
    return f"{left} → {right}"
