"""Where two texts differ, word by word."""

from __future__ import annotations

import re
from difflib import SequenceMatcher
from typing import Literal

DiffKind = Literal["same", "changed"]
#: A piece of one of two compared texts, and whether the other text has it too.
DiffSpan = tuple[DiffKind, str]

_TOKENS = re.compile(r"\s+|\w+|[^\w\s]")
#: Tokens beyond this are compared as one block: the matcher takes quadratic time.
_MAX_TOKENS = 4_000


def word_differences(left: str, right: str) -> tuple[list[DiffSpan], list[DiffSpan]]:
    """Both texts cut into spans that they share and spans that only one of them has.

    Joining the spans of a side gives its text back. Only the first 4,000 tokens (words, marks, white space) are
    compared one by one.
    """
    a, b = _tokens(left), _tokens(right)
    sides: tuple[list[DiffSpan], list[DiffSpan]] = ([], [])
    for tag, a_from, a_to, b_from, b_to in SequenceMatcher(None, a, b, autojunk=False).get_opcodes():
        kind: DiffKind = "same" if tag == "equal" else "changed"
        for side, text in zip(sides, ("".join(a[a_from:a_to]), "".join(b[b_from:b_to])), strict=True):
            if text:
                side.append((kind, text))
    return sides


def cut_spans(spans: list[DiffSpan], lengths: list[int]) -> list[list[DiffSpan]]:
    """Cut spans into pieces of these numbers of characters, so that texts that were joined can be shown apart again.

    The last pieces are short or empty where the spans hold fewer characters than `lengths` add up to.
    """
    pieces: list[list[DiffSpan]] = []
    remaining = list(reversed(spans))
    for length in lengths:
        piece: list[DiffSpan] = []
        while length and remaining:
            kind, text = remaining.pop()
            piece.append((kind, text[:length]))
            if len(text) > length:
                remaining.append((kind, text[length:]))
            length -= min(length, len(text))
        pieces.append(piece)
    return pieces


def _tokens(text: str) -> list[str]:
    tokens = _TOKENS.findall(text)
    return tokens if len(tokens) <= _MAX_TOKENS else [*tokens[:_MAX_TOKENS], "".join(tokens[_MAX_TOKENS:])]
